"""Whole recipes of training by name: what --recipe chooses for the options that the user does not give."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from minialex import models
from minialex.errors import UsageError

if TYPE_CHECKING:
    from minialex.train.config import TrainConfig

# What each optimiser starts from: Adam as in the course's recipe, SGD as in the 2012 paper.
OPTIMIZER_DEFAULTS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "adam": {"lr": 2e-4, "weight_decay": 0.0, "momentum": 0.0},
        "sgd": {"lr": 0.01, "weight_decay": 5e-4, "momentum": 0.9},
    }
)

RECIPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        # Krizhevsky, Sutskever, Hinton 2012, sections 4 and 5.
        "paper": {
            "model": "grouped",
            "dropout": 0.5,
            "init": "paper",
            "optimizer": "sgd",
            "lr": 0.01,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "sgd_rule": "paper",
            # The paper's rate was lowered by hand, three times in 90 epochs; five epochs without a better
            # validation error stand for the eye that saw it stop improving.
            "schedule": "plateau-error:5",
            "epochs": 90,
            "batch_size": 128,
            "crops": "paper",
            "pca_jitter": 0.1,
            "normalize": "mean-image",
        },
        # The course on five kinds of flowers, in PyTorch: what minialex does where nothing is said.
        "course": {
            "model": "flowers",
            "init": "course",
            "optimizer": "adam",
            "lr": 2e-4,
            "schedule": "constant",
            "epochs": 10,
            "batch_size": 32,
            "crops": "scaled",
            "crop_scale": 0.08,
            "normalize": "half",
        },
        # The same course's version in TensorFlow.
        "course-tf": {
            "model": "flowers-tf",
            "dropout": 0.2,
            "optimizer": "adam",
            "lr": 5e-4,
            "schedule": "constant",
            "epochs": 10,
            "batch_size": 32,
            "crops": "whole",
            "normalize": "unit",
        },
        # Ours, for a few thousand photographs and no pretrained weights.
        "scratch": {
            "model": "flowers",
            "optimizer": "adam",
            "lr": 3e-4,
            "schedule": "cosine",
            "epochs": 30,
            "batch_size": 32,
            "crops": "scaled",
            "crop_scale": 0.25,
        },
    }
)

# A recipe's value means something only beside its value of another option: the rate of SGD is none for Adam.
_BELONGS_TO = {
    "lr": "optimizer",
    "momentum": "optimizer",
    "weight_decay": "optimizer",
    "sgd_rule": "optimizer",
    "crop_scale": "crops",
}


def recipe_of(name: str) -> Mapping[str, Any]:
    """The values of a recipe. Raises: UsageError for an unknown name, with the one that is nearest."""
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"--recipe {name!r} is unknown: {hint}the recipes are {', '.join(RECIPES)}")
    return RECIPES[name]


def recipe_values(config: TrainConfig) -> dict[str, Any]:
    """What config.recipe chooses: its values for all that the user did not give and that fit what he did.

    Raises: UsageError as `recipe_of`.
    """
    recipe = recipe_of(str(config.recipe))
    given = config.given or frozenset()
    # What differs from the default was also chosen, by `dataclasses.replace` or by a script.
    given |= {f.name for f in dataclasses.fields(config) if getattr(config, f.name) != f.default}
    values = {name: value for name, value in recipe.items() if name not in given}

    def chosen(name: str) -> Any:
        return values.get(name, getattr(config, name))

    for name, owner in _BELONGS_TO.items():
        if chosen(owner) != recipe.get(owner):
            values.pop(name, None)
    if not chosen("augment") or chosen("model") in models.LENETS:  # Grey pictures have no colours to change.
        values.pop("pca_jitter", None)
    if chosen("model") not in models.VARIANTS:  # The others are not made for dropout.
        values.pop("dropout", None)
    return values


def recipe_lines(config: TrainConfig) -> list[str]:
    """What a recipe chose for this run, spelled as flags, and what the run has in place of the rest."""
    if config.recipe is None:
        return []
    recipe = recipe_of(config.recipe)
    chosen, others = [], []
    for name, value in recipe.items():
        flag, mine = f"--{name.replace('_', '-')}", getattr(config, name)
        if mine == value:
            chosen.append(f"{flag} {value}")
        else:
            others.append(f"{flag} {'as the network has it' if mine is None else mine} instead of {value}")
    lines = [f"recipe {config.recipe}: {' '.join(chosen)}"]
    return lines + ([f"but {', '.join(others)}"] if others else [])
