"""x[...]: slices, numbers, None, ..., and integer or boolean arrays, as NumPy reads them."""

from __future__ import annotations

from typing import Any

import numpy as np

from minialex.backend import Array, array_module, device_of, is_array, to_device
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
        return x[_on_device(self.index, device_of(x))]

    def backward(self, dy: Array) -> Gradients:
        xp = array_module(dy)
        dx = xp.zeros(self.input_shapes[0], dtype=dy.dtype)
        if _is_basic(self.index):
            dx[self.index] = dy  # No element comes twice.
        elif device_of(dy) == "cpu":
            xp.add.at(dx, self.index, dy)
        else:
            _add_in_order(dx, _on_host(self.index), dy)
        return (dx,)


def _add_in_order(dx: Array, index: Any, dy: Array) -> None:
    """dx[index] += dy, where an element that was picked k times is added to k times, always in one order.

    What add.at does with atomic additions on a GPU, in whatever order its threads come. Here every element's
    first pick is one pass, every element's second the next: no two threads of a pass write to one place.
    """
    picked = np.arange(dx.size).reshape(dx.shape)[index].reshape(-1)
    order = np.argsort(picked, kind="stable")
    in_order = picked[order]
    first = np.searchsorted(in_order, in_order)  # Where the run of equal elements begins.
    passes = np.arange(len(order)) - first
    flat, values = dx.reshape(-1), dy.reshape(-1)
    for number in range(int(passes.max(initial=-1)) + 1):
        chosen = passes == number
        places, picks = (to_device(part[chosen], device_of(dx)) for part in (in_order, order))
        flat[places] += values[picks]


def _parts(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


def _copied(part: Any) -> Any:
    return part.copy() if hasattr(part, "copy") else part


def _is_basic(index: Any) -> bool:
    basic = (int, np.integer, slice, type(None), type(...))
    return all(isinstance(part, basic) and not isinstance(part, bool) for part in _parts(index))


def _on_device(index: Any, device: str) -> Any:
    """The index with its arrays where the picked array is."""
    parts = tuple(to_device(part, device) if is_array(part) else part for part in _parts(index))
    return parts if isinstance(index, tuple) else parts[0]


def _on_host(index: Any) -> Any:
    parts = tuple(part.get() if hasattr(part, "get") else part for part in _parts(index))
    return parts if isinstance(index, tuple) else parts[0]
