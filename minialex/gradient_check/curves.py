"""The error against eps, in float64 and in float32: why gradients are checked in float64.

A central difference is off by truncation, which falls with eps**2, and by rounding, which grows with 1/eps:
on logarithmic axes a U. In float64 its lowest point is near eps = 1e-5 at 1e-10; in float32 near 1e-2 at
1e-4, which many a wrong gradient would pass. The curve of a wrong gradient is flat: no eps makes it right.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from minialex.backend import to_device, to_numpy, use_winograd
from minialex.gradient_check.comparison import relative_norm
from minialex.gradient_check.differences import two_sides
from minialex.gradient_check.experiment import Experiment
from minialex.rng import random_scope
from minialex.tensor import Tensor, no_grad

STEPS = tuple(10.0**-k for k in np.arange(1.0, 9.5, 0.5))
# Elements that a curve is made of.
ELEMENTS = 6


@dataclass(frozen=True)
class ErrorCurve:
    """Relative errors of a gradient by differences, for steps from 1e-1 to 1e-9.

    Args: dtype: in which the function was evaluated; eps: the steps; errors: ||analytic - numeric|| /
          ||numeric|| over the elements, NaN where the function could not be evaluated; elements: which,
          counted in row-major order.
    """

    dtype: str
    eps: tuple[float, ...]
    errors: tuple[float, ...]
    elements: tuple[int, ...]


def error_curves(
    experiment: Experiment, position: int, elements: npt.NDArray[np.int64]
) -> tuple[ErrorCurve, ...]:
    """The curves of one argument in float64 and, if the function works on it, in float32.

    Args: elements: of the argument, counted in row-major order; the first ELEMENTS are taken.
    """
    chosen = elements[:ELEMENTS]
    analytic = experiment.gradients[position].reshape(-1)[chosen]
    slopes = {"float64": _slope} | ({"float32": _slope_in_float32} if experiment.takes_leaves else {})
    curves = []
    for dtype, slope in slopes.items():
        errors = []
        for eps in STEPS:
            numeric = np.full(len(chosen), np.nan)
            # A long step may leave fn's domain, and fn may bring float64 arrays along: no point there.
            with contextlib.suppress(Exception):
                numeric = np.array([slope(experiment, position, int(e), eps) for e in chosen])
            errors.append(relative_norm(analytic, numeric))
        if np.isfinite(errors).any():
            curves.append(ErrorCurve(dtype, STEPS, tuple(errors), tuple(int(e) for e in chosen)))
    return tuple(curves)


def _slope(experiment: Experiment, position: int, element: int, eps: float) -> float:
    above, below, up, down = two_sides(experiment, position, element, eps)
    return float(((above - below) * experiment.cotangent).sum() / (up + down)) if up + down else np.nan


def _slope_in_float32(experiment: Experiment, position: int, element: int, eps: float) -> float:
    arguments = experiment.arguments
    arrays = [a.array.astype(np.float32) if a.array.dtype.kind == "f" else a.array for a in arguments]
    outputs, places = [], []
    for signed in (eps, -eps):
        moved = arrays[position].copy()
        moved.reshape(-1)[element] += signed
        places.append(float(moved.reshape(-1)[element]))
        leaves = [Tensor(to_device(a, b.device)) for a, b in zip(arrays, arguments, strict=True)]
        leaves[position] = Tensor(to_device(moved, arguments[position].device))
        with no_grad(), random_scope(experiment.settings.seed, 0), use_winograd(False):
            outputs.append(np.array(to_numpy(experiment.fn(*leaves).data), dtype=np.float64))
    change = float(((outputs[0] - outputs[1]) * experiment.cotangent).sum())
    return change / (places[0] - places[1]) if places[0] != places[1] else np.nan
