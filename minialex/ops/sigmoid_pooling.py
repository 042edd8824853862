"""Sigmoid and average pooling in one."""

from __future__ import annotations

from minialex.backend import Array, device_of, empty
from minialex.cost import Cost
from minialex.kernels.sigmoid_pooling import sigmoid_average_pool_backward, sigmoid_average_pool_forward
from minialex.ops.activations import SigmoidOp
from minialex.ops.pooling import AvgPool2dOp, bounds_arrays
from minialex.shapes import IntOrPair, PaddingLike, Shape
from minialex.tensor import Gradients, Tensor, as_tensor


class SigmoidAvgPool2dOp(AvgPool2dOp):
    """avg_pool2d(sigmoid(x)): what follows a convolution of LeNet.

    Kept for backward are the sigmoids. The gradient of the pooling never exists whole. The bits are those of
    the two ops.

    Shapes, Args, Raises: as avg_pool2d.
    Source: LeCun, Bottou, Bengio, Haffner 1998.
    """

    def cost(self, x: Shape, itemsize: int = 4) -> Cost:
        return super().cost(x, itemsize) + Cost(SigmoidOp().cost(x).flops, 0)

    def forward(self, x: Array) -> Array:
        sigmoids, y = empty(x.shape, x), empty(self.shape(x.shape), x)
        bounds = bounds_arrays(self.bounds(x.shape, self.count_include_pad), device_of(x))
        sigmoid_average_pool_forward(x, sigmoids, y, *bounds)
        self.save(sigmoids)
        return y

    def backward(self, dy: Array) -> Gradients:
        return (self.gradient(dy, *self.saved),)

    def gradient(self, dy: Array, sigmoids: Array) -> Array:
        """The gradient of x."""
        dx = empty(sigmoids.shape, dy)
        bounds = bounds_arrays(self.bounds(sigmoids.shape, self.count_include_pad), device_of(dy))
        sigmoid_average_pool_backward(dy, sigmoids, dx, *bounds)
        return dx


def sigmoid_avg_pool2d(
    x: Tensor,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: PaddingLike = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """avg_pool2d(sigmoid(x)) in one; see SigmoidAvgPool2dOp."""
    return SigmoidAvgPool2dOp(kernel_size, stride, padding, ceil_mode, count_include_pad)(as_tensor(x))
