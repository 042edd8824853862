"""What is wrong with the options of a training run, as far as they themselves show it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from minialex.backend import PRECISIONS
from minialex.data import parse_bytes
from minialex.errors import UsageError
from minialex.train.recipes import OPTIMIZER_DEFAULTS
from minialex.train.schedule import ScheduleSpec

if TYPE_CHECKING:
    from minialex.train.config import TrainConfig

# The words that an option may be; None, where it may be left out, is no word.
CHOICES: dict[str, tuple[str, ...]] = {
    "optimizer": tuple(OPTIMIZER_DEFAULTS),
    "sgd_rule": ("torch", "paper"),
    "crops": ("scaled", "fixed", "paper", "whole"),
    "normalize": ("half", "unit", "mean-colour", "mean-image", "imagenet"),
    "init": ("paper", "course", "pytorch", "xavier"),
    "pooling": ("overlapping", "separate"),
    "activation": ("relu", "tanh", "sigmoid"),
    "on_bad_image": ("stop", "skip"),
    "cache": ("none", "memory", "disk", "device"),
}
USUAL_CROP_SCALE = 0.08


def flag(name: str) -> str:
    """The command line's spelling of a field: batch_size -> --batch-size."""
    return "--no-augment" if name == "augment" else f"--{name.replace('_', '-')}"


def check_options(config: TrainConfig) -> None:
    """Raises: UsageError naming the first option that makes no sense, alone or with another."""
    _check_counts(config)
    _check_numbers(config)
    for name, words in CHOICES.items():
        value = getattr(config, name)
        if value is not None and value not in words:
            raise UsageError(f"{flag(name)} must be {_listed(words)}, got {value!r}")
    if config.precision not in PRECISIONS:
        raise UsageError(f"--precision must be one of {', '.join(PRECISIONS)}, got {config.precision!r}")
    _check_pictures(config)
    _check_cache(config)
    if config.optimizer == "adam" and config.momentum:
        raise UsageError("--momentum belongs to --optimizer sgd; Adam has its own running means")
    if config.optimizer == "adam" and config.sgd_rule != "torch":
        raise UsageError(f"--sgd-rule {config.sgd_rule} belongs to --optimizer sgd; leave it out for Adam")
    ScheduleSpec.parse(config.schedule)


def _listed(words: tuple[str, ...]) -> str:
    """("a", "b", "c") -> "a, b or c"."""
    return f"{', '.join(words[:-1])} or {words[-1]}"


def _check_counts(config: TrainConfig) -> None:
    for name in ("epochs", "batch_size", "accumulate", "limit", "save_every"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise UsageError(f"{flag(name)} must be at least 1, got {value}")
    if config.workers is not None and config.workers < 0:
        raise UsageError(f"--workers must be at least 0, got {config.workers}")
    for name in ("seed", "split_seed"):
        value = getattr(config, name)
        if value is not None and not 0 <= value < 2**64:
            raise UsageError(f"{flag(name)} must lie between 0 and 2**64 - 1, got {value}")


def _check_numbers(config: TrainConfig) -> None:
    if not 0 < config.crop_scale <= 1:
        raise UsageError(f"--crop-scale must be above 0 and at most 1, got {config.crop_scale}")
    for name in ("lr", "clip_norm"):
        value = getattr(config, name)
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise UsageError(f"{flag(name)} must be a number above 0, got {value}")
    limits = {"weight_decay": math.inf, "momentum": 1.0, "dropout": 1.0, "pca_jitter": math.inf}
    for name, limit in limits.items():
        value = getattr(config, name)
        if value is not None and not 0 <= value < limit:
            raise UsageError(f"{flag(name)} must be at least 0{' and below 1' * (limit == 1)}, got {value}")


def _check_pictures(config: TrainConfig) -> None:
    if config.crop_scale != USUAL_CROP_SCALE and config.crops != "scaled":
        raise UsageError(
            f"--crop-scale {config.crop_scale} belongs to --crops scaled, and this is --crops "
            f"{config.crops}; leave one of them out"
        )
    if config.pca_jitter and not config.augment:
        raise UsageError(
            f"--pca-jitter {config.pca_jitter} changes training pictures at random, and --no-augment says "
            "that nothing does; leave one of them out"
        )


def _check_cache(config: TrainConfig) -> None:
    if config.cache == "device" and config.augment and config.crops == "scaled":
        raise UsageError(
            "--cache device keeps pictures of one size, which can be cropped and flipped there but not "
            "scaled; add --crops fixed or --no-augment, or use --cache memory"
        )
    if config.cache in ("memory", "device") and config.workers:
        raise UsageError(
            f"--cache {config.cache} is the trainer's own, and --workers {config.workers} asks for other "
            "processes; use --cache disk, which the system keeps in memory for all, or --workers 0"
        )
    if config.cache_budget is not None:
        try:
            parse_bytes(config.cache_budget)
        except UsageError as error:
            raise UsageError(f"--cache-budget {error}") from error
