"""Runs of an experiment: trained once, gone on with, read where they are finished, and never mixed up."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from minialex.errors import CheckpointError, UsageError
from minialex.train import Interrupted, TrainConfig, loop, repeats
from minialex.train.repeats import FINISHED, FinishedRun, quiet_reporter, train_once
from minialex.train.reporter import SilentReporter
from minialex.train.run_folder import BEST, LAST

Make = Callable[..., TrainConfig]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[TrainConfig]:
    """The options of every training that is really begun or gone on with."""
    seen: list[TrainConfig] = []

    def noted(config: TrainConfig, reporter: Any = None, program: str | None = None) -> Any:
        seen.append(config)
        return loop.train(config, reporter, program)

    monkeypatch.setattr(repeats, "train", noted)
    return seen


def without_seconds(run: FinishedRun) -> FinishedRun:
    return replace(run, out=Path(), history=tuple(replace(record, seconds=0.0) for record in run.history))


def test_a_finished_run_is_read_and_not_trained_again(config: Make, trained: list[TrainConfig]) -> None:
    first = train_once(config(), SilentReporter())
    again = train_once(config(), SilentReporter())
    assert len(trained) == 1
    assert again == first
    assert (first.part, first.tested, first.trained_on) == ("test", 6, 48)
    assert len(first.history) == 2
    assert first.seconds == sum(record.seconds for record in first.history) > 0
    assert (first.out / BEST).exists()


def test_other_options_are_refused_by_name(config: Make, trained: list[TrainConfig], tmp_path: Path) -> None:
    train_once(config(), SilentReporter())
    for changes, message in (
        ({"lr": 0.5}, "lr 0.002, not 0.5"),
        ({"data": str(tmp_path)}, "data "),
        ({"epochs": 1}, "epochs 2, not 1"),
    ):
        with pytest.raises(UsageError, match=f"holds a run with other options: {message}"):
            train_once(config(**changes), SilentReporter())
    assert len(trained) == 1
    train_once(config(cache="none", device="auto"), SilentReporter())  # They change no figure.
    assert len(trained) == 1


def test_a_longer_run_will_do_where_its_beginning_is_the_shorter_one(config: Make) -> None:
    options = {"schedule": "constant", "lr": 1e-2}
    long = train_once(config(epochs=3, **options), SilentReporter())
    assert train_once(config(epochs=2, **options), SilentReporter(), longer_will_do=True) == long
    short = train_once(config(epochs=2, **options, out=str(long.out) + "-2"), SilentReporter())
    assert [r.train_loss for r in long.history[:2]] == [r.train_loss for r in short.history]


def test_a_schedule_of_fixed_length_has_no_longer_run(config: Make) -> None:
    train_once(config(epochs=3, schedule="cosine"), SilentReporter())
    with pytest.raises(UsageError, match="epochs 3, not 2"):
        train_once(config(epochs=2, schedule="cosine"), SilentReporter(), longer_will_do=True)


def test_more_epochs_go_on_with_the_run(config: Make, trained: list[TrainConfig]) -> None:
    train_once(config(epochs=1, schedule="constant"), SilentReporter())
    run = train_once(config(epochs=3, schedule="constant"), SilentReporter())
    assert trained[1].resume == str(run.out)
    unbroken = train_once(config(epochs=3, schedule="constant", out=f"{run.out}-unbroken"), SilentReporter())
    assert without_seconds(run) == without_seconds(unbroken)


class StopAtOnce:
    """Stands for StopRequest: a signal in the first step."""

    signal_number = signal.SIGINT

    def __enter__(self) -> StopAtOnce:
        return self

    def __exit__(self, *exception: object) -> None:
        pass


def test_a_stopped_run_says_that_the_same_command_goes_on_and_so_it_does(
    config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["examples/ablation.py", "--data", "my photos"])
    with monkeypatch.context() as patch:
        patch.setattr(loop, "StopRequest", StopAtOnce)
        with pytest.raises(Interrupted, match=r"epoch 1, batch 1, saved\. The same command goes on") as stop:
            train_once(config(), SilentReporter())
    assert str(stop.value).endswith("examples/ablation.py --data 'my photos'")
    assert "--resume" not in str(stop.value)
    assert stop.value.exit_code == 130
    with pytest.raises(UsageError, match=r"run with other options.*--seed"):
        train_once(config(seed=5), SilentReporter())
    run = train_once(config(), SilentReporter())
    unbroken = train_once(config(out=f"{run.out}-unbroken"), SilentReporter())
    assert without_seconds(run) == without_seconds(unbroken)


def test_networks_need_not_be_kept(config: Make, trained: list[TrainConfig]) -> None:
    first = train_once(config(), SilentReporter(), keep_network=False)
    assert not (first.out / BEST).exists()
    assert not (first.out / LAST).exists()
    assert train_once(config(), SilentReporter()) == first
    assert len(trained) == 1


@pytest.mark.parametrize("text", ["", "{}", '{"config": 1, "history": [{"epoch": 1}]}'])
def test_a_damaged_file_of_figures_is_named(config: Make, text: str) -> None:
    out = train_once(config(epochs=1), SilentReporter()).out
    (out / FINISHED).write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"finished\.json cannot be read .*remove the folder"):
        train_once(config(epochs=1), SilentReporter())


def test_a_run_needs_a_folder_of_its_own() -> None:
    with pytest.raises(UsageError, match=r"config\.out"):
        train_once(TrainConfig())


@pytest.mark.parametrize("terminal", [False, True])
def test_of_a_run_among_many_there_are_warnings_with_its_name_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminal: bool
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    reporter = quiet_reporter("tanh-0.1")
    reporter.say("device: cpu")
    reporter.warn("dead ReLUs")
    assert "".join(capsys.readouterr()) == "warning: tanh-0.1: dead ReLUs\n"
