"""Weights from a file, whichever program wrote it."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from minialex.errors import CheckpointError
from minialex.models.heads import head_name
from minialex.models.pytorch_pickles import read_pytorch_pickles
from minialex.models.pytorch_tar import is_tar, read_pytorch_tar
from minialex.models.pytorch_tensors import bfloat16_as_float32
from minialex.models.pytorch_zip import read_pytorch_zip
from minialex.nn import Module, StateDictError
from minialex.safe_pickle import UnsafePickle, shown

__all__ = ["is_safetensors", "load_weights", "named_for_model", "read_state_dict"]

# A checkpoint of a training run keeps the weights under this prefix, beside the optimiser's arrays.
PREFIX = "model/"
# What a download that went wrong begins with.
NO_WEIGHTS = {
    b"version https://git-lfs": "a pointer of git-lfs; fetch the file itself with git lfs pull",
    b"<!DOCTYPE": "a web page; download the file itself",
    b"<html": "a web page; download the file itself",
}


def read_state_dict(path: str | Path) -> dict[str, npt.NDArray[Any]]:
    """The state dict in a file of weights. What the file is shows in its first bytes, not in its name:

        safetensors                          a bare state dict
        a checkpoint of a minialex run       its weights
        torch.save's files, all three kinds  a state dict, or a dict with one under state_dict, model or
                                             model_state_dict

    PyTorch is not needed, and nothing in a file is run: what is not a tensor, a number, a text or a container
    of these is refused by name. Dense tensors of floats, integers and booleans are read; bfloat16 becomes
    float32. Tied weights, two names for the same numbers, are views of the same memory.

    Raises: CheckpointError if there is no such file, or it is damaged, hostile or something else.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise CheckpointError(f"{path} is not a file of weights but a folder or a device; name a file")
        with open(path, "rb") as file:
            state_dict = _read(file, path)
    except FileNotFoundError:
        raise CheckpointError(f"there is no weights file at {path}; check the path") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    for name in state_dict:
        if not name.isprintable() or not name:
            raise CheckpointError(f"{path}: an entry is called '{shown(name)}', which is no parameter's name")
    return state_dict


def _read(file: IO[bytes], path: Path) -> dict[str, npt.NDArray[Any]]:
    size = os.fstat(file.fileno()).st_size
    head = file.read(512)
    file.seek(0)
    for beginning, what in NO_WEIGHTS.items():
        if head.startswith(beginning):
            raise CheckpointError(f"{path} is {what}")
    if is_safetensors(head, size):
        return _read_safetensors(path)
    try:
        if head.startswith(b"PK"):
            return read_pytorch_zip(file, size)
        if head.startswith(b"\x80"):
            return read_pytorch_pickles(file, size)
        if is_tar(head):
            return read_pytorch_tar(file, size)
    except UnsafePickle as error:
        hint = (
            "a file of weights needs tensors alone: unless you trust whoever made it, delete it; else save "
            "model.state_dict() with torch.save"
        )
        raise UnsafePickle(error.name, f"{path}: {error}; {hint}") from None
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    raise CheckpointError(
        f"{path} is neither a whole safetensors file nor one of PyTorch's: it is cut short, or something else"
    )


def is_safetensors(head: bytes, size: int) -> bool:
    """Whether a file of `size` bytes that begins so is a safetensors file: a length, and JSON of this length.

    This comes before the other formats are thought of: the length may begin like one of theirs.
    """
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8


def _read_safetensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            weights = [name for name in names if name.startswith(PREFIX)] or names
            return {name.removeprefix(PREFIX): _tensor(file, path, name) for name in weights}
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error}); copy it again") from error


def _tensor(file: Any, path: Path, name: str) -> npt.NDArray[Any]:
    kind = file.get_slice(name).get_dtype()
    if kind.startswith("C"):
        raise CheckpointError(f"{path}: {name} holds complex numbers ({kind}), which no network here has")
    try:
        return _bfloat16(path, name) if kind == "BF16" else np.asarray(file.get_tensor(name))
    except (TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: {name} holds {kind} numbers, which NumPy cannot read; save as float32"
        ) from error
    except ValueError as error:  # A hundred axes, or extents beside a 0 beyond all bounds.
        raise CheckpointError(f"{path}: {name} has a shape that no array can have ({error})") from error


def _bfloat16(path: Path, name: str) -> npt.NDArray[np.float32]:
    """The numbers of an entry as float32: NumPy lacks them, they are the upper halves of float32's."""
    with open(path, "rb") as raw:
        length = int.from_bytes(raw.read(8), "little")
        entry = json.loads(raw.read(length))[name]  # Which the library has found to be in order.
        raw.seek(8 + length + entry["data_offsets"][0])
        halves = np.fromfile(raw, "<u2", math.prod(entry["shape"]))
    return bfloat16_as_float32(halves).reshape(entry["shape"])


def load_weights(model: Module, path: str | Path, *, skip_head: bool | None = False) -> tuple[str, ...]:
    """Load a file of weights into a model, keeping the model's dtype and device.

    Names that PyTorch's DataParallel made longer (module.features.0.weight, features.module.0.weight) are
    understood.

    Args:    path: as for `read_state_dict`; skip_head: leave the last fully connected layer as it is,
             whatever the file has for it; None leaves it if the file has it for another number of classes.
    Returns: the names of the parameters that were left as they were.
    Raises:  CheckpointError as `read_state_dict`, and naming the file if names or shapes are another model's;
             then nothing was loaded.
    """
    state_dict = named_for_model(read_state_dict(path), model)
    own, head = dict(model.named_parameters()), "" if skip_head is False else head_name(model)
    if skip_head is None:
        theirs, mine = state_dict.get(f"{head}.weight"), own[f"{head}.weight"]
        skip_head = theirs is not None and theirs.ndim == mine.ndim and len(theirs) != mine.shape[0]
    skipped = tuple(f"{head}.{part}" for part in ("weight", "bias")) if skip_head else ()
    kept = {name: own[name] for name in skipped if name in own}
    try:
        model.load_state_dict({name: a for name, a in state_dict.items() if name not in skipped} | kept)
    except StateDictError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return tuple(kept)


def named_for_model(state_dict: dict[str, npt.NDArray[Any]], model: Module) -> dict[str, npt.NDArray[Any]]:
    """The state dict without the `module` that PyTorch's DataParallel puts into names.

    module.features.0.weight and features.module.0.weight become features.0.weight. For a model that has such
    names itself, and where two would become one, it stays as it is.
    """
    if any("module" in name.split(".") for name, _ in model.named_modules()):
        return state_dict
    renamed = {
        ".".join(part for part in name.split(".") if part != "module"): array
        for name, array in state_dict.items()
    }
    return renamed if len(renamed) == len(state_dict) else state_dict
