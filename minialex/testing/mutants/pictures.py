"""Bugs in convolution."""

from __future__ import annotations

from typing import Any

import numpy as np

from minialex.backend import Array
from minialex.kernels import convolution, im2col
from minialex.ops import Conv2dOp, Conv2dReluOp
from minialex.tensor import Gradients, Op
from minialex.testing.mutants.planting import wrong_kernel, wrong_method


@wrong_kernel(Conv2dOp, convolution.conv2d_backward, "conv2d's dx with the kernel flipped", "flipped")
def _flipped(right: Any, dy: Array, x: Array, weight: Array, *rest: Any) -> None:
    right(dy, x, weight[:, :, ::-1, ::-1], *rest)


@wrong_kernel(
    Conv2dOp, convolution.conv2d_backward, "conv2d's dweight with height and width swapped", "swapped axes"
)
def _swapped(
    right: Any, dy: Array, x: Array, weight: Array, mask: Any, dx: Any, dweight: Any, *rest: Any
) -> None:
    right(dy, x, weight, mask, dx, dweight, *rest)
    if dweight is not None and dweight.shape[2] != dweight.shape[3]:
        dweight[...] = dweight.swapaxes(2, 3).reshape(dweight.shape)


@wrong_kernel(
    Conv2dOp, convolution.conv2d_backward, "conv2d's gradients with the padding off by one", "shifted"
)
def _padding_off(right: Any, *args: Any) -> None:
    (top, bottom), horizontal = args[8]
    right(*args[:8], ((top + 1, bottom), horizontal), *args[9:])


@wrong_kernel(Conv2dReluOp, convolution.conv2d_backward, "conv2d_relu's gradient ignores the ReLU", "mask")
def _no_mask(right: Any, dy: Array, x: Array, weight: Array, mask: Any, *rest: Any) -> None:
    right(dy, x, weight, None, *rest)


@wrong_kernel(Conv2dOp, convolution.conv2d_forward, "conv2d with the padding's sides swapped", "shifted")
def _sides_swapped(
    right: Any, x: Array, weight: Array, bias: Any, y: Array, stride: Any, padding: Any, *rest: Any
) -> None:
    right(x, weight, bias, y, stride, (padding[0][::-1], padding[1][::-1]), *rest)


@wrong_kernel(Conv2dOp, convolution.conv2d_backward, "conv2d's gradients ignore the dilation", "window")
def _no_dilation(right: Any, *args: Any) -> None:
    right(*args[:9], (1, 1), args[10])


@wrong_kernel(Conv2dOp, im2col.col2im, "col2im assigns where overlapping windows must add up", "overlap")
def _col2im_assigns(
    right: Any, columns: Array, dx: Array, stride: Any, padding: Any, dilation: Any, first_row: int
) -> None:
    _, _, KH, KW, OH, OW = columns.shape
    for i, j, p, q in np.ndindex(KH, KW, OH, OW):
        row = (first_row + p) * stride[0] - padding[0][0] + i * dilation[0]
        col = q * stride[1] - padding[1][0] + j * dilation[1]
        if 0 <= row < dx.shape[2] and 0 <= col < dx.shape[3]:
            dx[:, :, row, col] = columns[:, :, i, j, p, q]


@wrong_method(
    Conv2dOp, "backward", "conv2d's bias gradient summed over the images alone", "missing broadcast sum"
)
def _bias_axes(right: Any, op: Op, dy: Array) -> Gradients:
    dx, dweight, *dbias = right(op, dy)
    return dx, dweight, *(None if d is None else dy[:, :, 0, 0].sum(axis=0) for d in dbias)


@wrong_kernel(
    Conv2dOp,
    convolution.conv2d_backward,
    "conv2d's dx with the kernel flipped from left to right",
    "flipped",
)
def _flipped_width(right: Any, dy: Array, x: Array, weight: Array, *rest: Any) -> None:
    right(dy, x, weight[:, :, :, ::-1], *rest)


@wrong_kernel(Conv2dOp, convolution.conv2d_backward, "conv2d's groups are off by one in dx", "shifted")
def _group_off(right: Any, *args: Any) -> None:
    right(*args)
    dx, groups = args[4], args[10]
    if dx is not None and groups > 1:
        dx[...] = np.roll(dx, dx.shape[1] // groups, axis=1)


@wrong_kernel(
    Conv2dOp,
    convolution.conv2d_backward,
    "conv2d's dx has the channels in reverse, BGR for RGB",
    "flipped",
)
def _channels_reversed(right: Any, *args: Any) -> None:
    right(*args)
    if args[4] is not None:
        args[4][...] = args[4][:, ::-1].copy()


@wrong_kernel(Conv2dOp, convolution.conv2d_backward, "conv2d's dweight leaves the last image out", "channel")
def _last_image(right: Any, dy: Array, *rest: Any) -> None:
    right(dy, *rest)
    if rest[4] is not None and len(dy) > 1:
        part = dy.copy()
        part[-1] = 0
        right(part, *rest[:3], None, rest[4], None, *rest[6:])


@wrong_kernel(Conv2dOp, convolution.conv2d_backward, "conv2d's dweight is the images' mean", "factor")
def _weight_mean(right: Any, dy: Array, *rest: Any) -> None:
    right(dy, *rest)
    if rest[4] is not None:
        rest[4][...] /= len(dy)


@wrong_kernel(Conv2dOp, convolution.conv2d_backward, "conv2d's dweight is computed in float32", "float32")
def _weight_rounds(right: Any, dy: Array, *rest: Any) -> None:
    right(dy, *rest)
    if rest[4] is not None:
        rest[4][...] = rest[4].astype(np.float32)


@wrong_kernel(
    Conv2dOp, convolution.conv2d_backward, "conv2d's dx stops a row and a column too early", "border"
)
def _last_row(right: Any, *args: Any) -> None:
    right(*args)
    if args[4] is not None:
        args[4][:, :, -1] = 0
        args[4][:, :, :, -1] = 0


@wrong_kernel(Conv2dOp, convolution.conv2d_backward, "conv2d's gradients ignore the stride", "window")
def _no_stride(right: Any, *args: Any) -> None:
    right(*args[:7], (1, 1), *args[8:])


@wrong_kernel(Conv2dOp, convolution.conv2d_backward, "conv2d adds the bias gradient twice", "factor")
def _bias_twice(right: Any, *args: Any) -> None:
    right(*args)
    if args[6] is not None:
        args[6][...] *= 2


@wrong_kernel(Conv2dOp, convolution.conv2d_backward, "conv2d's dweight ignores dy", "ignores the cotangent")
def _weight_ignores_dy(right: Any, dy: Array, *rest: Any) -> None:
    right(dy, *rest)
    if rest[4] is not None:
        right(np.ones_like(dy), *rest[:3], None, rest[4], None, *rest[6:])


@wrong_kernel(Conv2dOp, convolution.conv2d_forward, "conv2d's array variant adds no bias", variant="array")
def _array_without_bias(right: Any, x: Array, weight: Array, bias: Any, *rest: Any) -> None:
    right(x, weight, None, *rest)
