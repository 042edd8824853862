"""Joining arrays along an axis."""

from __future__ import annotations

from collections.abc import Sequence

from minialex.backend import Array, array_module
from minialex.cost import Cost
from minialex.shapes import Shape, ShapeError, normalize_axis
from minialex.tensor import Gradients, Op, Tensor, as_tensor


class ConcatenateOp(Op):
    """Arrays end to end along an axis; the gradient is cut at the same places.

    Shapes: (..., A, ...), (..., B, ...), ... -> (..., A + B + ..., ...).
    Args:   axis: the axis along which extents may differ.
    Raises: ShapeError if there is no array, or another extent differs.
    """

    takes_integers = True

    def __init__(self, axis: int = 0) -> None:
        self.axis = axis

    def shape(self, *shapes: Shape) -> Shape:
        if not shapes:
            raise ShapeError("concatenate: there is nothing to join")
        axis = normalize_axis(self.axis, len(shapes[0]), "concatenate")
        for number, shape in enumerate(shapes):
            if len(shape) != len(shapes[0]) or any(
                i != axis and a != b for i, (a, b) in enumerate(zip(shape, shapes[0], strict=True))
            ):
                raise ShapeError(
                    f"concatenate: array {number} has shape {shape}, which does not fit {shapes[0]} "
                    f"along axis {axis}"
                )
        total = sum(shape[axis] for shape in shapes)
        return (*shapes[0][:axis], total, *shapes[0][axis + 1 :])

    def cost(self, *shapes: Shape, itemsize: int = 4) -> Cost:
        return Cost.of(0, *shapes, self.shape(*shapes), itemsize=itemsize)

    def forward(self, *arrays: Array) -> Array:
        return array_module(arrays[0]).concatenate(arrays, axis=self.axis)

    def backward(self, dy: Array) -> Gradients:
        axis = normalize_axis(self.axis, dy.ndim, "concatenate")
        gradients, start = [], 0
        for shape, need in zip(self.input_shapes, self.needs, strict=True):
            part = (*(slice(None),) * axis, slice(start, start + shape[axis]))
            gradients.append(dy[part] if need else None)
            start += shape[axis]
        return tuple(gradients)


def concatenate(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Join tensors along `axis`; see ConcatenateOp."""
    if not tensors:
        raise ShapeError("concatenate: there is nothing to join")
    return ConcatenateOp(axis)(*(as_tensor(t) for t in tensors))
