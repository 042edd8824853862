"""Models by name."""

from __future__ import annotations

import difflib

from minialex.errors import UsageError
from minialex.models.alexnets import VARIANTS, AlexNet, Variant, alexnet
from minialex.models.lenet import LeNet, lenet5
from minialex.models.weights import load_weights, read_state_dict
from minialex.shapes import ShapeError

__all__ = [
    "MODEL_NAMES",
    "VARIANTS",
    "AlexNet",
    "LeNet",
    "Variant",
    "alexnet",
    "build",
    "lenet5",
    "load_weights",
    "read_state_dict",
]

MODEL_NAMES = (*VARIANTS, "lenet5")


def build(name: str, num_classes: int | None = None, image_size: int | None = None) -> AlexNet | LeNet:
    """The model of this name, as the command line and checkpoints call it.

    Args:   name: one of MODEL_NAMES; num_classes: None for the model's own number (1000; LeNet-5: 10);
            image_size: side of the images in pixels, None for the model's own.
    Raises: UsageError for an unknown name, with the known ones; ShapeError for a size that the model
            cannot take.
    """
    if name not in MODEL_NAMES:
        near = difflib.get_close_matches(name, MODEL_NAMES, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        if "alex" in name.lower():
            hint = f"the AlexNets are called {', '.join(VARIANTS)}; "
        raise UsageError(f"unknown model {name!r}: {hint}the models are {', '.join(MODEL_NAMES)}")
    if num_classes is not None and num_classes < 1:
        raise UsageError(f"{name}: the number of classes must be at least 1, got {num_classes}")
    if name == "lenet5":
        if image_size not in (None, 28):
            raise ShapeError(f"lenet5 takes images of 28 x 28 only, got image size {image_size}")
        return lenet5(num_classes or 10)
    return alexnet(name, num_classes or 1000, image_size)
