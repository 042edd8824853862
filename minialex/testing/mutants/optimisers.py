"""Bugs in the rules of learning, where no gradient is wrong and yet every step is."""

from __future__ import annotations

from typing import Any

from minialex.backend import Array
from minialex.optim import SGD, Adam
from minialex.optim.optimizer import Update
from minialex.testing.mutants.planting import wrong_method


def _with(update: Update, **changed: Any) -> Update:
    """The update with some of its scalars replaced, by their place: s0=... is the first."""
    scalars = list(update.scalars)
    for place, value in changed.items():
        scalars[int(place[1:])] = value
    return update._replace(scalars=tuple(scalars))


@wrong_method(SGD, "_update", "sgd subtracts its momentum")
def _momentum_sign(right: Any, optimizer: Any, *args: Any) -> Update:
    update: Update = right(optimizer, *args)
    return _with(update, s1=-update.scalars[1])


@wrong_method(SGD, "_update", "sgd's weight decay makes the weights grow")
def _decay_sign(right: Any, optimizer: Any, *args: Any) -> Update:
    update: Update = right(optimizer, *args)
    return _with(update, s2=-update.scalars[2])


@wrong_method(SGD, "_update", "sgd climbs")
def _uphill(right: Any, optimizer: Any, *args: Any) -> Update:
    update: Update = right(optimizer, *args)
    return _with(update, s0=-update.scalars[0])


@wrong_method(SGD, "_update", "sgd does not look ahead where nesterov asks it to")
def _no_nesterov(right: Any, optimizer: Any, *args: Any) -> Update:
    update: Update = right(optimizer, *args)
    return _with(update, s3=False) if len(update.scalars) > 3 else update


@wrong_method(SGD, "_buffer", "sgd forgets its velocity after every step")
def _no_memory(right: Any, optimizer: Any, index: int, name: str, weight: Array) -> Array:
    optimizer._memory[index].pop(name, None)
    return right(optimizer, index, name, weight)


@wrong_method(Adam, "_update", "adam does not make up for starting at zero")
def _no_correction(right: Any, optimizer: Any, *args: Any) -> Update:
    return _with(right(optimizer, *args), s0=optimizer.lr, s1=1.0)


@wrong_method(Adam, "_update", "adam corrects by the step before")
def _late_correction(right: Any, optimizer: Any, index: int, *args: Any) -> Update:
    optimizer._updates[index] += 1
    update: Update = right(optimizer, index, *args)
    optimizer._updates[index] -= 1
    return update


@wrong_method(Adam, "_update", "adam exchanges its betas")
def _betas_exchanged(right: Any, optimizer: Any, *args: Any) -> Update:
    update: Update = right(optimizer, *args)
    return _with(update, s2=update.scalars[3], s3=update.scalars[2])


@wrong_method(Adam, "_update", "adam forgets the weight decay")
def _no_decay(right: Any, optimizer: Any, *args: Any) -> Update:
    return _with(right(optimizer, *args), s5=0.0)


@wrong_method(Adam, "_buffer", "adam shares one buffer between mean and square")
def _one_buffer(right: Any, optimizer: Any, index: int, name: str, weight: Array) -> Array:
    return right(optimizer, index, "mean", weight)
