"""Another dy: backward is linear, so that what it does with one v tells what it must do with a multiple.

The same v a second time would not tell a backward that is right from one that keeps what it once gave: both
give the same bits. So it is asked a third time, for -2 * v, which has to give -2 times the gradient, at kinks
and in ties, too; and v lies elsewhere in memory, with gaps, as the gradient of a transposed or sliced output
does.
"""

from __future__ import annotations

import numpy as np

from minialex.gradient_check.experiment import Experiment
from minialex.gradient_check.settings import Float64Array

__all__ = ["doubts_about_dy"]

# Sums in another order differ by rounding, and what cancels by rounding of the largest gradient.
ROUNDING_SHARE = 1e-6
# With so many numbers going in, a backward takes seconds; models of them are made of operations that were
# asked by themselves.
LARGE = 20_000_000


def doubts_about_dy(experiment: Experiment) -> dict[int, str]:
    """What is wrong with the gradients of -2 * v, by position of the argument, after the experiment's run."""
    if sum(argument.array.size for argument in experiment.arguments) > LARGE:
        return {}
    v = -2.0 * experiment.cotangent
    strided = _differing(experiment, _with_gaps(v))
    if not strided:
        return {}
    contiguous = _differing(experiment, v)
    return {position: _text(position in contiguous) for position in strided}


def _text(remembers: bool) -> str:
    if remembers:
        return (
            "for -2 * dy, backward does not give -2 times the gradient: it is not linear in dy, or keeps "
            "something from an earlier call"
        )
    return "for a dy that is not contiguous, backward gives another gradient"


def _differing(experiment: Experiment, cotangent: Float64Array) -> set[int]:
    """The positions of the arguments whose gradient is not -2 times the one for v."""
    settings, usual = experiment.settings, experiment.gradients
    largest = max((float(np.abs(g).max(initial=0.0)) for g in usual if np.isfinite(g).all()), default=0.0)
    allowed = ROUNDING_SHARE * largest + settings.atol + 3 * settings.nondet_tol
    _, gradients = experiment.analytic(cotangent)
    return {
        i
        for i, _ in experiment.checked()
        if np.isfinite(usual[i]).all() and not (np.abs(gradients[i] + 2.0 * usual[i]) <= allowed).all()
    }


def _with_gaps(array: Float64Array) -> Float64Array:
    """The same values, with every second element in memory unused."""
    wide = np.zeros((*array.shape, 2))
    wide[..., 0] = array
    view: Float64Array = wide[..., 0]
    return view
