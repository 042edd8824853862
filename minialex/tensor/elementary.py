"""Exponential and logarithm, element by element."""

from __future__ import annotations

from minialex.backend import Array, array_module
from minialex.cost import Cost
from minialex.shapes import Shape, numel
from minialex.tensor.graph import Gradients, Op


class ExpOp(Op):
    """Exponential: y = e**x; dx = dy * y.

    Shapes: any -> the same.
    """

    def shape(self, x: Shape) -> Shape:
        return x

    def cost(self, x: Shape, itemsize: int = 4) -> Cost:
        return Cost.of(numel(x), x, x, itemsize=itemsize)

    def forward(self, x: Array) -> Array:
        y = array_module(x).exp(x)
        self.save(y)
        return y

    def backward(self, dy: Array) -> Gradients:
        (y,) = self.saved
        return (dy * y,)


class LogOp(Op):
    """Natural logarithm: y = log(x); dx = dy / x. Zero gives minus infinity, a negative x NaN.

    Shapes: any -> the same.
    """

    def shape(self, x: Shape) -> Shape:
        return x

    def cost(self, x: Shape, itemsize: int = 4) -> Cost:
        return Cost.of(numel(x), x, x, itemsize=itemsize)

    def forward(self, x: Array) -> Array:
        self.save(x)
        return array_module(x).log(x)

    def backward(self, dy: Array) -> Gradients:
        (x,) = self.saved
        return (dy / x,)
