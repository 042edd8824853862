"""Cross-entropy from logits: log-softmax and the label's entry of it, in one stable pass."""

from __future__ import annotations

import numpy as np

from minialex.backend import Array, CudaKernel, Kernel, array_module, jit, per_image
from minialex.kernels.softmax import launch_rows


def cross_entropy_reference(logits: Array, labels: Array, losses: Array, label_smoothing: float) -> None:
    """losses[n] = log(sum over k of exp(x[n, k])) - sum over k of target[n, k] * x[n, k].

    The target is 1 - s at the label plus s/K everywhere. x is shifted by the row's largest entry, which
    changes nothing but keeps exp from overflowing.
    Shapes: logits (N, K); labels (N,) of class numbers; losses (N,), written.
    """
    N, K = logits.shape
    for n in range(N):
        largest = logits[n, 0]
        for k in range(1, K):
            if logits[n, k] > largest:
                largest = logits[n, k]
        total = 0.0
        expected = 0.0
        for k in range(K):
            shifted = logits[n, k] - largest
            target = label_smoothing / K + (1.0 - label_smoothing if k == labels[n] else 0.0)
            total = total + np.exp(shifted)
            if target != 0.0:  # Without smoothing a class of logit minus infinity costs nothing.
                expected = expected + target * shifted
        losses[n] = np.log(total) - expected


def cross_entropy_backward_reference(
    dlosses: Array, logits: Array, labels: Array, dlogits: Array, label_smoothing: float
) -> None:
    """dlogits[n, k] = dlosses[n] * (softmax(x[n])[k] - target[n, k]).

    Shapes: dlosses (N,); logits (N, K); labels (N,); dlogits (N, K), written.
    """
    N, K = logits.shape
    for n in range(N):
        largest = logits[n, 0]
        for k in range(1, K):
            if logits[n, k] > largest:
                largest = logits[n, k]
        total = 0.0
        for k in range(K):
            dlogits[n, k] = np.exp(logits[n, k] - largest)
            total = total + dlogits[n, k]
        for k in range(K):
            target = label_smoothing / K + (1.0 - label_smoothing if k == labels[n] else 0.0)
            dlogits[n, k] = dlosses[n] * (dlogits[n, k] / total - target)


def cross_entropy_array(logits: Array, labels: Array, losses: Array, label_smoothing: float) -> None:
    """As the reference."""
    xp = array_module(logits)
    shifted = logits - logits.max(axis=1, keepdims=True)
    losses[...] = xp.log(xp.exp(shifted).sum(axis=1))
    losses -= (1 - label_smoothing) * shifted[xp.arange(len(labels)), labels]
    if label_smoothing:
        losses -= label_smoothing * shifted.mean(axis=1)


def cross_entropy_backward_array(
    dlosses: Array, logits: Array, labels: Array, dlogits: Array, label_smoothing: float
) -> None:
    """As the reference."""
    xp = array_module(logits)
    dlogits[...] = xp.exp(logits - logits.max(axis=1, keepdims=True))
    dlogits /= dlogits.sum(axis=1, keepdims=True)
    dlogits -= label_smoothing / logits.shape[1]
    dlogits[xp.arange(len(labels)), labels] -= logits.dtype.type(1 - label_smoothing)
    dlogits *= dlosses[:, None]


_forward = CudaKernel("cross_entropy", "cross_entropy_forward")
_backward = CudaKernel("cross_entropy", "cross_entropy_backward")


def cross_entropy_cuda(logits: Array, labels: Array, losses: Array, label_smoothing: float) -> None:
    """As the reference: a block for a row."""
    arrays = (logits, labels.astype(np.int64, copy=False), losses)
    launch_rows(_forward, *arrays, rows=logits, numbers=(float(label_smoothing),))


def cross_entropy_backward_cuda(
    dlosses: Array, logits: Array, labels: Array, dlogits: Array, label_smoothing: float
) -> None:
    """As the reference: a block for a row."""
    arrays = (dlosses, logits, labels.astype(np.int64, copy=False), dlogits)
    launch_rows(_backward, *arrays, rows=logits, numbers=(float(label_smoothing),))


cross_entropy_forward = Kernel(
    "cross_entropy_forward",
    outputs=("losses",),
    reference=cross_entropy_reference,
    array=cross_entropy_array,
    numba=per_image(jit(cross_entropy_reference), 3),
    cuda=cross_entropy_cuda,
)
cross_entropy_backward = Kernel(
    "cross_entropy_backward",
    outputs=("dlogits",),
    reference=cross_entropy_backward_reference,
    array=cross_entropy_backward_array,
    numba=per_image(jit(cross_entropy_backward_reference), 4),
    cuda=cross_entropy_backward_cuda,
)
