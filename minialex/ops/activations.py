"""ReLU, sigmoid and tanh."""

from __future__ import annotations

from typing import ClassVar

from minialex.backend import Array, Kernel, empty
from minialex.cost import Cost
from minialex.kernels.activations import (
    relu_backward,
    relu_forward,
    sigmoid_backward,
    sigmoid_forward,
    tanh_backward,
    tanh_forward,
)
from minialex.shapes import Shape, numel
from minialex.tensor import Gradients, Op, Tensor, as_tensor


class _ActivationOp(Op):
    """What the activations share: kernels that see a flat array, and a gradient made from the output."""

    kernels: ClassVar[tuple[Kernel, Kernel]]
    flops_per_element: ClassVar[int] = 1

    def shape(self, x: Shape) -> Shape:
        return x

    def cost(self, x: Shape, itemsize: int = 4) -> Cost:
        return Cost.of(self.flops_per_element * numel(x), x, x, itemsize=itemsize)

    def forward(self, x: Array) -> Array:
        y = empty(x.shape, x)
        self.kernels[0](x.reshape(-1), y.reshape(-1))
        self.save(y)
        return y

    def backward(self, dy: Array) -> Gradients:
        (y,) = self.saved
        dx = empty(dy.shape, dy)
        self.kernels[1](dy.reshape(-1), y.reshape(-1), dx.reshape(-1))
        return (dx,)


class ReluOp(_ActivationOp):
    """Rectified linear unit: y = max(x, 0); dx = dy where y > 0, else 0 (0 at the kink, too).

    Shapes: any -> the same. NaN stays NaN.
    Source: Nair, Hinton 2010; Krizhevsky, Sutskever, Hinton 2012, section 3.1.
    """

    kernels = (relu_forward, relu_backward)


class SigmoidOp(_ActivationOp):
    """Logistic function: y = 1 / (1 + exp(-x)); dx = dy * y * (1 - y).

    Shapes: any -> the same.
    """

    kernels = (sigmoid_forward, sigmoid_backward)
    flops_per_element = 4


class TanhOp(_ActivationOp):
    """Hyperbolic tangent: y = tanh(x); dx = dy * (1 - y**2).

    Shapes: any -> the same.
    """

    kernels = (tanh_forward, tanh_backward)


def relu(x: Tensor) -> Tensor:
    """max(x, 0), element by element; see ReluOp."""
    return ReluOp()(as_tensor(x))


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), element by element; see SigmoidOp."""
    return SigmoidOp()(as_tensor(x))


def tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent, element by element; see TanhOp."""
    return TanhOp()(as_tensor(x))
