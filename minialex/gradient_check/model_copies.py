"""Copies of models in another precision, and a copy as an experiment: its inputs, and every parameter."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from minialex.backend import to_device, to_numpy
from minialex.gradient_check.experiment import LARGE, Experiment, Input, as_input, require_something
from minialex.gradient_check.settings import Settings, refuse
from minialex.rng import Stream
from minialex.tensor import Tensor

# How far `nudge` moves, in units of an array's root mean square.
NUDGE = 1e-3


def is_model(subject: Any) -> bool:
    """Whether it has parameters of its own."""
    return callable(getattr(subject, "named_parameters", None))


def model_experiment(
    model: Any,
    inputs: Any,
    names: Sequence[str] | None,
    settings: Settings,
    loss: Callable[[Tensor], Tensor] | None = None,
) -> Experiment:
    """The experiment of a float64 copy of a model: its inputs, and after them its parameters by name.

    Args:   inputs: an array or Tensor, or a list of them; names: of the inputs; loss: of the model's output.
    Raises: GradcheckError if it is no model, or nothing in it can be checked.
    """
    twin = copy_as(model, np.float64)
    values = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    labels = list(names) if names is not None else [f"input {i}" for i in range(len(values))]
    if len(labels) != len(values):
        refuse(f"{len(labels)} names for {len(values)} inputs")
    given = [as_input(_array(value), label) for value, label in zip(values, labels, strict=True)]
    named = list(twin.named_parameters())
    arguments = [*given, *(_parameter(name, parameter) for name, parameter in named)]
    require_something(arguments, type(model).__name__)

    def fn(*tensors: Tensor) -> Tensor:
        output: Tensor = twin(*tensors[: len(given)])
        return output if loss is None else loss(output)

    leaves = [*(argument.tensor() for argument in given), *(parameter for _, parameter in named)]
    return Experiment(fn, arguments, settings, leaves, takes_leaves=False)


def nudge(experiment: Experiment) -> None:
    """Move the inputs and all but the largest parameters by a little, at random: what was exactly equal, or
    exactly 0, no longer is. The experiment's own copies are moved."""
    for number, argument in enumerate(experiment.arguments):
        array = argument.array
        if array.dtype.kind == "f" and 0 < array.size <= LARGE:
            noise = Stream(experiment.settings.seed, "gradcheck", step=3, item=number).normal(
                shape=(array.size,)
            )
            size = float(np.sqrt(np.mean(np.square(array)))) or 1.0
            array += NUDGE * size * noise.reshape(array.shape)
            experiment.leaves[number].data = to_device(array, argument.device)


def _array(value: Any) -> Any:
    return value.data if isinstance(value, Tensor) else value


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
