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
    ReluMaxPool2dOp,
    max_pooling.max_pool2d_forward,
    "relu_max_pool2d lets a dead window's gradient pass",
    "mask",
)
def _dead_window_passes(right: Any, x: Array, y: Array, argmax: Array, *rest: Any) -> None:
    right(x, y, argmax, *rest[:-1], False)
    y[...] = np.maximum(y, 0)


@wrong_kernel(
    ReluMaxPool2dOp, max_pooling.max_pool2d_forward, "relu_max_pool2d keeps 257 numbers in a byte", "mask"
)
def _narrow_nobody(right: Any, x: Array, y: Array, argmax: Array, *rest: Any) -> None:
    right(x, y, argmax, *rest)
    argmax[...] = argmax.astype(np.uint8)


@wrong_method(
    ReluLrnMaxPool2dOp, "backward", "relu_lrn_max_pool2d's gradient passes where ReLU gave nothing", "mask"
)
def _no_mask(right: Any, op: Any, dy: Array) -> Gradients:
    x, argmax = op.saved
    dnormalised, dx = np.empty_like(x), np.empty_like(x)
    max_pooling.max_pool2d_backward_array(dy, argmax, dnormalised, *op._parameters[1:])
    local_response_norm.lrn_backward_array(dnormalised, np.maximum(x, 0), dx, *op._parameters[0])
    return (dx,)


@wrong_kernel(
    ReluLrnMaxPool2dOp,
    fused_pooling.relu_lrn_max_pool2d_forward,
    "relu_lrn_max_pool2d pools before it normalises",
)
def _pooled_first(right: Any, x: Array, y: Array, argmax: Array, norm: Any, *geometry: Any) -> None:
    max_pooling.max_pool2d_reference(x, y, argmax, geometry[0], geometry[1], geometry[2], True)
    local_response_norm.lrn_reference(y.copy(), y, *norm)


@wrong_method(
    ReluLrnMaxPool2dOp, "backward", "relu_lrn_max_pool2d's scale from x and not from relu(x)", "slope"
)
def _scale_of_x(right: Any, op: Any, dy: Array) -> Gradients:
    x, argmax = op.saved
    dnormalised, dx = np.empty_like(x), np.empty_like(x)
    max_pooling.max_pool2d_backward_array(dy, argmax, dnormalised, *op._parameters[1:])
    local_response_norm.lrn_backward_array(dnormalised, x, dx, *op._parameters[0])
    return (np.where(x > 0, dx, 0).astype(dx.dtype),)


@wrong_kernel(
    SigmoidAvgPool2dOp,
    sigmoid_pooling.sigmoid_average_pool_backward,
    "sigmoid_avg_pool2d spreads its gradient and forgets the sigmoid's",
    "slope",
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
    "slope",
)
def _spread_alone(right: Any, dy: Array, sigmoids: Array, *rest: Any) -> None:
    right(dy * 4, np.full_like(sigmoids, 0.5), *rest)


@wrong_kernel(
    Conv2dSigmoidAvgPool2dOp,
    convolution_pooling.conv2d_sigmoid_average_pool_backward,
    "conv2d_sigmoid_avg_pool2d averages the bias gradient over the images",
    "factor",
)
def _bias_mean(right: Any, dy: Array, *rest: Any) -> None:
    right(dy, *rest)
    if rest[5] is not None:
        rest[5][...] /= len(dy)


@wrong_method(ReluMaxPool2dOp, "backward", "relu_max_pool2d forgets the overlap of its windows", "overlap")
def _relu_pool_assigns(right: Any, op: Any, dy: Array) -> Gradients:
    (argmax,) = op.saved
    dx = np.zeros(op.input_shapes[0], dtype=dy.dtype)
    for n, c, p, q in np.ndindex(dy.shape):
        i, j = divmod(int(argmax[n, c, p, q]), op.kernel_size[1])
        if i < op.kernel_size[0]:
            row, col = p * op.stride[0] - op.padding[0][0] + i, q * op.stride[1] - op.padding[1][0] + j
            dx[n, c, row, col] = dy[n, c, p, q]
    return (dx,)


@wrong_method(
    ReluLrnMaxPool2dOp,
    "backward",
    "relu_lrn_max_pool2d passes the gradient of the sum of squares by",
    "slope",
)
def _norm_passed_by(right: Any, op: Any, dy: Array) -> Gradients:
    x, argmax = op.saved
    lower, upper, alpha, beta, k = op._parameters[0]
    dnormalised, dx = np.empty_like(x), np.empty_like(x)
    max_pooling.max_pool2d_backward_array(dy, argmax, dnormalised, *op._parameters[1:])
    local_response_norm.lrn_backward_array(
        dnormalised, np.maximum(x, 0), dx, lower, upper, 0.5 * alpha, beta, k
    )
    return (np.where(x > 0, dx, 0).astype(dx.dtype),)
