"""What a difference between the two gradients means: a kink, a tie, a bad step, or a wrong backward.

An element whose two gradients disagree gets a verdict, by what fn itself does around it and never by what the
analytic gradient would like:

ok         they agree; or a kink lies within the step, and with a step that does not reach it they agree.
kink       fn bends right here (the slopes on the left and on the right differ, and go on differing when the
           step shrinks), and the analytic gradient lies between the two: any such value is a subgradient.
tie        a kink that is gone when all elements of the same value move together, or that a max-pool made:
           several maxima in a window.
precision  the error against eps is a U: the curve of the numeric slopes alone settles on a value, beyond
           truncation and rounding, and the analytic gradient agrees with that value. Only eps was at fault.
wrong      everything else. The analytic gradient is not the derivative.

So a real bug is never called precision: the value that the curve settles on is the derivative, and is found
without looking at the analytic one.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np

from minialex.gradient_check.differences import Slope, measure, two_sides
from minialex.gradient_check.experiment import Experiment
from minialex.gradient_check.inside import kink_inside
from minialex.gradient_check.settings import Float64Array, GradcheckError
from minialex.gradient_check.ties import moved_together

VERDICTS = ("ok", "kink", "tie", "precision", "wrong")
CURVE = tuple(10.0**-k for k in range(1, 10))
# How much smaller the second step is that tells a kink from a curve: a curve's two sides come closer with it.
SHRINK = 16.0
# The curve has settled where its value is known to this part of the error that is allowed.
SETTLED = 0.1


@dataclass(frozen=True)
class Finding:
    """What was found out about one element.

    Args: verdict: one of VERDICTS; reason: a few words for the reader; numeric: the slope by the step that
          was best; eps: that step; curve: the slopes with steps from 1e-1 to 1e-9, if they were needed;
          bent: whether fn has a kink here, so that no slope is the right one; settled: whether the curve
          settled on `numeric`.
    """

    verdict: str
    reason: str
    numeric: float
    eps: float
    curve: tuple[Slope, ...] = ()
    bent: bool = False
    settled: bool = False


@dataclass(frozen=True)
class Spot:
    """One element under the glass.

    Args: experiment; position: of the argument; element: counted in row-major order; analytic: its gradient.
    """

    experiment: Experiment
    position: int
    element: int
    analytic: float

    def slope(self, eps: float) -> Slope:
        """The slope with this step, NaN where fn cannot be evaluated that far away."""
        try:
            return replace(measure(self.experiment, self.position, self.element, eps), eps=eps)
        except Exception:  # A large step may leave fn's domain, and what it then raises is fn's affair.
            return Slope(eps, np.nan, np.nan, np.nan, np.inf, False)

    def allowed(self, numeric: float) -> float:
        """The error allowed beside this numeric slope."""
        return self.experiment.settings.allowed(numeric)

    def agrees(self, slope: Slope) -> bool:
        """Whether the analytic gradient is right if this slope is."""
        return slope.moved and abs(self.analytic - slope.central) <= self.allowed(slope.central)


def diagnose(spot: Spot, thorough: bool = True) -> Finding:
    """The verdict on an element whose two gradients disagree.

    Args: thorough: False looks for kinks alone, by some ten evaluations of fn instead of some forty, and
          calls everything else wrong.
    """
    eps = spot.experiment.settings.eps
    near = spot.slope(eps)
    if not np.isfinite(spot.analytic):
        return Finding("wrong", f"the gradient is {spot.analytic}", near.central, eps)
    found = _beside_a_kink(spot, near) if near.gap > spot.allowed(near.central) else None
    if found is not None:
        return found
    if not thorough:
        return Finding("wrong", "", near.central, eps, bent=near.gap > spot.allowed(near.central))
    curve = error_curve(spot)
    best = settled(curve, spot)
    if best is not None and spot.agrees(best):
        return Finding("precision", f"right with eps={best.eps:g}", best.central, best.eps, curve)
    inside = kink_inside(spot.experiment, spot.position, spot.element)
    if inside is not None and not inside.last:
        # Behind a kink backward's choice is multiplied by anything: the slopes outside are no bounds.
        return Finding(inside.verdict, inside.text, near.central, eps, curve)
    is_settled = best is not None
    best = near if best is None else best
    reason = "" if inside is None else f"outside of the slopes at a kink {inside.text}"
    return Finding("wrong", reason, best.central, best.eps, curve, inside is not None, is_settled)


def error_curve(spot: Spot) -> tuple[Slope, ...]:
    """The slopes with steps from 1e-1 to 1e-9."""
    return tuple(spot.slope(eps) for eps in CURVE)


def _beside_a_kink(spot: Spot, near: Slope) -> Finding | None:
    """The verdict if a kink explains the difference, None if not.

    With shorter and shorter steps both sides settle: on one value if the kink lies only within the first
    step, on two if it is right here. The sides of a smooth function come closer in proportion to the step,
    and those of a function that rounds jump about.
    """
    steps = [near, *(spot.slope(near.eps / SHRINK**k) for k in (1, 2, 3))]
    pairs = itertools.pairwise(steps)
    slope = next((b for a, b in pairs if _same_sides(a, b, spot.allowed(b.central))), None)
    if slope is None or not (slope.moved or _is_flat(spot, near.eps * SHRINK)):
        return None
    if slope.gap <= spot.allowed(slope.central):
        kinked = not 0.5 <= steps[1].gap / near.gap * SHRINK <= 2.0
        fine = kinked and abs(spot.analytic - slope.central) <= spot.allowed(slope.central)
        return Finding("ok", "a kink lies within the step", slope.central, slope.eps) if fine else None
    return _at_a_kink(spot, near, slope)


def _same_sides(a: Slope, b: Slope, slack: float) -> bool:
    """Whether two steps see the same slope on the left, and the same on the right."""
    allowed = max(slack, 0.1 * b.gap) + a.rounding + b.rounding
    return abs(a.low - b.low) <= allowed and abs(a.high - b.high) <= allowed


def _is_flat(spot: Spot, step: float) -> bool:
    """Whether fn stays as it is, to the bit, on one side: then a step that changes nothing was not lost."""
    try:
        above, below, _, _ = two_sides(spot.experiment, spot.position, spot.element, step)
    except GradcheckError:
        return False
    here = spot.experiment.output
    return bool(np.array_equal(above, here) or np.array_equal(below, here))


def _at_a_kink(spot: Spot, near: Slope, slope: Slope) -> Finding | None:
    if not slope.contains(spot.analytic, spot.allowed(near.central)):
        return None
    group = moved_together(spot.experiment, spot.position, spot.element)
    if group is not None and abs(group[0] - group[1]) > spot.allowed(group[1]):
        text = f"the elements of a tie have {group[0]:.6g} together, expected {group[1]:.6g}"
        return Finding("wrong", text, near.central, near.eps, bent=True)
    inside = kink_inside(spot.experiment, spot.position, spot.element)
    tie = group is not None or (inside is not None and inside.verdict == "tie")
    sides = f"slopes from {slope.low:.6g} to {slope.high:.6g}"
    text = f"{inside.text}: {sides}" if inside else sides
    return Finding("tie" if tie else "kink", text, near.central, near.eps)


def settled(curve: tuple[Slope, ...], spot: Spot) -> Slope | None:
    """The point at which the curve of numeric slopes has settled, or None if it does nowhere.

    A slope is off by truncation, which falls with eps**2, and by rounding, which grows with 1/eps. The
    difference between neighbours on the curve bounds the larger of the two at the better one; what is left of
    it at the smallest steps is rounding, and says how much there is at every step. The analytic gradient has
    no part in the choice.
    """
    known = [slope for slope in curve if np.isfinite(slope.central)]
    if any(slope.moved for slope in known):  # A step that changes nothing at all is lost, not a slope of 0.
        known = [slope for slope in known if slope.moved]
    if len(known) < 3:
        return None
    values: Float64Array = np.array([slope.central for slope in known])
    steps: Float64Array = np.array([slope.eps for slope in known])
    jumps = np.abs(np.diff(values))
    noise = float((jumps[-2:] * steps[1:][-2:]).max())
    if len(jumps) > 2 and (jumps[-2:] < jumps[-3:-1] / 30).all():  # Still truncation, at the smallest step.
        noise = float(jumps[-1] * steps[-1])
    beside = np.minimum(np.append(jumps, np.inf), np.insert(jumps, 0, np.inf))
    errors = beside + noise / steps + np.array([slope.rounding for slope in known])
    best = int(errors.argmin())
    allowed = SETTLED * spot.allowed(float(values[best]))
    return known[best] if errors[best] <= allowed and not _bends(known, best, allowed) else None


def _bends(known: list[Slope], best: int, allowed: float) -> bool:
    """Whether the two sides at this point of the curve differ by more than curvature: over a kink."""
    larger, smaller = (known[best - 1], known[best]) if best else (known[0], known[1])
    return smaller.gap > max(larger.gap / 2, allowed)
