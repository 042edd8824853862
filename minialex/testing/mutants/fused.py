"""Bugs in ops that are several at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from minialex.backend import Array
from minialex.kernels import (
    activations,
    average_pooling,
    convolution_pooling,
    fused_pooling,
    local_response_norm,
    max_pooling,
    sigmoid_pooling,
)
from minialex.ops import (
    Conv2dSigmoidAvgPool2dOp,
    ReluLrnMaxPool2dOp,
    ReluMaxPool2dOp,
    SigmoidAvgPool2dOp,
)
from minialex.tensor import Gradients
from minialex.testing.mutants.planting import wrong_kernel, wrong_method


@wrong_kernel(ReluMaxPool2dOp, max_pooling.max_pool2d_forward, "relu_max_pool2d without the ReLU")
def _no_relu(right: Any, *args: Any) -> None:
    right(*args[:-1], False)


@wrong_kernel(
    ReluMaxPool2dOp, max_pooling.max_pool2d_forward, "relu_max_pool2d lets a dead window's gradient pass"
)
def _dead_window_passes(right: Any, x: Array, y: Array, argmax: Array, *rest: Any) -> None:
    right(x, y, argmax, *rest[:-1], False)
    y[...] = np.maximum(y, 0)


@wrong_kernel(ReluMaxPool2dOp, max_pooling.max_pool2d_forward, "relu_max_pool2d keeps 257 numbers in a byte")
def _narrow_nobody(right: Any, x: Array, y: Array, argmax: Array, *rest: Any) -> None:
    right(x, y, argmax, *rest)
    argmax[...] = argmax.astype(np.uint8)


@wrong_kernel(
    ReluLrnMaxPool2dOp,
    fused_pooling.relu_lrn_max_pool2d_backward,
    "relu_lrn_max_pool2d's gradient passes where ReLU gave nothing",
)
def _no_mask(right: Any, dy: Array, argmax: Array, x: Array, dx: Array, *rest: Any) -> None:
    right(dy, argmax, np.abs(x), dx, *rest)


@wrong_kernel(
    ReluLrnMaxPool2dOp,
    fused_pooling.relu_lrn_max_pool2d_forward,
    "relu_lrn_max_pool2d pools before it normalises",
)
def _pooled_first(right: Any, x: Array, y: Array, argmax: Array, norm: Any, *geometry: Any) -> None:
    max_pooling.max_pool2d_reference(x, y, argmax, geometry[0], geometry[1], geometry[2], True)
    local_response_norm.lrn_reference(y.copy(), y, *norm)


@wrong_method(ReluLrnMaxPool2dOp, "backward", "relu_lrn_max_pool2d's scale from x and not from relu(x)")
def _scale_of_x(right: Any, op: Any, dy: Array) -> Gradients:
    x, argmax = op.saved
    dnormalised, dx = np.empty_like(x), np.empty_like(x)
    max_pooling.max_pool2d_backward_reference(dy, argmax, dnormalised, *op._parameters[1:])
    local_response_norm.lrn_backward_reference(dnormalised, x, dx, *op._parameters[0])
    return (np.where(x > 0, dx, 0).astype(dx.dtype),)


@wrong_kernel(
    SigmoidAvgPool2dOp,
    sigmoid_pooling.sigmoid_average_pool_backward,
    "sigmoid_avg_pool2d spreads its gradient and forgets the sigmoid's",
)
def _only_spread(right: Any, dy: Array, sigmoids: Array, dx: Array, *bounds: Array) -> None:
    right(dy, np.full_like(sigmoids, 0.5), dx, *bounds)
    dx *= 4


@wrong_kernel(
    SigmoidAvgPool2dOp,
    sigmoid_pooling.sigmoid_average_pool_forward,
    "sigmoid_avg_pool2d pools before the sigmoid",
)
def _sigmoid_last(right: Any, x: Array, sigmoids: Array, y: Array, *bounds: Array) -> None:
    right(x, sigmoids, y, *bounds)
    average_pooling.average_pool_reference(x, y, *bounds)
    activations.sigmoid_reference(y.reshape(-1), y.reshape(-1))


@wrong_kernel(
    Conv2dSigmoidAvgPool2dOp,
    convolution_pooling.conv2d_sigmoid_average_pool_forward,
    "conv2d_sigmoid_avg_pool2d forgets the bias",
)
def _no_bias(right: Any, x: Array, weight: Array, bias: Array | None, *rest: Any) -> None:
    right(x, weight, None, *rest)


@wrong_kernel(
    Conv2dSigmoidAvgPool2dOp,
    convolution_pooling.conv2d_sigmoid_average_pool_backward,
    "conv2d_sigmoid_avg_pool2d's gradient forgets the sigmoid's",
)
def _spread_alone(right: Any, dy: Array, sigmoids: Array, *rest: Any) -> None:
    right(dy * 4, np.full_like(sigmoids, 0.5), *rest)
