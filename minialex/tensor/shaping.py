"""Reshape and transpose: the same elements under another shape."""

from __future__ import annotations

from minialex.backend import Array
from minialex.cost import Cost
from minialex.shapes import Shape, ShapeError, as_int, normalize_axis, numel
from minialex.tensor.graph import Gradients, Op


class ReshapeOp(Op):
    """The same elements, in row-major order, under another shape.

    Shapes: x any -> `shape`; one extent may be -1, which is worked out.
    Raises: ShapeError if the number of elements differs.
    """

    takes_integers = True
    is_view = True

    def __init__(self, shape: Shape) -> None:
        self.new_shape = shape

    def shape(self, x: Shape) -> Shape:
        new = tuple(as_int(extent, "reshape: extent") for extent in self.new_shape)
        known = numel([extent for extent in new if extent != -1])
        if new.count(-1) == 1 and known > 0 and numel(x) % known == 0:
            new = tuple(numel(x) // known if extent == -1 else extent for extent in new)
        if min(new, default=0) < 0 or numel(new) != numel(x):
            raise ShapeError(
                f"reshape: x of shape {x} has {numel(x)} elements, which do not fill {self.new_shape}"
            )
        return new

    def cost(self, x: Shape, itemsize: int = 4) -> Cost:
        return Cost(0, 0)

    def forward(self, x: Array) -> Array:
        return x.reshape(self.shape(x.shape))

    def backward(self, dy: Array) -> Gradients:
        return (dy.reshape(self.input_shapes[0]),)


class TransposeOp(Op):
    """Permute the axes: y has axis axes[i] of x at place i; None reverses them all.

    Shapes: x (d0, d1, ...) -> y (d[axes[0]], d[axes[1]], ...).
    Raises: ShapeError if `axes` is not a permutation of x's axes.
    """

    takes_integers = True
    is_view = True

    def __init__(self, axes: tuple[int, ...] | None = None) -> None:
        self.axes = axes

    def _permutation(self, ndim: int) -> tuple[int, ...]:
        if self.axes is None:
            return tuple(reversed(range(ndim)))
        axes = tuple(normalize_axis(axis, ndim, "transpose") for axis in self.axes)
        if sorted(axes) != list(range(ndim)):
            raise ShapeError(f"transpose: axes {self.axes} are not a permutation of the {ndim} axes of x")
        return axes

    def shape(self, x: Shape) -> Shape:
        return tuple(x[axis] for axis in self._permutation(len(x)))

    def cost(self, x: Shape, itemsize: int = 4) -> Cost:
        return Cost(0, 0)

    def forward(self, x: Array) -> Array:
        return x.transpose(self._permutation(x.ndim))

    def backward(self, dy: Array) -> Gradients:
        axes = self._permutation(dy.ndim)
        inverse = tuple(axes.index(i) for i in range(dy.ndim))
        return (dy.transpose(inverse),)
