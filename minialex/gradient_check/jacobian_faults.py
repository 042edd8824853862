"""The fault as the two Jacobians show it: which output sends how much to which element.

Row o of a Jacobian is the gradient of output o alone, column i what element i does to all outputs. An entry
that is missing, extra or elsewhere says more than the gradient, in which all outputs are summed up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minialex.gradient_check.fault_kinds import Fault, Float64Array, Hints, Mask, number, plural
from minialex.gradient_check.locations import sliced
from minialex.gradient_check.rearrangements import boxes_rearranged, exchanged, flipped, shifted
from minialex.shapes import Shape

__all__ = ["jacobian_fault"]

# The smallest entry beside the largest that is not taken for rounding.
LINKED = 1e-7
# Rows whose boxes are looked at for a flipped or a transposed kernel.
BOXES = 24


@dataclass(frozen=True, eq=False)
class _Pair:
    """Both Jacobians, (outputs, elements), and where they are not zero and not equal."""

    a: Float64Array
    n: Float64Array
    output_shape: Shape
    input_shape: Shape
    tolerance: float

    @property
    def wrong(self) -> Mask:
        return np.abs(self.a - self.n) > self.tolerance

    @property
    def in_a(self) -> Mask:
        return _links(self.a)

    @property
    def in_n(self) -> Mask:
        return _links(self.n)

    @property
    def lost(self) -> Mask:
        """Links that backward misses."""
        return self.wrong & self.in_n & ~self.in_a

    @property
    def extra(self) -> Mask:
        """Links that only backward sees."""
        return self.wrong & self.in_a & ~self.in_n


def _links(jacobian: Float64Array) -> Mask:
    """Where it is not zero: much smaller entries than those that can be compared are told from rounding."""
    return np.asarray(np.abs(jacobian) > LINKED * np.abs(jacobian).max(initial=0.0))


def _rows(mask: Mask) -> Mask:
    """Which rows hold anything."""
    return np.asarray(mask.any(axis=1))


def jacobian_fault(
    analytic: Float64Array, numeric: Float64Array, hints: Hints, input_shape: Shape, visible: float
) -> Fault | None:
    """The first pattern that fits, the most specific first.

    Shapes: analytic, numeric: (outputs, elements of the input).
    Args:   hints: its output_shape must be there; visible: the share of the largest entry above which a
            difference is one.
    """
    if hints.output_shape is None or not (np.isfinite(analytic).all() and np.isfinite(numeric).all()):
        return None
    tolerance = visible * max(float(np.abs(a).max(initial=0.0)) for a in (analytic, numeric))
    pair = _Pair(analytic, numeric, hints.output_shape, input_shape, tolerance)
    if not pair.wrong.any() or not pair.in_a.any() or not pair.in_n.any():
        return None
    return (
        _scaled(pair)
        or _moved(pair, hints)
        or _flipped_windows(pair, hints)
        or _entries_lost(pair, hints)
        or _another_winner(pair)
        or _unmasked(pair)
        or _scaled_by_output(pair)
        or _slopes(pair, hints)
        or _connections(pair)
    )


def _scaled(pair: _Pair) -> Fault | None:
    """One factor for all entries."""
    c = float((pair.a * pair.n).sum() / (pair.n * pair.n).sum())
    if c == 0 or np.abs(pair.a - c * pair.n).max() > 2 * pair.tolerance * max(1.0, abs(c)):
        return None
    what = "every element" if pair.n.shape[1] > 1 else "the one element"
    if abs(c + 1) < 1e-4:
        return Fault("sign", f"{what} has the wrong sign", 0.96)
    size = f"{number(abs(c))} times too large" if abs(c) > 1 else f"{number(1 / abs(c))} times too small"
    return Fault("factor", f"{what} is {size}" + (" and has the wrong sign" if c < 0 else ""), 0.96)


def _moved(pair: _Pair, hints: Hints) -> Fault | None:
    """All entries shifted or exchanged alike, along the input's axes or along the output's."""
    if pair.in_n.sum() < 4:
        return None
    rows, columns = len(pair.n), pair.n.shape[1]
    inward = [a.reshape(rows, *pair.input_shape) for a in (pair.a, pair.n)]
    letters = ("the output", *hints.letters(len(pair.input_shape)))
    movable = range(1, len(letters))
    for find in (flipped, exchanged, shifted):
        fault = find(inward[0], inward[1], letters, pair.tolerance, movable, 0.94)
        if fault is not None:
            return fault
    outward = [a.reshape(*pair.output_shape, columns) for a in (pair.a, pair.n)]
    names = _output_letters(pair)
    fault = shifted(outward[0], outward[1], (*names, "the element"), pair.tolerance, range(len(names)), 0.92)
    return None if fault is None else Fault("shifted", f"read from dy, {fault.text}", 0.92)


def _flipped_windows(pair: _Pair, hints: Hints) -> Fault | None:
    """In each output's window the entries are reversed or transposed: a kernel the other way round."""
    if len(pair.input_shape) < 2:
        return None
    boxes = []
    for o in np.flatnonzero(pair.in_n.any(axis=1)):
        a, n = (array[o].reshape(-1, *pair.input_shape[-2:]) for array in (pair.a, pair.n))
        used = np.argwhere((np.abs(n) > pair.tolerance).any(axis=0))
        used_too = np.argwhere((np.abs(a) > pair.tolerance).any(axis=0))
        if not len(used_too):
            return None
        (top, left), (bottom, right) = used.min(axis=0), used.max(axis=0) + 1
        cut = (slice(None), slice(top, bottom), slice(left, right))
        boxes.append((a[cut], n[cut]))
    # Windows that the border cuts show a part of the kernel only.
    largest = max((n.size for _, n in boxes), default=0)
    whole = [box for box in boxes if box[1].size == largest][:BOXES]
    if largest < 2:
        return None
    fault = boxes_rearranged(whole, ("channel", *hints.letters(len(pair.input_shape))[-2:]), pair.tolerance)
    return None if fault is None else Fault(fault.kind, f"in each window {fault.text}", 0.95)


def _entries_lost(pair: _Pair, hints: Hints) -> Fault | None:
    """Links are missing, and all others are right: a sum that was not made."""
    if _diagonal_only(pair):
        return Fault("cross terms", "each output's gradient reaches the element at its own place alone", 0.95)
    if (pair.wrong & ~pair.lost).any():
        return None
    uses, kept = pair.in_n.sum(axis=0), (pair.in_n & ~pair.lost).sum(axis=0)
    used = uses[uses > 0]
    if (pair.in_n.sum(axis=1) <= 1).all() and used.min() > 1 and (used == used[0]).all():
        text = f"each element is used by {used[0]} outputs, and gets the gradients of {_few(kept)} only"
        return Fault("missing broadcast sum", text, 0.96)
    if (uses == 1).any():
        return _overlap(pair, hints, uses, kept) or _left_out(pair)
    return _left_out(pair) or _overlap(pair, hints, uses, kept)


def _overlap(pair: _Pair, hints: Hints, uses: np.ndarray, kept: np.ndarray) -> Fault | None:
    """Elements with several uses kept one of them: the last that was written."""
    short = kept < uses
    last = pair.in_n & ~pair.lost
    if hints.window is not None and len(pair.output_shape) == 4:
        # A pixel that a convolution sees once has a gradient from each of its filters.
        last = last.reshape(*pair.output_shape, -1).any(axis=1).reshape(-1, last.shape[1])
    if not (last.sum(axis=0)[short] == 1).all():
        return None
    text = (
        f"{plural(int(short.sum()), 'element')} that up to {uses[short].max()} outputs use got the gradients "
        f"of {_few(kept[short])} only"
    )
    if (uses == 1).any():
        text += "; those that one output uses are right"
    return Fault("overlap", text, 0.96)


def _few(counts: np.ndarray) -> str:
    low, high = int(counts.min()), int(counts.max())
    return str(low) if low == high else f"{low} to {high}"


def _diagonal_only(pair: _Pair) -> bool:
    """Whether backward links each place with itself alone, where there is more."""
    if pair.input_shape != pair.output_shape or len(pair.n) < 2:
        return False
    off = ~np.eye(len(pair.n), dtype=bool)
    return not (pair.in_a & off).any() and bool((pair.in_n & off).any())


def _left_out(pair: _Pair) -> Fault | None:
    """Whole images, channels or rows of dy are left out, and all others are right."""
    bad = _rows(pair.lost)
    if (pair.in_n & ~pair.lost)[bad].any():
        return None
    telling = _rows(pair.in_n).reshape(pair.output_shape)
    bad = bad.reshape(pair.output_shape)
    if not (telling & ~bad).any():
        return None
    fault = sliced(bad, telling, _output_letters(pair), pictures=True)
    return None if fault is None else Fault(fault.kind, f"of dy, {fault.text}: it is left out", 0.95)


def _output_letters(pair: _Pair) -> tuple[str, ...]:
    count = len(pair.output_shape)
    return ("N", "C", "H", "W") if count == 4 else tuple(f"axis {i}" for i in range(count))


def _unmasked(pair: _Pair) -> Fault | None:
    """Outputs or elements that have no gradient at all pass one on, or the other way round."""
    dead = ~_rows(pair.in_n)[:, None] | ~_rows(pair.in_n.T)[None, :]
    stopped = ~_rows(pair.in_a)[:, None] | ~_rows(pair.in_a.T)[None, :]
    extra = pair.wrong & dead
    if not (extra.any() and not (pair.wrong & ~dead & ~stopped).any()):
        return None
    text = f"{plural(int(extra.any(axis=1).sum()), 'output')} pass a gradient on that must be stopped"
    lost = pair.wrong & ~dead
    if lost.any():
        text += f", {plural(int(lost.any(axis=1).sum()), 'output')} stop one that must pass"
    return Fault("mask", text, 0.9)


def _another_winner(pair: _Pair) -> Fault | None:
    """Each output has one element to send its gradient to, and some send it to another."""
    if pair.in_a.sum(axis=1).max() > 1 or pair.in_n.sum(axis=1).max() > 1:
        return None
    bad = _rows(pair.wrong)
    moved = np.abs(pair.a.sum(axis=1) - pair.n.sum(axis=1)) <= pair.tolerance
    if not (moved | ~bad).all() or (pair.wrong & pair.in_a & pair.in_n).any():
        return None
    text = f"{int(bad.sum())} of {plural(len(bad), 'output')} send their gradient to another element"
    return Fault("winner", text, 0.9)


def _scaled_by_output(pair: _Pair) -> Fault | None:
    """A factor for each output: what divides by the size of a window, or by a count."""
    several = pair.in_n.sum(axis=1) > 1
    wrong = pair.wrong.any(axis=1)
    if pair.lost.any() or pair.extra.any() or 2 * (several & wrong).sum() < wrong.sum() + 1:
        return None
    energy = (pair.n * pair.n).sum(axis=1)
    factors = (pair.a * pair.n).sum(axis=1) / np.where(energy > 0, energy, 1.0)
    if np.abs(pair.a - factors[:, None] * pair.n).max() > 2 * pair.tolerance * max(
        1.0, np.abs(factors).max()
    ):
        return None
    low, high = factors[several].min(), factors[several].max()
    text = f"what each output sends is {number(low)} to {number(high)} times what it must be, by the output"
    return Fault("factor", text, 0.88)


def _slopes(pair: _Pair, hints: Hints) -> Fault | None:
    """The right connections with the wrong numbers; by what they are off, if that is found."""
    if pair.extra.any() or pair.lost.any():
        return None
    off = pair.wrong
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(off & pair.in_n, pair.a / pair.n, np.nan)
    named = _named_factor(pair, hints)
    low, high = np.nanmin(ratios), np.nanmax(ratios)
    text = named or f"slopes are {number(low)} to {number(high)} times what they must be, element by element"
    return Fault("slope", text, 0.8 if named else 0.6)


def _named_factor(pair: _Pair, hints: Hints) -> str | None:
    """`every slope is off by a factor of x**2`: a power of one of the arrays."""
    for name, array in hints.arrays.items():
        values = np.asarray(array, dtype=np.float64).reshape(-1)
        if values.size != pair.n.shape[1] or (values == 0).any():
            continue
        for power in (1, -1, 2, -2):
            expected = pair.n * values**power
            if np.abs(pair.a - expected).max() <= 2 * pair.tolerance * max(1.0, np.abs(values**power).max()):
                times = "times" if power > 0 else "divided by"
                square = " squared" if abs(power) == 2 else ""
                return f"every slope is what it must be {times} {name}{square}"
    return None


def _connections(pair: _Pair) -> Fault | None:
    """Elements get gradients from outputs that do not use them, or miss some that do."""
    extra, lost = int(pair.extra.sum()), int(pair.lost.sum())
    parts = [
        f"{count} {what}"
        for count, what in ((extra, "come from outputs that do not use the element"), (lost, "are missing"))
        if count
    ]
    total = int(pair.in_n.sum())
    return Fault("window", f"of {total} links between outputs and elements, {' and '.join(parts)}", 0.55)
