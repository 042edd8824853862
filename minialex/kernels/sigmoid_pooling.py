"""Sigmoid and average pooling in one: LeNet's non-linearity and its subsampling.

The sigmoids are kept for backward and so are written once; they are pooled while they are in the cache. The
gradient of the pooling, as large as the picture, never exists whole.
"""

from __future__ import annotations

from minialex.backend import Array, CudaKernel, Kernel, for_ranges, scratch
from minialex.kernels.activations import (
    sigmoid_array,
    sigmoid_backward_array,
    sigmoid_backward_numba,
    sigmoid_backward_reference,
    sigmoid_numba,
    sigmoid_reference,
)
from minialex.kernels.average_pooling import (
    average_pool_array,
    average_pool_backward_array,
    average_pool_backward_numba,
    average_pool_backward_reference,
    average_pool_numba,
    average_pool_reference,
    launch_pooling,
)

__all__ = ["sigmoid_average_pool_backward", "sigmoid_average_pool_forward"]

# Pixels that are worked on at a time, and pixels that are worth a thread.
BLOCK, MANY = 1 << 15, 1 << 18


def forward_reference(x: Array, sigmoids: Array, y: Array, rows: Array, cols: Array) -> None:
    """sigmoids = 1 / (1 + exp(-x)); y[n, c, p, q] = mean of sigmoids[n, c] in rectangle rows[p] x cols[q].

    Shapes: x (N, C, H, W); sigmoids the same, written; y (N, C, OH, OW), written; rows, cols: bounds, as in
            average_pooling.py.
    """
    sigmoid_reference(x.reshape(-1), sigmoids.reshape(-1))
    average_pool_reference(sigmoids, y, rows, cols)


def backward_reference(dy: Array, sigmoids: Array, dx: Array, rows: Array, cols: Array) -> None:
    """dx = (dy spread over its windows) * sigmoids * (1 - sigmoids). Shapes: as above; dx written."""
    spread = dx.copy()
    average_pool_backward_reference(dy, spread, rows, cols)
    sigmoid_backward_reference(spread.reshape(-1), sigmoids.reshape(-1), dx.reshape(-1))


def forward_array(x: Array, sigmoids: Array, y: Array, rows: Array, cols: Array) -> None:
    """As the reference."""
    sigmoid_array(x, sigmoids)
    average_pool_array(sigmoids, y, rows, cols)


def backward_array(dy: Array, sigmoids: Array, dx: Array, rows: Array, cols: Array) -> None:
    """As the reference."""
    spread = dx.copy()
    average_pool_backward_array(dy, spread, rows, cols)
    sigmoid_backward_array(spread, sigmoids, dx)


def forward_numba(x: Array, sigmoids: Array, y: Array, rows: Array, cols: Array) -> None:
    """The two compiled kernels, a few pictures at a time."""
    picture = max(1, x[:1].size)

    def work(start: int, stop: int) -> None:
        for n in range(start, stop, max(1, BLOCK // picture)):
            part = slice(n, min(n + max(1, BLOCK // picture), stop))
            sigmoid_numba(x[part].reshape(-1), sigmoids[part].reshape(-1))
            average_pool_numba(sigmoids[part], y[part], rows, cols)

    for_ranges(len(x), work, -(-MANY // picture))


def backward_numba(dy: Array, sigmoids: Array, dx: Array, rows: Array, cols: Array) -> None:
    """The two compiled kernels, a few pictures at a time."""
    picture = max(1, dx[:1].size)

    def work(start: int, stop: int) -> None:
        for n in range(start, stop, max(1, BLOCK // picture)):
            part = slice(n, min(n + max(1, BLOCK // picture), stop))
            spread = scratch("spread", dx[part].shape, dx.dtype)
            average_pool_backward_numba(dy[part], spread, rows, cols)
            sigmoid_backward_numba(spread.reshape(-1), sigmoids[part].reshape(-1), dx[part].reshape(-1))

    for_ranges(len(dy), work, -(-MANY // picture))


_forward = CudaKernel("average_pooling", "sigmoid_average_pool_forward")
_backward = CudaKernel("average_pooling", "sigmoid_average_pool_backward")


def forward_cuda(x: Array, sigmoids: Array, y: Array, rows: Array, cols: Array) -> None:
    """kernels/average_pooling.cu: one pass."""
    launch_pooling(_forward, (x, sigmoids, y), x, y, rows, cols)


def backward_cuda(dy: Array, sigmoids: Array, dx: Array, rows: Array, cols: Array) -> None:
    """kernels/average_pooling.cu: one pass."""
    launch_pooling(_backward, (dy, sigmoids, dx), dx, dx, rows, cols)


sigmoid_average_pool_forward = Kernel(
    "sigmoid_average_pool_forward",
    outputs=("sigmoids", "y"),
    reference=forward_reference,
    array=forward_array,
    numba=forward_numba,
    cuda=forward_cuda,
)
sigmoid_average_pool_backward = Kernel(
    "sigmoid_average_pool_backward",
    outputs=("dx",),
    reference=backward_reference,
    array=backward_array,
    numba=backward_numba,
    cuda=backward_cuda,
)
