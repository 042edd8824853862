"""Convolution, sigmoid and average pooling in one."""

from __future__ import annotations

from minialex.backend import Array, device_of, empty
from minialex.cost import Cost
from minialex.kernels.convolution_pooling import (
    conv2d_sigmoid_average_pool_backward,
    conv2d_sigmoid_average_pool_forward,
)
from minialex.ops.convolution import Conv2dOp
from minialex.ops.pooling import bounds_arrays
from minialex.ops.sigmoid_pooling import SigmoidAvgPool2dOp
from minialex.shapes import IntOrPair, PaddingLike, Shape, ShapeError
from minialex.tensor import Gradients, Tensor, as_tensor


class Conv2dSigmoidAvgPool2dOp(Conv2dOp):
    """avg_pool2d(sigmoid(conv2d(...))): a layer of LeNet, for which each image is fetched once.

    Kept for backward are what conv2d keeps and the sigmoids. On the CPU the bits are those of the three ops.

    Shapes: x (N, C, H, W), weight (F, C/groups, KH, KW), bias (F,) or absent -> y (N, F, OH, OW): of
            the shape that conv2d gives, the shape that avg_pool2d gives.
    Args:   stride, padding, dilation, groups: as conv2d; kernel_size, pool_stride, pool_padding, ceil_mode,
            count_include_pad: as avg_pool2d.
    Raises: ShapeError as the two.
    Source: LeCun, Bottou, Bengio, Haffner 1998.
    """

    def __init__(
        self,
        stride: IntOrPair = 1,
        padding: PaddingLike = 0,
        dilation: IntOrPair = 1,
        groups: int = 1,
        *,
        kernel_size: IntOrPair,
        pool_stride: IntOrPair | None = None,
        pool_padding: PaddingLike = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(stride, padding, dilation, groups)
        window = (kernel_size, pool_stride, pool_padding, ceil_mode, count_include_pad)
        self.pooling = SigmoidAvgPool2dOp(*window)

    def shape(self, x: Shape, weight: Shape, bias: Shape | None = None) -> Shape:
        convolved = super().shape(x, weight, bias)
        try:
            return self.pooling.shape(convolved)
        except ShapeError as error:
            raise ShapeError(f"{self.name}: x {x}, weight {weight}: {error}") from error

    def cost(self, x: Shape, weight: Shape, bias: Shape | None = None, itemsize: int = 4) -> Cost:
        convolution, convolved = Conv2dOp(*self._geometry()), super().shape(x, weight, bias)
        flops = convolution.cost(x, weight, bias).flops + self.pooling.cost(convolved).flops
        y = self.pooling.shape(convolved)
        return Cost.of(flops, x, weight, bias or (0,), y, itemsize=itemsize)

    def forward(self, x: Array, weight: Array, bias: Array | None = None) -> Array:
        convolved = super().shape(x.shape, weight.shape, None if bias is None else bias.shape)
        sigmoids, y = empty(convolved, x), empty(self.pooling.shape(convolved), x)
        where = (*self._geometry(), *self._bounds(convolved, device_of(x)))
        conv2d_sigmoid_average_pool_forward(x, weight, bias, sigmoids, y, *where)
        self.save(x if self.needs[1] else None, weight if self.needs[0] else None, sigmoids)
        return y

    def backward(self, dy: Array) -> Gradients:
        x, weight, sigmoids = self.saved
        gradients = tuple(
            empty(shape, dy) if needed else None
            for shape, needed in zip(self.input_shapes, self.needs, strict=True)
        )
        dx, dweight, dbias = (*gradients, None)[:3]
        if dx is None and dweight is None:  # A bias alone has no use for the convolution.
            return (None, None, self.pooling.gradient(dy, sigmoids).sum(axis=(0, 2, 3)))
        where = (*self._geometry(), *self._bounds(sigmoids.shape, device_of(dy)))
        conv2d_sigmoid_average_pool_backward(dy, sigmoids, x, weight, dx, dweight, dbias, *where)
        return gradients

    def _bounds(self, convolved: Shape, device: str) -> tuple[Array, Array]:
        return bounds_arrays(self.pooling.bounds(convolved, self.pooling.count_include_pad), device)


def conv2d_sigmoid_avg_pool2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = 1,
    padding: PaddingLike = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    *,
    kernel_size: IntOrPair,
    pool_stride: IntOrPair | None = None,
    pool_padding: PaddingLike = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """avg_pool2d(sigmoid(conv2d(...))) in one; see Conv2dSigmoidAvgPool2dOp."""
    inputs = [as_tensor(x), as_tensor(weight)] + ([] if bias is None else [as_tensor(bias)])
    op = Conv2dSigmoidAvgPool2dOp(
        stride,
        padding,
        dilation,
        groups,
        kernel_size=kernel_size,
        pool_stride=pool_stride,
        pool_padding=pool_padding,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
    )
    return op(*inputs)
