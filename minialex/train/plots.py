"""The pictures of a run. Matplotlib is imported here and nowhere else, without its global state (pyplot)."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minialex.train.files import atomic_write
from minialex.train.history import EpochRecord
from minialex.train.metrics import IntArray, as_percent

if TYPE_CHECKING:
    from PIL.Image import Image

TRAIN_COLOUR, VAL_COLOUR = "#1f5fa8", "#d1611b"
RIGHT_COLOUR, WRONG_COLOUR = "#1a7a3c", "#b3261e"
# Beyond this many classes the numbers in the cells could no longer be read.
MOST_CLASSES_WITH_NUMBERS = 20


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: Path) -> None:
    # Drawn in memory first: the PNG writer seeks, and a disk that is full is then found by our own writing.
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    atomic_write(path, lambda file: file.write(buffer.getvalue()))


def _plain(text: str) -> str:
    """A class may be called '$5': Matplotlib would read a formula."""
    return text.replace("$", r"\$")


def plot_history(path: Path, history: Sequence[EpochRecord], best_epoch: int | None) -> None:
    """Draw loss and accuracy over epochs, training and validation. Raises: OutputError."""
    figure = _figure(10, 4)
    epochs = [record.epoch for record in history]
    panels = (("loss", "cross-entropy, nats"), ("accuracy", "share of right answers"))
    for axes, (what, unit) in zip(figure.subplots(1, 2), panels, strict=True):
        for part, name, colour in (("train", "training", TRAIN_COLOUR), ("val", "validation", VAL_COLOUR)):
            values = [getattr(record, f"{part}_{what}") for record in history]
            axes.plot(epochs, values, marker="o", markersize=4, color=colour, label=name)
        if best_epoch is not None:
            axes.axvline(best_epoch, color="0.6", linestyle=":", label=f"best epoch ({best_epoch})")
        axes.set(title=what, xlabel="epoch", ylabel=unit)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.axes[0].set_ylim(0, 1.05 * max(max(r.train_loss, r.val_loss) for r in history))
    figure.axes[1].set_ylim(0, 1.02)
    _save(figure, path)


def plot_confusion(path: Path, confusion: IntArray, classes: Sequence[str], title: str) -> None:
    """Draw a confusion matrix, row = true class, shaded by the row's share. Raises: OutputError."""
    count = len(classes)
    side = min(16.0, 3.5 + 0.65 * count)
    figure = _figure(side + 0.8, side)
    axes = figure.subplots()
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    names = [_plain(name) for name in classes]
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
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    _save(figure, path)


@dataclass(frozen=True)
class Mistake:
    """A wrong answer: the photograph, its file's name, both class names, and the answer's probability."""

    image: Image
    name: str
    truth: str
    answer: str
    probability: float


def plot_mistakes(path: Path, mistakes: Sequence[Mistake], title: str) -> None:
    """Draw wrong photographs with the true class and the answer over each. Raises: OutputError."""
    columns = min(4, max(2, len(mistakes)))
    rows = max(1, math.ceil(len(mistakes) / columns))
    figure = _figure(3 * columns, 3.3 * rows + 0.5)
    figure.suptitle(title if mistakes else f"{title}: none")
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.axis("off")
    for axes, mistake in zip(figure.axes, mistakes, strict=False):
        axes.imshow(np.asarray(mistake.image))
        # Room for two lines of different colours: the title above, a text between it and the photograph.
        axes.set_title(f"true: {_plain(mistake.truth)}", fontsize=9, color=RIGHT_COLOUR, loc="left", pad=17)
        answer = f"answer: {_plain(mistake.answer)} ({as_percent(mistake.probability)})"
        axes.text(0, 1.03, answer, transform=axes.transAxes, fontsize=9, color=WRONG_COLOUR)
        axes.text(0, -0.04, _plain(mistake.name), transform=axes.transAxes, fontsize=6, color="0.4", va="top")
    _save(figure, path)
