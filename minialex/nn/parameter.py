"""Parameter: a Tensor that a model learns."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from minialex.tensor import Tensor

__all__ = ["Parameter"]


class Parameter(Tensor):
    """A Tensor that a Module counts among its weights. It requires a gradient unless told otherwise.

    Args:   data: an array, a Tensor, a number or nested lists; copied.
            requires_grad: False for a weight that is kept but not learned; dtype: the element type.
    Raises: DTypeError if the values are integers and a gradient is wanted.
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True, dtype: npt.DTypeLike | None = None) -> None:
        super().__init__(data, requires_grad=requires_grad, dtype=dtype)

    def __repr__(self) -> str:
        return f"Parameter {super().__repr__()}"
