"""Two-dimensional convolution: forward, and backward to the input, the weights and the bias.

What deep learning calls convolution does not flip the kernel (it is a cross-correlation). Here stand the
plain loops; the fast ways are in column_convolution.py (a matrix product), winograd.py (fewer
multiplications, for many channels), direct_convolution.py (for few) and cuda_convolution.py (on a GPU).
"""

from __future__ import annotations

import numpy as np

from minialex.backend import Array, Kernel
from minialex.kernels.column_convolution import conv2d_backward_columns, conv2d_columns
from minialex.kernels.cuda_convolution import conv2d_backward_cuda, conv2d_cuda
from minialex.kernels.direct_convolution import conv2d_backward_direct, conv2d_direct, direct_is_better
from minialex.kernels.winograd import conv2d_backward_winograd, conv2d_winograd
from minialex.kernels.winograd_plan import winograd_is_better
from minialex.shapes import Padding, Pair


def conv2d_reference(
    x: Array,
    weight: Array,
    bias: Array | None,
    y: Array,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    relu: bool,
) -> None:
    """y[n, f, p, q] = bias[f] + sum over c, i, j of x[n, c, row, col] * weight[f, c, i, j].

    Shapes: x (N, C, H, W); weight (F, C/groups, KH, KW); bias (F,) or None; y (N, F, OH, OW), written.
    Args:   relu: negative results become 0.
    """
    N, _, H, W = x.shape
    F, CG, KH, KW = weight.shape
    for n in range(N):
        for f in range(F):
            first_channel = f // (F // groups) * CG
            for p in range(y.shape[2]):
                for q in range(y.shape[3]):
                    total = bias[f] if bias is not None else 0.0
                    for c in range(CG):
                        for i in range(KH):
                            for j in range(KW):
                                row = p * stride[0] - padding[0][0] + i * dilation[0]
                                col = q * stride[1] - padding[1][0] + j * dilation[1]
                                inside = 0 <= row < H and 0 <= col < W
                                pixel = x[n, first_channel + c, row, col] if inside else 0.0
                                total = total + pixel * weight[f, c, i, j]
                    # Written so that a NaN stays.
                    y[n, f, p, q] = 0.0 if relu and total < 0 else total


def conv2d_backward_reference(
    dy: Array,
    x: Array | None,
    weight: Array | None,
    mask: Array | None,
    dx: Array | None,
    dweight: Array | None,
    dbias: Array | None,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> None:
    """The gradients of what is not None among dx, dweight and dbias.

    Shapes: dy (N, F, OH, OW); x (N, C, H, W), needed for dweight; weight (F, C/groups, KH, KW), needed for
            dx; mask (N, F, OH, OW) or None; dx as x, dweight as weight, dbias (F,), written.
    Args:   mask: the output, if it went through a ReLU: where it is 0, dy counts as 0. NaN is not lost.
    """
    if mask is not None:
        masked = np.empty_like(dy)
        for index in np.ndindex(dy.shape):
            masked[index] = 0.0 if mask[index] <= 0 else dy[index]
        dy = masked
    if dx is not None:
        conv2d_backward_input_reference(dy, weight, dx, stride, padding, dilation, groups)
    if dweight is not None:
        conv2d_backward_weight_reference(dy, x, dweight, stride, padding, dilation, groups)
    if dbias is not None:
        dbias[...] = 0
        for n, f, p, q in np.ndindex(dy.shape):
            dbias[f] += dy[n, f, p, q]


def conv2d_backward_input_reference(
    dy: Array, weight: Array, dx: Array, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> None:
    """Every product of the forward pass sends dy[n, f, p, q] * weight[f, c, i, j] back to its pixel.

    Shapes: dy (N, F, OH, OW); weight (F, C/groups, KH, KW); dx (N, C, H, W), written.
    """
    N, F, OH, OW = dy.shape
    _, CG, KH, KW = weight.shape
    _, _, H, W = dx.shape
    dx[...] = 0
    for n in range(N):
        for f in range(F):
            first_channel = f // (F // groups) * CG
            for p in range(OH):
                for q in range(OW):
                    for c in range(CG):
                        for i in range(KH):
                            for j in range(KW):
                                row = p * stride[0] - padding[0][0] + i * dilation[0]
                                col = q * stride[1] - padding[1][0] + j * dilation[1]
                                if 0 <= row < H and 0 <= col < W:
                                    dx[n, first_channel + c, row, col] += dy[n, f, p, q] * weight[f, c, i, j]


def conv2d_backward_weight_reference(
    dy: Array, x: Array, dweight: Array, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> None:
    """dweight[f, c, i, j] = sum over n, p, q of dy[n, f, p, q] * x[n, c, row, col].

    Shapes: dy (N, F, OH, OW); x (N, C, H, W); dweight (F, C/groups, KH, KW), written.
    """
    N, F, OH, OW = dy.shape
    _, _, H, W = x.shape
    _, CG, KH, KW = dweight.shape
    for f in range(F):
        first_channel = f // (F // groups) * CG
        for c in range(CG):
            for i in range(KH):
                for j in range(KW):
                    total = 0.0
                    for n in range(N):
                        for p in range(OH):
                            for q in range(OW):
                                row = p * stride[0] - padding[0][0] + i * dilation[0]
                                col = q * stride[1] - padding[1][0] + j * dilation[1]
                                if 0 <= row < H and 0 <= col < W:
                                    total = total + dy[n, f, p, q] * x[n, first_channel + c, row, col]
                    dweight[f, c, i, j] = total


# ------------------------------------------------------------------------------------------- on the CPU


def conv2d_fastest(
    x: Array,
    weight: Array,
    bias: Array | None,
    y: Array,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    relu: bool,
) -> None:
    """The fastest way for these shapes."""
    if winograd_is_better(x.dtype, weight.shape, y.shape, stride, dilation, groups):
        conv2d_winograd(x, weight, bias, y, stride, padding, groups, relu)
    elif direct_is_better(weight.shape, y.shape, stride):
        conv2d_direct(x, weight, bias, y, stride, padding, dilation, groups, relu)
    else:
        conv2d_columns(x, weight, bias, y, stride, padding, dilation, groups, relu)


def conv2d_backward_fastest(
    dy: Array,
    x: Array | None,
    weight: Array | None,
    mask: Array | None,
    dx: Array | None,
    dweight: Array | None,
    dbias: Array | None,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> None:
    """The fastest way for these shapes, as `use_winograd` allows it now."""
    # One of them is there: see Conv2dOp.
    shape = dweight.shape if weight is None else weight.shape  # type: ignore[union-attr]
    if winograd_is_better(dy.dtype, shape, dy.shape, stride, dilation, groups):
        conv2d_backward_winograd(dy, x, weight, mask, dx, dweight, dbias, stride, padding, groups)
    elif direct_is_better(shape, dy.shape, stride):
        conv2d_backward_direct(dy, x, weight, mask, dx, dweight, dbias, stride, padding, dilation, groups)
    else:
        conv2d_backward_columns(dy, x, weight, mask, dx, dweight, dbias, stride, padding, dilation, groups)


conv2d_forward = Kernel(
    "conv2d_forward",
    outputs=("y",),
    reference=conv2d_reference,
    array=conv2d_columns,
    numba=conv2d_fastest,
    cuda=conv2d_cuda,
)
conv2d_backward = Kernel(
    "conv2d_backward",
    outputs=("dx", "dweight", "dbias"),
    reference=conv2d_backward_reference,
    array=conv2d_backward_columns,
    numba=conv2d_backward_fastest,
    cuda=conv2d_backward_cuda,
)
