"""From photographs to what a network takes: the course's recipe, at the network's size and colours."""

from __future__ import annotations

from typing import Any

from minialex.data.transforms import (
    Compose,
    Greyscale,
    Normalize,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    Transform,
)

MEAN = STD = 0.5  # Bytes become numbers from -1 to 1.


def training_transform(
    image_size: int, channels: int, augment: bool = True, crop_scale: float = 0.08
) -> Transform:
    """A random part of the picture, scaled to the network's size, flipped half of the time.

    Args: augment: without it the same as `evaluation_transform`; crop_scale: the smallest part of the
          picture's area that is taken.
    """
    if not augment:
        return evaluation_transform(image_size, channels)
    crop = RandomResizedCrop(image_size, scale=(crop_scale, 1.0))
    return Compose([*_colours(channels), crop, RandomHorizontalFlip(), Normalize(MEAN, STD)])


def evaluation_transform(image_size: int, channels: int) -> Transform:
    """The whole picture, scaled to the network's size whatever its shape was: nothing is random."""
    return Compose([*_colours(channels), Resize((image_size, image_size)), Normalize(MEAN, STD)])


def _colours(channels: int) -> list[Transform]:
    return [Greyscale()] if channels == 1 else []


def preprocessing_config(
    image_size: int, channels: int, augment: bool = True, crop_scale: float = 0.08
) -> dict[str, Any]:
    """Both transforms as a checkpoint keeps them."""
    return {
        "training": training_transform(image_size, channels, augment, crop_scale).to_config(),
        "evaluation": evaluation_transform(image_size, channels).to_config(),
    }
