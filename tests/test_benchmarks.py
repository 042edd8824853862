"""The scripts in benchmarks/ run, and their figures follow from what was measured."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
SCRIPTS = CHECKOUT / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A script of benchmarks/ as a module."""
    monkeypatch.syspath_prepend(str(SCRIPTS))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


def output_of(name: str, *options: object, hidden: str = "") -> subprocess.CompletedProcess[str]:
    """What a script prints, where the package called `hidden` is not installed."""
    start = f"import runpy, sys, importlib.util as util; find = util.find_spec; sys.argv = {sys.argv[:0]!r}"
    start += f" + {[str(SCRIPTS / name), *map(str, options)]!r}; sys.path.insert(0, {str(SCRIPTS)!r})\n"
    start += f"util.find_spec = lambda name, *more: None if name == {hidden!r} else find(name, *more)\n"
    start += f"runpy.run_path({str(SCRIPTS / name)!r}, run_name='__main__')"
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-c", start]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


COMMANDS = [path.name for path in sorted(SCRIPTS.glob("*.py")) if "ArgumentParser" in path.read_text()]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_nothing_of_this_machine(name: str) -> None:
    done = output_of(name, "--help")
    assert done.returncode == 0, done.stderr
    assert f"python benchmarks/{name}" in done.stdout
    for own in (str(CHECKOUT), sys.prefix, tempfile.gettempdir()):
        assert own not in done.stdout


def test_train_step_says_how_to_install_pytorch() -> None:
    done = output_of("train_step.py", hidden="torch")
    assert done.returncode == 1
    assert "pip install -e '.[bench]'" in done.stderr


def test_train_step_measures_the_scaling_without_pytorch(tmp_path: Path) -> None:
    options = ["--scaling", "--models", "lenet5", "--batches", "2,4,8", "--rounds", 1, "--steps", 2]
    done = output_of("train_step.py", *options, "--out", tmp_path / "out.json", hidden="torch")
    assert done.returncode == 0, done.stderr
    assert "ms x batch; off by at most" in done.stdout
    report = json.loads((tmp_path / "out.json").read_text())
    assert set(report["scaling"][0]["median_s"]) == {"2", "4", "8"}
    assert {"processor", "cores", "memory", "numpy", "torch"} <= set(report["machine"])


def test_train_step_refuses_what_it_does_not_know() -> None:
    assert "no such model: vgg" in output_of("train_step.py", "--models", "vgg").stderr
    assert "at least 1" in output_of("train_step.py", "--rounds", "0").stderr


def test_a_line_through_times_that_lie_on_one(script: Any) -> None:
    fit = script("train_step").line_through({n: [0.5 + 0.25 * n] * 3 for n in (8, 16, 32, 64, 128)})
    assert (fit["a"], fit["b"]) == pytest.approx((0.5, 0.25))
    assert fit["worst"] < 1e-9
    assert fit["met"]
    assert not script("train_step").line_through({8: [1.0], 16: [1.0], 32: [4.0]})["met"]


def test_ratios_are_to_the_better_layout_in_each_respect(script: Any) -> None:
    train_step = script("train_step")

    def run(seconds: list[float], peak: int) -> dict[str, Any]:
        return {"seconds": seconds, "memory": {"peak": peak, "after_import": 50}}

    answers = {
        "minialex": run([1.0, 3.0, 2.0], 300),
        "torch nchw": run([5.0, 4.0, 6.0], 400),
        "torch channels_last": run([3.0, 3.0, 3.0], 500),
    }
    slow = {name: run([10 * t for t in a["seconds"]], a["memory"]["peak"]) for name, a in answers.items()}
    result = train_step.conclusions("flowers", list(answers), [answers, answers, slow])
    assert result["speed"] == pytest.approx(3.0 / 2.0)
    assert result["speed_by_minimum"] == pytest.approx(3.0 / 1.0)
    assert result["memory"] == pytest.approx(300 / 400)
    assert result["met"] == {"speed": True, "memory": True}
    text = train_step.comparison_text([{"model": "flowers", "batch": 32, **result}])
    assert "1.50 x" in text
    assert "met" in text
    assert "missed" not in text


def test_roofline_prints_the_profile(script: Any, capsys: pytest.CaptureFixture[str]) -> None:
    figures = script("roofline").measure("lenet5", 2, 1)
    assert "lenet5, a training step of 2 pictures" in capsys.readouterr().out
    assert figures["ceilings"]["flops"] > 0


def test_start_subtracts_the_steps_themselves(
    script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start, parts = script("start"), {"building": 0.25, "steps alone": 0.5, "compiling": 7.0}
    answers = [
        {**parts, "first steps": 9.5, "compiled": 12, "process": 12.0},
        {**parts, "first steps": 0.75, "compiled": 1, "process": 2.5},
    ]
    monkeypatch.setattr(start, "run", lambda cache, threads: answers.pop(0))
    monkeypatch.setattr(start, "import_seconds", lambda: 0.125)
    result = start.measure(1, 2)
    assert result["medians"] == {
        "import": 0.125,
        "first step": 9.0,
        "later start": 1.5,
        "later start: building": 0.25,
        "later start: loading kernels": 0.25,
    }
    assert all(result["met"].values())
    assert "warning: 1 kernels were compiled again" in capsys.readouterr().out


def test_importing_what_the_benchmarks_share_imports_no_library() -> None:
    code = "import sys, measuring, torch_models\n"
    code += "print([name for name in ('numpy', 'minialex', 'torch') if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
