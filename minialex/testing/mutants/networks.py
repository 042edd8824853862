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


@wrong_kernel(ReluOp, activations.relu_backward, "relu lets the gradient of negative inputs pass")
def _relu_leaks(right: Any, dy: Array, y: Array, dx: Array) -> None:
    dx[...] = dy


@wrong_kernel(SigmoidOp, activations.sigmoid_backward, "sigmoid's gradient from x where y is meant")
def _sigmoid_twice(right: Any, dy: Array, y: Array, dx: Array) -> None:
    again = 1 / (1 + np.exp(-y))
    dx[...] = dy * again * (1 - again)


@wrong_kernel(TanhOp, activations.tanh_backward, "tanh without the square")
def _tanh_square(right: Any, dy: Array, y: Array, dx: Array) -> None:
    dx[...] = dy * (1 - y)


@wrong_method(DropoutOp, "backward", "dropout does not scale the gradient")
def _dropout_unscaled(right: Any, op: Any, dy: Array) -> Gradients:
    (dx,) = right(op, dy)
    return (dx / dx.dtype.type(op.scale),)


@wrong_method(DropoutOp, "backward", "dropout draws another mask for the gradient")
def _dropout_new_mask(right: Any, op: Any, dy: Array) -> Gradients:
    other = DropoutOp(op.p, op.scale, (op.key.seed, op.key.step, op.key.item + 1))
    return (other.forward(dy),)


@wrong_kernel(DropoutOp, dropout_kernels.dropout_forward, "dropout draws from a hidden, shared state")
def _dropout_state(
    right: Any, x: Array, y: Array, p: float, scale: float, seed: int, step: int, item: int
) -> None:
    stream = rng.current_scope().stream("dropout")
    y[...] = x * x.dtype.type(scale) * (stream.uniform(shape=x.shape) >= p).astype(x.dtype)


# ------------------------------------------------------------------------------------- softmax and loss


@wrong_kernel(SoftmaxOp, softmax_kernels.softmax_backward, "softmax without cross terms")
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
    CrossEntropyOp, cross_entropy_kernels.cross_entropy_backward, "cross_entropy ignores the smoothing"
)
def _no_smoothing(
    right: Any, dlosses: Array, logits: Array, labels: Array, dlogits: Array, label_smoothing: float
) -> None:
    right(dlosses, logits, labels, dlogits, 0.0)


@wrong_method(CrossEntropyOp, "backward", "cross_entropy divides by the batch whatever the reduction")
def _always_mean(right: Any, op: Any, dy: Array) -> Gradients:
    (dlogits,) = right(op, dy)
    return (dlogits / dlogits.dtype.type(1 if op.reduction == "mean" else len(dlogits)),)


@wrong_method(LinearOp, "backward", "linear averages the bias gradient over the images")
def _bias_mean(right: Any, op: Op, dy: Array) -> Gradients:
    dx, dweight, *dbias = right(op, dy)
    rows = dy.dtype.type(dy.size // dy.shape[-1])
    return dx, dweight, *(None if d is None else d / rows for d in dbias)
