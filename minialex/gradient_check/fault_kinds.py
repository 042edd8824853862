"""What the detectors of faults share: a fault, what may be known beforehand, and how numbers are told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from minialex.shapes import Padding, Pair, Shape

__all__ = ["Fault", "Float64Array", "Hints", "Mask", "distance", "number", "places", "plural"]

Float64Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Fault:
    """What is likely wrong.

    Args: kind: one of faults.KINDS; text: a sentence with the numbers; confidence: from 0 to 1.
    """

    kind: str
    text: str
    confidence: float


@dataclass(frozen=True, eq=False)
class Hints:
    """What is known about the function that an input's gradient is of; all of it may be left out.

    Args: axes: letters of the input's axes, ("N", "C", "H", "W"); window, stride, padding, dilation: of the
          op, in pixels, if it slides windows over this input, and windows: how many fit, (OH, OW);
          ones, second: the analytic gradient for a dy of ones, and for a second random dy;
          coarse: the numeric gradient with a step so long that float32 would do;
          output_shape: of the function; jacobians: (outputs, elements) by backward and by differences, both
          flattened in row-major order; arrays: by name, with the input's shape, what a factor may be made
          of: the input itself, the others, the output; everywhere: the analytic gradient, also where nothing
          was compared.
    """

    axes: tuple[str, ...] = ()
    window: Pair | None = None
    stride: Pair = (1, 1)
    padding: Padding = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    windows: Pair | None = None
    ones: Float64Array | None = None
    second: Float64Array | None = None
    coarse: Float64Array | None = None
    output_shape: Shape | None = None
    jacobians: tuple[Float64Array, Float64Array] | None = None
    arrays: Mapping[str, Float64Array] = field(default_factory=dict)
    everywhere: Float64Array | None = None

    def letters(self, ndim: int) -> tuple[str, ...]:
        """What each axis is called: its letter, or `axis 2` where there are no letters."""
        return self.axes if len(self.axes) == ndim else tuple(f"axis {i}" for i in range(ndim))


WORDS = {
    "N": ("image", "images"),
    "C": ("channel", "channels"),
    "F": ("filter", "filters"),
    "H": ("row", "rows"),
    "W": ("column", "columns"),
    "KH": ("kernel row", "kernel rows"),
    "KW": ("kernel column", "kernel columns"),
}


def places(name: str, which: str, count: int = 1) -> str:
    """`channel 2 of 4`, `channels 1, 3 of 4`, `places 1, 3 of 4 along axis 0`."""
    if name in WORDS:
        return f"{WORDS[name][count != 1]} {which}"
    return f"{'place' if count == 1 else 'places'} {which} along {name}"


def distance(name: str, step: int) -> str:
    """`1 row down`, `2 channels back`, `3 places forward along axis 0`."""
    forward, back = {"H": ("down", "up"), "W": ("right", "left")}.get(name[-1:], ("forward", "back"))
    way = forward if step > 0 else back
    if name in WORDS:
        return f"{abs(step)} {WORDS[name][abs(step) != 1]} {way}"
    return f"{plural(abs(step), 'place')} {way} along {name}"


def number(value: float) -> str:
    """Four digits, without an exponent where that is readable."""
    return f"{float(value):.4g}"


def plural(count: int, noun: str) -> str:
    """`1 element`, `3 elements`."""
    return f"{count} {noun}" + ("" if count == 1 else "s")
