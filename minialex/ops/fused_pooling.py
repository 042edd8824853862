"""ReLU and max-pooling in one, with local response normalisation between them or without.

A picture before pooling is the largest thing that a network keeps: these read it once and keep less of it.
Each gives the values and the gradients of the ops that it stands for, one after another.
"""

from __future__ import annotations

from minialex.backend import Array, empty
from minialex.cost import Cost
from minialex.kernels.fused_pooling import relu_lrn_max_pool2d_backward, relu_lrn_max_pool2d_forward
from minialex.ops.normalization import LocalResponseNormOp
from minialex.ops.pooling import MaxPool2dOp
from minialex.shapes import IntOrPair, PaddingLike, Shape, numel
from minialex.tensor import Gradients, Tensor, as_tensor


class ReluMaxPool2dOp(MaxPool2dOp):
    """max_pool2d(relu(x)), kept for backward as one byte for each window.

        y[n, c, p, q] = max(0, max over i, j of x[n, c, p*SH - top + i, q*SW - left + j])

    The largest of what ReLU gives is ReLU of the largest. A window of which nothing is above zero sends its
    gradient nowhere; else it goes to the first of its largest pixels, as in max_pool2d. Neither x nor y is
    kept, and the output of ReLU never exists. The bits are those of the two ops.

    Shapes, Args, Raises: as max_pool2d. A NaN wins over every number.
    """

    rectify = True

    def cost(self, x: Shape, itemsize: int = 4) -> Cost:
        return super().cost(x, itemsize) + Cost(numel(self.shape(x)), 0)


class ReluLrnMaxPool2dOp(MaxPool2dOp):
    """max_pool2d(local_response_norm(relu(x))): the first and second layer of the 2012 network.

    Kept for backward are x and the winners, one byte for each window. The outputs of ReLU and of the
    normalisation never exist: backward works out anew what it needs of them. On the CPU the bits are those
    of the three ops.

    Shapes: x (N, C, H, W) -> y (N, C, OH, OW), as max_pool2d.
    Args, Raises: as local_response_norm and max_pool2d.
    Source: Krizhevsky, Sutskever, Hinton 2012, sections 3.1, 3.3, 3.4 and 3.5.
    """

    def __init__(
        self,
        size: int,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 1.0,
        *,
        dialect: str,
        kernel_size: IntOrPair,
        stride: IntOrPair | None = None,
        padding: PaddingLike = 0,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode)
        norm = self.normalisation = LocalResponseNormOp(size, alpha, beta, k, dialect=dialect)
        self._parameters = (
            (norm.lower, norm.upper, norm.alpha, norm.beta, norm.k),
            self.kernel_size,
            self.stride,
            self.padding,
        )

    def cost(self, x: Shape, itemsize: int = 4) -> Cost:
        between = numel(x) + self.normalisation.cost(x).flops
        return super().cost(x, itemsize) + Cost(between, 0)

    def forward(self, x: Array) -> Array:
        y, argmax = self.outputs(x)
        relu_lrn_max_pool2d_forward(x, y, argmax, *self._parameters)
        self.save(x, argmax)
        return y

    def backward(self, dy: Array) -> Gradients:
        x, argmax = self.saved
        dx = empty(x.shape, dy)
        relu_lrn_max_pool2d_backward(dy, argmax, x, dx, *self._parameters)
        return (dx,)


def relu_max_pool2d(
    x: Tensor,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: PaddingLike = 0,
    ceil_mode: bool = False,
) -> Tensor:
    """max_pool2d(relu(x)) in one; see ReluMaxPool2dOp."""
    return ReluMaxPool2dOp(kernel_size, stride, padding, ceil_mode)(as_tensor(x))


def relu_lrn_max_pool2d(
    x: Tensor,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    *,
    dialect: str,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: PaddingLike = 0,
    ceil_mode: bool = False,
) -> Tensor:
    """max_pool2d(local_response_norm(relu(x))) in one; see ReluLrnMaxPool2dOp."""
    op = ReluLrnMaxPool2dOp(
        size,
        alpha,
        beta,
        k,
        dialect=dialect,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        ceil_mode=ceil_mode,
    )
    return op(as_tensor(x))
