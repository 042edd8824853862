"""The comparison of training steps runs from end to end, and PyTorch's process holds PyTorch alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'minialex[bench]'")

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "train_step.py"


def test_one_round_of_lenet5(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    options = ["--models", "lenet5", "--batch", "4", "--rounds", "1", "--steps", "2", "--torch-keeps-memory"]
    command = [sys.executable, str(SCRIPT), *options, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(out.read_text())["comparisons"]
    (answers,) = result["rounds"]
    assert len(answers) == 5
    for answer in answers.values():
        assert len(answer["seconds"]) == 2
        assert 0 <= answer["memory"]["after_import"] <= answer["memory"]["peak"]
        assert answer["optimizer"].startswith("Adam")
    assert "times as fast" in done.stdout


def test_pytorchs_process_does_not_import_minialex() -> None:
    code = (
        "import sys, json, train_step; from torch_models import build\n"
        "job = json.loads(sys.argv[1]); step, *_ = train_step.torch_step(job); step()\n"
        "assert 'minialex' not in sys.modules"
    )
    layers = [["0", {"kind": "Flatten", "arguments": {}}]]
    layers += [["1", {"kind": "Linear", "arguments": {"in_features": 4, "out_features": 3}}]]
    job = {
        "engine": "torch channels_last keeping",
        "classes": 3,
        "shape": [2, 1, 2, 2],
        "description": {"kind": "Sequential", "children": layers},
        "threads": 1,
    }
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parent)}
    command = [sys.executable, "-c", code, json.dumps(job)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
