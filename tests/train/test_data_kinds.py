"""Runs on data that are no folder of files: trained, resumed from elsewhere, judged, by workers too."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minialex.rng import Stream
from minialex.train import TrainConfig, load, train
from minialex.train.judging import judge
from minialex.train.reporter import Reporter

SMALL = {
    "model": "lenet5-relu",
    "epochs": 1,
    "augment": False,
    "batch_size": 30,
    "device": "cpu",
    "workers": 0,
}


def small_zip(path: Path) -> Path:
    """Twelve bright and twelve dark pictures, and six to test on."""
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(30):
            label = ("bright", "dark")[number % 2]
            values = Stream(6, "test", item=number).integers(0, 120, (10, 10, 3)) + 130 * (number % 2 == 0)
            part = "train" if number < 24 else "test"
            with archive.open(f"{part}/{label}/{number}.png", "w") as file:
                Image.fromarray(values.astype(np.uint8)).save(file, "PNG")
    return path


def test_digits_are_trained_on_resumed_and_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    out = tmp_path / "run"
    result = train(TrainConfig(data="digits", limit=120, out=str(out), lr=3e-3, **SMALL))
    assert (out / "mistakes.png").stat().st_size > 0
    assert result.example == out / "example.png"  # No file holds a digit alone.
    assert load(result.checkpoint).predict(result.example).probability > 0.1
    names = [entry["name"] for entry in json.loads((out / "split.json").read_text())["parts"]["test"]]
    assert len(names) == 10
    assert names[0].startswith("digits/")
    monkeypatch.chdir(tmp_path)
    resumed = train(TrainConfig(resume=str(out), epochs=3, given=frozenset({"epochs"})))
    assert len(resumed.history) == 3
    assert resumed.history[-1].train_loss < result.history[0].train_loss
    judgement = judge(load(out / "best.safetensors"), out, Reporter())
    assert judgement.evaluation.accuracy == resumed.test_accuracy


def test_a_zip_with_a_test_part_and_workers(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = small_zip(tmp_path / "p.zip")
    out = tmp_path / "run"
    result = train(TrainConfig(data=str(data), out=str(out), **{**SMALL, "workers": 1, "cache": "disk"}))
    said = capfd.readouterr().out
    assert "(a zip of class folders in train and test; 6 of them are the official test part)" in said
    assert int(result.confusion.sum()) == 6
    split = json.loads((out / "split.json").read_text())
    assert {entry["name"].split("/")[0] for entry in split["parts"]["test"]} == {"test"}
    (out / "split.json").unlink()  # then it is made again
    judgement = judge(load(out / "best.safetensors"), out, Reporter())
    assert judgement.evaluation.accuracy == result.test_accuracy
