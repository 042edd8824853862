"""From photographs to what a network takes: crops, colours and numbers, as the options of a run say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minialex.data.statistics import Statistics
from minialex.data.transforms import (
    CenterCrop,
    Compose,
    Greyscale,
    Normalize,
    PCAJitter,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    Transform,
    transform_from_config,
)
from minialex.train.checkpoint import Checkpoint
from minialex.train.config import TrainConfig
from minialex.train.safetensors_file import Arrays

__all__ = [
    "Preprocessing",
    "evaluation_transform",
    "preprocessing_config",
    "preprocessing_for",
    "training_transform",
    "transform_of",
]

# What pixels become where nothing is said: bytes as numbers from -1 to 1.
HALF = Normalize(0.5, 0.5)
# Bytes as numbers from 0 to 1.
UNIT = Normalize(0.0, 1.0)
# torchvision's constants, of the pictures of ImageNet.
IMAGENET = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# The 2012 paper's scale: bytes less a mean, not divided by anything.
BYTE = 1 / 255


def training_transform(
    image_size: int,
    channels: int,
    augment: bool = True,
    crops: str = "scaled",
    crop_scale: float = 0.08,
    ending: Sequence[Transform] = (HALF,),
) -> Transform:
    """A random part of the picture at the network's size, flipped half of the time.

    Args:   augment: without it the same as `evaluation_transform`.
            crops: "scaled" takes a part of any size and scales it; "fixed" scales the whole picture to a
            square that is a seventh larger than the network's images, and takes a part of their size;
            "paper" takes such a part out of the middle square of the picture; "whole" scales the picture.
            crop_scale: for "scaled", the smallest part of the picture's area that is taken.
            ending: what is done to the part: a Normalize, perhaps after a jitter of colours.
    Source: "fixed" and "paper": Krizhevsky, Sutskever, Hinton 2012, sections 2 and 4.1: 224 out of 256.
    """
    if not augment:
        return evaluation_transform(image_size, channels, crops, ending)
    side = larger_side(image_size)
    steps: dict[str, list[Transform]] = {
        "scaled": [RandomResizedCrop(image_size, scale=(crop_scale, 1.0))],
        "fixed": [Resize((round(image_size * 8 / 7),) * 2), RandomCrop(image_size)],
        "paper": [Resize(side), CenterCrop(side), RandomCrop(image_size)],
        "whole": [Resize((image_size, image_size))],
    }
    return Compose([*_colours(channels), *steps[crops], RandomHorizontalFlip(), *ending])


def evaluation_transform(
    image_size: int, channels: int, crops: str = "scaled", ending: Sequence[Transform] = (HALF,)
) -> Transform:
    """The whole picture, scaled to the network's size whatever its shape was: nothing is random.

    With crops "paper" the middle of what random parts were taken out of, whose shape is the picture's own.
    """
    return Compose([*_colours(channels), *_evaluation_steps(image_size, crops), *ending])


def _evaluation_steps(image_size: int, crops: str) -> list[Transform]:
    if crops != "paper":
        return [Resize((image_size, image_size))]
    side = larger_side(image_size)
    return [Resize(side), CenterCrop(side), CenterCrop(image_size)]


def _colours(channels: int) -> list[Transform]:
    return [Greyscale()] if channels == 1 else []


def larger_side(image_size: int) -> int:
    """The square that parts of `image_size` are taken from: 256 for 224, and for 227, which is 224 and the
    border that the paper's drawing leaves out; else a seventh more."""
    return 256 if image_size == 227 else round(image_size * 8 / 7)


def preprocessing_config(
    image_size: int,
    channels: int,
    augment: bool = True,
    crops: str = "scaled",
    crop_scale: float = 0.08,
    normalize: Normalize = HALF,
    jitter: PCAJitter | None = None,
    arrays: Arrays | None = None,
) -> dict[str, Any]:
    """Both transforms as a checkpoint keeps them.

    Args: jitter: of the colours of training pictures; arrays: gets what is no matter for JSON.
    """
    ending: list[Transform] = [normalize] if jitter is None else [jitter, normalize]
    training = training_transform(image_size, channels, augment, crops, crop_scale, ending)
    evaluation = evaluation_transform(image_size, channels, crops, [normalize])
    return {"training": training.to_config(arrays), "evaluation": evaluation.to_config(arrays)}


@dataclass(frozen=True)
class Preprocessing:
    """Both transforms of a run, as its checkpoints keep them.

    Args: config: {"training": ..., "evaluation": ...}; arrays: what the configurations refer to by name.
    """

    config: dict[str, Any]
    arrays: Arrays = field(default_factory=dict)

    @property
    def training(self) -> Transform:
        """For pictures that are learnt from."""
        return transform_from_config(self.config["training"], self.arrays)

    @property
    def evaluation(self) -> Transform:
        """For all others; nothing in it is random."""
        return transform_from_config(self.config["evaluation"], self.arrays)


def transform_of(checkpoint: Checkpoint) -> Transform:
    """What a checkpoint's network is shown of a picture."""
    return Preprocessing(checkpoint.preprocessing, checkpoint.preprocessing_arrays).evaluation


def preprocessing_for(config: TrainConfig, model: Any, measure: Callable[[Transform], Any]) -> Preprocessing:
    """The transforms of a new run.

    Args: measure: gives the `Statistics` of the training pictures, made ready by a transform that is not
          random; it is asked for if a mean or the way that colours vary has to be known.
    """
    arrays: Arrays = {}
    jitter, statistics = None, None
    if config.pca_jitter or config.normalize in ("mean-colour", "mean-image"):
        statistics = measure(Compose(_measured_as(model.image_size, model.channels, config.crops)))
    if statistics is not None and config.pca_jitter:
        jitter = PCAJitter(statistics.eigenvalues, statistics.eigenvectors, config.pca_jitter)
    configured = preprocessing_config(
        model.image_size,
        model.channels,
        config.augment,
        config.crops,
        config.crop_scale,
        _normalize(config.normalize, statistics),
        jitter,
        arrays,
    )
    return Preprocessing(configured, arrays)


def _measured_as(image_size: int, channels: int, crops: str) -> list[Transform]:
    """What is done to pictures that are measured: for "paper" the squares that parts are taken from."""
    steps = _evaluation_steps(image_size, crops)
    return [*_colours(channels), *(steps[:2] if crops == "paper" else steps)]


def _normalize(word: str, statistics: Statistics | None) -> Normalize:
    """What --normalize says."""
    if statistics is not None and word == "mean-image":
        return Normalize(np.asarray(statistics.mean_image, np.float32), BYTE)
    if statistics is not None and word == "mean-colour":
        return Normalize(tuple(np.asarray(statistics.mean_colour, float).tolist()), BYTE)
    return {"half": HALF, "unit": UNIT, "imagenet": IMAGENET}[word]
