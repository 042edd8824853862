"""From a photograph to the numbers a net sees: crops, flips, scaling, colours, normalisation.

The conventions are torchvision's. A transform is called with an image and a stream of random numbers, and its
random choices come from that stream alone, whose address is (seed, epoch, image): whichever worker prepares
the picture, and whatever was prepared before, the result is the same. Pictures are scaled with Pillow's
bilinear filter, which averages when it shrinks (antialiasing).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy.typing as npt

from minialex.data.transforms.base import Arrays, Compose, Transform
from minialex.data.transforms.colours import Greyscale, Normalize, PCAJitter
from minialex.data.transforms.geometry import (
    CenterCrop,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
)
from minialex.errors import DataError

__all__ = [
    "Arrays",
    "CenterCrop",
    "Compose",
    "Greyscale",
    "Normalize",
    "PCAJitter",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "Resize",
    "Transform",
    "transform_from_config",
]

KNOWN: dict[str, Callable[..., Transform]] = {
    cls.__name__: cls
    for cls in (
        Resize,
        CenterCrop,
        RandomResizedCrop,
        RandomCrop,
        RandomHorizontalFlip,
        Greyscale,
        PCAJitter,
        Normalize,
    )
}


def transform_from_config(
    config: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]] | None = None
) -> Transform:
    """The transform that `to_config` wrote.

    Args:   arrays: those that the configuration refers to, as to_config(arrays) collected them.
    Raises: DataError for a name, an argument or an array that no transform here has.
    """
    arguments = dict(config)
    name = arguments.pop("name", None)
    try:
        if name == "Compose":
            return Compose([transform_from_config(item, arrays) for item in arguments["transforms"]])
        found = {key: _resolved(value, arrays or {}) for key, value in arguments.items()}
        return KNOWN[str(name)](**found)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"No transform can be made from {dict(config)!r} ({error!r}). Expected a name among "
            f"{', '.join(['Compose', *KNOWN])} with its arguments."
        ) from error


def _resolved(value: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> Any:
    """The array that {"array": NAME} stands for; any other value as it is."""
    if not isinstance(value, Mapping):
        return value
    name = value["array"]
    if name not in arrays:
        given = ", ".join(sorted(arrays)) or "none"
        raise DataError(f"the transform refers to the array {name!r}, which is missing; given: {given}")
    return arrays[name]
