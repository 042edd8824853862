"""The fully connected layer's operation."""

from __future__ import annotations

from minialex.backend import Array, matmul
from minialex.cost import Cost
from minialex.shapes import Shape, ShapeError, numel, require_ndim
from minialex.tensor import Gradients, Op, Tensor, as_tensor


class LinearOp(Op):
    """A matrix product with the weights and a bias: y = x @ weight.T + bias.

        dx = dy @ weight,  dweight = dy.T @ x,  dbias = sum of dy over the images

    Shapes: x (..., K), weight (F, K), bias (F,) or absent -> y (..., F).
    Raises: ShapeError if K or F differ.
    """

    def shape(self, x: Shape, weight: Shape, bias: Shape | None = None) -> Shape:
        require_ndim("linear", "weight", weight, 2, "(F, K)")
        if not x or x[-1] != weight[1]:
            K = x[-1] if x else "no axis"
            raise ShapeError(f"linear: x has K={K} but weight expects K={weight[1]}; x {x}, weight {weight}")
        if bias is not None and bias != weight[:1]:
            raise ShapeError(f"linear: bias has shape {bias}, expected ({weight[0]},) for F={weight[0]}")
        return (*x[:-1], weight[0])

    def cost(self, x: Shape, weight: Shape, bias: Shape | None = None, itemsize: int = 4) -> Cost:
        y = self.shape(x, weight, bias)
        return Cost.of(2 * numel(y) * weight[1], x, weight, bias or (0,), y, itemsize=itemsize)

    def forward(self, x: Array, weight: Array, bias: Array | None = None) -> Array:
        self.save(x if self.needs[1] else None, weight if self.needs[0] else None)
        y = matmul(x, weight.T)
        if bias is not None:
            y += bias
        return y

    def backward(self, dy: Array) -> Gradients:
        x, weight = self.saved
        F, K = self.input_shapes[1]
        rows = dy.reshape(-1, F)
        dx = matmul(rows, weight).reshape(self.input_shapes[0]) if self.needs[0] else None
        dweight = matmul(rows.T, x.reshape(-1, K)) if self.needs[1] else None
        if len(self.needs) < 3:
            return dx, dweight
        return dx, dweight, rows.sum(axis=0) if self.needs[2] else None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., K) times weight (F, K) transposed, plus bias (F,); see LinearOp."""
    inputs = [as_tensor(x), as_tensor(weight)] + ([] if bias is None else [as_tensor(bias)])
    return LinearOp()(*inputs)
