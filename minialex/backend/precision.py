"""How exactly matrix products are computed on a GPU.

| name | factors are rounded to | significant bits | sums |
|---|---|---|---|
| fp32 | not at all | 24 | float32 |
| tf32 | TF32, inside the tensor cores | 11 | float32 |
| bf16 | bfloat16, before the product | 8 | float32 |

Everything else (weights, gradients, statistics, updates) stays in float32, and float64 arrays ignore the
setting. The CPU computes in fp32 only; the emulated device rounds as a GPU does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from minialex.errors import UsageError

__all__ = ["PRECISIONS", "current_precision", "round_to_precision", "use_precision"]

# Bits that are kept of a float32's 24, the hidden one among them.
PRECISIONS = {"fp32": 24, "tf32": 11, "bf16": 8}

_precision: ContextVar[str] = ContextVar("minialex_precision", default="fp32")


@contextmanager
def use_precision(name: str) -> Iterator[None]:
    """Inside, matrix products of float32 arrays on a GPU are computed in "fp32", "tf32" or "bf16".

    A backward pass goes by what holds when it runs: put both passes inside. On the CPU it changes nothing.
    Raises: UsageError for another name.
    """
    if name not in PRECISIONS:
        raise UsageError(f"unknown precision {name!r}: expected one of {', '.join(PRECISIONS)}")
    token = _precision.set(name)
    try:
        yield
    finally:
        _precision.reset(token)


def current_precision() -> str:
    """What the innermost `use_precision` says; "fp32" outside."""
    return _precision.get()


def round_to_precision(array: Any, precision: str) -> Any:
    """The array with float32 values rounded to nearest, ties to even, as `precision` keeps them.

    NaN and infinities stay, and what rounds beyond the largest float32 becomes infinite. float64 is returned
    as it is. Shapes: any -> the same.
    """
    dropped = PRECISIONS["fp32"] - PRECISIONS[precision]
    if dropped == 0 or array.dtype != np.float32:
        return array
    bits = np.ascontiguousarray(array).view(np.uint32)
    # Half of the last kept bit, less one, plus the last kept bit: a tie goes to the even neighbour.
    half = np.uint32((1 << (dropped - 1)) - 1)
    last = (bits >> np.uint32(dropped)) & np.uint32(1)
    rounded = (bits + half + last) & np.uint32(0xFFFFFFFF << dropped & 0xFFFFFFFF)
    # A NaN's payload may lie in the dropped bits alone, and the carry could turn it into an infinity.
    return np.where(np.isnan(array), array, rounded.view(np.float32).reshape(array.shape))
