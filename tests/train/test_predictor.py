"""A trained network that answers, in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import minialex as mx
from minialex.errors import CheckpointError, DataError, DeviceError, UsageError
from minialex.train import Predictor, TrainResult
from minialex.train.judging import judge
from minialex.train.report import accuracy_lines
from minialex.train.run_folder import BEST


@pytest.fixture
def predictor(finished: tuple[TrainResult, Any]) -> Predictor:
    return mx.load(finished[0].checkpoint)


def test_a_prediction_lists_every_class_best_first(predictor: Predictor, pictures: Path) -> None:
    prediction = predictor.predict(pictures / "stripes" / "000.png")
    assert set(prediction.classes) == {"dots", "plain", "stripes"}
    assert list(prediction.probabilities) == sorted(prediction.probabilities, reverse=True)
    assert sum(prediction.probabilities) == pytest.approx(1, abs=1e-6)
    assert (prediction.label, prediction.probability) == next(iter(prediction))
    assert prediction.label == "stripes"
    assert str(prediction).splitlines()[0] == f"{prediction.probability:.3f}  stripes"
    assert len(prediction) == 3


def test_paths_and_pictures_one_and_many(predictor: Predictor, pictures: Path) -> None:
    path = pictures / "dots" / "003.png"
    one = predictor.predict(path)
    assert predictor.predict(str(path)) == one
    with Image.open(path) as image:
        assert predictor.predict(image) == one
    many = predictor.predict([path, *sorted((pictures / "plain").iterdir()), *[path] * 20])
    assert len(many) == 41
    # Sums over another number of pictures may end in other digits, and in no more than that.
    np.testing.assert_allclose(many[0].probabilities, one.probabilities, atol=1e-6)
    assert predictor.predict([]) == []


def test_every_kind_of_picture(predictor: Predictor, tmp_path: Path) -> None:
    """Preprocessing is the checkpoint's: any size, any mode."""
    for mode in ("L", "RGBA", "CMYK", "P", "1"):
        assert len(predictor.predict(Image.new(mode, (70, 30)))) == 3


def test_a_file_that_is_no_picture(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "note.jpg").write_text("hello")
    with pytest.raises(DataError, match=r"note\.jpg"):
        predictor.predict(tmp_path / "note.jpg")


def test_what_cannot_be_loaded(finished: tuple[TrainResult, Any], tmp_path: Path) -> None:
    save_file({"features.0.weight": np.zeros(3)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="not a checkpoint of minialex"):
        mx.load(tmp_path / "foreign.safetensors")
    with pytest.raises(DeviceError, match="unknown device"):
        mx.load(finished[0].checkpoint, device="gpu")


def test_it_is_the_network_that_was_tested(
    finished: tuple[TrainResult, Any], predictor: Predictor, reporter: Any
) -> None:
    result, _ = finished
    judgement = judge(predictor, result.checkpoint, reporter)
    assert judgement.part == "test"
    assert judgement.evaluation.accuracy == result.accuracy
    assert judgement.evaluation.confusion().tolist() == result.confusion.tolist()
    validation = judge(predictor, result.checkpoint, reporter, part="validation")
    assert validation.evaluation.accuracy == result.best_val_accuracy
    assert validation.evaluation.loss == pytest.approx(
        result.history[result.best_epoch - 1].val_loss, rel=1e-4
    )


def test_its_own_test_part_is_found_without_the_manifest(
    finished: tuple[TrainResult, Any], reporter: Any, tmp_path: Path
) -> None:
    result, _ = finished
    copy = tmp_path / BEST
    copy.write_bytes(result.checkpoint.read_bytes())
    assert judge(mx.load(copy), copy, reporter).evaluation.accuracy == result.accuracy


def test_a_whole_folder(
    finished: tuple[TrainResult, Any], predictor: Predictor, reporter: Any, pictures: Path, tmp_path: Path
) -> None:
    result, _ = finished
    whole = judge(predictor, result.checkpoint, reporter, part="all")
    assert len(whole.evaluation.labels) == 60
    # A folder with two of the three classes: its own class numbers are others.
    for name in ("plain", "stripes"):
        (tmp_path / "two").mkdir(exist_ok=True)
        (tmp_path / "two" / name).symlink_to(pictures / name)
    two = judge(predictor, result.checkpoint, reporter, data=str(tmp_path / "two"), part="all")
    assert two.evaluation.confusion().sum(axis=1).tolist() == [0, 20, 20]
    assert two.evaluation.confusion()[1:].tolist() == whole.evaluation.confusion()[1:].tolist()


def test_folders_that_do_not_fit(
    finished: tuple[TrainResult, Any], predictor: Predictor, reporter: Any, harness: Any, tmp_path: Path
) -> None:
    checkpoint = finished[0].checkpoint
    other = harness.make_pictures(tmp_path / "other", per_class=5)
    for part in ("test", "train"):
        with pytest.raises(DataError, match=r"(?s)(are gone|not those).*--part all"):
            judge(predictor, checkpoint, reporter, data=str(other), part=part)
    with pytest.raises(UsageError, match="--batch-size must be at least 1, got 0"):
        judge(predictor, checkpoint, reporter, batch_size=0)
    (other / "plain").rename(other / "checks")
    with pytest.raises(DataError, match="does not know: checks"):
        judge(predictor, checkpoint, reporter, data=str(other), part="all")


def test_new_pictures_are_measured_all(
    finished: tuple[TrainResult, Any], predictor: Predictor, reporter: Any, tmp_path: Path, harness: Any
) -> None:
    checkpoint = finished[0].checkpoint
    numbers = np.random.default_rng(5)
    for name in ("dots", "stripes"):  # Two of the three classes, under numbers of their own.
        (tmp_path / "new" / name).mkdir(parents=True)
        for i in range(4):
            pixels = numbers.integers(0, 255, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "new" / name / f"{i}.png")
    judgement = judge(predictor, checkpoint, reporter, data=str(tmp_path / "new"))
    assert judgement.part == "all"
    assert judgement.evaluation.confusion().sum(axis=1).tolist() == [4, 0, 4]
    assert "these are not the pictures of the run" in reporter.text
    assert "measuring all 8 of them" in reporter.text
    assert not reporter.warnings
    text = "\n".join(accuracy_lines(judgement.evaluation, predictor.classes, judgement.part))
    assert "accuracy on all pictures:" in text
    assert "all accuracy" not in text


def test_old_pictures_among_new_ones_are_warned_of(
    finished: tuple[TrainResult, Any], predictor: Predictor, reporter: Any, tmp_path: Path, harness: Any
) -> None:
    # The first pictures of each class are those that the run had; the others of its pictures are not there.
    some = harness.make_pictures(tmp_path / "some", per_class=10)
    judgement = judge(predictor, finished[0].checkpoint, reporter, data=str(some))
    assert judgement.part == "all"
    assert "was trained on" in reporter.warnings[0]


def test_a_runs_folder_stands_for_its_best_network(
    finished: tuple[TrainResult, Any], predictor: Predictor, reporter: Any, pictures: Path, tmp_path: Path
) -> None:
    out = finished[0].out
    path = pictures / "dots" / "003.png"
    assert mx.load(out).predict(path) == predictor.predict(path)
    assert judge(mx.load(out), out, reporter).part == "test"
    with pytest.raises(CheckpointError, match=r"holds no best\.safetensors"):
        mx.load(tmp_path)


def test_arrays(predictor: Predictor, pictures: Path) -> None:
    with Image.open(pictures / "dots" / "003.png") as image:
        array = np.asarray(image)
    expected = predictor.predict(pictures / "dots" / "003.png")
    assert predictor.predict(array) == expected
    assert predictor.predict([array])[0] == expected
    # A view with other strides, as a crop or a mirror image is.
    assert predictor.predict(array[:, ::-1]) == predictor.predict(np.ascontiguousarray(array[:, ::-1]))
    for wrong in (
        array / 255,
        array.transpose(2, 0, 1),
        array[..., 0],
        np.zeros((0, 4, 3), np.uint8),
        7,
        None,
    ):
        for given in (wrong, [wrong]):
            with pytest.raises(UsageError, match=r"an array \(H, W, 3\) of uint8, or a list of these; got"):
                predictor.predict(given)  # type: ignore[call-overload]
