"""Numbers that count what is done to them, so that plain loops say themselves what they cost."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["Counted", "Tally", "count_flops"]


class Tally:
    """Where the numbers of one run count: `flops`, by the convention of cost.py."""

    def __init__(self) -> None:
        self.flops = 0


class Counted:
    """A float that adds 1 to its tally for every + - * / **, negation, ordering, exp, log, sqrt and tanh.

    Put into an array of dtype object, it goes through any loop over scalars: np.exp(number) calls
    number.exp(). Equality is free: loops ask it of labels and of NaN, which is no arithmetic.
    It has no __float__ on purpose: a loop that rounds it into another array stops counting, and says so.
    """

    __slots__ = ("tally", "value")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: float, tally: Tally) -> None:
        self.value, self.tally = value, tally

    def __repr__(self) -> str:
        return f"Counted({self.value})"

    def _count(self, function: Callable[..., Any], *operands: Any) -> Any:
        self.tally.flops += 1
        result = function(*(o.value if isinstance(o, Counted) else o for o in operands))
        return result if isinstance(result, (bool, np.bool_)) else Counted(float(result), self.tally)

    def __add__(self, other: Any) -> Any:
        return self._count(operator.add, self, other)

    def __radd__(self, other: Any) -> Any:
        return self._count(operator.add, other, self)

    def __sub__(self, other: Any) -> Any:
        return self._count(operator.sub, self, other)

    def __rsub__(self, other: Any) -> Any:
        return self._count(operator.sub, other, self)

    def __mul__(self, other: Any) -> Any:
        return self._count(operator.mul, self, other)

    def __rmul__(self, other: Any) -> Any:
        return self._count(operator.mul, other, self)

    def __truediv__(self, other: Any) -> Any:
        return self._count(operator.truediv, self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self._count(operator.truediv, other, self)

    def __pow__(self, other: Any) -> Any:
        return self._count(operator.pow, self, other)

    def __rpow__(self, other: Any) -> Any:
        return self._count(operator.pow, other, self)

    def __neg__(self) -> Any:
        return self._count(operator.neg, self)

    def __lt__(self, other: Any) -> Any:
        return self._count(operator.lt, self, other)

    def __le__(self, other: Any) -> Any:
        return self._count(operator.le, self, other)

    def __gt__(self, other: Any) -> Any:
        return self._count(operator.gt, self, other)

    def __ge__(self, other: Any) -> Any:
        return self._count(operator.ge, self, other)

    def __eq__(self, other: object) -> bool:
        return bool(self.value == (other.value if isinstance(other, Counted) else other))

    def exp(self) -> Any:
        return self._count(math.exp, self)

    def log(self) -> Any:
        return self._count(math.log, self)

    def sqrt(self) -> Any:
        return self._count(math.sqrt, self)

    def tanh(self) -> Any:
        return self._count(math.tanh, self)


def count_flops(loops: Callable[..., Any], *arrays: Any, **params: Any) -> int:
    """The floating-point operations that plain loops do on these arrays.

    Args: loops: a function of arrays (floating ones become arrays of Counted) and of `params`.
    """
    tally = Tally()
    loops(*(_counted(array, tally) for array in arrays), **params)
    return tally.flops


def _counted(array: Any, tally: Tally) -> Any:
    if array.dtype.kind != "f":
        return array
    counted = np.empty(array.shape, dtype=object)
    for index in np.ndindex(array.shape):
        counted[index] = Counted(float(array[index]), tally)
    return counted
