"""What is likely wrong with a wrong gradient: its name, told by comparing it with the right one.

    likely_fault(analytic, numeric)    # Fault("factor", "every element is 2.5 times too large", 0.95)

Wrong backwards are wrong in few ways: a factor is missing, axes are swapped, a window is off by a pixel, `=`
stands for `+=`. Each leaves its own pattern in the two arrays. Every detector below knows one pattern and
gives a Fault or None; the fault with the most evidence is told. With `Hints` more can be told apart, most of
all with the two Jacobians, which say which output sent what to which element.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from minialex.gradient_check.fault_kinds import Fault, Float64Array, Hints, Mask, number, plural
from minialex.gradient_check.jacobian_faults import jacobian_fault
from minialex.gradient_check.locations import location_fault
from minialex.gradient_check.rearrangements import rearrangement

__all__ = ["KINDS", "Fault", "Hints", "likely_fault"]

# Every kind, with what it means: for reports, and as the answers that a student can choose from.
KINDS: dict[str, str] = {
    "factor": "every element is right up to a factor: a division, a scale or a mean that is not there",
    "sign": "every element has the wrong sign",
    "flipped": "the right numbers in the reverse order along an axis, such as a kernel that is not flipped",
    "swapped axes": "the right numbers with two axes exchanged: transposed, or KH and KW mixed up",
    "shifted": "the right numbers, some places away: a padding, a start or a group that is off by one",
    "reordered": "the right numbers in another order",
    "missing broadcast sum": "a value was used many times, and not all of its gradients were added up",
    "border": "wrong near the border only, right inside",
    "overlap": "wrong only where windows or picks overlap: = where += is due",
    "channel": "one channel, one group or one image alone is wrong",
    "mask": "gradients pass that must be stopped, or are stopped that must pass: a wrong mask",
    "winner": "the whole gradient of a window goes to another element than the one that won",
    "cross terms": "each output's gradient reaches its own input alone, although its neighbours count too",
    "window": "gradients come from other outputs than those that the element is used by",
    "slope": "the right outputs are connected to the right elements, but with wrong slopes",
    "ignores the cotangent": "the gradient does not depend on dy",
    "zero": "every element is zero",
    "NaN": "elements are NaN or infinite",
    "float32": "right to seven digits only: computed in float32",
    "unknown": "none of these",
}

# Differences are good to some nine digits; what is wrong by less than this share of the largest is rounding.
VISIBLE = 1e-5
# In larger arrays no other order of the elements is looked for.
LARGE = 200_000


def likely_fault(analytic: Float64Array, numeric: Float64Array, hints: Hints | None = None) -> Fault:
    """The fault that explains best how `analytic` differs from `numeric`.

    Shapes: analytic, numeric: the input's, float64; numeric is NaN where nothing was compared.
    Args:   hints: whatever is known about the function (None: nothing).
    Returns: a Fault; of kind "unknown" if no pattern fits.
    """
    hints = Hints() if hints is None else hints
    analytic, numeric = (np.asarray(a, dtype=np.float64) for a in (analytic, numeric))
    compared = np.isfinite(numeric)
    broken = compared & ~np.isfinite(analytic)
    if broken.any():
        return _not_finite(analytic, broken)
    hints = dataclasses.replace(hints, everywhere=analytic)
    analytic, numeric = (np.where(compared, a, np.nan) for a in (analytic, numeric))
    found = [detector(analytic, numeric, hints) for detector in _DETECTORS]
    return max(
        (f for f in found if f is not None), key=lambda f: f.confidence, default=_unknown(analytic, numeric)
    )


def _scale(*arrays: Float64Array) -> float:
    """The largest magnitude that was compared."""
    return max(float(np.nan_to_num(np.abs(a)).max(initial=0.0)) for a in arrays)


def _wrong(analytic: Float64Array, numeric: Float64Array) -> Mask:
    return np.abs(analytic - numeric) > VISIBLE * _scale(numeric, analytic)


def _not_finite(analytic: Float64Array, broken: Mask) -> Fault:
    place = [int(i) for i in np.argwhere(broken)[0]]
    count, value = int(broken.sum()), analytic[tuple(place)]
    verb = "is" if count == 1 else "are"
    text = f"{count} of {plural(broken.size, 'element')} {verb} not finite: {value} at {place}"
    return Fault("NaN", text, 0.99)


# ------------------------------------------------------------------------------------------ the whole array


def _zero(analytic: Float64Array, numeric: Float64Array, hints: Hints) -> Fault | None:
    if np.nan_to_num(analytic).any() or not np.nan_to_num(numeric).any():
        return None
    return Fault("zero", f"every element is 0; they should reach {number(_scale(numeric))}", 0.97)


def _useless(analytic: Float64Array, numeric: Float64Array, hints: Hints) -> Fault | None:
    """The right gradient is zero everywhere, and this is not."""
    seen = np.isfinite(analytic)
    passed = int((np.abs(analytic[seen]) > VISIBLE * _scale(analytic)).sum())
    if not passed or np.abs(numeric[seen]).max(initial=0.0) > 1e-6 * _scale(analytic):
        return None
    text = f"{plural(passed, 'element')} with a gradient, and the output depends on none of them"
    return Fault("mask", text, 0.85)


def _ignores_cotangent(analytic: Float64Array, numeric: Float64Array, hints: Hints) -> Fault | None:
    seen = np.isfinite(analytic)
    if not analytic[seen].any():
        return None
    same_text = None
    if hints.ones is not None and np.array_equal(analytic[seen], hints.ones[seen]):
        same_text = "a dy of ones gives the very same gradient"
    elif hints.second is not None and np.array_equal(analytic[seen], hints.second[seen]):
        same_text = "another dy gives the very same gradient"
    return None if same_text is None else Fault("ignores the cotangent", f"dy is ignored: {same_text}", 0.98)


def _float32(analytic: Float64Array, numeric: Float64Array, hints: Hints) -> Fault | None:
    """Errors of seven digits; or a forward pass that only moves in steps of float32."""
    seen = np.isfinite(analytic)
    scale = _scale(numeric)
    if hints.coarse is not None and _wrong(analytic, numeric).any():
        off = np.abs(np.where(seen, hints.coarse - analytic, 0.0)).max(initial=0.0)
        gap = np.abs(np.where(seen, numeric - analytic, 0.0)).max(initial=0.0)
        if off < 1e-3 * scale and off < 0.05 * gap:
            text = (
                "the gradient agrees with differences over a long step and not over a short one: "
                "the forward pass rounds to float32"
            )
            return Fault("float32", text, 0.95)
    error = np.abs(analytic[seen] - numeric[seen]).max(initial=0.0)
    with np.errstate(over="ignore"):
        exact = bool((analytic[seen].astype(np.float32) == analytic[seen]).all())
    # Differences alone leave errors of some 1e-9.
    if not (1e-10 if exact else 1e-8) * scale < error <= VISIBLE * scale:
        return None
    how = "and every element is a float32 number" if exact else "as float32 rounds"
    text = f"errors of {error / scale:.0e} of the largest gradient, {how}: computed in float32"
    return Fault("float32", text, 0.95 if exact else 0.7)


def _factor(analytic: Float64Array, numeric: Float64Array, hints: Hints) -> Fault | None:
    """analytic = c * numeric, with one c for all."""
    seen = np.isfinite(analytic)
    a, n = analytic[seen], numeric[seen]
    energy = float(n @ n)
    if energy == 0 or not _wrong(a, n).any():
        return None
    c = float(a @ n) / energy
    if abs(c) < 1e-6 or np.abs(a - c * n).max() > 2 * VISIBLE * max(_scale(a), abs(c) * _scale(n)):
        return None
    count = int((np.abs(n) > VISIBLE * _scale(n)).sum())
    confidence = 0.95 if count > 3 else 0.7 if count > 1 else 0.35
    return factor_fault(c, confidence, "every element" if a.size > 1 else "the one element")


def factor_fault(c: float, confidence: float, what: str) -> Fault:
    """The fault of `what` being c times as large as it should."""
    if abs(c + 1) < 1e-4:
        return Fault("sign", f"{what} has the wrong sign", confidence)
    size = f"{number(abs(c))} times too large" if abs(c) > 1 else f"{number(1 / abs(c))} times too small"
    return Fault("factor", f"{what} is {size}" + (" and has the wrong sign" if c < 0 else ""), confidence)


def _rearranged(analytic: Float64Array, numeric: Float64Array, hints: Hints) -> Fault | None:
    if analytic.size > LARGE:
        return None
    return rearrangement(
        analytic if hints.everywhere is None else hints.everywhere,
        numeric,
        hints.letters(analytic.ndim),
        VISIBLE * _scale(numeric, analytic),
        hints.output_shape,
    )


def _located(analytic: Float64Array, numeric: Float64Array, hints: Hints) -> Fault | None:
    return location_fault(analytic, numeric, _wrong(analytic, numeric), hints, VISIBLE * _scale(numeric))


def _connected(analytic: Float64Array, numeric: Float64Array, hints: Hints) -> Fault | None:
    if hints.jacobians is None or not _wrong(analytic, numeric).any():
        return None
    return jacobian_fault(*hints.jacobians, hints, analytic.shape, VISIBLE)


_Detector = Callable[[Float64Array, Float64Array, Hints], Fault | None]
_DETECTORS: tuple[_Detector, ...] = (
    _zero,
    _useless,
    _ignores_cotangent,
    _float32,
    _factor,
    _connected,
    _rearranged,
    _located,
)


def _unknown(analytic: Float64Array, numeric: Float64Array) -> Fault:
    wrong = _wrong(analytic, numeric)
    if not wrong.any():
        return Fault("unknown", "no element differs by more than differences are good for", 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = (analytic / numeric)[wrong & (numeric != 0)]
    spread = (
        f"; analytic / numeric goes from {number(ratios.min())} to {number(ratios.max())}"
        if ratios.size
        else ""
    )
    return Fault("unknown", f"{plural(int(wrong.sum()), 'wrong element')} in no pattern known{spread}", 0.1)
