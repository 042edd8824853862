"""The right numbers at the wrong places: reversed, exchanged, shifted, or in another order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from minialex.gradient_check.fault_kinds import Fault, Float64Array, distance, plural
from minialex.shapes import Shape

__all__ = ["boxes_rearranged", "exchanged", "flipped", "rearrangement", "shifted"]

# Further than this no index is off.
FARTHEST = 4
# Below four numbers any order is soon found by chance.
ENOUGH = 4


def rearrangement(
    analytic: Float64Array,
    numeric: Float64Array,
    axes: Sequence[str],
    tolerance: float,
    output_shape: Shape | None = None,
) -> Fault | None:
    """How `analytic` is a rearranged `numeric`, if it is.

    Shapes: analytic, numeric: any; numeric is NaN where nothing was compared. The analytic gradient is known
    there, too, so that each number of a sample can be looked for where it may have gone.
    Args:   axes: what they are called, for the text; tolerance: within which numbers are equal;
            output_shape: of the function, in whose order the elements may have been read.
    """
    wrong = np.abs(analytic - numeric) > tolerance
    nonzero = int((np.abs(numeric) > tolerance).sum())
    if not wrong.any() or nonzero < 2:
        return None
    confidence = 0.93 if nonzero >= ENOUGH else 0.6
    everything = range(analytic.ndim)
    return (
        flipped(analytic, numeric, axes, tolerance, everything, confidence)
        or exchanged(analytic, numeric, axes, tolerance, everything, confidence)
        or shifted(analytic, numeric, axes, tolerance, everything, confidence - 0.03)
        or _other_order(analytic, numeric, axes, tolerance, output_shape, confidence)
    )


def _equal(a: Float64Array, b: Float64Array, tolerance: float) -> bool:
    """Whether they agree where both are known; of a sample, where that is enough to tell."""
    if a.shape != b.shape or (np.abs(a - b) > tolerance).any():
        return False
    known = ~np.isnan(a - b)
    telling = known & ((np.abs(a) > tolerance) | (np.abs(b) > tolerance))
    return bool(known.all() or telling.sum() >= ENOUGH)


def _subsets(axes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    for count in range(1, len(axes) + 1):
        yield from itertools.combinations(axes, count)


def flipped(
    a: Float64Array,
    n: Float64Array,
    axes: Sequence[str],
    tolerance: float,
    movable: Sequence[int],
    confidence: float,
) -> Fault | None:
    """One or more of the axes `movable` in reverse order."""
    longer = [i for i in movable if a.shape[i] > 1]
    for subset in _subsets(longer):
        if _equal(a, np.flip(n, subset), tolerance):
            along = " and ".join(axes[i] for i in subset)
            return Fault("flipped", f"the numbers are right and in reverse order along {along}", confidence)
    return None


def exchanged(
    a: Float64Array,
    n: Float64Array,
    axes: Sequence[str],
    tolerance: float,
    movable: Sequence[int],
    confidence: float,
) -> Fault | None:
    """Two or more of the axes `movable` exchanged, or the memory read as if they were."""
    for order in itertools.permutations(movable):
        permutation = list(range(a.ndim))
        for place, source in zip(movable, order, strict=True):
            permutation[place] = source
        if permutation == list(range(a.ndim)):
            continue
        moved = np.ascontiguousarray(n.transpose(permutation)).reshape(a.shape)
        if _equal(a, moved, tolerance):
            swapped = [i for i, source in enumerate(permutation) if i != source]
            names = " and ".join(axes[i] for i in swapped)
            return Fault("swapped axes", f"the numbers are right with {names} exchanged", confidence)
    return None


def shifted(
    a: Float64Array,
    n: Float64Array,
    axes: Sequence[str],
    tolerance: float,
    movable: Sequence[int],
    confidence: float,
) -> Fault | None:
    """One or two of the axes shifted by a few places, the ends cut or wrapped around."""
    for axis in movable:
        for step in range(1, a.shape[axis]):
            if _equal(a, np.roll(n, step, axis), tolerance):
                text = f"the numbers are right, but {distance(axes[axis], step)} too far, around the end"
                return Fault("shifted", text, confidence)
    wrong = np.abs(a - n) > tolerance
    for steps in _steps([a.shape[axis] for axis in movable]):
        moves = {axis: step for axis, step in zip(movable, steps, strict=True) if step}
        if _shift_explains(a, n, wrong, moves, tolerance):
            return Fault("shifted", _shift_text(axes, moves), confidence)
    return None


def _steps(extents: list[int]) -> list[tuple[int, ...]]:
    """Shifts of one axis or two, the shortest first."""
    # At least half must overlap, or little is left to be explained.
    reach = [[s for s in range(-FARTHEST, FARTHEST + 1) if 2 * abs(s) <= extent] for extent in extents]
    found = []
    for chosen in _subsets(range(len(extents))):
        if len(chosen) <= 2:
            for steps in itertools.product(*([s for s in reach[i] if s] for i in chosen)):
                whole = [0] * len(extents)
                for i, step in zip(chosen, steps, strict=True):
                    whole[i] = step
                found.append(tuple(whole))
    return sorted(found, key=lambda steps: (sum(map(bool, steps)), sum(map(abs, steps))))


def _shift_explains(
    a: Float64Array, n: Float64Array, wrong: np.ndarray, moves: dict[int, int], tolerance: float
) -> bool:
    """Whether a is the shifted n where they overlap, and most of what is wrong lies there."""
    here, there = [slice(None)] * a.ndim, [slice(None)] * a.ndim
    for axis, step in moves.items():
        here[axis] = slice(step, None) if step > 0 else slice(None, step)
        there[axis] = slice(None, -step) if step > 0 else slice(-step, None)
    overlap = wrong[tuple(here)]
    explained, total = int(overlap.sum()), int(wrong.sum())
    if explained < 2 or explained < 0.4 * total * overlap.size / wrong.size:
        return False
    return _equal(a[tuple(here)], n[tuple(there)], tolerance)


def _shift_text(axes: Sequence[str], moves: dict[int, int]) -> str:
    parts = " and ".join(distance(axes[axis], step) for axis, step in moves.items())
    return f"the numbers are right, but {parts} too far"


def _other_order(
    a: Float64Array,
    n: Float64Array,
    axes: Sequence[str],
    tolerance: float,
    output_shape: Shape | None,
    confidence: float,
) -> Fault | None:
    """Read column by column, slices of one axis in another order, or all mixed up."""
    if output_shape is not None and int(np.prod(output_shape)) == n.size:
        by_column = n.reshape(output_shape).ravel(order="F")
        if _equal(a.ravel(order="F"), by_column, tolerance):
            return Fault("swapped axes", "the numbers are right, read column by column", confidence)
    for axis in range(a.ndim):
        order = _order_of_slices(np.moveaxis(a, axis, 0), np.moveaxis(n, axis, 0), tolerance)
        if order is not None:
            text = f"the numbers are right, with {axes[axis]} in the order {order}"
            return Fault("reordered", text, confidence - 0.05)
    enough = np.isfinite(n).all() and (np.abs(n) > tolerance).sum() >= ENOUGH
    if enough and _equal(np.sort(a.ravel()), np.sort(n.ravel()), tolerance):
        moved = int((np.abs(a - n) > tolerance).sum())
        text = f"the right numbers, {plural(moved, 'element')} of them at the wrong place"
        return Fault("reordered", text, confidence - 0.1)
    return None


def _order_of_slices(a: Float64Array, n: Float64Array, tolerance: float) -> list[int] | None:
    """The order that makes the slices of n those of a, if there is one."""
    order: list[int] = []
    if len(a) < 3 or a[0].size < 2:
        return None
    for piece in a:
        place = next((j for j in range(len(n)) if j not in order and _equal(piece, n[j], tolerance)), None)
        if place is None:
            return None
        order.append(place)
    return order


def boxes_rearranged(
    pairs: Sequence[tuple[Float64Array, Float64Array]], axes: Sequence[str], tolerance: float
) -> Fault | None:
    """One rearrangement for all pairs (analytic, numeric): flipped, or two axes exchanged."""
    found = []
    for a, n in pairs:
        if not (np.abs(a - n) > tolerance).any():
            continue
        window = range(a.ndim)[-2:]
        fault = flipped(a, n, axes, tolerance, window, 0.95) or exchanged(a, n, axes, tolerance, window, 0.95)
        if fault is None:
            return None
        found.append(fault)
    return found[0] if found and len({fault.kind for fault in found}) == 1 else None
