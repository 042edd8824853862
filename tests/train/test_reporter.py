"""What a run says while it works."""

from __future__ import annotations

import io
from typing import Any

import pytest

from minialex.train import reporter as module
from minialex.train.history import EpochRecord
from minialex.train.metrics import RunningMean
from minialex.train.reporter import (
    Meter,
    Reporter,
    SilentReporter,
    TerminalReporter,
    default_reporter,
    table,
    wrapped,
)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "perf_counter", clock)
    return clock


def mean(seen: int) -> RunningMean:
    return RunningMean(loss_sum=0.5 * seen, correct=seen // 4, seen=seen)


def test_speed_and_time_left_of_a_resumed_epoch(clock: Clock) -> None:
    """40 of 100 batches of 32 were done before: they are not this process's speed."""
    meter = Meter(40, 100)
    clock.now = 5.0  # The first batch also waited for the loader.
    assert meter.update(1, mean(41 * 32)) == "loss 0.500  accuracy 0.250"
    clock.now = 15.0
    # Ten batches of 32 in ten seconds, 49 to go.
    assert meter.update(10, mean(51 * 32)).endswith("32.0 images/s  0:49 left")


def test_plain_lines_come_now_and_then(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Reporter().bar("epoch 1/2", 0, 100) as bar:
        for i in range(1, 101):
            clock.now += 1.0
            bar.update(1, mean(32 * i))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert lines[0] == "epoch 1/2  15/100  loss 0.500  accuracy 0.250  32.0 images/s  1:25 left"


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    reporter = TerminalReporter()
    output = io.StringIO()
    reporter._console = Console(file=output, force_terminal=True, width=120, highlight=False)
    with reporter.bar("epoch 1/2 [x]", 10, 100) as bar:
        bar.update(5, mean(32))
        reporter.say("[epoch 1] stays as it is")
        reporter.warn("careful [really]")
        bar.update(5, mean(64))
    text = output.getvalue()
    assert "[epoch 1] stays as it is" in text
    assert "warning: careful [really]" in text
    assert "epoch 1/2 [x]" in text
    assert "20/100" in text
    assert "images/s" in text


def test_who_gets_what(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert type(default_reporter()) is Reporter
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert type(default_reporter()) is TerminalReporter
    SilentReporter().say("nothing")
    SilentReporter().warn("something")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "warning: something\n"


def test_table() -> None:
    rows: list[tuple[Any, ...]] = [("name", "count"), ("a", "1,000"), ("longer", "2")]
    assert table(rows, right=(1,)).splitlines() == [
        "name    count",
        "-------------",
        "a       1,000",
        "longer      2",
    ]


def test_long_messages_are_wrapped_and_commands_are_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "go on, " * 20 + "with:\n  minialex train --resume " + "x" * 90
    lines = wrapped(text, 60).splitlines()
    assert len(lines) == 4
    assert all(len(line) <= 60 for line in lines[:3])
    assert lines[3] == "  minialex train --resume " + "x" * 90
    Reporter().warn("a word " * 30)
    assert capsys.readouterr().err.count("\n") == 1, "a pipe gets one line"
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    Reporter().warn("a word " * 30)
    assert capsys.readouterr().err.count("\n") > 2


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (
            EpochRecord(3, 0.8123, 0.7, 0.7432, 0.7321, 2e-4, 28.4),
            "[epoch 3] train_loss: 0.812 val_loss: 0.743 val_accuracy: 0.732 lr: 0.0002 28 s",
        ),
        (
            EpochRecord(100, 12.3456, 0.7, 123.456, 1.0, 1.234e-5, 12345.6),
            "[epoch 100] train_loss: 12.35 val_loss: 123.5 val_accuracy: 1.000 lr: 1.2e-5",
        ),
    ],
)
def test_the_line_of_an_epoch_fits_a_terminal(record: EpochRecord, line: str) -> None:
    assert record.line() == line
    assert len(line) <= 80
