"""State dicts as safetensors files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minialex.errors import UsageError
from minialex.nn import Module
from minialex.tensor import Tensor
from minialex.train.safetensors_file import DTYPES, save_safetensors

__all__ = ["write_safetensors"]


def write_safetensors(
    model: Module | Mapping[str, Any], path: str | Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a state dict that PyTorch can read: `model.load_state_dict(safetensors.torch.load_file(path))`.

    The names are PyTorch's already; the shapes are, too. The file appears whole, or not at all.

    Args:   model: a Module, or a state dict of arrays or Tensors; metadata: texts to go with it.
    Raises: UsageError for what is not an array of numbers; OutputError if the place cannot be written to.
    """
    state_dict = model.state_dict() if isinstance(model, Module) else model
    arrays = {name: _array(name, value) for name, value in state_dict.items()}
    save_safetensors(Path(path), arrays, {"format": "pt", **(metadata or {})})


def _array(name: str, value: Any) -> np.ndarray[Any, Any]:
    array = value.numpy() if isinstance(value, Tensor) else np.asarray(value)
    if array.dtype.name not in DTYPES:
        raise UsageError(f"{name}: safetensors files hold numbers, not {array.dtype}")
    return array
