"""Models by name."""

from __future__ import annotations

import difflib
from typing import Any

from minialex.errors import UsageError
from minialex.models.alexnets import VARIANTS, AlexNet, Variant, alexnet
from minialex.models.cifar import CifarNet, cifar4
from minialex.models.geometry import SIZE_RULE, size_by_rule
from minialex.models.heads import head_name, replace_head
from minialex.models.lenet import LENETS, LeNet, lenet5
from minialex.models.network import ConvNet
from minialex.models.weights import load_weights, read_state_dict
from minialex.shapes import ShapeError

__all__ = [
    "LENETS",
    "MODEL_NAMES",
    "SIZE_RULE",
    "VARIANTS",
    "AlexNet",
    "CifarNet",
    "ConvNet",
    "LeNet",
    "Variant",
    "alexnet",
    "build",
    "cifar4",
    "head_name",
    "lenet5",
    "load_weights",
    "read_state_dict",
    "replace_head",
    "size_by_rule",
]

MODEL_NAMES = (*VARIANTS, *LENETS, "cifar-4")
# What can be chosen for a model besides the number of classes and the size of the images.
OPTIONS = {
    **dict.fromkeys(VARIANTS, ("dropout", "lrn", "pooling", "activation")),
    **dict.fromkeys(LENETS, ("activation",)),
    "cifar-4": ("pooling", "activation"),
}


def build(
    name: str,
    num_classes: int | None = None,
    image_size: int | None = None,
    *,
    dropout: float | None = None,
    lrn: bool | None = None,
    pooling: str | None = None,
    activation: str | None = None,
) -> ConvNet:
    """The model of this name, as the command line and checkpoints call it.

    Args:   name: one of MODEL_NAMES; num_classes: None for the model's own number (1000; LeNet-5 and
            cifar-4: 10); image_size: side of the images in pixels. None is the model's own for this and for
            the others: dropout: probability of all its Dropout layers; lrn: whether responses are normalised
            after conv1 and conv2; pooling: "overlapping" (windows of 3 x 3 with stride 2) or "separate"
            (2 x 2 with stride 2); activation: "relu", "tanh" or "sigmoid", with first values that suit it.
    Raises: UsageError for an unknown name, with the known ones, and for an option that the model has no use
            for or a value that there is not; ShapeError for a size that the model cannot take.
    """
    _check_name(name)
    if num_classes is not None and num_classes < 1:
        raise UsageError(f"{name}: the number of classes must be at least 1, got {num_classes}")
    given = {"dropout": dropout, "lrn": lrn, "pooling": pooling, "activation": activation}
    options: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    for option in options:
        if option not in OPTIONS[name]:
            raise UsageError(
                f"{name} has no use for {option}; what can be chosen for it: {', '.join(OPTIONS[name])}"
            )
    if name in VARIANTS:
        return alexnet(name, num_classes or 1000, image_size, **options)
    if name == "cifar-4":
        return cifar4(num_classes or 10, image_size=image_size, **options)
    if image_size not in (None, 28):
        raise ShapeError(f"{name} takes images of 28 x 28 only, got image size {image_size}")
    return lenet5(num_classes or 10, name, **options)


def _check_name(name: str) -> None:
    """Raises: UsageError for a name that is not in MODEL_NAMES, with the one that was probably meant."""
    if name in MODEL_NAMES:
        return
    near = difflib.get_close_matches(name, MODEL_NAMES, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    if "alex" in name.lower():
        hint = f"the AlexNets are called {', '.join(VARIANTS)}; "
    raise UsageError(f"unknown model {name!r}: {hint}the models are {', '.join(MODEL_NAMES)}")
