"""Which network and which batch a parity run takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from minialex import models
from minialex.data import Loader, open_dataset
from minialex.errors import DataError, UsageError
from minialex.rng import Stream, random_scope
from minialex.train.parity import Experiment
from minialex.train.predictor import load
from minialex.train.preprocessing import evaluation_transform

BATCH_SIZE = 4


def open_experiment(
    target: str,
    data: str | None = None,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    precision: str = "fp32",
    say: Callable[[str], Any] = print,
) -> tuple[Experiment, str, str]:
    """(the experiment, the network's name, what the pictures are).

    Args:   target: a model's name, whose weights then follow the seed, or a checkpoint; data: a folder of
            pictures or "drawn", None for random numbers, which follow the seed.
    Raises: UsageError, CheckpointError, DataError.
    """
    if batch_size < 1:
        raise UsageError(f"--batch-size must be at least 1, got {batch_size}")
    classes, transform = None, None
    dataset, description = (None, "") if data is None else open_dataset(data, on_bad_image="stop", say=say)
    if target in models.MODEL_NAMES:
        with random_scope(seed):
            model = models.build(target, None if dataset is None else len(dataset.classes))
    elif Path(target).exists():
        predictor = load(target, "cpu")
        model, classes = predictor.model, predictor.classes
        transform = predictor.transform
    else:
        raise UsageError(
            f"{target} is neither a checkpoint nor a model; the models are {', '.join(models.MODEL_NAMES)}"
        )
    if dataset is None:
        shape = (batch_size, model.channels, model.image_size, model.image_size)
        images = Stream(seed, "test").normal(shape=shape).astype(np.float32)
        labels, description = np.arange(batch_size) % model.num_classes, "random numbers"
    else:
        images, labels = _batch(dataset, model, classes, transform, batch_size, seed)
    return Experiment(model, images, labels, seed, precision), target, description


def _batch(
    dataset: Any, model: Any, classes: Any, transform: Any, batch_size: int, seed: int
) -> tuple[Any, Any]:
    """One batch of photographs in the order that the seed gives, none of them augmented."""
    if classes is not None and tuple(dataset.classes) != tuple(classes):
        raise DataError(
            f"{dataset.root} has the classes {', '.join(dataset.classes)}, and the checkpoint knows "
            f"{', '.join(classes)}"
        )
    transform = transform or evaluation_transform(model.image_size, model.channels)
    with Loader(dataset, np.arange(len(dataset)), transform, batch_size, shuffle=True, seed=seed) as loader:
        batch = next(iter(loader.epoch(0)))
        return batch.images, batch.labels
