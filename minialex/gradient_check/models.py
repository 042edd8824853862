"""check_model: all parameters and the input of a whole model, in float64, on a copy of it.

What can be trusted near kinks. A network of ReLUs and max-pools has a kink for each activation, and near any
point some of them lie within any step. Three things keep that from mattering here. Steps are short, measured
in the input's own size, and for each direction shortened until the slopes of every output on both sides of it
agree, so that no kink that matters was crossed. The direction is one for a whole parameter: what one unit in
a million contributes by crossing its kink is a millionth of the slope. And where a gradient is wrong all the
same, every operation that was recorded is checked by itself at the values that it saw, where only its own
kinks count: that names the operation, and would clear them all if the disagreement came from kinks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from minialex.gradient_check.checking import examine_experiment
from minialex.gradient_check.model_copies import model_experiment, nudge
from minialex.gradient_check.report import Report
from minialex.gradient_check.settings import Settings, check_loss
from minialex.tensor import Tensor

# Of each parameter of a model: elements one by one, and random directions.
MODEL_ELEMENTS, MODEL_DIRECTIONS = 4, 2


def check_model(
    model: Any,
    x: Any,
    loss: Callable[[Tensor], Tensor] | None = None,
    *,
    eps: float = 1e-6,
    rtol: float = 1e-4,
    seed: int = 0,
    max_elements: int | None = MODEL_ELEMENTS,
    directions: int = MODEL_DIRECTIONS,
    nondet_tol: float = 0.0,
    progress: Callable[[str], object] | None = None,
) -> Report:
    """Compare both gradients of the input and of every parameter of a model.

    The model is copied with its parameters in float64, in the mode that it is in; dropout draws the same mask
    every time. The user's model, its gradients and random numbers are not touched. The copy takes 8 bytes a
    parameter, and as much again for each of two sets of gradients. Where more than half of an input's
    elements are at kinks or in ties (a black picture, biases of 0), the check is done again beside it.
    Shapes: x: what the model takes; loss(model(x)): any.
    Args:   model: called with x, with named_parameters(); x: a batch, Tensor or array, or a list of what the
            model takes; loss: makes of the model's output what is to be differentiated, such as
            lambda y: ops.cross_entropy(y, labels) (None: the output, under a random cotangent); eps: the
            step, for directions in units of the root mean square of the parameter; rtol: the error allowed
            to an element, in units of itself and of the root mean square of its gradient, and along a
            direction in units of the gradient's norm; max_elements, directions: of each parameter; seed,
            nondet_tol: as in gradcheck; progress: called with each name.
    Returns: a Report with an input for x (unless it is integers) and for each parameter by its name.
    Raises: GradcheckError if the model cannot be checked.
    """
    check_loss(loss)
    settings = Settings(eps, 0.0, rtol, seed, max_elements, nondet_tol, directions, scaled=True)
    names = [f"x{i}" for i in range(len(x))] if isinstance(x, (list, tuple)) else ["x"]
    experiment = model_experiment(model, x, names, settings, loss)
    repeat = settings.call("check_model(model, x" + ("" if loss is None else ", loss"))
    report = examine_experiment(experiment, progress, repeat)
    if any(part.is_wrong or part.problems for part in report.inputs) or report.ok:
        return report
    nudge(experiment)
    moved = examine_experiment(experiment, progress, repeat)
    note = "as given, too many elements are at kinks or in ties: everything was moved by 1e-3 of its size"
    return dataclasses.replace(moved, notes=(*moved.notes, note), seconds=report.seconds + moved.seconds)
