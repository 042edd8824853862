"""From photographs to what a network takes: the course's recipe, at the network's size and colours."""

from __future__ import annotations

from typing import Any

from minialex.data.transforms import (
    Compose,
    Greyscale,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    Transform,
)

MEAN = STD = 0.5  # Bytes become numbers from -1 to 1.


def training_transform(
    image_size: int, channels: int, augment: bool = True, crops: str = "scaled", crop_scale: float = 0.08
) -> Transform:
    """A random part of the picture at the network's size, flipped half of the time.

    Args:   augment: without it the same as `evaluation_transform`; crops: "scaled" takes a part of any size
            and scales it; "fixed" scales the whole picture to a square that is a seventh larger than the
            network's images, and takes a part of their size; crop_scale: for "scaled", the smallest part of
            the picture's area that is taken.
    Source: "fixed": Krizhevsky, Sutskever, Hinton 2012, section 4.1: parts of 224 out of 256.
    """
    if not augment:
        return evaluation_transform(image_size, channels)
    steps: list[Transform] = [RandomResizedCrop(image_size, scale=(crop_scale, 1.0))]
    if crops == "fixed":
        larger = round(image_size * 8 / 7)
        steps = [Resize((larger, larger)), RandomCrop(image_size)]
    return Compose([*_colours(channels), *steps, RandomHorizontalFlip(), Normalize(MEAN, STD)])


def evaluation_transform(image_size: int, channels: int) -> Transform:
    """The whole picture, scaled to the network's size whatever its shape was: nothing is random."""
    return Compose([*_colours(channels), Resize((image_size, image_size)), Normalize(MEAN, STD)])


def _colours(channels: int) -> list[Transform]:
    return [Greyscale()] if channels == 1 else []


def preprocessing_config(
    image_size: int, channels: int, augment: bool = True, crops: str = "scaled", crop_scale: float = 0.08
) -> dict[str, Any]:
    """Both transforms as a checkpoint keeps them."""
    return {
        "training": training_transform(image_size, channels, augment, crops, crop_scale).to_config(),
        "evaluation": evaluation_transform(image_size, channels).to_config(),
    }
