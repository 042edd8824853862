"""Drawing: what every picture of the project shares. Matplotlib is imported at the first figure, without its
global state (pyplot), so that drawing changes nothing in the program that asks for it.

    sheet = figure(10, 4, "What it shows")
    left, right = sheet.subplots(1, 2)
    curves(left, epochs, {"training": ..., "validation": ...}, xlabel="epoch", ylabel="error")
    bars(right, ["daisy", "tulips"], [0.9, 0.1])
    save(sheet, Path("sheet.png"))
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from minialex.train.files import atomic_write
from minialex.train.metrics import as_percent

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "COLOURS",
    "DPI",
    "RIGHT_COLOUR",
    "TRAIN_COLOUR",
    "VAL_COLOUR",
    "WRONG_COLOUR",
    "around_zero",
    "bars",
    "curves",
    "figure",
    "grid",
    "plain",
    "save",
    "shortened",
    "show_picture",
    "tiled",
]

DPI = 120
TRAIN_COLOUR, VAL_COLOUR = "#1f5fa8", "#d1611b"
RIGHT_COLOUR, WRONG_COLOUR = "#1a7a3c", "#b3261e"
# For more than two curves. They differ in lightness too: projectors are dim, and some eyes mix up colours.
COLOURS = (TRAIN_COLOUR, VAL_COLOUR, "#2f9e77", "#7a3b8f", "#8c6d1f", "#5a5a5a")

Pixels = npt.NDArray[Any]


def figure(width: float, height: float, title: str = "", fontsize: float = 12) -> Any:
    """An empty Matplotlib figure, `width` x `height` inches at DPI pixels an inch; fontsize: the title's."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    empty = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(empty)
    if title:
        empty.suptitle(plain(title), fontsize=fontsize)
    return empty


def save(drawn: Any, path: Path) -> None:
    """Write a figure as a PNG. Raises: OutputError."""
    # Drawn in memory first: the PNG writer seeks, and a disk that is full is then found by our own writing.
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png")
    atomic_write(path, lambda file: file.write(buffer.getvalue()))


def plain(text: str) -> str:
    """A class may be called '$5': Matplotlib would read a formula."""
    return text.replace("$", r"\$")


def shortened(name: str, longest: int = 22) -> str:
    """A class may be called 'great white shark, white shark, man-eater': what there is room for."""
    return name if len(name) <= longest else f"{name[: longest - 1].rstrip(' ,')}\u2026"


def grid(drawn: Any, count: int, columns: int) -> list[Any]:
    """Axes for `count` pictures, row by row; those left over in the last row are invisible."""
    rows = max(1, math.ceil(count / columns))
    cells = list(drawn.subplots(rows, columns, squeeze=False).flat)
    for axes in cells[count:]:
        axes.axis("off")
    return cells[:count]


def show_picture(axes: Any, picture: Image | Pixels, **options: Any) -> Any:
    """Draw a picture (PIL's, or an array (H, W) or (H, W, 3)) without ticks; options are imshow's."""
    axes.axis("off")
    return axes.imshow(np.asarray(picture), **options)


def tiled(tiles: Pixels, columns: int, gap: int = 1, ground: float = 1.0) -> Pixels:
    """Many small pictures in one, row by row, `gap` pixels of `ground` between them.

    Shapes: (N, H, W) or (N, H, W, C) -> (rows * (H + gap) - gap, columns * (W + gap) - gap) or (..., C).
    """
    N, H, W, *colours = tiles.shape
    rows = max(1, math.ceil(N / columns))
    extent = (rows * (H + gap) - gap, columns * (W + gap) - gap)
    sheet = np.full((*extent, *colours), ground, dtype=tiles.dtype)
    for number, tile in enumerate(tiles):
        top, left = number // columns * (H + gap), number % columns * (W + gap)
        sheet[top : top + H, left : left + W] = tile
    return sheet


def around_zero(values: Pixels, largest: Pixels | float) -> Pixels:
    """Values from -largest to largest as shades from 0 to 1: zero is the grey in the middle, 0.5."""
    scale = np.where(np.asarray(largest) > 0, largest, 1.0)  # All zeros are all grey.
    return np.clip(0.5 + 0.5 * values / scale, 0.0, 1.0)


def bars(
    axes: Any,
    names: Sequence[str],
    values: Sequence[float],
    colours: Sequence[str] | str = TRAIN_COLOUR,
    fontsize: float = 10,
) -> None:
    """Draw shares as horizontal bars, the first on top, each between its name and its value in per cent."""
    places = range(len(names))
    axes.barh(places, values, color=colours, height=0.72)
    for place, value in zip(places, values, strict=True):
        axes.text(value + 0.02, place, as_percent(value), va="center", fontsize=fontsize)
    axes.set_yticks(places, [plain(shortened(name)) for name in names], fontsize=fontsize)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, 1.3)  # Room for the text beside the longest bar.
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)


def curves(
    axes: Any,
    x: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    colours: Sequence[str] = COLOURS,
    **labels: str,
) -> None:
    """Draw a line with points for each name, over whole numbers such as epochs.

    Args: lines: {name in the legend: values}; one that is shorter than x ends early. labels: title, xlabel,
          ylabel.
    """
    for number, (name, values) in enumerate(lines.items()):
        colour = colours[number % len(colours)]
        axes.plot(x[: len(values)], values, marker="o", markersize=4, color=colour, label=plain(name))
    axes.set(**{key: plain(text) for key, text in labels.items()})
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend()
