"""benchmarks/compare_recipes.py: its figures follow from the runs, and it says what they do not show."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import minialex as mx
from minialex.train import load_checkpoint, save_checkpoint
from minialex.train.judging import judge
from minialex.train.paired import mcnemar, paired_bootstrap
from minialex.train.reporter import SilentReporter
from minialex.train.run_folder import BEST

SCRIPTS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("compare_recipes")


@pytest.fixture(scope="session")
def runs(noisy_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Two runs that know something, and two that hardly do; nothing else in them differs."""
    folder = tmp_path_factory.mktemp("recipes")
    return {
        name: [str(noisy_run(folder / f"{name}-{seed}", noise, seed)) for seed in range(2)]
        for name, noise in (("poor", 1.0), ("good", 0.02))
    }


def test_the_figures(
    script: ModuleType, runs: dict[str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    arguments = ["--a", *runs["poor"], "--b", *runs["good"], "--names", "poor", "good", "--part", "all"]
    assert script.main([*arguments, "--device", "cpu", "--json", str(report)]) == 0
    printed = capsys.readouterr()
    figures = json.loads(report.read_text())
    correct = {}
    for recipe in figures["recipes"]:
        for result in recipe["results"]:
            row = np.array([mark == "1" for mark in result["right"]])
            assert row.mean() == pytest.approx(result["accuracy"])
            if len(result["runs"]) == 1:
                correct.setdefault((recipe["name"], result["crops"]), []).append(row)
                path = Path(result["runs"][0])
                alone = judge(mx.load(path), path, SilentReporter(), part="all", crops=result["crops"])
                assert result["accuracy"] == alone.evaluation.accuracy
    for crops in (1, 10):
        poor, good = correct["poor", crops], correct["good", crops]
        pooled = figures["differences"][str(crops)]["all"]
        assert pooled["difference"] == pytest.approx(np.mean(good) - np.mean(poor))
        assert pooled["interval"] == list(paired_bootstrap(poor, good))
        assert pooled["p_value"] == mcnemar(poor, good).p_value
        for pair, a, b in zip(figures["differences"][str(crops)]["pairs"], poor, good, strict=True):
            assert (pair["gained"], pair["lost"]) == ((b & ~a).sum(), (a & ~b).sum())
    assert re.search(r"With 10 crops good is better than poor by \d+\.\d points", printed.out)
    assert printed.out.count("no help shown") + printed.out.count("helps, ") >= 4
    assert re.search(r"^accuracy +seed 0 +seed 1 +mean +average of 2$", printed.out, re.MULTILINE)
    assert "option" not in printed.out
    assert not printed.err


def test_the_other_way_round_and_against_itself(
    script: ModuleType, runs: dict[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    poor, good = runs["poor"][0], runs["good"]
    usual = ["--device", "cpu", "--crops", "1", "--part", "all"]
    assert script.main(["--a", good[0], "--b", poor, *usual]) == 0
    text = capsys.readouterr().out
    assert "With 1 crop a is better than b by " in text
    assert "average of" not in text
    assert "10 crops" not in text
    assert script.main(["--a", good[0], "--b", good[1], *usual]) == 0
    assert "With 1 crop these pictures do not show that a and b differ." in capsys.readouterr().out


def test_what_the_recipes_are(
    script: ModuleType,
    runs: dict[str, list[str]],
    noisy_run: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = noisy_run(tmp_path / "other", 0.02, 7) / BEST
    checkpoint = load_checkpoint(other)
    config = {**checkpoint.config, "lr": 0.5, "device": "cuda", "seed": 7}
    save_checkpoint(other, dataclasses.replace(checkpoint, config=config))
    usual = ["--device", "cpu", "--crops", "1"]
    assert script.main(["--a", runs["good"][0], "--b", str(other.parent), *usual]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("option"))
    assert [line.split() for line in lines[start + 2 : start + 4]] == [["lr", "0.01", "0.5"], []]
    assert any(line.startswith("accuracy") and "pair 1" in line for line in lines)
    assert script.main(["--a", *runs["poor"], "--b", runs["good"][0], str(other.parent), *usual]) == 0
    printed = capsys.readouterr()
    assert "the runs of b differ in more than their seeds" in printed.err
    # Seeds 0 and 1 against 0 and 7.
    assert re.search(r"^accuracy +pair 1 +pair 2 +mean +average of 2$", printed.out, re.MULTILINE)


def test_runs_in_pairs(
    script: ModuleType, runs: dict[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["--a", *runs["poor"], "--b", runs["good"][0]]) == 2
    assert "--a names 2 runs and --b 1" in capsys.readouterr().err
    assert script.main(["--a", runs["poor"][0], "--b", runs["good"][0], "--json", "nowhere/report.json"]) == 2
    assert "there is no folder nowhere" in capsys.readouterr().err
