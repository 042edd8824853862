"""Slopes of <fn, v> by differences: along one element, from both sides, and along random directions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minialex.gradient_check.comparison import Comparison
from minialex.gradient_check.experiment import Experiment
from minialex.gradient_check.settings import Float64Array, Settings, index_text
from minialex.rng import Stream
from minialex.tensor import Event

# Half the distance between neighbouring floats near 1, for each of the few roundings of one output.
ROUNDING_UNIT = 4 * 2.0**-53


@dataclass(frozen=True)
class Slope:
    """The slope of <fn, v> along one element, measured with one step.

    Each output j has a slope on the right, r[j], and one on the left, l[j]. Where fn is smooth they agree. At
    a kink they do not, and backward may choose for each output anything between the two:

        low = sum over j of min(v[j]*l[j], v[j]*r[j])  <=  gradient  <=  high = the same with max

    One pair of slopes of the sum would not do: with v of both signs, two windows of a max-pool that tie in
    the same pixel can cancel.

    Args: eps: the step; central: the usual (right + left) / 2; low, high: as above; rounding: a bound of
          what the rounding of the outputs alone does to these; moved: whether any output changed at all.
    """

    eps: float
    central: float
    low: float
    high: float
    rounding: float
    moved: bool

    @property
    def gap(self) -> float:
        """How far the two sides disagree, beyond rounding."""
        return max(self.high - self.low - self.rounding, 0.0)

    def contains(self, gradient: float, allowed: float) -> bool:
        """Whether it lies between the two sides, but for `allowed`."""
        return bool(self.low - allowed <= gradient <= self.high + allowed)


def step_text(experiment: Experiment, position: int, element: int, eps: float) -> str:
    """`a step of 1e-06 at x[0, 3]`."""
    argument = experiment.arguments[position]
    index = np.unravel_index(element, argument.array.shape)
    return f"a step of {eps:g} at {argument.name}{index_text(index)}"


def two_sides(
    experiment: Experiment,
    position: int,
    element: int,
    eps: float,
    observer: Callable[[Event], None] | None = None,
) -> tuple[Float64Array, Float64Array, float, float]:
    """fn's values at x + eps and x - eps in one element, and how far float64 really stepped up and down.

    Beside a value so large that it swallows eps, the step is eps times the value.
    """
    where = step_text(experiment, position, element, eps)
    with experiment.spare(position) as shifted:
        flat = shifted.flat  # In row-major order, whatever the order in memory.
        value = flat[element]
        if value + eps == value or value - eps == value:
            eps *= abs(value)
        outputs, places = [], []
        for place in (value + eps, value - eps):
            flat[element] = place
            outputs.append(experiment.values(position, shifted, where, observer))
            places.append(flat[element])
            flat[element] = value
    return outputs[0], outputs[1], float(places[0] - value), float(value - places[1])


def central_slope(experiment: Experiment, position: int, element: int) -> float:
    """d<fn, v> / dx[element] by one central difference with the experiment's step."""
    above, below, up, down = two_sides(experiment, position, element, experiment.settings.eps)
    # Differences first, so that large outputs do not swallow a small change.
    return float(((above - below) * experiment.cotangent).sum() / (up + down))


def measure(experiment: Experiment, position: int, element: int, eps: float) -> Slope:
    """The slope along one element with a step of eps, and from each side."""
    above, below, up, down = two_sides(experiment, position, element, eps)
    return slope_of(experiment, above, below, up, down)


def slope_of(
    experiment: Experiment, above: Float64Array, below: Float64Array, up: float, down: float
) -> Slope:
    """The slope from fn's values `above` by a step `up`, and `below` by a step `down`."""
    eps = (up + down) / 2
    if up <= 0 or down <= 0:  # The step is lost beside a large value.
        return Slope(eps, np.nan, np.nan, np.nan, np.inf, False)
    v, here = experiment.cotangent, experiment.output
    right, left = v * ((above - here) / up), v * ((here - below) / down)
    size = float((np.abs(v) * np.maximum(np.abs(above), np.abs(below))).sum())
    return Slope(
        eps=eps,
        central=float(((above - below) * v).sum() / (up + down)),
        low=float(np.minimum(right, left).sum()),
        high=float(np.maximum(right, left).sum()),
        rounding=ROUNDING_UNIT * size / min(up, down),
        moved=not np.array_equal(above, below),
    )


def output_rounding(experiment: Experiment) -> float:
    """A bound of what the rounding of the outputs does to <fn, v>."""
    return ROUNDING_UNIT * float((np.abs(experiment.cotangent) * np.abs(experiment.output)).sum())


def compare_elements(experiment: Experiment, position: int) -> Comparison:
    """Both gradients of one argument, for all of its elements or a random sample of them."""
    argument = experiment.arguments[position]
    elements = chosen_elements(argument.array.size, position, experiment.settings)
    numeric = np.array([central_slope(experiment, position, int(e)) for e in elements], dtype=np.float64)
    analytic = experiment.gradients[position].reshape(-1)[elements]
    return Comparison(argument.name, argument.array.shape, elements, analytic, numeric)


def chosen_elements(size: int, position: int, settings: Settings) -> npt.NDArray[np.int64]:
    """Which elements to look at: all of them, or a random choice of max_elements."""
    if settings.max_elements is None or size <= settings.max_elements:
        return np.arange(size, dtype=np.int64)
    stream = Stream(settings.seed, "gradcheck", item=1 + position)
    if size <= 16 * settings.max_elements:
        return np.sort(stream.permutation(size)[: settings.max_elements])
    # Of very many, draw until enough different ones were met; a permutation would be larger than the input.
    drawn: dict[int, None] = {}
    while len(drawn) < settings.max_elements:
        drawn |= dict.fromkeys(int(e) for e in stream.integers(0, size, shape=(settings.max_elements,)))
    return np.sort(np.array(list(drawn)[: settings.max_elements], dtype=np.int64))


# ------------------------------------------------------------------------------------- random directions


def signs(shape: tuple[int, ...], seed: int, number: int) -> npt.NDArray[np.int8]:
    """A direction of +1 and -1, at random: every element is moved by the same step."""
    count = int(np.prod(shape, dtype=np.int64))
    words = Stream(seed, "gradcheck", step=1, item=number).bits(-(-count // 32))
    result = np.unpackbits(words.view(np.uint8), count=count).view(np.int8)
    result *= 2
    result -= 1
    return result.reshape(shape)


def inner(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """<a, b>, a slice of the first axis at a time, so that no array of their products is made."""
    return float(np.einsum("i,i->", a.reshape(-1), b.reshape(-1), dtype=np.float64, casting="unsafe"))
