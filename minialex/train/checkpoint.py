"""A checkpoint: one safetensors file that says everything about the run it comes from.

Tensors: `model/NAME` are the weights, `optimizer/...` what the optimiser remembers, `preprocessing/...` what
the transforms subtract. Metadata, JSON each: the fields of `Checkpoint` below. Nothing in it is code, so that
a checkpoint from a stranger can be opened.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minialex.errors import CheckpointError, NumericalError
from minialex.train.history import EpochRecord
from minialex.train.safetensors_file import (
    CHECKSUM,
    Arrays,
    checksum,
    read_arrays,
    read_metadata,
    save_safetensors,
)

FORMAT = "minialex-checkpoint"
FORMAT_VERSION = 1
MODEL, OPTIMIZER, PREPROCESSING = "model/", "optimizer/", "preprocessing/"


@dataclass(frozen=True)
class Position:
    """Where a run stands: `batch` batches of `epoch` (from 1) are done, `step` optimiser steps in all."""

    epoch: int = 1
    batch: int = 0
    step: int = 0


@dataclass(frozen=True)
class Best:
    """The epoch that did best on the validation part."""

    epoch: int
    val_accuracy: float
    val_loss: float


@dataclass(frozen=True)
class Checkpoint:
    """Everything about a run at one moment.

    Args:
        model_name, image_size, channels: what `models.build` needs besides the number of classes.
        classes: the names, in the order of the network's outputs.
        preprocessing: {"training": ..., "evaluation": ...}, configurations of transforms.
        preprocessing_arrays: the arrays that these refer to by name, such as "mean_image".
        config: the run's options. seed: the one that all random numbers come from.
        split_digest: the manifest's hash. part_sizes: pictures of training, validation and test.
        position, running: where in the epoch it stands, and the epoch's sums so far (RunningMean).
        history, best: the epochs so far. environment: machine and versions.
        optimizer, schedule: their state dicts, without arrays.
        weights: the model's state dict. optimizer_arrays: the arrays of the optimiser's.
    """

    model_name: str
    image_size: int
    channels: int
    classes: tuple[str, ...]
    preprocessing: dict[str, Any]
    config: dict[str, Any]
    seed: int
    split_digest: str
    part_sizes: tuple[int, ...]
    position: Position
    running: dict[str, Any]
    history: tuple[EpochRecord, ...]
    best: Best | None
    environment: dict[str, Any]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    weights: Arrays = field(repr=False)
    optimizer_arrays: Arrays = field(repr=False)
    preprocessing_arrays: Arrays = field(default_factory=dict, repr=False)


# The fields that are tensors of the file, each under a prefix of its own.
_PREFIXES = {"weights": MODEL, "optimizer_arrays": OPTIMIZER, "preprocessing_arrays": PREPROCESSING}


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint atomically.

    Raises: OutputError if the place cannot be written to; NumericalError, with the older file left alone, if
            a weight is not a finite number.
    """
    for name, array in checkpoint.weights.items():
        if not np.isfinite(array).all():
            raise NumericalError(
                f"not saved: {name} holds numbers that are not finite; {path} is left as it was"
            )
    metadata = {"format": FORMAT, "format_version": str(FORMAT_VERSION)}
    for f in dataclasses.fields(checkpoint):
        if f.name not in _PREFIXES:
            metadata[f.name] = json.dumps(_plain(getattr(checkpoint, f.name)), ensure_ascii=False)
    arrays = {
        prefix + name: array
        for group, prefix in _PREFIXES.items()
        for name, array in getattr(checkpoint, group).items()
    }
    save_safetensors(path, arrays, metadata)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint and make sure of every byte.

    Raises: CheckpointError if it is missing, cut short, damaged, of another program or another version.
    """
    path = Path(path)
    metadata = read_metadata(path)
    _check_format(path, metadata)
    arrays = read_arrays(path, ("",))
    if metadata.get(CHECKSUM) != checksum(metadata, arrays):
        raise CheckpointError(
            f"{path} is damaged: its checksum does not match what is in it; copy it again, or use another "
            "checkpoint of the run"
        )
    try:
        return _from_metadata(metadata, arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} calls itself a checkpoint of version {FORMAT_VERSION}, but lacks part of one "
            f"({type(error).__name__}: {error}); it was not written by minialex"
        ) from error


def _check_format(path: Path, metadata: dict[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is a safetensors file, but not a checkpoint of minialex: it does not say which network "
            "and classes it belongs to; use best.safetensors or last.safetensors of a run"
        )
    version = metadata.get("format_version")
    if version != str(FORMAT_VERSION):
        raise CheckpointError(
            f"{path} has format_version {version}, and this minialex reads {FORMAT_VERSION}; "
            "use the version of minialex that wrote it, or train again"
        )


def _from_metadata(metadata: dict[str, str], arrays: Arrays) -> Checkpoint:
    names = [f.name for f in dataclasses.fields(Checkpoint) if f.name not in _PREFIXES]
    values: dict[str, Any] = {name: json.loads(metadata[name]) for name in names}
    values["classes"] = tuple(values["classes"])
    values["part_sizes"] = tuple(values["part_sizes"])
    values["position"] = Position(**values["position"])
    values["history"] = tuple(EpochRecord(**record) for record in values["history"])
    values["best"] = Best(**values["best"]) if values["best"] is not None else None
    values |= {name: _with_prefix(arrays, prefix) for name, prefix in _PREFIXES.items()}
    return Checkpoint(**values)


def _with_prefix(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def split_state(state: dict[str, Any]) -> tuple[dict[str, Any], Arrays]:
    """An optimiser's flat state as what JSON holds, and its arrays."""
    arrays = {name: value for name, value in state.items() if isinstance(value, np.ndarray)}
    return {name: value for name, value in state.items() if name not in arrays}, arrays
