"""x[...]: slices, numbers, None, ..., and integer or boolean arrays, as NumPy reads them."""

from __future__ import annotations

from typing import Any

import numpy as np

from minialex.backend import Array, array_module
from minialex.cost import Cost
from minialex.shapes import Shape, ShapeError
from minialex.tensor.graph import Gradients, Op


class IndexOp(Op):
    """Pick elements: y = x[index]; the gradient goes back to where each element came from.

    Shapes: x any -> y as NumPy's indexing gives it. An element picked twice gets both gradients.
    Args:   index: whatever NumPy takes between the brackets.
    Raises: ShapeError if the index does not fit x.
    """

    takes_integers = True
    is_view = True

    def __init__(self, index: Any) -> None:
        # Index arrays are copied: backward needs what they said when the elements were picked.
        self.index = tuple(map(_copied, index)) if isinstance(index, tuple) else _copied(index)

    def shape(self, x: Shape) -> Shape:
        try:
            # A broadcast scalar has any shape at no memory, so indexing it shows the output's shape.
            return tuple(np.broadcast_to(np.empty((), dtype=np.bool_), x)[_on_host(self.index)].shape)
        except IndexError as error:
            raise ShapeError(f"index: {error}; x has shape {x}") from None

    def cost(self, x: Shape, itemsize: int = 4) -> Cost:
        y = self.shape(x)
        return Cost.of(0, y, y, itemsize=itemsize)

    def forward(self, x: Array) -> Array:
        self.save(*(part for part in _parts(self.index) if hasattr(part, "nbytes")))
        return x[self.index]

    def backward(self, dy: Array) -> Gradients:
        xp = array_module(dy)
        dx = xp.zeros(self.input_shapes[0], dtype=dy.dtype)
        if _is_basic(self.index):
            dx[self.index] = dy  # No element comes twice.
        else:
            xp.add.at(dx, self.index, dy)
        return (dx,)


def _parts(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


def _copied(part: Any) -> Any:
    return part.copy() if hasattr(part, "copy") else part


def _is_basic(index: Any) -> bool:
    basic = (int, np.integer, slice, type(None), type(...))
    return all(isinstance(part, basic) and not isinstance(part, bool) for part in _parts(index))


def _on_host(index: Any) -> Any:
    parts = tuple(part.get() if hasattr(part, "get") else part for part in _parts(index))
    return parts if isinstance(index, tuple) else parts[0]
