"""Bugs in convolution, pooling and local response normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np

from minialex.backend import Array
from minialex.kernels import average_pooling, convolution, im2col, max_pooling
from minialex.kernels import local_response_norm as lrn_kernels
from minialex.ops import (
    AdaptiveAvgPool2dOp,
    AvgPool2dOp,
    Conv2dOp,
    Conv2dReluOp,
    LocalResponseNormOp,
    MaxPool2dOp,
)
from minialex.tensor import Gradients, Op
from minialex.testing.mutants.planting import wrong_kernel, wrong_method


@wrong_kernel(Conv2dOp, convolution.conv2d_backward, "conv2d's dx with the kernel flipped")
def _flipped(right: Any, dy: Array, x: Array, weight: Array, *rest: Any) -> None:
    right(dy, x, weight[:, :, ::-1, ::-1], *rest)


@wrong_kernel(Conv2dOp, convolution.conv2d_backward, "conv2d's dweight with height and width swapped")
def _swapped(
    right: Any, dy: Array, x: Array, weight: Array, mask: Any, dx: Any, dweight: Any, *rest: Any
) -> None:
    right(dy, x, weight, mask, dx, dweight, *rest)
    if dweight is not None and dweight.shape[2] != dweight.shape[3]:
        dweight[...] = dweight.swapaxes(2, 3).reshape(dweight.shape)


@wrong_kernel(Conv2dOp, convolution.conv2d_backward, "conv2d's gradients with the padding off by one")
def _padding_off(right: Any, *args: Any) -> None:
    (top, bottom), horizontal = args[8]
    right(*args[:8], ((top + 1, bottom), horizontal), *args[9:])


@wrong_kernel(Conv2dReluOp, convolution.conv2d_backward, "conv2d_relu's gradient ignores the ReLU")
def _no_mask(right: Any, dy: Array, x: Array, weight: Array, mask: Any, *rest: Any) -> None:
    right(dy, x, weight, None, *rest)


@wrong_kernel(Conv2dOp, convolution.conv2d_forward, "conv2d with the padding's sides swapped")
def _sides_swapped(
    right: Any, x: Array, weight: Array, bias: Any, y: Array, stride: Any, padding: Any, *rest: Any
) -> None:
    right(x, weight, bias, y, stride, (padding[0][::-1], padding[1][::-1]), *rest)


@wrong_kernel(Conv2dOp, convolution.conv2d_backward, "conv2d's gradients ignore the dilation")
def _no_dilation(right: Any, *args: Any) -> None:
    right(*args[:9], (1, 1), args[10])


@wrong_kernel(Conv2dOp, im2col.col2im, "col2im assigns where overlapping windows must add up")
def _col2im_assigns(
    right: Any, columns: Array, dx: Array, stride: Any, padding: Any, dilation: Any, first_row: int
) -> None:
    _, _, KH, KW, OH, OW = columns.shape
    for i, j, p, q in np.ndindex(KH, KW, OH, OW):
        row = (first_row + p) * stride[0] - padding[0][0] + i * dilation[0]
        col = q * stride[1] - padding[1][0] + j * dilation[1]
        if 0 <= row < dx.shape[2] and 0 <= col < dx.shape[3]:
            dx[:, :, row, col] = columns[:, :, i, j, p, q]


@wrong_method(Conv2dOp, "backward", "conv2d's bias gradient summed over the images alone")
def _bias_axes(right: Any, op: Op, dy: Array) -> Gradients:
    dx, dweight, *dbias = right(op, dy)
    return dx, dweight, *(None if d is None else dy[:, :, 0, 0].sum(axis=0) for d in dbias)


@wrong_kernel(MaxPool2dOp, max_pooling.max_pool2d_backward, "max_pool2d assigns where windows overlap")
def _pool_assigns(
    right: Any, dy: Array, argmax: Array, dx: Array, kernel_size: Any, stride: Any, padding: Any
) -> None:
    dx[...] = 0
    for n, c, p, q in np.ndindex(dy.shape):
        i, j = divmod(int(argmax[n, c, p, q]), kernel_size[1])
        dx[n, c, p * stride[0] - padding[0][0] + i, q * stride[1] - padding[1][0] + j] = dy[n, c, p, q]


@wrong_kernel(MaxPool2dOp, max_pooling.max_pool2d_forward, "max_pool2d pads with zeros")
def _zero_padding(
    right: Any, x: Array, y: Array, argmax: Array, kernel_size: Any, stride: Any, padding: Any, *rest: Any
) -> None:
    right(x, y, argmax, kernel_size, stride, padding, *rest)
    if any(sum(sides) for sides in padding):
        y[...] = np.maximum(y, 0)


@wrong_kernel(MaxPool2dOp, max_pooling.max_pool2d_forward, "max_pool2d keeps the winner of the window before")
def _stale_argmax(right: Any, x: Array, y: Array, argmax: Array, *rest: Any) -> None:
    right(x, y, argmax, *rest)
    argmax[...] = np.roll(argmax, 1, axis=3)


@wrong_kernel(MaxPool2dOp, max_pooling.max_pool2d_forward, "max_pool2d keeps winners in a byte for 289 cells")
def _narrow_argmax(right: Any, x: Array, y: Array, argmax: Array, *rest: Any) -> None:
    right(x, y, argmax, *rest)
    argmax[...] = argmax.astype(np.uint8)


@wrong_kernel(AvgPool2dOp, average_pooling.average_pool_backward, "avg_pool2d does not divide the gradient")
def _average_undivided(right: Any, dy: Array, dx: Array, rows: Array, cols: Array) -> None:
    ones = [np.concatenate([b[:, :2], np.ones_like(b[:, 2:])], axis=1) for b in (rows, cols)]
    right(dy, dx, *ones)


@wrong_method(AvgPool2dOp, "bounds", "avg_pool2d always counts the padding")
def _counts_padding(right: Any, op: Op, x: Any, count_include_pad: bool) -> Any:
    return right(op, x, True)


@wrong_method(AdaptiveAvgPool2dOp, "_bounds", "adaptive_avg_pool2d's bins do not overlap")
def _bins_apart(right: Any, op: Any, x: Any) -> Any:
    """Where a bin ends is rounded down instead of up."""
    axes = []
    for size, bins in zip(x[2:], op.output_size, strict=True):
        starts = [size * p // bins for p in range(bins)]
        stops = [max(size * (p + 1) // bins, starts[p] + 1) for p in range(bins)]
        axes.append([(start, stop, stop - start) for start, stop in zip(starts, stops, strict=True)])
    return tuple(axes)


@wrong_method(AdaptiveAvgPool2dOp, "backward", "adaptive_avg_pool2d divides by the mean bin, not by each")
def _mean_bin(right: Any, op: Any, dy: Array) -> Gradients:
    rows, cols = (np.asarray(b, dtype=np.int64) for b in op._bounds(op.input_shapes[0]))
    cells = rows[:, None, 2] * cols[None, :, 2]
    (dx,) = right(op, (dy * (cells / cells.mean())).astype(dy.dtype))
    return (dx,)


@wrong_kernel(LocalResponseNormOp, lrn_kernels.lrn_backward, "lrn without its cross term")
def _lrn_diagonal(
    right: Any, dy: Array, x: Array, dx: Array, lower: int, upper: int, *numbers: float
) -> None:
    y = np.empty_like(x)
    lrn_kernels.lrn_reference(x, y, lower, upper, *numbers)
    dx[...] = dy * y / x


@wrong_kernel(
    LocalResponseNormOp, lrn_kernels.lrn_backward, "lrn sums the same window back, not the mirrored one"
)
def _lrn_mirror(right: Any, dy: Array, x: Array, dx: Array, lower: int, upper: int, *numbers: float) -> None:
    right(dy, x, dx, upper, lower, *numbers)


@wrong_method(LocalResponseNormOp, "__init__", "lrn always divides alpha by size")
def _alpha_divided(
    right: Any, op: Any, size: int, alpha: float, *args: float, dialect: str, **rest: Any
) -> None:
    right(op, size, alpha / size if dialect == "paper" else alpha, *args, dialect=dialect, **rest)


@wrong_kernel(LocalResponseNormOp, lrn_kernels.lrn_forward, "lrn's window is a channel short at the far end")
def _lrn_short(right: Any, x: Array, y: Array, lower: int, upper: int, *numbers: float) -> None:
    right(x, y, lower, max(upper - 1, 0), *numbers)
