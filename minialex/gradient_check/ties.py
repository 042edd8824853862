"""Ties: the largest value of a window, reached by several elements at once.

A maximum that is reached twice bends along each of the two elements, but not along both at once. So the
elements of a tie can be told without knowing what fn does: they have the same value, the same outputs bend
when any of them moves, and nothing bends when all of them move. Backward may share the gradient among them
as it likes; together they must have the whole of it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from minialex.gradient_check.differences import slope_of, two_sides
from minialex.gradient_check.experiment import Experiment

# Elements of one value that are looked at one by one, to see which of them share an output.
MOST_EQUAL = 64
STEP = 1e-7
# A part of the slope: what bends less is curvature.
BEND = 1e-3


def moved_together(experiment: Experiment, position: int, element: int) -> tuple[float, float] | None:
    """What the elements that tie with this one have for a gradient together, and what they must have:
    (analytic, numeric); None if there are no others, or the kink is still there when all of them move."""
    array = experiment.arguments[position].array
    value = float(array.reshape(-1)[element])
    group = _group(experiment, position, element, np.flatnonzero(array == value))
    if len(group) < 2:
        return None
    sides = []
    for step in (STEP, -STEP):
        moved = array.copy(order="K")
        moved.flat[group] = value + step
        sides.append(experiment.values(position, moved, "a step"))
    slope = slope_of(experiment, sides[0], sides[1], (value + STEP) - value, value - (value - STEP))
    if slope.gap > experiment.settings.allowed(slope.central):
        return None
    return float(experiment.gradients[position].reshape(-1)[group].sum()), slope.central


def _group(
    experiment: Experiment, position: int, element: int, equal: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Those of the equal elements that share a bending output with this one, directly or by way of others."""
    if len(equal) > MOST_EQUAL:
        return equal
    bends = {int(e): _bending_outputs(experiment, position, int(e)) for e in equal}
    group, reached = {element}, bends[element]
    while True:
        more = {e for e, outputs in bends.items() if e not in group and (outputs & reached).any()}
        if not more:
            return np.array(sorted(group), dtype=np.int64)
        group |= more
        reached = np.logical_or.reduce([bends[e] for e in group])


def _bending_outputs(experiment: Experiment, position: int, element: int) -> npt.NDArray[np.bool_]:
    above, below, up, down = two_sides(experiment, position, element, STEP)
    right, left = (above - experiment.output) / up, (experiment.output - below) / down
    size = np.maximum(np.abs(right), np.abs(left))
    rounding = 2.0**-48 * np.abs(experiment.output) / STEP
    return np.asarray(np.abs(right - left) > np.maximum(BEND * size, rounding))
