"""Loading a state dict: everything is compared first, so that an error leaves the model as it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from minialex.backend import Array, is_array, to_device
from minialex.errors import CheckpointError
from minialex.nn.parameter import Parameter
from minialex.tensor import Tensor

__all__ = ["LoadResult", "StateDictError", "load_into"]


class LoadResult(NamedTuple):
    """Names that were not loaded.

    Args: missing: the model has them, the state dict does not; unexpected: the other way round.
    """

    missing: list[str]
    unexpected: list[str]


class StateDictError(CheckpointError):
    """A state dict that does not belong to the model. Nothing was loaded.

    Attributes: missing, unexpected: lists of names; mismatched: a list of sentences, each naming a parameter
    and both shapes.
    """

    def __init__(self, owner: str, missing: list[str], unexpected: list[str], mismatched: list[str]) -> None:
        self.missing, self.unexpected, self.mismatched = missing, unexpected, mismatched
        lists = [("missing", missing), ("unexpected", unexpected), ("mismatched", mismatched)]
        lines = [f"  {kind} ({len(names)}): {_enumerate(names)}" for kind, names in lists if names]
        super().__init__("\n".join([f"this state dict does not fit {owner}; nothing was loaded", *lines]))


def load_into(
    parameters: Mapping[str, Parameter], state_dict: Mapping[str, Any], strict: bool, owner: str
) -> LoadResult:
    """`Module.load_state_dict` for parameters by name; `owner` is the model's name in messages."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(
            f"load_state_dict: expected a mapping of names to arrays, got {type(state_dict).__name__}"
        )
    missing = [name for name in parameters if name not in state_dict]
    unexpected = [name for name in state_dict if name not in parameters]
    arrays = {name: _as_array(state_dict[name]) for name in parameters if name in state_dict}
    mismatched = [
        problem for name, array in arrays.items() if (problem := _mismatch(name, parameters[name], array))
    ]
    if mismatched or (strict and (missing or unexpected)):
        raise StateDictError(owner, missing, unexpected, mismatched)
    # The moves come before the first write: a device that fails leaves the model whole, too.
    moved = {name: to_device(array, parameters[name].device) for name, array in arrays.items()}
    for name, array in moved.items():
        parameters[name].data[...] = array
        parameters[name].bump_version()
    return LoadResult(missing, unexpected)


def _as_array(value: Any) -> Array:
    if isinstance(value, Tensor):
        return value.data
    # An array stays where it is; anything else, a PyTorch tensor too, is something NumPy can read.
    return value if is_array(value) else np.asarray(value)


def _mismatch(name: str, parameter: Parameter, array: Array) -> str:
    if tuple(array.shape) != parameter.shape:
        return f"{name} (state dict {tuple(array.shape)}, model {parameter.shape})"
    if array.dtype.kind not in "fiu":
        return f"{name} (state dict has dtype {array.dtype}, model {parameter.dtype})"
    return ""


def _enumerate(names: Sequence[str], limit: int = 20) -> str:
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")
