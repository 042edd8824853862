"""Weights from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt

from minialex.errors import CheckpointError
from minialex.nn import Module, StateDictError

__all__ = ["load_weights", "read_state_dict"]

# A checkpoint of a training run keeps the weights under this prefix, beside the optimiser's arrays.
PREFIX = "model/"


def read_state_dict(path: str | Path) -> dict[str, npt.NDArray[Any]]:
    """The state dict in a safetensors file: a bare one, or the weights of a minialex checkpoint.

    Raises: CheckpointError if there is no such file or it is not a whole safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise CheckpointError(f"there is no weights file at {path}; check the path")
    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            weights = [name for name in names if name.startswith(PREFIX)] or names
            return {name.removeprefix(PREFIX): file.get_tensor(name) for name in weights}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error}); copy it again") from error
    except (TypeError, AttributeError) as error:  # bfloat16 and its like, which NumPy has no dtype for.
        raise CheckpointError(
            f"{path} holds numbers that NumPy cannot read ({error}); save as float32"
        ) from error


def load_weights(model: Module, path: str | Path) -> None:
    """Load a file of weights into a model.

    Raises: CheckpointError as `read_state_dict`, and naming the file if names or shapes are another model's.
    """
    try:
        model.load_state_dict(read_state_dict(path))
    except StateDictError as error:
        raise CheckpointError(f"{path}: {error}") from error
