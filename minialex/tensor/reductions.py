"""Sum and mean over any axes."""

from __future__ import annotations

from collections.abc import Sequence

from minialex.backend import Array, array_module
from minialex.cost import Cost
from minialex.shapes import Shape, ShapeError, normalize_axes, numel, reduced_shape
from minialex.tensor.graph import Gradients, Op


class SumOp(Op):
    """Sum over axes; every summed element gets the whole gradient.

    Shapes: x any -> x without `axis`, or with extent 1 there if `keepdims`.
    Args:   axis: None for all, a number, or several; keepdims: keep summed axes with extent 1.
    Raises: ShapeError if an axis is out of range or comes twice.
    """

    takes_integers = True

    def __init__(self, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> None:
        self.axis, self.keepdims = axis, keepdims

    def shape(self, x: Shape) -> Shape:
        return reduced_shape(x, normalize_axes(self.axis, len(x), self.name), self.keepdims)

    def cost(self, x: Shape, itemsize: int = 4) -> Cost:
        return Cost.of(numel(x), x, self.shape(x), itemsize=itemsize)

    def forward(self, x: Array) -> Array:
        axes = normalize_axes(self.axis, x.ndim, self.name)
        return x.sum(axis=axes, keepdims=self.keepdims)

    def backward(self, dy: Array) -> Gradients:
        return (spread(dy, self.input_shapes[0], self.axis, self.name),)


class MeanOp(SumOp):
    """Mean over axes: the sum divided by the number of elements summed.

    Shapes, Args: as SumOp.
    Raises: ShapeError as SumOp, and for the mean of no elements.
    """

    takes_integers = False

    def _count(self, x: Shape) -> int:
        return numel([x[axis] for axis in normalize_axes(self.axis, len(x), self.name)])

    def shape(self, x: Shape) -> Shape:
        if self._count(x) == 0:
            raise ShapeError(f"mean: there is no element to average along axis {self.axis} of shape {x}")
        return super().shape(x)

    def cost(self, x: Shape, itemsize: int = 4) -> Cost:
        y = self.shape(x)
        return Cost.of(numel(x) + numel(y), x, y, itemsize=itemsize)

    def forward(self, x: Array) -> Array:
        return super().forward(x) / x.dtype.type(self._count(x.shape))

    def backward(self, dy: Array) -> Gradients:
        shape = self.input_shapes[0]
        return (spread(dy / dy.dtype.type(self._count(shape)), shape, self.axis, self.name),)


def spread(dy: Array, shape: Shape, axis: int | Sequence[int] | None, operation: str) -> Array:
    """dy repeated along the axes that a reduction took from an array of `shape` (a view, read-only)."""
    axes = normalize_axes(axis, len(shape), operation)
    return array_module(dy).broadcast_to(dy.reshape(reduced_shape(shape, axes, keepdims=True)), shape)
