"""A picture of a gradient check: where the errors are, and how they depend on eps.

Matplotlib is imported at the first picture, without its global state.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minialex.gradient_check import InputReport, Report
from minialex.train import figures

__all__ = ["plot_report"]

# Inputs that get a row of the picture, the worst first.
MOST_INPUTS = 4
# Tiles of a stack of planes, such as the channels of a batch; more are left out, and that is said.
MOST_TILES = 64
# Decades of error below and above the error that is allowed.
DECADES = (-8.0, 4.0)
COLOURS = {"float64": "#1f5fa8", "float32": "#d1611b"}


def plot_report(path: Path, report: Report) -> None:
    """Draw a report as a PNG: for each input the error of every element, as a heat map over the input's shape
    in units of the error that is allowed, and the error against eps in float64 and float32.

    The curves take some hundred evaluations of the function. Raises: OutputError if `path` cannot be written.
    """
    parts = sorted(report.inputs, key=lambda part: (part.ok, -_finite(part.relative_error)))
    shown = [part for part in parts if len(part.numeric)][:MOST_INPUTS]
    title = _title(report, len(parts) - len(shown))
    sheet = figures.figure(11, 1.0 + 3.4 * len(shown), title, fontsize=11)
    panels = sheet.subplots(len(shown), 2, squeeze=False, width_ratios=(1.2, 1))
    for part, (left, right) in zip(shown, panels, strict=True):
        _heat_map(sheet, left, part, report)
        _curves(right, part, report)
    figures.save(sheet, path)


def _finite(value: float) -> float:
    return float(np.nan_to_num(value, nan=np.inf))


def _title(report: Report, left_out: int) -> str:
    counts = ", ".join(f"{count} {verdict}" for verdict, count in report.counts.items() if count)
    more = f"; {left_out} inputs not drawn" if left_out else ""
    state = "right" if report.ok else "wrong"
    return f"{report.op or 'fn'}: the gradients are {state} ({counts} elements{more})"


# -------------------------------------------------------------------------------------------- the heat map


def _heat_map(figure: Any, axes: Any, part: InputReport, report: Report) -> None:
    from matplotlib.colors import TwoSlopeNorm

    plane, bent, tile, label = _plane(part, _excess(part, report))
    axes.set_facecolor("0.85")  # What was not compared.
    norm = TwoSlopeNorm(0.0, *DECADES)
    image = axes.imshow(
        np.where(bent, np.nan, plane), cmap="RdBu_r", norm=norm, interpolation="nearest", aspect="auto"
    )
    rows, columns = np.nonzero(bent)
    if len(rows):
        axes.scatter(columns, rows, marker="x", s=14, color="0.35")
        label += "; crosses: kinks and ties, not compared"
    for edge in range(tile[0], plane.shape[0], tile[0]):
        axes.axhline(edge - 0.5, color="white", linewidth=1.5)
    for edge in range(tile[1], plane.shape[1], tile[1]):
        axes.axvline(edge - 0.5, color="white", linewidth=1.5)
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in part.counts.items() if count)
    axes.set_title(figures.plain(f"{part.name} {part.comparison.shape}: {verdicts}"), fontsize=9)
    axes.set_xlabel(label, fontsize=8)
    axes.set_xticks([])
    axes.set_yticks([])
    bar = figure.colorbar(image, ax=axes, ticks=[-8, -6, -4, -2, 0, 2, 4])
    bar.ax.set_yticklabels(["1e-8", "1e-6", "1e-4", "1e-2", "1", "100", "1e4"], fontsize=7)
    bar.set_label("error / allowed error", fontsize=8)


def _excess(part: InputReport, report: Report) -> npt.NDArray[np.float64]:
    """The error of each element that was compared, in decades beyond what is allowed."""
    settings = report.settings
    size = np.abs(part.numeric)
    if settings.scaled:
        size = size + np.sqrt(np.mean(np.square(part.numeric)))
    allowed = settings.atol + settings.rtol * size
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = np.log10(np.abs(part.comparison.analytic - part.numeric) / allowed)
    return np.clip(np.nan_to_num(excess, nan=DECADES[1]), *DECADES)


def _plane(
    part: InputReport, excess: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], tuple[int, int], str]:
    """The values and what has a kink as planes, the size of a tile, and what it is; a sample as one row."""
    shape = part.comparison.shape
    if len(excess) < int(np.prod(shape, dtype=np.int64)):
        return excess[None], ~part.compared[None], (1, len(excess)), "the elements of the sample"
    bent = np.where(part.compared, 0.0, 1.0)
    plane, tile, label = _tiled(part.comparison.full(excess))
    return plane, _tiled(part.comparison.full(bent))[0] == 1.0, tile, label


def _tiled(values: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], tuple[int, int], str]:
    """Any shape as one plane of tiles: the last two axes are a tile, all others count them."""
    if values.ndim < 2:
        return values.reshape(1, -1), (1, values.size), "elements"
    height, width = values.shape[-2:]
    tiles = values.reshape(-1, height, width)
    count, tiles = len(tiles), tiles[:MOST_TILES]
    across = min(len(tiles), values.shape[-3] if values.ndim > 3 else 8, 16)
    down = -(-len(tiles) // across)
    plane = np.full((down * height, across * width), np.nan)
    for number, tile in enumerate(tiles):
        top, left = (number // across) * height, (number % across) * width
        plane[top : top + height, left : left + width] = tile
    label = "the last two axes" if count > 1 else "axis 0 down, axis 1 across"
    if count > 1:
        label = (
            f"{len(tiles)} of {count} tiles of {label}" if len(tiles) < count else f"{count} tiles of {label}"
        )
    return plane, (height, width), label


# ---------------------------------------------------------------------------------------------- the curves


def _curves(axes: Any, part: InputReport, report: Report) -> None:
    curves, eps, rtol = part.curves(), report.settings.eps, report.settings.rtol
    for curve in curves:
        errors, steps, colour = np.array(curve.errors), np.array(curve.eps), COLOURS[curve.dtype]
        # Two numbers that agree far beyond their digits do so by chance.
        seen = errors > (0.0 if curve.dtype == "float64" else 1e-10)
        heights = np.clip(errors[seen], 1e-13, 1e3)
        axes.loglog(steps[seen], heights, marker="o", markersize=3, color=colour, label=curve.dtype)
    axes.axhline(rtol, color="0.5", linestyle=":", linewidth=1, label=f"rtol {rtol:g}")
    axes.axvline(eps, color="0.7", linestyle="--", linewidth=1, label=f"eps {eps:g}")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.invert_xaxis()
    axes.set_ylim(1e-13, 1e3)
    wrong = part.counts["wrong"] > 0
    count = len(curves[0].elements) if curves else 0
    which = f"the {count} worst" if wrong else f"{count} of the largest gradients"
    axes.set_title(f"error against eps, {which}", fontsize=9)
    axes.set_xlabel("eps, the step", fontsize=8)
    axes.set_ylabel("relative error", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
