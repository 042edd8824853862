"""Bugs in activations, dropout, softmax, the loss and the linear layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from minialex import rng
from minialex.backend import Array, Kernel
from minialex.kernels import activations
from minialex.kernels import cross_entropy as cross_entropy_kernels
from minialex.kernels import dropout as dropout_kernels
from minialex.kernels import softmax as softmax_kernels
from minialex.ops import (
    CrossEntropyOp,
    DropoutOp,
    LinearOp,
    LogSoftmaxOp,
    ReluOp,
    SigmoidOp,
    SoftmaxOp,
    TanhOp,
)
from minialex.tensor import Gradients, Op
from minialex.testing.mutants.planting import wrong_kernel, wrong_method

# ---------------------------------------------------------------------------------------- activations


@wrong_kernel(ReluOp, activations.relu_backward, "relu lets the gradient of negative inputs pass", "mask")
def _relu_leaks(right: Any, dy: Array, y: Array, dx: Array) -> None:
    dx[...] = dy


@wrong_kernel(SigmoidOp, activations.sigmoid_backward, "sigmoid's gradient from x where y is meant", "slope")
def _sigmoid_twice(right: Any, dy: Array, y: Array, dx: Array) -> None:
    again = 1 / (1 + np.exp(-y))
    dx[...] = dy * again * (1 - again)


@wrong_kernel(TanhOp, activations.tanh_backward, "tanh without the square", "slope")
def _tanh_square(right: Any, dy: Array, y: Array, dx: Array) -> None:
    dx[...] = dy * (1 - y)


@wrong_method(DropoutOp, "backward", "dropout does not scale the gradient", "factor")
def _dropout_unscaled(right: Any, op: Any, dy: Array) -> Gradients:
    (dx,) = right(op, dy)
    return (dx / dx.dtype.type(op.scale),)


@wrong_method(DropoutOp, "backward", "dropout draws another mask for the gradient", "mask")
def _dropout_new_mask(right: Any, op: Any, dy: Array) -> Gradients:
    other = DropoutOp(op.p, op.scale, (op.key.seed, op.key.step, op.key.item + 1))
    return (other.forward(dy),)


@wrong_kernel(DropoutOp, dropout_kernels.dropout_forward, "dropout draws from a hidden, shared state")
def _dropout_state(
    right: Any, x: Array, y: Array, p: float, scale: float, seed: int, step: int, item: int
) -> None:
    stream = rng.current_scope().stream("dropout")
    y[...] = x * x.dtype.type(scale) * (stream.uniform(shape=x.shape) >= p).astype(x.dtype)


@wrong_kernel(
    ReluOp, activations.relu_backward, "relu's gradient where x is negative, not where it is positive", "mask"
)
def _relu_reversed(right: Any, dy: Array, y: Array, dx: Array) -> None:
    dx[...] = np.where(y > 0, 0, dy)


@wrong_kernel(SigmoidOp, activations.sigmoid_backward, "sigmoid's gradient with the wrong sign", "sign")
def _sigmoid_sign(right: Any, dy: Array, y: Array, dx: Array) -> None:
    dx[...] = dy * y * (y - 1)


@wrong_kernel(
    SigmoidOp, activations.sigmoid_forward, "sigmoid's compiled code is off for negative x", variant="numba"
)
def _sigmoid_compiled(right: Any, x: Array, y: Array) -> None:
    right(x, y)
    y[...] = np.where(x < 0, y * (1 + 1e-4), y)


@wrong_kernel(TanhOp, activations.tanh_backward, "tanh ignores dy", "ignores the cotangent")
def _tanh_ignores_dy(right: Any, dy: Array, y: Array, dx: Array) -> None:
    dx[...] = 1 - y * y


@wrong_method(DropoutOp, "backward", "dropout passes what it dropped and drops what it kept", "mask")
def _dropout_reversed(right: Any, op: Any, dy: Array) -> Gradients:
    (dx,) = right(op, dy)
    return (np.where(dx == 0, dy * dy.dtype.type(op.scale), 0).astype(dy.dtype),)


@wrong_method(DropoutOp, "forward", "dropout drops with the probability of keeping")
def _dropout_keeps(right: Any, op: Any, x: Array) -> Array:
    kept = op.p
    op.p = 1 - kept
    try:
        return right(op, x)
    finally:
        op.p = kept


# ------------------------------------------------------------------------------------- softmax and loss


@wrong_kernel(
    SoftmaxOp, softmax_kernels.softmax_backward, "softmax sums its cross terms over the batch", "window"
)
def _softmax_batch(right: Any, dy: Array, y: Array, dx: Array) -> None:
    dx[...] = y * (dy - (dy * y).sum(axis=0, keepdims=True))


@wrong_kernel(
    LogSoftmaxOp, softmax_kernels.log_softmax_backward, "log_softmax without its cross terms", "cross terms"
)
def _log_softmax_diagonal(right: Any, dy: Array, y: Array, dx: Array) -> None:
    dx[...] = dy * (1 - np.exp(y))


@wrong_kernel(
    LogSoftmaxOp, softmax_kernels.log_softmax_backward, "log_softmax takes its output for softmax's", "slope"
)
def _log_for_softmax(right: Any, dy: Array, y: Array, dx: Array) -> None:
    dx[...] = dy - y * dy.sum(axis=1, keepdims=True)


@wrong_method(CrossEntropyOp, "backward", "cross_entropy ignores dy", "ignores the cotangent")
def _loss_ignores_dy(right: Any, op: Op, dy: Array) -> Gradients:
    return right(op, np.ones_like(dy))


@wrong_kernel(
    CrossEntropyOp,
    cross_entropy_kernels.cross_entropy_backward,
    "cross_entropy takes the label's neighbour for the label",
    "slope",
)
def _neighbour(
    right: Any, dlosses: Array, logits: Array, labels: Array, dlogits: Array, label_smoothing: float
) -> None:
    right(dlosses, logits, (labels + 1) % logits.shape[1], dlogits, label_smoothing)


@wrong_method(CrossEntropyOp, "backward", "cross_entropy sums where its mean is meant", "factor")
def _sum_for_mean(right: Any, op: Any, dy: Array) -> Gradients:
    (dlogits,) = right(op, dy)
    return (dlogits * dlogits.dtype.type(len(dlogits) if op.reduction == "mean" else 1),)


@wrong_kernel(SoftmaxOp, softmax_kernels.softmax_backward, "softmax without cross terms", "cross terms")
def _softmax_diagonal(right: Any, dy: Array, y: Array, dx: Array) -> None:
    dx[...] = dy * y * (1 - y)


@wrong_kernel(SoftmaxOp, softmax_kernels.softmax_forward, "softmax overflows: the largest is not subtracted")
def _softmax_overflow(right: Any, x: Array, y: Array) -> None:
    with np.errstate(all="ignore"):
        y[...] = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)


@wrong_method(LogSoftmaxOp, "_by_rows", "log_softmax over the last axis, whatever the axis is")
def _log_softmax_axis(right: Any, op: Any, kernel: Kernel, *inputs: Array) -> Array:
    result = np.empty(inputs[0].shape, dtype=inputs[0].dtype)
    K = result.shape[-1]
    kernel(*(np.ascontiguousarray(a).reshape(-1, K) for a in inputs), result.reshape(-1, K))
    return result


@wrong_kernel(
    CrossEntropyOp,
    cross_entropy_kernels.cross_entropy_backward,
    "cross_entropy ignores the smoothing",
    "slope",
)
def _no_smoothing(
    right: Any, dlosses: Array, logits: Array, labels: Array, dlogits: Array, label_smoothing: float
) -> None:
    right(dlosses, logits, labels, dlogits, 0.0)


@wrong_method(
    CrossEntropyOp, "backward", "cross_entropy divides by the batch whatever the reduction", "factor"
)
def _always_mean(right: Any, op: Any, dy: Array) -> Gradients:
    (dlogits,) = right(op, dy)
    return (dlogits / dlogits.dtype.type(1 if op.reduction == "mean" else len(dlogits)),)


@wrong_method(LinearOp, "backward", "linear averages the bias gradient over the images", "factor")
def _bias_mean(right: Any, op: Op, dy: Array) -> Gradients:
    dx, dweight, *dbias = right(op, dy)
    rows = dy.dtype.type(dy.size // dy.shape[-1])
    return dx, dweight, *(None if d is None else d / rows for d in dbias)


@wrong_method(
    LinearOp, "backward", "linear's bias gradient is that of the first row", "missing broadcast sum"
)
def _bias_first_row(right: Any, op: Op, dy: Array) -> Gradients:
    dx, dweight, *dbias = right(op, dy)
    return dx, dweight, *(None if d is None else dy.reshape(-1, dy.shape[-1])[0].copy() for d in dbias)


@wrong_method(LinearOp, "backward", "linear's weight gradient is transposed in memory", "swapped axes")
def _weight_transposed(right: Any, op: Op, dy: Array) -> Gradients:
    dx, dweight, *dbias = right(op, dy)
    return dx, None if dweight is None else dweight.T.reshape(dweight.shape), *dbias


@wrong_method(LinearOp, "backward", "linear's weight gradient leaves the last row out", "channel")
def _weight_last_row(right: Any, op: Op, dy: Array) -> Gradients:
    part = dy.copy()
    if dy.size > dy.shape[-1]:
        part.reshape(-1, dy.shape[-1])[-1] = 0
    dx, _, *dbias = right(op, dy)
    return dx, right(op, part)[1], *dbias


@wrong_method(LinearOp, "backward", "linear's gradient of x is computed in float32", "float32")
def _linear_rounds(right: Any, op: Op, dy: Array) -> Gradients:
    dx, *others = right(op, dy)
    return None if dx is None else dx.astype(np.float32).astype(dy.dtype), *others
