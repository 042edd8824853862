"""From a trained network or a file of weights to a file for other programs."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minialex import models
from minialex.errors import CheckpointError, UsageError
from minialex.interchange.onnx_file import export_onnx
from minialex.interchange.state_dicts import write_safetensors
from minialex.models.weights import is_safetensors, named_for_model
from minialex.nn import StateDictError, init
from minialex.shapes import ShapeError
from minialex.train.checkpoint import FORMAT, load_checkpoint
from minialex.train.networks import model_of
from minialex.train.run_folder import find_network
from minialex.train.safetensors_file import read_metadata

__all__ = ["Network", "export_network", "network_of"]

# For whoever feeds the exported network: what the JSON of the transforms leaves unsaid.
INPUT_IN_WORDS = (
    "float32, NCHW; channels red, green, blue, or one of grey; Resize is bilinear and averages where it "
    "shrinks; Normalize is (byte / 255 - mean) / std"
)


@dataclass(frozen=True)
class Network:
    """A network with what is known of it. Args: name: in MODEL_NAMES; metadata: texts to go with it."""

    model: Any
    name: str
    metadata: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        m = self.model
        shape = f"{m.channels} x {m.image_size} x {m.image_size}"
        return f"{self.name}, {m.num_classes:,} classes, images of {shape}"


def network_of(
    source: str | Path, name: str | None = None, classes: int | None = None, image_size: int | None = None
) -> Network:
    """The network in a run's folder, a checkpoint, or a file of weights.

    Args:   name, classes, image_size: as for `models.build`, of a file of weights, which does not say it
            itself; classes None: as many as its last layer has outputs.
    Raises: CheckpointError if it cannot be read, or is another network's; UsageError if the options are
            missing, wrong, or contradict a checkpoint.
    """
    path = find_network(source)
    if _is_checkpoint(path):
        given = {"--model": name, "--classes": classes, "--image-size": image_size}
        if any(value is not None for value in given.values()):
            option = next(key for key, value in given.items() if value is not None)
            raise UsageError(
                f"{path} is a checkpoint, which says itself what network it is; leave out {option}"
            )
        return _from_checkpoint(path)
    if name is None:
        raise UsageError(
            f"{path} is not a checkpoint of minialex: say whose weights it holds with --model "
            f"({', '.join(models.MODEL_NAMES)})"
        )
    return _from_weights(path, name, classes, image_size)


def _is_checkpoint(path: Path) -> bool:
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint or file of weights at {path}; check the path")
    with open(path, "rb") as file:
        head = file.read(9)
    return is_safetensors(head, path.stat().st_size) and read_metadata(path).get("format") == FORMAT


def _from_checkpoint(path: Path) -> Network:
    checkpoint = load_checkpoint(path)
    metadata = {
        "model": checkpoint.model_name,
        "classes": json.dumps(checkpoint.classes, ensure_ascii=False),
        "preprocessing": json.dumps(checkpoint.preprocessing["evaluation"], ensure_ascii=False),
        "input": INPUT_IN_WORDS,
    }
    return Network(model_of(checkpoint, path), checkpoint.model_name, metadata)


def _from_weights(path: Path, name: str, classes: int | None, image_size: int | None) -> Network:
    with init.without_init():
        try:
            model = models.build(name, classes, image_size)
        except ShapeError as error:
            raise UsageError(str(error)) from error
        state_dict = named_for_model(models.read_state_dict(path), model)
        head = state_dict.get(f"{models.head_name(model)}.weight")
        if classes is None and head is not None and head.ndim == 2 and len(head):
            models.replace_head(model, len(head))
    try:
        model.load_state_dict(state_dict)
    except StateDictError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return Network(model, name, {"model": name})


def export_network(network: Network, dest: Path, batch: int | str = "dynamic") -> None:
    """Write a .safetensors or an .onnx file, as the name of `dest` says.

    Raises: UsageError for another name, and as `export_onnx`; OutputError if the place cannot be written to.
    """
    match dest.suffix.lower():
        case ".safetensors":
            write_safetensors(network.model, dest, network.metadata)
        case ".onnx":
            export_onnx(network.model, dest, batch, metadata=network.metadata)
        case _:
            raise UsageError(
                f"{dest}: the name must end in .safetensors or .onnx, which says what is written"
            )
