"""The drawn flowers: repeatable bits, folders that are whole or absent, and a task that is a real one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from minialex.backend import one_blas_thread
from minialex.data import drawn
from minialex.data.drawn import folder as drawn_folder
from minialex.errors import OutputError
from minialex.rng import Stream

SIDE = 16


def pixels(kind: str, number: int, seed: int = 0, size: int = 64) -> npt.NDArray[np.uint8]:
    return np.asarray(drawn.drawn_image(kind, number, seed, size))


@pytest.mark.parametrize("kind", drawn.KINDS)
def test_same_address_same_bits_in_any_order(kind: str) -> None:
    first = [pixels(kind, number) for number in (0, 1, 2)]
    again = [pixels(kind, number) for number in (2, 1, 0)][::-1]
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", drawn.KINDS)
def test_numbers_seeds_and_kinds_give_other_pictures(kind: str) -> None:
    here = pixels(kind, 0)
    other = drawn.KINDS[drawn.KINDS.index(kind) - 1]
    for there in (pixels(kind, 1), pixels(kind, 0, seed=1), pixels(other, 0)):
        assert np.abs(here.astype(int) - there).mean() > 3


@pytest.mark.parametrize("size", [32, 65, 192])
def test_size_and_mode(size: int) -> None:
    for kind in drawn.KINDS:
        image = drawn.draw_flower(kind, Stream(3, "drawn", 1, 2), size)
        assert image.size == (size, size)
        assert image.mode == "RGB"
        assert np.asarray(image).std() > 5


def test_unknown_kind_and_tiny_size_are_named() -> None:
    with pytest.raises(ValueError, match="one of daisy, dandelion, roses, sunflowers, tulips, got 'orchid'"):
        drawn.draw_flower("orchid", Stream(0, "drawn"), 64)
    with pytest.raises(ValueError, match="one of daisy"):
        drawn.drawn_image("orchid", 0)
    with pytest.raises(ValueError, match="at least 32 pixels, got 8"):
        drawn.draw_flower("roses", Stream(0, "drawn"), 8)


def test_contact_sheet_has_a_row_for_each_kind() -> None:
    sheet = np.asarray(drawn.contact_sheet(2, seed=1, size=48))
    assert sheet.shape == (5 * 48, 2 * 48, 3)
    np.testing.assert_array_equal(sheet[48:96, 48:], pixels("dandelion", 1, seed=1, size=48))


def listing(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def test_ensure_drawn_writes_every_picture_once(tmp_path: Path) -> None:
    lines: list[str] = []
    folder = drawn.ensure_drawn(tmp_path / "deep" / "flowers", 2, seed=4, say=lines.append)
    files = listing(folder)
    pictures = [name for name in files if not name.startswith(".")]
    assert pictures == [f"{kind}/{number:04d}.jpg" for kind in drawn.KINDS for number in range(2)]
    read = np.asarray(Image.open(folder / "roses" / "0001.jpg"), dtype=int)
    assert np.abs(read - np.asarray(drawn.drawn_image("roses", 1, seed=4))).mean() < 3
    assert len(lines) == 1

    stamps = {name: (folder / name).stat().st_mtime_ns for name in files}
    assert drawn.ensure_drawn(folder, 2, seed=4, say=lines.append) == folder
    assert stamps == {name: (folder / name).stat().st_mtime_ns for name in files}
    assert len(lines) == 1
    assert [p.name for p in folder.parent.iterdir()] == ["flowers"]


def test_another_recipe_replaces_the_folder(tmp_path: Path) -> None:
    folder = drawn.ensure_drawn(tmp_path / "flowers", 2, say=lambda line: None)
    before = listing(folder)
    drawn.ensure_drawn(folder, 1, seed=9, say=lambda line: None)
    after = listing(folder)
    assert sum(name.endswith(".jpg") for name in after) == 5
    assert after["tulips/0000.jpg"] != before["tulips/0000.jpg"]
    assert json.loads(after[drawn_folder.MARKER])["seed"] == 9


def test_an_interrupted_drawing_leaves_nothing_and_is_redone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop_at_roses(kind: str, number: int, seed: int = 0, size: int = 64) -> Image.Image:
        if kind == "roses":
            raise KeyboardInterrupt
        return drawn.drawn_image(kind, number, seed, size)

    with monkeypatch.context() as patch:
        patch.setattr(drawn_folder, "drawn_image", stop_at_roses)
        with pytest.raises(KeyboardInterrupt):
            drawn.ensure_drawn(tmp_path / "flowers", 1, say=lambda line: None)
    assert list(tmp_path.iterdir()) == []
    drawn.ensure_drawn(tmp_path / "flowers", 1, say=lambda line: None)
    assert len(listing(tmp_path / "flowers")) == 6


def test_a_killed_drawing_is_no_obstacle(tmp_path: Path) -> None:
    # What SIGKILL leaves behind: the temporary folder, and no folder of the final name.
    (tmp_path / ".flowers-abc" / "new" / "daisy").mkdir(parents=True)
    drawn.ensure_drawn(tmp_path / "flowers", 1, say=lambda line: None)
    assert len(listing(tmp_path / "flowers")) == 6


def test_somebody_elses_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(OutputError, match="not drawn by minialex"):
        drawn.ensure_drawn(tmp_path, 1, say=lambda line: None)
    assert listing(tmp_path) == {"photo.jpg": b"mine"}
    with pytest.raises(OutputError, match="not drawn by minialex"):
        drawn.ensure_drawn(tmp_path / "photo.jpg", 1, say=lambda line: None)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        drawn.ensure_drawn(tmp_path / "none", 0)


@pytest.fixture(scope="module")
def small() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """75 pictures a kind at 16 x 16, and their labels. Drawn at 64: the same flowers, a quarter as wide."""
    x, y = [], []
    for label, kind in enumerate(drawn.KINDS):
        for number in range(75):
            image = drawn.drawn_image(kind, number, size=64).reduce(64 // SIDE)
            x.append(np.asarray(image, dtype=np.float64).ravel() / 255)
            y.append(label)
    return np.array(x), np.array(y)


def test_mean_colours_overlap(small: tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]) -> None:
    x, y = small
    colour = x.reshape(len(x), -1, 3).mean(axis=1)
    centres = np.array([colour[y == label].mean(axis=0) for label in range(5)])
    spread = np.array([colour[y == label].std(axis=0) for label in range(5)])
    for a in range(5):
        for b in range(a):
            assert np.all(np.abs(centres[a] - centres[b]) < spread[a] + spread[b])
    nearest = np.argmin(((colour[:, None] - centres) ** 2).sum(axis=-1), axis=1)
    assert np.mean(nearest == y) < 0.45


def train_linear(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.int64], decay: float
) -> npt.NDArray[np.float64]:
    """Multinomial logistic regression by accelerated gradient descent to convergence: (D + 1, 5)."""
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    step = 1.0 / (0.5 * np.linalg.norm(x, 2) ** 2 / len(x) + decay)
    weight = previous = np.zeros((x.shape[1], 5))
    for iteration in range(400):
        ahead = weight + iteration / (iteration + 3) * (weight - previous)
        scores = x @ ahead
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
        scores[np.arange(len(y)), y] -= 1
        previous, weight = weight, ahead - step * (x.T @ scores / len(y) + decay * ahead)
    return weight


def test_a_linear_classifier_on_pixels_stays_under_60_percent(
    small: tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]],
) -> None:
    x, y = small
    train = np.arange(len(y)) % 5 != 0
    x = (x - x[train].mean(axis=0)) / x[train].std(axis=0) / np.sqrt(x.shape[1])
    accuracies = {}
    for decay in (1e-5, 1e-4, 1e-3, 1e-2):
        with one_blas_thread():  # For matrices this small, threads cost more than they bring.
            weight = train_linear(x[train], y[train], decay)
        hits = np.argmax(x @ weight[:-1] + weight[-1], axis=1) == y
        accuracies[decay] = (hits[train].mean(), hits[~train].mean())
    # It did learn what there is to learn: the picture of the training part, and more than chance beyond.
    assert max(fit for fit, _ in accuracies.values()) > 0.9, accuracies
    assert 0.25 < max(test for _, test in accuracies.values()) < 0.6, accuracies
