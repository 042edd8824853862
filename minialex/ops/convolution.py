"""Two-dimensional convolution."""

from __future__ import annotations

from typing import ClassVar

from minialex.backend import Array, array_module, empty
from minialex.cost import Cost
from minialex.kernels.convolution import conv2d_backward, conv2d_forward
from minialex.shapes import (
    IntOrPair,
    Padding,
    PaddingLike,
    Pair,
    Shape,
    ShapeError,
    as_int,
    conv_output_size,
    numel,
    padding_pairs,
    pair,
    require_ndim,
)
from minialex.tensor import Gradients, Op, Tensor, as_tensor


class Conv2dOp(Op):
    """Slide F filters over a picture; each output pixel is one filter's dot product with its window.

        y[n, f, p, q] = bias[f] + sum over c, i, j of
                        x[n, c, p*SH - top + i*DH, q*SW - left + j*DW] * weight[f, c, i, j]

    Shapes: x (N, C, H, W), weight (F, C/groups, KH, KW), bias (F,) or absent -> y (N, F, OH, OW) with
            OH = floor((H + top + bottom - DH*(KH-1) - 1) / SH) + 1, and OW alike.
    Args:   stride, dilation: pixels, an int or (vertical, horizontal); padding: zeros around the picture,
            p, (ph, pw) or ((top, bottom), (left, right)); groups: filters and channels are split into this
            many parts, and each part of the filters sees its part of the channels only.
    Raises: ShapeError if channels, groups or bias do not fit, or no window fits into the picture.
    Source: LeCun et al. 1989; groups: Krizhevsky, Sutskever, Hinton 2012, section 3.2.
    """

    relu: ClassVar[bool] = False

    def __init__(
        self,
        stride: IntOrPair = 1,
        padding: PaddingLike = 0,
        dilation: IntOrPair = 1,
        groups: int = 1,
    ) -> None:
        self.stride = pair(stride, "conv2d: stride")
        self.padding = padding_pairs(padding, "conv2d: padding")
        self.dilation = pair(dilation, "conv2d: dilation")
        self.groups = as_int(groups, "conv2d: groups")

    def shape(self, x: Shape, weight: Shape, bias: Shape | None = None) -> Shape:
        require_ndim("conv2d", "x", x, 4, "(N, C, H, W)")
        require_ndim("conv2d", "weight", weight, 4, "(F, C/groups, KH, KW)")
        C, F, G = x[1], weight[0], self.groups
        if G < 1 or C % G or F % G:
            raise ShapeError(f"conv2d: groups={G} must divide C={C} channels and F={F} filters")
        if weight[1] * G != C:
            per_group = f" in each of {G} groups" if G > 1 else ""
            raise ShapeError(
                f"conv2d: x has C={C} but weight expects C={weight[1]}{per_group}; x {x}, weight {weight}"
            )
        if bias is not None and bias != (F,):
            raise ShapeError(f"conv2d: bias has shape {bias}, expected ({F},) for F={F} filters")
        if min(weight) < 1:
            raise ShapeError(f"conv2d: weight has an axis of no extent: {weight}")
        output = []
        for axis, letter in enumerate("HW"):
            size, kernel, pads = x[2 + axis], weight[2 + axis], self.padding[axis]
            count = conv_output_size(size, kernel, self.stride[axis], pads, self.dilation[axis])
            if count < 1:
                raise ShapeError(
                    f"conv2d: no window fits: {letter}={size} with padding {pads} is shorter than the "
                    f"kernel, {self.dilation[axis] * (kernel - 1) + 1} pixels; x {x}, weight {weight}"
                )
            output.append(count)
        return (x[0], F, *output)

    def cost(self, x: Shape, weight: Shape, bias: Shape | None = None, itemsize: int = 4) -> Cost:
        y = self.shape(x, weight, bias)
        return Cost.of(2 * numel(y) * numel(weight[1:]), x, weight, bias or (0,), y, itemsize=itemsize)

    def forward(self, x: Array, weight: Array, bias: Array | None = None) -> Array:
        output = self.shape(x.shape, weight.shape, bias.shape if bias is not None else None)
        y = empty(output, x)
        conv2d_forward(x, weight, bias, y, *self._geometry(), self.relu)
        mask = y if self.relu else None
        self.save(x if self.needs[1] else None, weight if self.needs[0] else None, mask)
        return y

    def backward(self, dy: Array) -> Gradients:
        x, weight, mask = self.saved
        gradients = tuple(
            empty(shape, dy) if needed else None
            for shape, needed in zip(self.input_shapes, self.needs, strict=True)
        )
        dx, dweight, dbias = (*gradients, None)[:3]
        if dx is None and dweight is None:  # A bias alone has no use for the convolution.
            dy = dy if mask is None else array_module(dy).where(mask <= 0, dy.dtype.type(0), dy)
            return (None, None, dy.sum(axis=(0, 2, 3)))
        conv2d_backward(dy, x, weight, mask, dx, dweight, dbias, *self._geometry())
        return gradients

    def _geometry(self) -> tuple[Pair, Padding, Pair, int]:
        return self.stride, self.padding, self.dilation, self.groups


class Conv2dReluOp(Conv2dOp):
    """relu(conv2d(...)) in one pass: the bias and the ReLU are applied while the pixels are at hand.

    Shapes, Args, Raises: as Conv2dOp. What is kept for the ReLU's gradient is the output.
    """

    relu = True

    def cost(self, x: Shape, weight: Shape, bias: Shape | None = None, itemsize: int = 4) -> Cost:
        convolution = super().cost(x, weight, bias, itemsize=itemsize)
        return Cost(convolution.flops + numel(self.shape(x, weight, bias)), convolution.bytes)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = 1,
    padding: PaddingLike = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
) -> Tensor:
    """Convolve pictures x (N, C, H, W) with filters `weight` (F, C/groups, KH, KW); see Conv2dOp.

    Padding may differ by side: conv2d(x, w, b, stride=4, padding=((1, 2), (1, 2))).
    """
    inputs = [as_tensor(x), as_tensor(weight)] + ([] if bias is None else [as_tensor(bias)])
    return Conv2dOp(stride, padding, dilation, groups)(*inputs)


def conv2d_relu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = 1,
    padding: PaddingLike = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
) -> Tensor:
    """relu(conv2d(...)), as one operation; see Conv2dOp and Conv2dReluOp."""
    inputs = [as_tensor(x), as_tensor(weight)] + ([] if bias is None else [as_tensor(bias)])
    return Conv2dReluOp(stride, padding, dilation, groups)(*inputs)
