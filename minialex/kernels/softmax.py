"""Softmax, log-softmax and cross-entropy over the rows of a matrix, shifted by the row's largest entry."""

from __future__ import annotations

import numpy as np

from minialex.backend import Array, CudaKernel, Kernel, array_module, contiguous, jit, per_image


def softmax_reference(x: Array, y: Array) -> None:
    """y[n, k] = exp(x[n, k] - m) / sum over j of exp(x[n, j] - m), m the largest of row n.

    Shapes: x (N, K); y the same, written.
    """
    N, K = x.shape
    for n in range(N):
        largest = x[n, 0]
        for k in range(1, K):
            if x[n, k] > largest:
                largest = x[n, k]
        total = 0.0
        for k in range(K):
            y[n, k] = np.exp(x[n, k] - largest)
            total = total + y[n, k]
        for k in range(K):
            y[n, k] = y[n, k] / total


def softmax_backward_reference(dy: Array, y: Array, dx: Array) -> None:
    """dx[n, k] = y[n, k] * (dy[n, k] - sum over j of dy[n, j] * y[n, j]). Shapes: all (N, K); dx written."""
    N, K = dy.shape
    for n in range(N):
        total = 0.0
        for k in range(K):
            total = total + dy[n, k] * y[n, k]
        for k in range(K):
            dx[n, k] = y[n, k] * (dy[n, k] - total)


def log_softmax_reference(x: Array, y: Array) -> None:
    """y[n, k] = x[n, k] - m - log(sum over j of exp(x[n, j] - m)). Shapes: x (N, K); y the same, written."""
    N, K = x.shape
    for n in range(N):
        largest = x[n, 0]
        for k in range(1, K):
            if x[n, k] > largest:
                largest = x[n, k]
        total = 0.0
        for k in range(K):
            y[n, k] = x[n, k] - largest
            total = total + np.exp(y[n, k])
        log_total = np.log(total)
        for k in range(K):
            y[n, k] = y[n, k] - log_total


def log_softmax_backward_reference(dy: Array, y: Array, dx: Array) -> None:
    """dx[n, k] = dy[n, k] - exp(y[n, k]) * sum over j of dy[n, j]. Shapes: all (N, K); dx written."""
    N, K = dy.shape
    for n in range(N):
        total = 0.0
        for k in range(K):
            total = total + dy[n, k]
        for k in range(K):
            dx[n, k] = dy[n, k] - np.exp(y[n, k]) * total


def softmax_array(x: Array, y: Array) -> None:
    """As the reference."""
    y[...] = array_module(x).exp(x - x.max(axis=1, keepdims=True))
    y /= y.sum(axis=1, keepdims=True)


def softmax_backward_array(dy: Array, y: Array, dx: Array) -> None:
    """As the reference."""
    dx[...] = y * (dy - (dy * y).sum(axis=1, keepdims=True))


def log_softmax_array(x: Array, y: Array) -> None:
    """As the reference."""
    xp = array_module(x)
    y[...] = x - x.max(axis=1, keepdims=True)
    y -= xp.log(xp.exp(y).sum(axis=1, keepdims=True))


def log_softmax_backward_array(dy: Array, y: Array, dx: Array) -> None:
    """As the reference."""
    dx[...] = dy - array_module(dy).exp(y) * dy.sum(axis=1, keepdims=True)


# Columns that a single warp of threads does as well as a whole block, and the most blocks of a launch.
FEW, MOST_BLOCKS = 256, 1 << 16


def launch_rows(entry: CudaKernel, *arrays: Array, rows: Array, numbers: tuple[float, ...] = ()) -> None:
    """Launch a kernel that has a block for each row of the matrix `rows`: 32 threads, 256 if it is long."""
    N, K = rows.shape
    entry.launch(min(N, MOST_BLOCKS), 32 if K <= FEW else 256, *map(contiguous, arrays), N, K, *numbers)


_softmax, _softmax_backward, _log_softmax, _log_softmax_backward = (
    CudaKernel("softmax", name)
    for name in ("softmax_forward", "softmax_backward", "log_softmax_forward", "log_softmax_backward")
)


def softmax_cuda(x: Array, y: Array) -> None:
    """As the reference: a block for a row."""
    launch_rows(_softmax, x, y, rows=x)


def softmax_backward_cuda(dy: Array, y: Array, dx: Array) -> None:
    """As the reference: a block for a row."""
    launch_rows(_softmax_backward, dy, y, dx, rows=dy)


def log_softmax_cuda(x: Array, y: Array) -> None:
    """As the reference: a block for a row."""
    launch_rows(_log_softmax, x, y, rows=x)


def log_softmax_backward_cuda(dy: Array, y: Array, dx: Array) -> None:
    """As the reference: a block for a row."""
    launch_rows(_log_softmax_backward, dy, y, dx, rows=dy)


softmax_forward = Kernel(
    "softmax_forward",
    outputs=("y",),
    reference=softmax_reference,
    array=softmax_array,
    numba=per_image(jit(softmax_reference), 2),
    cuda=softmax_cuda,
)
softmax_backward = Kernel(
    "softmax_backward",
    outputs=("dx",),
    reference=softmax_backward_reference,
    array=softmax_backward_array,
    numba=per_image(jit(softmax_backward_reference), 3),
    cuda=softmax_backward_cuda,
)
log_softmax_forward = Kernel(
    "log_softmax_forward",
    outputs=("y",),
    reference=log_softmax_reference,
    array=log_softmax_array,
    numba=per_image(jit(log_softmax_reference), 2),
    cuda=log_softmax_cuda,
)
log_softmax_backward = Kernel(
    "log_softmax_backward",
    outputs=("dx",),
    reference=log_softmax_backward_reference,
    array=log_softmax_backward_array,
    numba=per_image(jit(log_softmax_backward_reference), 3),
    cuda=log_softmax_backward_cuda,
)
