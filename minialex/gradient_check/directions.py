"""Random directions: one number that depends on every element of an input at once.

With u of +1 and -1 at random, the slope of <fn, v> along u is <gradient, u>, whatever the input's size: it
takes two evaluations where the elements one by one take two each. The mean of its square is the square of
the gradient's norm, so that a gradient that is wrong by a part of its norm is wrong by about that part along
nearly every u.

A network has kinks everywhere: a ReLU for each activation, a choice for each window of a max-pool. Near any
point a step crosses some of them, and how many falls with its length. So each direction is measured with
shorter and shorter steps, in units of the input's own size, until the slopes of every output on the left and
on the right agree: then no kink that matters lies in between. That test is fn's own, the analytic gradient
has no part in it. If no step is short enough (an activation that is exactly 0), the direction counts as not
compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from minialex.gradient_check.differences import Slope, inner, signs, slope_of
from minialex.gradient_check.experiment import Experiment
from minialex.gradient_check.report import DirectionReport

# Steps in units of `eps` and of the input's root mean square: from truncation to rounding.
LENGTHS = (10.0, 1.0, 0.1, 0.01)
# A step is short enough when what it may be wrong by is this part of what is allowed.
GOOD = 0.05


def compare_directions(experiment: Experiment, position: int) -> tuple[DirectionReport, ...]:
    """<gradient, u> beside the slope along u, for the experiment's number of random directions.

    None are taken where every element is compared by itself.
    """
    settings = experiment.settings
    array = experiment.arguments[position].array
    if settings.max_elements is None or array.size <= settings.max_elements:
        return ()
    gradient = experiment.gradients[position]
    scale = np.sqrt(inner(array, array) / array.size) or 1.0
    analytic: list[float] = []
    slopes: list[Slope] = []
    lengths: Sequence[float] = LENGTHS
    for number in range(settings.directions):
        u = signs(array.shape, settings.seed, position * settings.directions + number)
        slope = _best_slope(experiment, position, u, [settings.eps * scale * length for length in lengths])
        # What was short enough once is a good beginning for the next direction.
        lengths = [length for length in LENGTHS if settings.eps * scale * length <= 1.01 * slope.eps]
        analytic.append(inner(gradient, u))
        slopes.append(slope)
    return _reports(experiment, analytic, slopes)


def _reports(
    experiment: Experiment, analytic: list[float], slopes: list[Slope]
) -> tuple[DirectionReport, ...]:
    # The slope along one direction can be small by chance; the norm of the gradient says what is small.
    norm = float(np.sqrt(np.mean(np.square([slope.central for slope in slopes]))))
    allowed = experiment.settings.allowed(norm)
    return tuple(
        DirectionReport(a, slope.central, allowed, slope.eps, _verdict(a, slope, allowed))
        for a, slope in zip(analytic, slopes, strict=True)
    )


def _verdict(analytic: float, slope: Slope, allowed: float) -> str:
    if abs(analytic - slope.central) <= allowed:
        return "ok"
    return "kink" if slope.gap > allowed else "wrong"


def _best_slope(
    experiment: Experiment, position: int, u: npt.NDArray[np.int8], steps: Sequence[float]
) -> Slope:
    """The slope with the first step that is short enough, or with the best of them."""
    found = []
    for step in steps:
        slope = _slope_along(experiment, position, u, step)
        found.append(slope)
        if slope.gap + slope.rounding <= GOOD * experiment.settings.allowed(slope.central):
            break
    return min(found, key=lambda slope: slope.gap + slope.rounding)


def _slope_along(experiment: Experiment, position: int, u: npt.NDArray[np.int8], step: float) -> Slope:
    argument = experiment.arguments[position]
    where = f"a step of {step:g} along a random direction in {argument.name}"
    sides = []
    with experiment.spare(position) as moved:
        for signed in (step, -step):
            np.multiply(u, signed, out=moved, casting="unsafe")
            moved += argument.array
            sides.append(experiment.values(position, moved, where))
        moved[...] = argument.array
    return slope_of(experiment, sides[0], sides[1], step, step)
