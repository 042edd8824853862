"""The network of a run: made for its options, begun from a file of weights, in part frozen, or read back."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from minialex import models, nn
from minialex.errors import CheckpointError, UsageError
from minialex.nn import init
from minialex.rng import random_scope
from minialex.shapes import ShapeError
from minialex.train.checkpoint import FORMAT, Checkpoint
from minialex.train.config import TrainConfig
from minialex.train.config_checks import flag
from minialex.train.run_folder import find_network
from minialex.train.safetensors_file import read_metadata

__all__ = ["build_model", "check_model", "freeze_modules", "load_weights", "model_of"]

Say = Callable[[str], object]

# The options of `models.build` that a run's options carry under the same names.
MODEL_OPTIONS = ("dropout", "lrn", "pooling", "activation")


def check_model(name: str) -> None:
    """Raises: UsageError listing the names, if `models.build` does not know this one."""
    if name not in models.MODEL_NAMES:
        models.build(name)  # Refuses, and knows which name was probably meant.


def check_network(config: TrainConfig) -> None:
    """Refuse what can be known to be wrong before any picture is looked at.

    Raises: UsageError for a network that there is not, and for options that it has no use for;
            CheckpointError for weights that are not there.
    """
    check_model(config.model)
    with init.without_init():
        model = models.build(config.model, **_model_options(vars(config)))
    if config.freeze is not None:
        freeze_modules(model, config.freeze)
    _check_colours(config, model.channels)
    if config.weights is not None:
        _weights_file(config.weights)


def _check_colours(config: TrainConfig, channels: int) -> None:
    if channels == 3:
        return
    for_colours = {"pca_jitter": config.pca_jitter > 0, "normalize": config.normalize == "imagenet"}
    for name in (name for name, needs_them in for_colours.items() if needs_them):
        instead = "0" if name == "pca_jitter" else "half, unit, mean-colour or mean-image"
        raise UsageError(
            f"{flag(name)} {getattr(config, name)} is for pictures in colour, and {config.model} takes grey "
            f"ones; give {flag(name)} {instead}"
        )


def build_model(config: TrainConfig, num_classes: int, device: str, say: Say = print) -> Any:
    """The network before its first step: with the values that the seed gives it, or those of config.weights.

    Raises: UsageError for options that the network has no use for, CheckpointError for weights that do not
            fit it.
    """
    with random_scope(config.seed):
        if config.init is None:
            model = models.build(config.model, num_classes, **_model_options(vars(config)))
        else:
            with init.without_init():
                model = models.build(config.model, num_classes, **_model_options(vars(config)))
            _first_values(config.init, model)(model)
    all_loaded = config.weights is None or start_from(model, config.weights, say)
    if config.freeze is not None:
        freeze_modules(model, config.freeze)
        if not all_loaded and not _head(model).weight.requires_grad:
            raise UsageError(
                f"--freeze {config.freeze}: the last layer, {models.head_name(model)}, begins anew, as "
                "--weights has it for another number of classes, and must be learnt; leave it out of --freeze"
            )
    return model.to(device)


def _model_options(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in MODEL_OPTIONS if values.get(name) is not None}


def _first_values(name: str, model: Any) -> Callable[[Any], None]:
    if name == "xavier":
        sigmoids = any(isinstance(module, nn.Sigmoid) for module in model.modules())
        return partial(init.xavier_, gain=4.0 if sigmoids else 1.0)  # A sigmoid's slope at zero is 1/4.
    return {"paper": init.paper_, "course": init.course_, "pytorch": init.pytorch_}[name]


# ----------------------------------------------------------------------------------------- transfer


def _weights_file(path: str) -> Path:
    """The file of --weights: `path`, or the best network in a run's folder. Raises: CheckpointError."""
    try:
        file = find_network(path)
    except CheckpointError as error:
        raise CheckpointError(f"--weights {path}: {error}") from error
    if not file.is_file():
        raise CheckpointError(f"--weights {path}: there is no such file; check the path")
    return file


def start_from(model: Any, path: str, say: Say) -> bool:
    """Load a file of weights; of another number of classes, all of it but the classifier's last layer.

    Args:    path: of the file, or of a run's folder, whose best network is taken; say: is told.
    Returns: whether the last layer was loaded, too.
    Raises:  CheckpointError, naming the file, if it cannot be read or is of another network.
    """
    file, head = _weights_file(path), models.head_name(model)
    try:
        left_out = models.load_weights(model, file, skip_head=None)
    except CheckpointError as error:
        raise CheckpointError(f"--weights {_shortened(str(error))}{_whose(file, model)}") from error
    if not left_out:
        say(f"weights: from {file}")
        return True
    say(
        f"weights: from {file}, all but {head}: it is for another number of classes there than the "
        f"{model.num_classes:,} here, and is learnt anew"
    )
    return False


def _head(model: Any) -> Any:
    return dict(model.named_modules())[models.head_name(model)]


def _shortened(text: str, width: int = 150) -> str:
    """The text with every line that lists many names cut behind the last one that fits."""
    lines = ((line, line.rfind(", ", 0, width)) for line in text.splitlines())
    return "\n".join(line if len(line) <= width or end < 0 else f"{line[:end]}, ..." for line, end in lines)


def _whose(file: Path, model: Any) -> str:
    """A hint for weights that do not fit: whose they are, if the file is a checkpoint of ours."""
    try:
        metadata = read_metadata(file)
        theirs = json.loads(metadata["model_name"]) if metadata.get("format") == FORMAT else None
    except (CheckpointError, KeyError, ValueError):  # A file of another program, or a broken one.
        return ""
    known = theirs in models.MODEL_NAMES and theirs != getattr(model, "name", None)
    return f"\nThese are the weights of {theirs}: give --model {theirs}." if known else ""


def freeze_modules(model: Any, names: str) -> None:
    """Take modules out of the training: their parameters get no gradient.

    Args:   names: of modules, as in state dicts, with commas between: "features", "features.0,classifier.1".
    Raises: UsageError listing the names if one of them is no module with parameters, or if nothing is left.
    """
    known = {name: module for name, module in model.named_modules() if name and module.num_parameters()}
    for name in (part.strip() for part in names.split(",")):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UsageError(
                f"--freeze {name!r}: the network has no such part with parameters; {hint}there are "
                f"{', '.join(known)}"
            )
        known[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UsageError(f"--freeze {names} leaves nothing to train; leave out what is to be learnt")


# ------------------------------------------------------------------------------------- reading back


def model_of(checkpoint: Checkpoint, path: Path, device: str = "cpu") -> Any:
    """The network of a checkpoint with its weights, built with the options that it was trained with.

    Args:   path: of the checkpoint, for messages.
    Raises: CheckpointError if this version has no such network, or the weights do not fit it.
    """
    if checkpoint.model_name not in models.MODEL_NAMES:
        raise CheckpointError(
            f"{path} is of a network {checkpoint.model_name!r}, which this version of minialex does not "
            "have; use the version that wrote it"
        )
    options = _model_options(checkpoint.config)
    try:
        with init.without_init():
            model = models.build(
                checkpoint.model_name, len(checkpoint.classes), checkpoint.image_size, **options
            )
    except (UsageError, ShapeError) as error:
        raise CheckpointError(
            f"{path}: this version of minialex cannot build its network ({error}); use the one that wrote it"
        ) from error
    load_weights(model, checkpoint, path)
    return model.to(device)


def load_weights(model: Any, checkpoint: Checkpoint, path: Path) -> None:
    """Put a checkpoint's weights into a model. Raises: CheckpointError if they do not fit."""
    try:
        model.load_state_dict(checkpoint.weights)
    except CheckpointError as error:
        raise CheckpointError(
            f"{path}: the weights are not those of {checkpoint.model_name} in this version of minialex: "
            f"{error}\nUse the version that wrote the checkpoint."
        ) from error
