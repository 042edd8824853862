"""Schedules: their rates by hand, and that they resume."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest

from minialex import optim
from minialex.errors import CheckpointError
from minialex.optim import lr_scheduler
from minialex.optim.lr_scheduler import LRScheduler
from minialex.tensor import Tensor


def optimizer(lr: float = 1.0) -> optim.SGD:
    return optim.SGD([Tensor(np.ones(1), requires_grad=True)], lr=lr)


def rates(schedule: LRScheduler, metrics: list[float | None]) -> list[float]:
    """The learning rate of each epoch, the one after the last too."""
    seen = [schedule.optimizer.lr]
    for metric in metrics:
        schedule.step(metric)
        seen.append(schedule.optimizer.lr)
    return seen


def test_constant() -> None:
    assert rates(lr_scheduler.ConstantLR(optimizer(0.3)), [None] * 3) == [0.3] * 4


def test_step() -> None:
    schedule = lr_scheduler.StepLR(optimizer(), step_size=2, gamma=0.5)
    assert rates(schedule, [None] * 5) == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_multi_step() -> None:
    schedule = lr_scheduler.MultiStepLR(optimizer(), [3, 1], gamma=0.5)
    assert rates(schedule, [None] * 4) == [1.0, 0.5, 0.5, 0.25, 0.25]


def test_cosine() -> None:
    schedule = lr_scheduler.CosineWithWarmup(optimizer(), total_epochs=4)
    middle = math.cos(math.pi / 4) / 2
    assert rates(schedule, [None] * 5) == pytest.approx([1.0, 0.5 + middle, 0.5, 0.5 - middle, 0.0, 0.0])


def test_warmup_begins_low_and_reaches_the_base_rate() -> None:
    schedule = lr_scheduler.CosineWithWarmup(optimizer(), total_epochs=5, warmup_epochs=3, min_lr=0.5)
    assert rates(schedule, [None] * 5) == pytest.approx([0.25, 0.5, 0.75, 1.0, 0.75, 0.5])


def test_plateau_divides_by_ten_after_its_patience() -> None:
    schedule = lr_scheduler.ReduceLROnPlateau(optimizer(), patience=1)
    losses = [1.0, 0.5, 0.5, 0.6, 0.4, 0.4, 0.4]
    assert rates(schedule, list(losses)) == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01])


def test_plateau_of_an_accuracy_stops_at_the_lowest_rate() -> None:
    schedule = lr_scheduler.ReduceLROnPlateau(optimizer(), mode="max", patience=0, min_lr=0.05)
    accuracies = [0.5, 0.6, 0.6, 0.6, 0.7, 0.1]
    assert rates(schedule, list(accuracies)) == pytest.approx([1, 1, 1, 0.1, 0.05, 0.05, 0.05])


def test_plateau_wants_more_than_the_threshold_and_a_number() -> None:
    schedule = lr_scheduler.ReduceLROnPlateau(optimizer(), patience=0, threshold=0.1)
    assert rates(schedule, [1.0, 0.91, float("nan")]) == pytest.approx([1, 1, 0.1, 0.01])
    with pytest.raises(ValueError, match=r"step\(metric\)"):
        schedule.step()


def test_plateau_keeps_a_rate_that_was_set_by_hand() -> None:
    schedule = lr_scheduler.ReduceLROnPlateau(optimizer(), patience=0)
    schedule.optimizer.lr = 0.5
    assert rates(schedule, [1.0, 2.0]) == pytest.approx([0.5, 0.5, 0.05])


MAKERS: dict[str, Callable[[optim.Optimizer], LRScheduler]] = {
    "constant": lr_scheduler.ConstantLR,
    "step": lambda opt: lr_scheduler.StepLR(opt, 2),
    "multi-step": lambda opt: lr_scheduler.MultiStepLR(opt, [2, 3]),
    "cosine": lambda opt: lr_scheduler.CosineWithWarmup(opt, 6, 2),
    "plateau": lambda opt: lr_scheduler.ReduceLROnPlateau(opt, patience=0),
}


@pytest.mark.parametrize("stop", [0, 1, 3])
@pytest.mark.parametrize("name", MAKERS)
def test_a_resumed_schedule_goes_on_alike(name: str, stop: int) -> None:
    metrics: list[float | None] = [1.0, 2.0, 0.5, 0.5, 0.4]
    unbroken = rates(MAKERS[name](optimizer(0.3)), metrics)
    first = MAKERS[name](optimizer(0.3))
    rates(first, metrics[:stop])
    state = json.loads(json.dumps(first.state_dict(), allow_nan=False))
    # The optimiser's state is loaded before or after: either way its present rate is not taken for the base.
    resumed = MAKERS[name](optimizer(first.optimizer.lr))
    resumed.load_state_dict(state)
    assert rates(resumed, metrics[stop:]) == unbroken[stop:]


def test_foreign_states_are_refused() -> None:
    step = lr_scheduler.StepLR(optimizer(), 2)
    with pytest.raises(CheckpointError, match="state of ConstantLR, not of StepLR"):
        step.load_state_dict(lr_scheduler.ConstantLR(optimizer()).state_dict())
    with pytest.raises(CheckpointError, match="lacks base_lr"):
        step.load_state_dict({"epoch": 3})
    assert step.epoch == 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: lr_scheduler.StepLR(optimizer(), 0), "step_size"),
        (lambda: lr_scheduler.CosineWithWarmup(optimizer(), 3, 3), "warmup_epochs=3"),
        (lambda: lr_scheduler.ReduceLROnPlateau(optimizer(), mode="best"), "'best'"),
        (lambda: lr_scheduler.ReduceLROnPlateau(optimizer(), factor=1.0), "factor"),
        (lambda: lr_scheduler.ReduceLROnPlateau(optimizer(), patience=-1), "patience"),
    ],
)
def test_impossible_settings(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
