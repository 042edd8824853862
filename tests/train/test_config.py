"""Options: what is refused, what a recipe fills in, and what a resumed run may change."""

from __future__ import annotations

from typing import Any

import pytest

from minialex import nn, optim
from minialex.errors import CheckpointError, UsageError
from minialex.train.config import TrainConfig
from minialex.train.schedule import ScheduleSpec


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "--epochs must be at least 1, got 0"),
        ({"batch_size": -1}, "--batch-size"),
        ({"accumulate": 0}, "--accumulate"),
        ({"limit": 0}, "--limit"),
        ({"save_every": 0}, "--save-every"),
        ({"workers": -1}, "--workers"),
        ({"lr": 0.0}, "--lr must be a number above 0"),
        ({"lr": float("nan")}, "--lr"),
        ({"clip_norm": 0.0}, "--clip-norm"),
        ({"crop_scale": 0.0}, "--crop-scale must be above 0 and at most 1, got 0.0"),
        ({"weight_decay": -0.1}, "--weight-decay"),
        ({"optimizer": "sgd", "momentum": 1.0}, "--momentum must be at least 0 and below 1"),
        ({"momentum": 0.9}, "belongs to --optimizer sgd"),
        ({"optimizer": "lion"}, "--optimizer must be adam or sgd"),
        ({"seed": -1}, "--seed"),
        ({"on_bad_image": "cry"}, "--on-bad-image"),
        ({"schedule": "stairs"}, "is not one of constant"),
        ({"cache": "tape"}, "--cache must be none, memory, disk or device, got 'tape'"),
        ({"cache": "memory", "workers": 2}, "--cache memory is the trainer's own, and --workers 2"),
        ({"cache_budget": "much"}, "--cache-budget 'much' is no number of bytes"),
        ({"dropout": 1.0}, "--dropout must be at least 0 and below 1, got 1.0"),
        ({"pca_jitter": -0.1}, "--pca-jitter must be at least 0, got -0.1"),
        ({"pca_jitter": 0.1, "augment": False}, "--pca-jitter 0.1 changes training pictures at random, and"),
        ({"pooling": "huge"}, "--pooling must be overlapping or separate, got 'huge'"),
        ({"activation": "swish"}, "--activation must be relu, tanh or sigmoid"),
        ({"init": "he"}, "--init must be paper, course, pytorch or xavier, got 'he'"),
        ({"normalize": "mean"}, "--normalize must be half, unit, mean-colour, mean-image or imagenet, got"),
        ({"crops": "tenfold"}, "--crops must be scaled, fixed, paper or whole, got 'tenfold'"),
        ({"crops": "paper", "crop_scale": 0.5}, "--crop-scale 0.5 belongs to --crops scaled, and this is"),
        ({"sgd_rule": "caffe", "optimizer": "sgd"}, "--sgd-rule must be torch or paper, got 'caffe'"),
        ({"sgd_rule": "paper"}, "--sgd-rule paper belongs to --optimizer sgd; leave it out for Adam"),
        ({"split_seed": 2**64}, "--split-seed must lie between 0 and 2"),
        ({"schedule": "plateau-error:1,2"}, "--schedule 'plateau-error:1,2' is not one of constant"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainConfig(**options).checked()


def test_the_courses_recipe_is_the_default() -> None:
    config = TrainConfig().checked()
    assert (config.model, config.optimizer, config.lr) == ("flowers", "adam", 2e-4)
    assert (config.batch_size, config.epochs, config.weight_decay) == (32, 10, 0.0)


def test_each_optimiser_has_its_recipe() -> None:
    config = TrainConfig(optimizer="sgd", lr=0.1).checked()
    assert (config.lr, config.momentum, config.weight_decay) == (0.1, 0.9, 5e-4)


def test_a_resumed_run_goes_on_with_its_own_options() -> None:
    saved = TrainConfig(data="photos", lr=0.1, epochs=5, batch_size=4).checked()
    resumed = TrainConfig(resume="runs/x").resumed(saved)
    assert (resumed.lr, resumed.epochs, resumed.batch_size, resumed.resume) == (0.1, 5, 4, "runs/x")
    longer = TrainConfig(resume="runs/x", epochs=7, workers=3, device="cpu").resumed(saved)
    assert (longer.epochs, longer.workers, longer.device, longer.lr) == (7, 3, "cpu", 0.1)


def test_the_cache_belongs_to_the_call() -> None:
    saved = TrainConfig(cache="disk", cache_budget="1GB").checked().to_dict()
    assert not {"cache", "cache_budget"} & set(saved)  # a run of an older version resumes, too
    resumed = TrainConfig(resume="x", cache="none").resumed(TrainConfig.from_dict(saved))
    assert (resumed.cache, resumed.cache_budget) == ("none", None)


def test_an_option_that_is_given_counts_even_if_it_is_the_default() -> None:
    saved = TrainConfig(lr=0.1, epochs=5).checked()
    assert TrainConfig(resume="x", given=frozenset({"resume", "epochs"})).resumed(saved).epochs == 10


def test_a_resumed_run_stays_the_same_run() -> None:
    saved = TrainConfig(lr=0.1).checked()
    with pytest.raises(UsageError, match=r"--lr 0\.2: the run was begun with 0\.1"):
        TrainConfig(resume="x", lr=0.2).resumed(saved)
    assert TrainConfig(resume="x", lr=0.1).resumed(saved).lr == 0.1


def test_a_schedule_that_was_laid_out_cannot_be_stretched() -> None:
    for schedule in ("cosine", "step", "multistep"):
        saved = TrainConfig(schedule=schedule).checked()
        with pytest.raises(UsageError, match=f"--schedule {schedule} was laid out for 10 epochs"):
            TrainConfig(resume="x", epochs=20).resumed(saved)
    saved = TrainConfig(schedule="step:5").checked()
    assert TrainConfig(resume="x", epochs=20).resumed(saved).epochs == 20


def test_what_a_plateau_is_one_of() -> None:
    """plateau: of the loss, as ever; plateau-error: of the share of wrong answers, as in the 2012 paper."""
    assert ScheduleSpec.parse("plateau").figure(val_loss=0.7, val_accuracy=0.9) == 0.7
    assert ScheduleSpec.parse("plateau-error:5").figure(0.7, 0.9) == pytest.approx(0.1)


def test_the_split_has_a_seed_of_its_own() -> None:
    assert TrainConfig(seed=4).seed_of_split == 4
    assert TrainConfig(seed=4, split_seed=0).seed_of_split == 0


def test_a_run_of_an_older_version_gets_what_was_done_then() -> None:
    values = TrainConfig(seed=3).to_dict()
    for name in ("recipe", "sgd_rule", "normalize", "pca_jitter", "weights", "freeze", "precision"):
        del values[name]
    assert TrainConfig.from_dict(values) == TrainConfig(seed=3)
    del values["seed"]
    with pytest.raises(CheckpointError, match="seed"):
        TrainConfig.from_dict(values)


def test_options_of_another_version() -> None:
    values = TrainConfig().to_dict()
    assert TrainConfig.from_dict(values).to_dict() == values
    with pytest.raises(CheckpointError, match="temperature"):
        TrainConfig.from_dict({**values, "temperature": 1})


@pytest.mark.parametrize(
    ("text", "epochs", "rates"),
    [
        ("constant", 3, [1, 1, 1]),
        ("step:2", 5, [1, 1, 0.1, 0.1, 0.01]),
        ("step", 6, [1, 1, 0.1, 0.1, 0.01, 0.01]),
        ("multistep:1,3", 4, [1, 0.1, 0.1, 0.01]),
        ("multistep", 4, [1, 1, 0.1, 0.01]),
        ("cosine:0", 2, [1, 0.5]),
        ("cosine", 3, [0.5, 1, 0.5]),
        # The loss of 1 stops improving after the first epoch; the second epoch without progress lowers lr.
        ("plateau:1", 5, [1, 1, 1, 0.1, 0.1]),
        ("plateau-error:1", 5, [1, 1, 1, 0.1, 0.1]),
    ],
)
def test_schedules(text: str, epochs: int, rates: list[float]) -> None:
    optimizer = optim.SGD(nn.Linear(2, 2).parameters(), lr=1.0)
    schedule = ScheduleSpec.parse(text).build(optimizer, epochs)
    seen = []
    for _ in range(epochs):
        seen.append(optimizer.lr)
        schedule.step(1.0)
    assert seen == pytest.approx(rates)


@pytest.mark.parametrize(
    "text",
    ["", "step:", "step:0", "step:a", "step:1,2", "constant:1", "multistep:3,2", "cosine:-1", "linear"],
)
def test_schedules_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="--schedule"):
        ScheduleSpec.parse(text)


def test_a_warm_up_as_long_as_the_run() -> None:
    optimizer = optim.SGD(nn.Linear(2, 2).parameters(), lr=1.0)
    with pytest.raises(UsageError, match="shorter than --epochs 3"):
        ScheduleSpec.parse("cosine:3").build(optimizer, 3)
