"""Pictures of runs: they are drawn for every run, whatever its classes are called."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minialex.train import plots
from minialex.train.history import EpochRecord
from minialex.train.plots import Mistake, plot_confusion, plot_history, plot_mistakes


def drawn(path: Path) -> tuple[int, int]:
    """The size of a picture that shows something."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert len(np.unique(np.asarray(image.convert("L")))) > 5
        return image.size


@pytest.mark.parametrize("epochs", [1, 30])
def test_history(tmp_path: Path, epochs: int) -> None:
    history = [EpochRecord(i, 1 / i, 0.5, 2 / i, 0.4, 1e-3, 1.0) for i in range(1, epochs + 1)]
    plot_history(tmp_path / "history.png", history, 1)
    assert drawn(tmp_path / "history.png") == (1200, 480)


@pytest.mark.parametrize("classes", [2, 30])
def test_confusion(tmp_path: Path, classes: int) -> None:
    confusion = np.eye(classes, dtype=np.int64)
    plot_confusion(
        tmp_path / "c.png", confusion, [f"class {i} costs $5 or $6" for i in range(classes)], "test"
    )
    assert max(drawn(tmp_path / "c.png")) <= 2100


@pytest.mark.parametrize("count", [0, 1, 5, 12])
def test_mistakes(tmp_path: Path, count: int) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 20, 3), dtype=np.uint8))
    mistakes = [Mistake(image, f"a/{i}_$.png", "a_$1$", "b", 0.9) for i in range(count)]
    plot_mistakes(tmp_path / "m.png", mistakes, "test: surest wrong answers")
    drawn(tmp_path / "m.png")


def test_mistakes_of_all_shapes_and_with_long_names_are_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes, sheets = [(300, 200), (200, 300), (240, 240), (50, 300), (300, 50)], []
    monkeypatch.setattr(plots, "save", lambda sheet, path: sheets.append(sheet))
    mistakes = [
        Mistake(
            Image.new("RGB", shapes[i % 5]), f"class/{'file ' * 5 * (i % 6)}.jpg", "true " * i, "no " * i, 1.0
        )
        for i in range(12)
    ]
    plot_mistakes(tmp_path / "m.png", mistakes, "test: surest wrong answers")
    (sheet,) = sheets
    sheet.canvas.draw()
    boxes = [sheet._suptitle.get_window_extent()]
    for axes in sheet.axes:
        boxes += [axes._left_title.get_window_extent(), *(text.get_window_extent() for text in axes.texts)]
        boxes.append(axes.images[0].get_window_extent())
        assert max(boxes[-1].size) > 250, "the photographs fill most of their 360 pixels"
    assert len(boxes) == 1 + 12 * 4
    for one, other in itertools.combinations(boxes, 2):
        assert not one.padded(-1).overlaps(other.padded(-1)), (one, other)
    assert all(box.x0 >= 0 and box.x1 <= sheet.bbox.width for box in boxes)
