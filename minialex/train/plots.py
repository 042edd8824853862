"""The pictures of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minialex.train.figures import (
    RIGHT_COLOUR,
    TRAIN_COLOUR,
    VAL_COLOUR,
    WRONG_COLOUR,
    curves,
    figure,
    grid,
    plain,
    save,
    shortened,
    show_picture,
)
from minialex.train.history import EpochRecord
from minialex.train.metrics import IntArray, as_percent

if TYPE_CHECKING:
    from PIL.Image import Image

# Beyond this many classes the numbers in the cells could no longer be read.
MOST_CLASSES_WITH_NUMBERS = 20
# Letters of the size that files' names have, in the width of a photograph.
LONGEST_FILE_NAME = 55


def plot_history(path: Path, history: Sequence[EpochRecord], best_epoch: int | None) -> None:
    """Draw loss and accuracy over epochs, training and validation. Raises: OutputError."""
    drawn = figure(10, 4)
    epochs = [record.epoch for record in history]
    panels = (("loss", "cross-entropy, nats"), ("accuracy", "share of right answers"))
    for axes, (what, unit) in zip(drawn.subplots(1, 2), panels, strict=True):
        parts = {"training": f"train_{what}", "validation": f"val_{what}"}
        lines = {name: [getattr(record, field) for record in history] for name, field in parts.items()}
        curves(axes, epochs, lines, (TRAIN_COLOUR, VAL_COLOUR), title=what, xlabel="epoch", ylabel=unit)
        if best_epoch is not None:
            axes.axvline(best_epoch, color="0.6", linestyle=":", label=f"best epoch ({best_epoch})")
            axes.legend()
    drawn.axes[0].set_ylim(0, 1.05 * max(max(r.train_loss, r.val_loss) for r in history))
    drawn.axes[1].set_ylim(0, 1.02)
    save(drawn, path)


def plot_confusion(path: Path, confusion: IntArray, classes: Sequence[str], title: str) -> None:
    """Draw a confusion matrix, row = true class, shaded by the row's share. Raises: OutputError."""
    count = len(classes)
    side = min(16.0, 3.5 + 0.65 * count)
    drawn = figure(side + 0.8, side)
    axes = drawn.subplots()
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    names = [plain(name) for name in classes]
    axes.set_xticks(range(count), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(count), names)
    axes.set(xlabel="answer", ylabel="true class", title=title)
    if count <= MOST_CLASSES_WITH_NUMBERS:
        for i, j in np.ndindex(confusion.shape):
            colour = "white" if share[i, j] > 0.5 else "black"
            axes.text(j, i, str(confusion[i, j]), ha="center", va="center", color=colour)
    # White lines between the cells.
    axes.set_xticks(np.arange(count - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(count - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="minor", length=0)
    drawn.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    save(drawn, path)


@dataclass(frozen=True)
class Mistake:
    """A wrong answer: the photograph, its file's name, both class names, and the answer's probability."""

    image: Image
    name: str
    truth: str
    answer: str
    probability: float


def plot_mistakes(path: Path, mistakes: Sequence[Mistake], title: str) -> None:
    """Draw wrong photographs: over each the true class and the answer, under it its file's name.

    Raises: OutputError.
    """
    columns = min(4, max(2, len(mistakes)))
    rows = max(1, math.ceil(len(mistakes) / columns))
    drawn = figure(3 * columns, 3.5 * rows + 0.5, title if mistakes else f"{title}: none")
    for axes, mistake in zip(grid(drawn, len(mistakes), columns), mistakes, strict=True):
        _plot_mistake(axes, mistake)
    save(drawn, path)


def _plot_mistake(axes: Any, mistake: Mistake) -> None:
    show_picture(axes, mistake.image)
    # All have a square to lie in, at its upper left: the lines of text find the same room whatever the shape.
    side = max(mistake.image.size)
    axes.set(xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5))
    # Room for two lines of different colours: the title above, a text between it and the photograph.
    truth, answer = (plain(shortened(name)) for name in (mistake.truth, mistake.answer))
    axes.set_title(f"true: {truth}", fontsize=9, color=RIGHT_COLOUR, loc="left", pad=17)
    answer = f"answer: {answer} ({as_percent(mistake.probability)})"
    axes.text(0, 1.02, answer, transform=axes.transAxes, fontsize=9, color=WRONG_COLOUR)
    name, height = mistake.name, mistake.image.height
    if len(name) > LONGEST_FILE_NAME:  # Their ends are what they differ in.
        name = f"\u2026{name[1 - LONGEST_FILE_NAME :]}"
    below = {"xytext": (0, -3), "textcoords": "offset points", "va": "top"}
    axes.annotate(plain(name), (-0.5, height - 0.5), fontsize=6, color="0.4", **below)
