"""`minialex pca`: what it prints, writes and refuses, and that a run uses the same numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from minialex.cli import app
from minialex.rng import Stream
from minialex.train import TrainConfig
from minialex.train.colours import measured_transform
from minialex.train.preprocessing import evaluation_transform, training_transform
from minialex.train.reporter import SilentReporter
from minialex.train.setup import prepare

Run = Callable[..., Result]
MIXING = np.array([[50.0, 40.0, 30.0], [-8.0, 4.0, 9.0], [2.0, -5.0, 4.0]])


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pictures in each of two classes, of several sizes, whose channels vary together."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(20):
        noise = np.asarray(Stream(0, "test", item=number).normal(shape=(40 + number % 3, 36, 3)))
        pixels = np.clip(np.rint(noise @ MIXING + [130.0, 110.0, 80.0]), 0, 255).astype(np.uint8)
        path = folder / ("even", "odd")[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


def pca(*arguments: object) -> Result:
    result = CliRunner().invoke(app, ["pca", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def printed(*arguments: object) -> dict[str, Any]:
    result = pca(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.output))


def test_the_figures_are_numpys(photos: Path) -> None:
    found = printed(photos, "--image-size", 32)
    files = sorted(photos.rglob("*.png"))
    bilinear = Image.Resampling.BILINEAR
    pictures = [np.asarray(Image.open(file).resize((32, 32), bilinear)) for file in files]
    total = np.stack(pictures).sum(axis=(0, 1, 2), dtype=np.int64)
    colours = np.stack(pictures).reshape(-1, 3) / 255.0
    assert (found["pictures"], found["pixels"]) == (20, 20 * 32 * 32)
    np.testing.assert_allclose(found["mean_colour"], total / len(colours) / 255, rtol=1e-15)
    np.testing.assert_allclose(found["covariance"], np.cov(colours.T), rtol=1e-11)
    values, vectors = np.linalg.eigh(np.cov(colours.T))
    np.testing.assert_allclose(found["eigenvalues"], values[::-1], rtol=1e-11)
    np.testing.assert_allclose(np.abs(found["eigenvectors"]), np.abs(vectors[:, ::-1]), rtol=1e-9)
    assert found["jitter"]["sigma"] == 0.1


def test_tables_for_people(photos: Path, tmp_path: Path) -> None:
    picture = tmp_path / "jitters.png"
    result = pca(photos, "--image-size", 32, "--split", "80/10/10", "--plot", picture)
    assert result.exit_code == 0, result.output
    assert "measured: 16 pictures to train on, of 20, 16,384 pixels" in result.output
    found = printed(photos, "--image-size", 32, "--split", "80/10/10")
    for number in (*found["mean_colour"], *np.ravel(found["covariance"]), *found["eigenvalues"]):
        assert f"{number:.6f}" in result.output
    assert f"{found['eigenvectors'][2][0]:.4f}" in result.output
    moved = [
        0.1 * np.hypot.reduce([v * x for v, x in zip(row, found["eigenvalues"], strict=True)])
        for row in found["eigenvectors"]
    ]
    assert f"sigma 0.1 moves red, green, blue by {', '.join(f'{x:.4f}' for x in moved)}:" in result.output
    with Image.open(picture) as drawn:
        assert drawn.width > 1000
        # A page of panels, not a blank one: the photographs' colours are on it.
        assert len(drawn.convert("RGB").getcolors(2**24) or []) > 1000
    assert f"written to {picture}" in result.output


@pytest.mark.parametrize("crops", ["scaled", "paper"])
def test_a_run_uses_the_same_numbers(crops: str, photos: Path, tmp_path: Path) -> None:
    config = TrainConfig(
        data=str(photos),
        model="flowers",
        device="cpu",
        crops=crops,  # type: ignore[arg-type]
        pca_jitter=0.3,
        seed=4,
        out=str(tmp_path / "run"),
    )
    run = prepare(config, SilentReporter())
    with run.folder:
        transforms = run.preprocessing.config["training"]["transforms"]
    found = printed(photos, "--crops", crops, "--split", "80/10/10", "--seed", 4, "--sigma", 0.3)
    assert transforms[-2] == found["jitter"]


def test_what_is_measured() -> None:
    """Whole pictures, or the middle squares that the paper takes parts of."""
    assert measured_transform(224, "fixed") == evaluation_transform(224, 3)
    assert measured_transform(224, "paper") == training_transform(224, 3, crops="paper")


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--image-size", 0], 2, "--image-size must be at least 1, got 0"),
        (["--sigma", -1], 2, "--sigma must be 0 or more, got -1"),
        (["--crops", "random"], 2, "--crops must be scaled, fixed, paper or whole, got 'random'"),
        (["--on-bad-image", "cry"], 2, "--on-bad-image must be stop or skip, got 'cry'"),
        (["--split", "50/60"], 2, "50/60"),
        (["--plot", "jitters.jpg"], 2, "--plot must end in .png, got jitters.jpg"),
        (["--plot", "no/such/folder.png"], 7, "there is no folder no/such"),
    ],
)
def test_options_that_make_no_sense(
    options: list[object],
    code: int,
    message: str,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = pca(photos, *options)
    assert result.exit_code == code, result.output
    assert message in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    result = pca(tmp_path / "nothing")
    assert result.exit_code == 3
    assert "nothing" in result.output
    assert "Traceback" not in result.output
