"""--recipe: what each stands for, who wins, and what a run says of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minialex import nn
from minialex.errors import UsageError
from minialex.train import TrainConfig, load_checkpoint, train
from minialex.train.networks import build_model, check_network
from minialex.train.optimization import build_optimizer
from minialex.train.recipes import RECIPES, recipe_lines

Make = Callable[..., TrainConfig]


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_one(name: str) -> None:
    config = TrainConfig(recipe=name).checked()
    check_network(config)
    assert {option: getattr(config, option) for option in RECIPES[name]} == RECIPES[name]
    assert config.checked() == config


def test_the_papers_recipe() -> None:
    """Sections 4 and 5 of Krizhevsky, Sutskever, Hinton 2012."""
    config = TrainConfig(recipe="paper").checked()
    assert (config.optimizer, config.sgd_rule, config.init) == ("sgd", "paper", "paper")
    assert (config.lr, config.momentum, config.weight_decay) == (0.01, 0.9, 5e-4)
    assert (config.batch_size, config.epochs, config.dropout) == (128, 90, 0.5)
    assert (config.model, config.crops, config.normalize) == ("grouped", "paper", "mean-image")
    assert (config.pca_jitter, config.schedule) == (0.1, "plateau-error:5")


def test_the_courses_recipe_is_what_is_done_where_nothing_is_said() -> None:
    spoken = TrainConfig(recipe="course").checked()
    assert dataclasses.replace(spoken, recipe=None, init=None) == TrainConfig().checked()
    said, silent = (build_model(TrainConfig(init=word), 5, "cpu").state_dict() for word in ("course", None))
    assert all(np.array_equal(said[name], silent[name]) for name in silent)


def test_what_the_user_gives_wins() -> None:
    config = TrainConfig(recipe="paper", lr=0.02, model="owt").checked()
    assert (config.lr, config.model, config.momentum) == (0.02, "owt", 0.9)
    # A default that is given counts, too; on the command line it is known which are.
    config = TrainConfig(recipe="paper", model="flowers", given=frozenset({"recipe", "model"})).checked()
    assert config.model == "flowers"
    assert dataclasses.replace(TrainConfig(recipe="paper"), epochs=3).checked().epochs == 3


def test_values_that_mean_nothing_without_another_are_left_out() -> None:
    adam = TrainConfig(recipe="paper", optimizer="adam", given=frozenset({"optimizer"})).checked()
    assert (adam.lr, adam.momentum, adam.weight_decay, adam.sgd_rule) == (2e-4, 0.0, 0.0, "torch")
    assert TrainConfig(recipe="scratch", crops="fixed").checked().crop_scale == 0.08
    assert TrainConfig(recipe="paper", augment=False).checked().pca_jitter == 0.0
    grey = TrainConfig(recipe="paper", model="lenet5").checked()
    assert (grey.dropout, grey.pca_jitter, grey.normalize) == (None, 0.0, "mean-image")
    # What the user asks for is not dropped, but refused.
    with pytest.raises(
        UsageError, match=r"--pca-jitter 0\.2 is for pictures in colour, and lenet5 takes grey"
    ):
        check_network(TrainConfig(recipe="paper", model="lenet5", pca_jitter=0.2).checked())


@pytest.mark.parametrize("model", ["lenet5", "lenet5-relu", "cifar-4", "flowers"])
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_goes_with_every_kind_of_network(name: str, model: str) -> None:
    config = TrainConfig(recipe=name, model=model, given=frozenset({"recipe", "model"})).checked()
    check_network(config)
    assert config.model == model


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_goes_with_a_single_epoch(name: str) -> None:
    config = TrainConfig(recipe=name, epochs=1).checked()
    optimizer, _ = build_optimizer(config, nn.Linear(1, 1))
    assert optimizer.lr == config.lr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("papers", "--recipe 'papers' is unknown: did you mean paper[?] the recipes are paper, course, "),
        ("course_tf", "did you mean course-tf[?]"),
        ("xyz", "'xyz' is unknown: the recipes are"),
    ],
)
def test_names_that_are_none(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainConfig(recipe=name).checked()


def test_what_is_said_of_a_recipe() -> None:
    chosen, others = recipe_lines(TrainConfig(recipe="scratch", lr=1e-3, crops="whole").checked())
    assert chosen.startswith("recipe scratch: --model flowers --optimizer adam --schedule cosine ")
    assert others == (
        "but --lr 0.001 instead of 0.0003, --crops whole instead of scaled, --crop-scale 0.08 instead of 0.25"
    )
    lines = recipe_lines(TrainConfig(recipe="paper", model="lenet5").checked())
    assert lines[1] == (
        "but --model lenet5 instead of grouped, --dropout as the network has it instead of 0.5, --pca-jitter "
        "0.0 instead of 0.1"
    )
    assert len(recipe_lines(TrainConfig(recipe="paper").checked())) == 1
    assert recipe_lines(TrainConfig().checked()) == []


def test_a_run_says_what_was_chosen_and_keeps_it(config: Make, reporter: Any, tmp_path: Path) -> None:
    options = {"lr": None, "schedule": "constant", "epochs": 1, "batch_size": 16, "model": "small"}
    train(config(recipe="scratch", **options, given=frozenset({"recipe", *options})), reporter)
    assert "recipe scratch: --optimizer adam --crops scaled --crop-scale 0.25" in reporter.text
    saved = load_checkpoint(tmp_path / "run" / "last.safetensors").config
    assert (saved["recipe"], saved["crop_scale"], saved["epochs"]) == ("scratch", 0.25, 1)
    # On resume the run's own options count, not the recipe's again.
    longer = train(TrainConfig(resume=str(tmp_path / "run"), epochs=2), reporter)
    assert len(longer.history) == 2
    with pytest.raises(UsageError, match="--recipe paper: the run was begun with scratch"):
        train(TrainConfig(resume=str(tmp_path / "run"), recipe="paper"), reporter)


@pytest.mark.parametrize("name", ["paper", "course-tf"])
def test_a_small_network_trains_by_the_recipe(name: str, config: Make, reporter: Any) -> None:
    small = config(recipe=name, epochs=1)
    given = frozenset({"data", "model", "device", "epochs", "batch_size", "workers", "out", "recipe"})
    result = train(
        dataclasses.replace(small, lr=None, schedule="constant", save_every=None, given=given), reporter
    )
    assert len(result.history) == 1
    assert np.isfinite(result.history[0].train_loss)


def test_the_page_on_training_has_the_table_right() -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    table = page.partition("| option | paper |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    columns = {name: TrainConfig(recipe=name).checked() for name in RECIPES}
    assert {row[0] for row in rows} >= {
        f"`--{n.replace('_', '-')}`" for recipe in RECIPES.values() for n in recipe
    }
    for flag, *cells in rows:
        field = flag.strip("`-").replace("-", "_")
        expected = [getattr(config, field) for config in columns.values()]
        assert cells == ["its own" if value is None else str(value) for value in expected], flag
