"""Comparison: both gradients of one input, side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from minialex.gradient_check.settings import ROUNDING, Float64Array
from minialex.shapes import Shape, numel


@dataclass(frozen=True)
class Comparison:
    """The gradient of one input: by backward, and by differences.

    Args: name, shape: of the input; elements: the K positions compared, counted in row-major order;
          analytic, numeric: their K gradients.
    """

    name: str
    shape: Shape
    elements: npt.NDArray[np.int64]
    analytic: Float64Array
    numeric: Float64Array

    @property
    def error(self) -> Float64Array:
        """|analytic - numeric|, an element."""
        with np.errstate(invalid="ignore"):
            return np.asarray(np.abs(self.analytic - self.numeric))

    @property
    def relative_error(self) -> float:
        """||analytic - numeric|| / ||numeric||; the plain norm where the gradient is zero, up to rounding."""
        return relative_norm(self.analytic, self.numeric)

    def tolerance(self, atol: float, rtol: float) -> Float64Array:
        """The error allowed to each element: atol + rtol * |numeric|."""
        return np.asarray(atol + rtol * np.abs(self.numeric))

    def wrong(self, atol: float, rtol: float) -> npt.NDArray[np.bool_]:
        """Which elements differ by more than their tolerance; NaN differs from everything."""
        return ~(self.error <= self.tolerance(atol, rtol))

    def index(self, row: int) -> tuple[int, ...]:
        """The index in the input of the row-th element compared."""
        return tuple(int(i) for i in np.unravel_index(int(self.elements[row]), self.shape))

    def full(self, values: Float64Array) -> Float64Array:
        """K values at their places in an array of the input's shape, NaN where nothing was compared."""
        everywhere = np.full(numel(self.shape), np.nan)
        everywhere[self.elements] = values
        return everywhere.reshape(self.shape)


def relative_norm(analytic: Float64Array, numeric: Float64Array, rounding: float = ROUNDING) -> float:
    """||analytic - numeric|| / ||numeric||; the plain norm where ||numeric|| is zero, up to `rounding`."""
    with np.errstate(invalid="ignore"):
        difference = analytic - numeric
    # In units of the largest number, whose square may be too large for a float.
    unit = float(np.abs(numeric).max(initial=0.0))
    if not 1e100 < unit < np.inf:
        unit = 1.0
    norm, off = float(np.linalg.norm(numeric / unit)), float(np.linalg.norm(difference / unit))
    return off / norm if norm * unit > rounding else off
