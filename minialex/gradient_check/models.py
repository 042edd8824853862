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

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from minialex.backend import to_device, to_numpy
from minialex.gradient_check.checking import examine_experiment
from minialex.gradient_check.experiment import Experiment, Input, as_input, require_something
from minialex.gradient_check.report import Report
from minialex.gradient_check.settings import Settings, refuse
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
    parameter, and as much again for each of two sets of gradients.
    Shapes: x: what the model takes; loss(model(x)): any.
    Args:   model: called with x, with named_parameters(); x: a batch, Tensor or array; loss: makes of the
            model's output what is to be differentiated, such as lambda y: ops.cross_entropy(y, labels)
            (None: the output, under a random cotangent); eps: the step, for directions in units of the root
            mean square of the parameter; rtol: the error allowed to an element, in units of itself and of the
            root mean square of its gradient, and along a direction in units of the gradient's norm;
            max_elements, directions: of each parameter; seed, nondet_tol: as in gradcheck; progress: called
            with each name.
    Returns: a Report with an input for x (unless it is integers) and for each parameter by its name.
    Raises: GradcheckError if the model cannot be checked.
    """
    twin = copy_as(model, np.float64)
    named = list(twin.named_parameters())
    batch = as_input(x.data if isinstance(x, Tensor) else x, "x")
    arguments = [batch, *(_parameter(name, parameter) for name, parameter in named)]
    require_something(arguments, type(model).__name__)

    def fn(*tensors: Tensor) -> Tensor:
        output: Tensor = twin(tensors[0])
        return output if loss is None else loss(output)

    settings = Settings(eps, 0.0, rtol, seed, max_elements, nondet_tol, directions, scaled=True)
    leaves = [batch.tensor(), *(parameter for _, parameter in named)]
    repeat = settings.call("check_model(model, x" + ("" if loss is None else ", loss"))
    return examine_experiment(
        Experiment(fn, arguments, settings, leaves, takes_leaves=False), progress, repeat
    )


def _parameter(name: str, parameter: Tensor) -> Input:
    """The very array of the copy: parameters are large, and nothing writes into them."""
    return Input(name, to_numpy(parameter.data), parameter.device, parameter.requires_grad)


def copy_as(model: Any, dtype: npt.DTypeLike) -> Any:
    """A deep copy of a model in which every Tensor of floating numbers has this dtype, and no gradient.

    Raises: GradcheckError if it has no named_parameters().
    """
    if not callable(getattr(model, "named_parameters", None)):
        refuse(f"a model has named_parameters(), {type(model).__name__} has not; is it a function?")
    # Parameters are put into the copy's memo: they are converted at once, instead of copied and converted.
    memo: dict[int, Any] = {}
    for _, parameter in model.named_parameters():
        memo[id(parameter)] = _converted(parameter, np.dtype(dtype))
    twin = copy.deepcopy(model, memo)
    for module in getattr(twin, "modules", list)():
        for value in list(vars(module).values()):
            if isinstance(value, Tensor) and value.dtype.kind == "f" and value.dtype != dtype:
                value.data = to_device(to_numpy(value.data).astype(dtype), value.device)
    return twin


def _converted(parameter: Tensor, dtype: np.dtype[Any]) -> Tensor:
    array = to_numpy(parameter.data)
    values = np.array(array, dtype=dtype if array.dtype.kind == "f" else None)
    twin = Tensor.__new__(type(parameter))
    twin._set(to_device(values, parameter.device), parameter.requires_grad)
    twin.name = parameter.name
    return twin
