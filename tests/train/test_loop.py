"""A whole run: what it says, what it writes, and the mistakes that end it before it begins."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minialex import ops
from minialex.data import Loader
from minialex.errors import DataError, DeviceError, MinialexError, OutputError, UsageError
from minialex.rng import random_scope
from minialex.tensor import Tensor
from minialex.train import TrainConfig, TrainResult, load_checkpoint, train
from minialex.train.run_folder import FILES
from minialex.train.setup import prepare
from minialex.train.step import gradient_norm

Make = Callable[..., TrainConfig]


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# ------------------------------------------------------------------------------------------- a finished run


def test_it_learns(finished: tuple[TrainResult, Any]) -> None:
    result, _ = finished
    assert result.best_val_accuracy >= 5 / 6
    assert result.history[-1].train_loss < 0.7 * result.history[0].train_loss
    assert result.test_accuracy == result.accuracy
    assert result.interval[0] < result.accuracy <= result.interval[1]


def test_it_writes_what_is_promised_and_nothing_else(finished: tuple[TrainResult, Any]) -> None:
    result, _ = finished
    assert sorted(os.listdir(result.out)) == sorted(FILES)
    indices = json.loads((result.out / "class_indices.json").read_text())
    assert indices == {"0": "dots", "1": "plain", "2": "stripes"}
    config = json.loads((result.out / "config.json").read_text())
    assert config["options"]["lr"] == 1e-2
    assert config["environment"]["numpy"] == np.__version__
    split = json.loads((result.out / "split.json").read_text())
    assert [len(part) for part in split["parts"].values()] == [48, 6, 6]


def test_the_files_agree_with_each_other(finished: tuple[TrainResult, Any]) -> None:
    result, _ = finished
    history = rows(result.out / "history.csv")
    assert list(history[0]) == [
        "epoch",
        "train_loss",
        "train_accuracy",
        "val_loss",
        "val_accuracy",
        "lr",
        "seconds",
    ]
    assert [int(row["epoch"]) for row in history] == list(range(1, 13))
    best = max(history, key=lambda row: (float(row["val_accuracy"]), -float(row["val_loss"])))
    assert int(best["epoch"]) == result.best_epoch
    confusion = rows(result.out / "confusion.csv")
    cells = np.array([[int(row[name]) for name in ("dots", "plain", "stripes")] for row in confusion])
    assert cells.tolist() == result.confusion.tolist()
    assert cells.sum() == 6
    assert np.trace(cells) / 6 == result.accuracy
    assert load_checkpoint(result.checkpoint).position.epoch == result.best_epoch + 1
    assert load_checkpoint(result.out / "last.safetensors").position.epoch == 13


def test_it_says_what_a_user_wants_to_know(finished: tuple[TrainResult, Any]) -> None:
    result, said = finished
    for text in (
        "device: cpu",
        "split: 48 pictures to train on, 6 to choose the best epoch by, 6 to test on",
        "classes: dots, plain, stripes",
        "features.0.weight    6 x 3 x 5 x 5    450",
        "[epoch 3] train_loss: ",
        f"best epoch: {result.best_epoch}, validation accuracy",
        f"test accuracy: {result.accuracy:.3f} ({np.trace(result.confusion)} of 6), 95 % interval",
        f"minialex predict {result.checkpoint} ",
    ):
        assert text in said.text
    assert not said.warnings


# ------------------------------------------------------------------------------------------------- variations


def test_two_parts_report_the_best_validation_accuracy(config: Make, reporter: Any) -> None:
    result = train(config(split="90/10", epochs=1), reporter)
    assert result.test_accuracy is None
    assert (result.part, result.accuracy) == ("validation", result.best_val_accuracy)
    assert "none to test on" in reporter.text
    assert "The epoch was chosen by these same pictures" in reporter.text


def test_greyscale_networks_get_grey_pictures(config: Make, reporter: Any) -> None:
    result = train(config(model="lenet5", epochs=1), reporter)
    names = [t["name"] for t in load_checkpoint(result.checkpoint).preprocessing["training"]["transforms"]]
    assert names == ["Greyscale", "RandomResizedCrop", "RandomHorizontalFlip", "Normalize"]


def test_without_augmentation_training_pictures_are_prepared_like_the_others(
    config: Make, reporter: Any
) -> None:
    result = train(config(augment=False, epochs=1), reporter)
    preprocessing = load_checkpoint(result.checkpoint).preprocessing
    assert preprocessing["training"] == preprocessing["evaluation"]


def test_crop_scale_is_the_least_area_of_a_crop(config: Make, reporter: Any) -> None:
    result = train(config(crop_scale=0.5, epochs=1), reporter)
    transforms = load_checkpoint(result.checkpoint).preprocessing["training"]["transforms"]
    assert [list(t["scale"]) for t in transforms if t["name"] == "RandomResizedCrop"] == [[0.5, 1.0]]


def test_limit_counts_pictures_in_all(config: Make, reporter: Any) -> None:
    train(config(limit=30, epochs=1), reporter)
    assert "split: 24 pictures to train on, 3 to choose the best epoch by, 3 to test on" in reporter.text


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "sgd", "lr": 0.01},
        {"schedule": "plateau:0"},
        {"schedule": "cosine"},
        {"clip_norm": 0.01},
        {"save_every": None, "workers": 1},
    ],
)
def test_options_that_change_how_it_is_trained(config: Make, reporter: Any, options: dict[str, Any]) -> None:
    result = train(config(**options), reporter)
    assert len(result.history) == 2
    assert all(np.isfinite(record.train_loss) for record in result.history)


def test_accumulated_batches_step_like_one_large_batch(config: Make, reporter: Any) -> None:
    """48 pictures: batches of 5 and of 20 end with an incomplete one; four of 5 weigh as one of 20."""
    small = prepare(config(batch_size=5, accumulate=4, augment=False), reporter)
    large = prepare(config(batch_size=20, augment=False, out=f"{small.folder.path}-large"), reporter)
    from minialex.train.compiling import CompileNotice
    from minialex.train.interrupt import StopRequest
    from minialex.train.loop import Loop

    for run in (small, large):
        run.model.eval()  # Dropout draws one mask a batch, and so differs between four batches and one.
        run.model.train = lambda mode=True: None
        loop = Loop(run, StopRequest(), "train", CompileNotice(reporter.note))
        loop._steps()
        loop.close()
        run.folder.close()
    assert small.position.step == large.position.step == 3
    for (name, a), (_, b) in zip(small.model.named_parameters(), large.model.named_parameters(), strict=True):
        np.testing.assert_allclose(a.data, b.data, atol=2e-6, err_msg=name)
    assert small.running.loss == pytest.approx(large.running.loss, abs=1e-6)


def test_gradient_norm_is_that_of_all_gradients_as_one_vector(config: Make, reporter: Any) -> None:
    run = prepare(config(), reporter)
    batch = next(Loader(run.parts.dataset, range(4), run.loader("train").transform, 4).epoch(1))
    with random_scope(0):
        ops.cross_entropy(run.model(Tensor(batch.images)), batch.labels).backward()
    flat = np.concatenate([p.grad.reshape(-1) for p in run.model.parameters()])
    assert gradient_norm(run.model) == pytest.approx(float(np.linalg.norm(flat)), rel=1e-5)
    run.folder.close()


def test_two_runs_give_the_same_bits(config: Make, reporter: Any, harness: Any, tmp_path: Path) -> None:
    train(config(epochs=1), reporter)
    train(config(epochs=1, out=str(tmp_path / "again"), workers=1), reporter)
    assert harness.fingerprint(tmp_path / "run") == harness.fingerprint(tmp_path / "again")


# ----------------------------------------------------------------------------------------- users' mistakes


def test_a_folder_that_is_not_there(config: Make, reporter: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        train(config(data=str(tmp_path / "nowhere")), reporter)
    assert not (tmp_path / "run").exists()


def test_one_class(config: Make, reporter: Any, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "dots").symlink_to(pictures / "dots")
    with pytest.raises(DataError, match="one class only"):
        train(config(data=str(tmp_path / "one")), reporter)


def test_too_few_pictures_for_the_split(config: Make, reporter: Any) -> None:
    with pytest.raises(DataError, match="Too few pictures for a split into 3 parts"):
        train(config(limit=6), reporter)


@pytest.mark.skipif("cupy" in os.listdir("/") or os.path.exists("/dev/nvidia0"), reason="there is a GPU here")
def test_cuda_never_falls_back_and_auto_says_so(config: Make, reporter: Any) -> None:
    with pytest.raises(DeviceError, match="device cpu"):
        train(config(device="cuda"), reporter)
    train(config(device="auto", epochs=1), reporter)
    assert reporter.lines[0].startswith("no GPU can be used")
    assert "device: cpu" in reporter.text


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"device": "tpu"}, DeviceError, "unknown device 'tpu'"),
        ({"model": "alexnot"}, UsageError, "alexnot"),
        ({"split": "50/60"}, UsageError, "--split"),
        ({"schedule": "cosine:9"}, UsageError, "warm-up"),
        ({"out": "/proc/run"}, OutputError, "/proc/run"),
    ],
)
def test_options_that_cannot_be_met(
    config: Make, reporter: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train(config(**options), reporter)


@pytest.mark.parametrize("out", [None, "runs/mine", "."])
def test_a_run_inside_its_data(
    config: Make,
    reporter: Any,
    harness: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    out: str | None,
) -> None:
    photos = harness.make_pictures(tmp_path / "photos", per_class=5)
    monkeypatch.chdir(photos)
    with pytest.raises(OutputError, match=r"would lie inside the data folder \., .*--out "):
        train(config(data=".", out=out), reporter)
    assert sorted(os.listdir(photos)) == ["dots", "plain", "stripes"]


def test_a_start_that_fails_leaves_no_folders(config: Make, reporter: Any, tmp_path: Path) -> None:
    for wrong in ({"data": str(tmp_path / "nowhere")}, {"schedule": "cosine:9"}, {"limit": 6}):
        with pytest.raises(MinialexError):
            train(config(out=str(tmp_path / "a" / "b"), **wrong), reporter)
    assert os.listdir(tmp_path) == []


def test_an_older_run_is_not_overwritten(config: Make, reporter: Any, tmp_path: Path) -> None:
    train(config(epochs=1), reporter)
    before = (tmp_path / "run" / "last.safetensors").read_bytes()
    with pytest.raises(OutputError, match="already holds a run"):
        train(config(epochs=1), reporter)
    assert (tmp_path / "run" / "last.safetensors").read_bytes() == before
    assert len(train(config(overwrite=True), reporter).history) == 2


def test_bad_pictures_stop_the_run_or_are_skipped(
    config: Make, reporter: Any, harness: Any, tmp_path: Path
) -> None:
    folder = harness.make_pictures(tmp_path / "some")
    (folder / "dots" / "bad.png").write_bytes(b"this is no picture")
    with pytest.raises(DataError, match=r"dots/bad\.png"):
        train(config(data=str(folder)), reporter)
    train(config(data=str(folder), on_bad_image="skip", epochs=1), reporter)
    assert "dots/bad.png" in reporter.text
