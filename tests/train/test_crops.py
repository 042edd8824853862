"""Ten crops: which parts, of which picture, and what becomes of the answers to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import minialex as mx
from minialex import Tensor, nn, ops
from minialex.data import (
    CenterCrop,
    Compose,
    Greyscale,
    ImageFolder,
    Loader,
    Normalize,
    RandomHorizontalFlip,
    Resize,
    Transform,
)
from minialex.errors import UsageError
from minialex.tensor import no_grad
from minialex.train import TrainResult
from minialex.train.crops import TenCrops, ten_crops
from minialex.train.evaluation import averaged, evaluate
from minialex.train.judging import judge
from minialex.train.metrics import Evaluation

# Each pixel is its own number: row * 10 + column.
GRID = np.add.outer(np.arange(6) * 10, np.arange(8)).astype(np.uint8)[None, :, :, None]


def test_the_ten_parts() -> None:
    parts = list(ten_crops(GRID, 3, 4))
    assert [part.shape for part in parts] == [(1, 3, 4, 1)] * 10
    # The first row of each: corners from the upper left, then the centre; then those of the mirror image.
    first_rows = [part[0, 0, :, 0].tolist() for part in parts]
    assert first_rows == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [30, 31, 32, 33],
        [34, 35, 36, 37],
        [22, 23, 24, 25],
        [7, 6, 5, 4],
        [3, 2, 1, 0],
        [37, 36, 35, 34],
        [33, 32, 31, 30],
        [25, 24, 23, 22],
    ]
    assert parts[0][0, :, 0, 0].tolist() == [0, 10, 20]
    assert all(part.flags.c_contiguous for part in parts)  # For the copy to a device.


@pytest.mark.parametrize("size", [(3, 4), (4, 5), (5, 3), (6, 8)])
def test_the_middle_is_that_of_center_crop(size: tuple[int, int]) -> None:
    middle = list(ten_crops(GRID, *size))[4][0, :, :, 0]
    expected = np.asarray(CenterCrop(size)(Image.fromarray(GRID[0, :, :, 0])))
    assert middle.tolist() == expected.tolist()


@pytest.mark.parametrize("size", [(3, 4), (4, 5)])
def test_a_mirror_image_has_the_same_parts(size: tuple[int, int]) -> None:
    def parts(picture: Any) -> list[bytes]:
        return sorted(part.tobytes() for part in ten_crops(picture, *size))

    assert parts(GRID) == parts(GRID[:, :, ::-1])


@pytest.mark.parametrize("size", [(7, 4), (3, 9)])
def test_parts_that_do_not_fit(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"do not fit into \(6, 8\)"):
        list(ten_crops(GRID, *size))


NORMALIZE = Normalize(0.3, 0.7)


@pytest.mark.parametrize(
    ("steps", "larger", "size"),
    [
        ([Resize((224, 224))], [Resize((256, 256))], (224, 224)),
        ([Greyscale(), Resize((28, 28))], [Greyscale(), Resize((32, 32))], (28, 28)),
        ([Resize((14, 28))], [Resize((16, 32))], (14, 28)),
        ([Resize(256), CenterCrop(224)], [Resize(256), CenterCrop(256)], (224, 224)),
        ([Resize(256), CenterCrop(256), CenterCrop(227)], [Resize(256), CenterCrop(256)], (227, 227)),
        ([Resize(224), CenterCrop(224)], [Resize(256), CenterCrop(256)], (224, 224)),
    ],
)
def test_in_the_manner_of_the_evaluation(
    steps: list[Transform], larger: list[Transform], size: tuple[int, int]
) -> None:
    ten = TenCrops.like(Compose([*steps, NORMALIZE]))
    assert isinstance(ten.larger, Compose)
    assert ten.larger.transforms[:-1] == larger
    assert isinstance(ten.larger.transforms[-1], Normalize)
    assert (ten.height, ten.width) == size
    assert ten.normalize is NORMALIZE


@pytest.mark.parametrize(
    "steps",
    [
        [NORMALIZE],
        [Resize(224), NORMALIZE],
        [Resize((224, 224))],
        [Resize((224, 224)), RandomHorizontalFlip(), NORMALIZE],
        [Resize((256, 256)), CenterCrop(224), NORMALIZE],
    ],
)
def test_other_evaluations_are_refused(steps: list[Transform]) -> None:
    with pytest.raises(UsageError, match=r"--crops 10 knows networks whose .*; this one's is"):
        TenCrops.like(Compose(steps))


class Counting(ImageFolder):
    """Counts how often pictures are decoded."""

    loaded = 0

    def load(self, index: int) -> Image.Image:
        self.loaded += 1
        return super().load(index)


def test_the_mean_of_ten_answers(finished: tuple[TrainResult, Any], pictures: Path) -> None:
    """Against ten passes made by hand, picture by picture, from one decoding of each."""
    predictor = mx.load(finished[0].checkpoint)
    ten = TenCrops.like(predictor.transform)
    dataset = Counting(pictures)
    indices = np.array([0, 5, 21, 22, 47])
    noted = []
    with Loader(dataset, indices, ten.larger, 2) as loader:
        batches = ten.batches(loader.epoch(0))
        found = evaluate(
            predictor.model, batches, "cpu", lambda count, mean: noted.append((count, mean.seen)), views=10
        )
    assert dataset.loaded <= len(indices) + 1  # The first one tells the loader the shape.
    assert noted == [(1, 2), (1, 4), (1, 5)]
    assert found.indices.tolist() == indices.tolist()
    assert found.labels.tolist() == dataset.labels[indices].tolist()
    for row, index in enumerate(indices):
        large = np.asarray(dataset.load(int(index)).resize((18, 18), Image.Resampling.BILINEAR))
        total = np.zeros(3)
        for side in (large, large[:, ::-1]):
            for top, left in ((0, 0), (0, 2), (2, 0), (2, 2), (1, 1)):
                part = (side[top : top + 16, left : left + 16].transpose(2, 0, 1) / 255 - 0.5) / 0.5
                with no_grad():
                    logits = predictor.model(Tensor(part[None].astype(np.float32)))
                    total += ops.softmax(logits, axis=-1).numpy()[0]
        np.testing.assert_allclose(found.probabilities[row], total / 10, atol=1e-6)
    right = found.probabilities[np.arange(5), found.labels]
    assert found.loss == pytest.approx(-np.log(right).mean(), rel=1e-6)


def test_one_crop_and_ten(finished: tuple[TrainResult, Any], reporter: Any) -> None:
    result, _ = finished
    predictor = mx.load(result.checkpoint)
    one = judge(predictor, result.checkpoint, reporter)
    ten = judge(predictor, result.checkpoint, reporter, crops=10, batch_size=4)
    assert ten.crops == 10
    assert ten.evaluation.indices.tolist() == one.evaluation.indices.tolist()
    assert ten.evaluation.probabilities.tolist() != one.evaluation.probabilities.tolist()
    assert ten.evaluation.probabilities.sum(axis=1) == pytest.approx(1, abs=1e-6)
    assert ten.to_json()["crops"] == 10
    for crops in (0, 2, 11):
        with pytest.raises(UsageError, match=f"--crops must be 1 or 10, got {crops}"):
            judge(predictor, result.checkpoint, reporter, crops=crops)


def test_plain_pictures_look_alike_everywhere(
    finished: tuple[TrainResult, Any], reporter: Any, tmp_path: Path
) -> None:
    """Ten crops of one colour are ten times the same picture."""
    for number, name in enumerate(("dots", "plain", "stripes")):
        (tmp_path / name).mkdir()
        Image.new("RGB", (24, 24), (80 * number, 100, 30)).save(tmp_path / name / "0.png")
    predictor = mx.load(finished[0].checkpoint)
    one, ten = (
        judge(predictor, finished[0].checkpoint, reporter, data=str(tmp_path), part="all", crops=crops)
        for crops in (1, 10)
    )
    np.testing.assert_allclose(ten.evaluation.probabilities, one.evaluation.probabilities, atol=1e-6)


def test_workers_make_the_same_crops(finished: tuple[TrainResult, Any], reporter: Any) -> None:
    predictor = mx.load(finished[0].checkpoint)
    here, there = (
        judge(predictor, finished[0].checkpoint, reporter, crops=10, batch_size=4, workers=workers)
        for workers in (0, 1)
    )
    assert here.evaluation.probabilities.tolist() == there.evaluation.probabilities.tolist()


@pytest.mark.emulator
def test_ten_crops_on_a_device(pictures: Path) -> None:
    """Each part is copied there and normalised there."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(6 * 6 * 3, 3))
    ten = TenCrops.like(Compose([Resize((6, 6)), Normalize((0.4, 0.5, 0.6), 0.25)]))
    found = []
    for device in ("cpu", "cuda-emulated"):
        with Loader(ImageFolder(pictures), [1, 30, 50], ten.larger, 2) as loader:
            batches = ten.batches(loader.epoch(0))
            found.append(evaluate(model.to(device), batches, device, views=10))
    np.testing.assert_allclose(found[1].probabilities, found[0].probabilities, atol=1e-5)
    assert found[1].indices.tolist() == [1, 30, 50]


def test_an_average_of_evaluations() -> None:
    labels, indices = np.array([0, 1]), np.array([4, 7])
    first = Evaluation(0.0, np.array([[0.9, 0.1], [0.6, 0.4]], np.float32), labels, indices)
    second = Evaluation(0.0, np.array([[0.3, 0.7], [0.1, 0.9]], np.float32), labels, indices)
    mean = averaged([first, second])
    assert mean.probabilities == pytest.approx(np.array([[0.6, 0.4], [0.35, 0.65]]))
    assert mean.loss == pytest.approx(-(np.log(0.6) + np.log(0.65)) / 2)
    assert (first.correct, second.correct, mean.correct) == (1, 1, 2)
    other = Evaluation(0.0, first.probabilities, labels, np.array([7, 4]))
    with pytest.raises(ValueError, match="not of the same pictures in the same order"):
        averaged([first, other])
