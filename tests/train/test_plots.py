"""Pictures of runs: they are drawn for every run, whatever its classes are called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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
