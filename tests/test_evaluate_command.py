"""`minialex evaluate` with ten crops and several networks: what users type and read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from minialex.cli import app

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def minialex() -> Run:
    def run(*arguments: object) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


@pytest.fixture(scope="module")
def runs(minialex: Run, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs over the same split, and one over another, of six classes of grey."""
    folder = tmp_path_factory.mktemp("runs")
    numbers = np.random.default_rng(0)
    for number, name in enumerate("abcdef"):
        (folder / "pictures" / name).mkdir(parents=True)
        for i in range(10):
            pixels = numbers.integers(40 * number, 40 * number + 50, (28, 28, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "pictures" / name / f"{i}.png")
    options = ["--data", folder / "pictures", "--model", "lenet5-relu", "--device", "cpu", "--workers", 0]
    made = []
    for name, extra in (("one", ["--lr", 0.001]), ("two", ["--lr", 0.002]), ("apart", ["--seed", 5])):
        out = folder / name
        done = minialex("train", *options, "--epochs", 2, "--batch-size", 8, *extra, "--out", out)
        assert done.exit_code == 0, done.output
        made.append(out)
    return made


def test_one_network(minialex: Run, runs: list[Path]) -> None:
    text = minialex("evaluate", runs[0], "--device", "cpu").stdout
    for line in ("test accuracy: ", "test top-1 error: ", "test top-5 error: ", "test loss: "):
        assert line in text
    assert "of its answers right" in text
    figures = json.loads(minialex("evaluate", runs[0], "--device", "cpu", "--json").stdout)
    assert figures["top1_error"] == pytest.approx(1 - figures["accuracy"])
    assert figures["top5_error"] <= figures["top1_error"]


def test_a_table(minialex: Run, runs: list[Path]) -> None:
    result = minialex("evaluate", *runs[:2], "--crops", 10, "--device", "cpu")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    table = [line for line in lines if " CNN" in line]
    assert [line.split("%")[0].split()[-2] for line in table] == ["1", "10"] * 3
    assert sum(line.startswith("10 crops instead of 1") for line in lines) == 2
    assert (
        sum(line.startswith("the average of 2 networks instead of one of them, on average") for line in lines)
        == 1
    )
    assert "top-5 error says nothing" not in result.stdout
    figures = json.loads(minialex("evaluate", *runs[:2], "--device", "cpu", "--json").stdout)
    assert [(len(row["checkpoints"]), row["crops"]) for row in figures["results"]] == [(1, 1), (1, 1), (2, 1)]
    assert len(figures["effects"]) == 1


def test_what_is_refused(minialex: Run, runs: list[Path]) -> None:
    for arguments, message in (
        ([runs[0], "--crops", 5], "--crops must be 1 or 10, got 5"),
        ([runs[0], runs[2]], "Networks that are judged together must have divided the pictures alike"),
        ([runs[0], runs[0]], "is named twice"),
        ([], "CHECKPOINT"),
    ):
        result = minialex("evaluate", *arguments, "--device", "cpu")
        assert result.exit_code == 2
        assert message in " ".join(result.stderr.split())
