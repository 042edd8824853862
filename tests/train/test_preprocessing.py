"""From photographs to a network's numbers: which part of a picture, which means, and the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from minialex.data import Normalize
from minialex.errors import UsageError
from minialex.rng import Stream
from minialex.train import Checkpoint, Predictor, TrainConfig, load, load_checkpoint
from minialex.train.networks import check_network
from minialex.train.preprocessing import (
    Preprocessing,
    evaluation_transform,
    larger_side,
    preprocessing_config,
    training_transform,
)
from minialex.train.report import mirrored_lines
from minialex.train.run_folder import LAST
from minialex.train.setup import prepare

Make = Callable[..., TrainConfig]
BYTES = (Normalize(0.0, 1 / 255),)  # What comes out is what the pixels were.


def ramp(width: int, height: int) -> Image.Image:
    """Red grows by one a column, green by one a row: a pixel tells where it stands."""
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([columns, rows, 0 * rows], axis=2).astype(np.uint8))


# ------------------------------------------------------------------------------------------------- parts


@pytest.mark.parametrize("crops", ["scaled", "fixed", "paper", "whole"])
def test_mirrored_digits_are_spoken_of(crops: str) -> None:
    training = training_transform(28, 1, crops=crops).to_config()
    (note,) = mirrored_lines(["0", "1", "9"], training)
    assert "mirrored" in note
    assert "--no-augment" in note
    assert mirrored_lines(["0", "1", "ten"], training) == []
    assert mirrored_lines(["0", "1", "9"], training_transform(28, 1, augment=False).to_config()) == []


def test_the_papers_sizes() -> None:
    assert (larger_side(224), larger_side(227), larger_side(28)) == (256, 256, 32)


def test_evaluation_by_the_paper_takes_the_middle() -> None:
    """A picture of 40 x 32 for a network of 28: the shorter side is 32 already, and the middle is 28 x 28."""
    seen = evaluation_transform(28, 3, "paper", BYTES)(ramp(40, 32))
    assert seen.shape == (3, 28, 28)
    assert np.allclose(seen[0, 0], np.arange(6, 34), atol=1e-4)
    assert np.allclose(seen[1, :, 0], np.arange(2, 30), atol=1e-4)
    whole = evaluation_transform(28, 3, "fixed", BYTES)(ramp(40, 32))
    assert whole[0, 0, 0] < 1.5  # Every other way shows all of the picture, scaled.


def test_training_by_the_paper_takes_parts_of_the_middle_square() -> None:
    transform = training_transform(28, 3, crops="paper", ending=BYTES)
    corners, flips = set(), 0
    for item in range(300):
        part = transform(ramp(40, 32), Stream(0, "augment", 1, item))
        left, right = part[0, 0, 0], part[0, 0, -1]
        assert abs(right - left) == pytest.approx(27, abs=1e-3)  # Nothing is scaled.
        flips += left > right
        corners.add((round(float(min(left, right))), round(float(part[1, 0, 0]))))
    assert corners == {(4 + x, y) for x in range(5) for y in range(5)}
    assert 110 < flips < 190


def test_whole_pictures_are_only_flipped() -> None:
    transform = training_transform(28, 3, crops="whole", ending=BYTES)
    seen = {transform(ramp(40, 32), Stream(0, "augment", 1, item)).tobytes() for item in range(20)}
    still = evaluation_transform(28, 3, "whole", BYTES)(ramp(40, 32))
    assert seen == {still.tobytes(), np.ascontiguousarray(still[:, :, ::-1]).tobytes()}


@pytest.mark.parametrize("crops", ["scaled", "fixed", "paper", "whole"])
def test_without_augmentation_nothing_is_random(crops: str) -> None:
    config = preprocessing_config(28, 1, augment=False, crops=crops)
    assert config["training"] == config["evaluation"]
    assert Preprocessing(config).training(ramp(40, 32)).shape == (1, 28, 28)


# ------------------------------------------------------------------------------------------------ numbers


def prepared(config: TrainConfig, reporter: Any) -> tuple[Checkpoint, Predictor, list[Image.Image]]:
    """(a run's checkpoint before its first step, the network in it, the pictures that it will train on)."""
    run = prepare(config, reporter)
    run.folder.close()
    last = run.folder / LAST
    return load_checkpoint(last), load(last), [run.parts.dataset.load(i) for i in run.parts.split.train]


def scaled(pictures: list[Image.Image], side: int) -> list[np.ndarray]:
    return [np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR)) for picture in pictures]


def test_mean_colour(config: Make, reporter: Any) -> None:
    """The small network's images are 16 x 16; with crops "paper" out of squares of 18 from pictures of 24."""
    options = config(normalize="mean-colour", crops="paper")
    checkpoint, predictor, pictures = prepared(options, reporter)
    squares = scaled(pictures, 18)
    mean = np.mean(squares, axis=(0, 1, 2))
    view = predictor.transform(pictures[0])
    expected = squares[0][1:17, 1:17].transpose(2, 0, 1) - mean[:, None, None]
    assert np.allclose(view, expected, atol=1e-3)
    assert checkpoint.preprocessing_arrays == {}
    assert "measuring the 48 training pictures for --normalize mean-colour" in reporter.text


def test_mean_image(config: Make, reporter: Any) -> None:
    checkpoint, predictor, pictures = prepared(config(normalize="mean-image"), reporter)
    small = scaled(pictures, 16)
    mean = np.mean(small, axis=0).transpose(2, 0, 1)
    assert np.allclose(checkpoint.preprocessing_arrays["mean_image"], mean / 255, atol=1e-6)
    view = predictor.transform(pictures[5])
    assert np.allclose(view, small[5].transpose(2, 0, 1) - mean, atol=1e-3)


def test_the_mean_is_that_of_the_training_pictures_alone(config: Make, reporter: Any, tmp_path: Path) -> None:
    """Another split, another mean: pictures to choose by and to test on have no say in it."""
    means = set()
    for seed in (1, 2):
        options = config(normalize="mean-colour", split_seed=seed, out=str(tmp_path / str(seed)))
        checkpoint, _, _ = prepared(options, reporter)
        means.add(tuple(checkpoint.preprocessing["evaluation"]["transforms"][-1]["mean"]))
    assert len(means) == 2


@pytest.mark.parametrize(
    ("word", "low", "high"),
    [
        ("half", [-1] * 3, [1] * 3),
        ("unit", [0] * 3, [1] * 3),
        ("imagenet", [-2.118, -2.036, -1.804], [2.249, 2.429, 2.64]),
    ],
)
def test_fixed_scales(config: Make, reporter: Any, word: str, low: list[float], high: list[float]) -> None:
    """imagenet: (0 - 0.485) / 0.229 = -2.118 for red, and so on."""
    _, predictor, _ = prepared(config(normalize=word), reporter)
    for shade, expected in ((0, low), (255, high)):
        seen = predictor.transform(Image.new("RGB", (16, 16), (shade,) * 3))
        assert np.allclose(seen[:, 3, 3], expected, atol=1e-3)


def test_the_colour_jitter_is_in_training_pictures_only(config: Make, reporter: Any) -> None:
    checkpoint, _, pictures = prepared(config(pca_jitter=0.1, crops="whole"), reporter)
    steps = {
        part: [step["name"] for step in checkpoint.preprocessing[part]["transforms"]]
        for part in ("training", "evaluation")
    }
    assert steps["training"] == ["Resize", "RandomHorizontalFlip", "PCAJitter", "Normalize"]
    assert steps["evaluation"] == ["Resize", "Normalize"]
    covariance = np.cov(np.concatenate(scaled(pictures, 16)).reshape(-1, 3).T / 255)
    jitter = checkpoint.preprocessing["training"]["transforms"][2]
    assert np.allclose(sorted(jitter["eigenvalues"]), np.linalg.eigvalsh(covariance), atol=1e-9)
    assert jitter["sigma"] == 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pca_jitter": 0.1}, "--pca-jitter 0.1 is for pictures in colour, and lenet5 takes grey ones; give"),
        (
            {"normalize": "imagenet"},
            "--normalize imagenet is for pictures in colour, and lenet5 takes grey ones",
        ),
    ],
)
def test_grey_networks(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_network(TrainConfig(model="lenet5", **options).checked())


def test_grey_networks_can_have_means(config: Make, reporter: Any) -> None:
    checkpoint, predictor, pictures = prepared(config(model="lenet5", normalize="mean-image"), reporter)
    assert checkpoint.preprocessing_arrays["mean_image"].shape == (1, 28, 28)
    assert abs(np.mean([predictor.transform(picture) for picture in pictures])) < 0.5
