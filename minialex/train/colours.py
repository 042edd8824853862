"""What `minialex pca` says of a data set's colours: tables, JSON, and a photograph under several jitters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minialex.data import PCAJitter, Statistics, Transform
from minialex.rng import Stream
from minialex.train.figures import figure, save, show_picture
from minialex.train.preprocessing import evaluation_transform, training_transform
from minialex.train.reporter import table

__all__ = ["colours_json", "colours_text", "jitter_of", "measured_transform", "plot_jitters"]

NAMES = ("red", "green", "blue")
# The picture's panels along each component, in standard deviations of the colours.
STEPS = (-0.5, -0.25, 0.0, 0.25, 0.5)


def measured_transform(image_size: int, crops: str) -> Transform:
    """How a run with these options prepares the pictures that it measures: whole ones at the network's size,
    or for --crops paper the middle squares that parts are taken from."""
    if crops == "paper":
        return training_transform(image_size, 3, crops=crops)
    return evaluation_transform(image_size, 3, crops)


def jitter_of(statistics: Statistics, sigma: float) -> PCAJitter:
    """The jitter along these principal components."""
    return PCAJitter(statistics.eigenvalues.tolist(), statistics.eigenvectors.tolist(), sigma)


def spread(jitter: PCAJitter) -> npt.NDArray[np.float64]:
    """(C,): the standard deviation of what is added to each channel, where 255 counts as 1."""
    vectors, values = np.array(jitter.eigenvectors), np.array(jitter.eigenvalues)
    return np.asarray(jitter.sigma * np.sqrt(((vectors * values) ** 2).sum(axis=1)))


def colours_text(statistics: Statistics, sigma: float) -> str:
    """Means, the covariance, its eigenvalues and eigenvectors, and how far a jitter goes."""
    deviation = np.sqrt(np.diag(statistics.covariance))
    colours = [("", *NAMES), _row("mean", statistics.mean_colour), _row("deviation", deviation)]
    covariance = [
        ("covariance", *NAMES),
        *(_row(name, row) for name, row in zip(NAMES, statistics.covariance, strict=True)),
    ]
    moved = spread(jitter_of(statistics, sigma))
    return "\n\n".join(
        [
            table(colours, right=(1, 2, 3)),
            table(covariance, right=(1, 2, 3)),
            table(_components(statistics), right=(1, 2, 3, 4, 5, 6)),
            f"A jitter with sigma {sigma:g} moves {', '.join(NAMES)} by {_listed(moved, '.4f')}: "
            f"{_listed(255 * moved, '.1f')} of 255 (standard deviations).",
        ]
    )


def _components(statistics: Statistics) -> list[tuple[str, ...]]:
    total = statistics.eigenvalues.sum() or 1.0
    rows: list[tuple[str, ...]] = [("component", "eigenvalue", "share", "deviation", *NAMES)]
    for number, value in enumerate(statistics.eigenvalues):
        figures = (f"{value:.6f}", f"{100 * value / total:.1f} %", f"{np.sqrt(value):.4f}")
        vector = [f"{x:.4f}" for x in statistics.eigenvectors[:, number]]
        rows.append((str(number + 1), *figures, *vector))
    return rows


def _row(name: str, values: npt.NDArray[Any]) -> tuple[str, ...]:
    return (name, *(f"{value:.6f}" for value in values))


def _listed(values: npt.NDArray[Any], form: str) -> str:
    return ", ".join(f"{value:{form}}" for value in values)


def colours_json(statistics: Statistics, sigma: float) -> dict[str, Any]:
    """All digits. `eigenvectors[c][i]` is channel c of component i; `jitter` is the transform's
    configuration."""
    return {
        "unit": "1 is a byte of 255",
        "pictures": statistics.pictures,
        "pixels": statistics.pixels,
        "mean_colour": statistics.mean_colour.tolist(),
        "covariance": statistics.covariance.tolist(),
        "eigenvalues": statistics.eigenvalues.tolist(),
        "eigenvectors": statistics.eigenvectors.tolist(),
        "jitter": jitter_of(statistics, sigma).to_config(),
    }


def plot_jitters(path: Path, pixels: npt.NDArray[np.uint8], statistics: Statistics, sigma: float) -> None:
    """Draw a photograph (H, W, 3) moved along each component, then as two jitters make it in five epochs.

    One is the paper's, the other takes the standard deviations along the components for the eigenvalues, as
    cuda-convnet2 does. Above each panel stands what was added to red, green and blue.

    Raises: OutputError.
    """
    deviations = np.sqrt(statistics.eigenvalues)
    shares = statistics.eigenvalues / (statistics.eigenvalues.sum() or 1.0)
    rows = {}
    for i, share in enumerate(shares):
        title = f"component {i + 1}, {100 * share:.0f} % of the variance"
        along = deviations[i] * statistics.eigenvectors[:, i]
        rows[f"{title}: up to half a standard deviation each way"] = [step * along for step in STEPS]
    papers = jitter_of(statistics, sigma)
    stronger = PCAJitter(deviations.tolist(), papers.eigenvectors, sigma)
    for name, jitter in (
        ("five epochs, alpha times eigenvalue: the paper", papers),
        ("five epochs, alpha times the eigenvalue's square root: cuda-convnet2", stronger),
    ):
        rows[f"{name}, sigma {sigma:g}"] = [
            jitter.shift(Stream(0, "augment", epoch)) for epoch in range(1, len(STEPS) + 1)
        ]
    drawn = figure(10, 11.5, "One colour added to all pixels (red, green, blue; of 255)")
    for cells, (title, shifts) in zip(drawn.subplots(len(rows), len(STEPS)), rows.items(), strict=True):
        for column, (axes, shift) in enumerate(zip(cells, shifts, strict=True)):
            show_picture(axes, np.clip(pixels / 255.0 + shift, 0.0, 1.0))
            added = ", ".join(f"{byte:+d}" if byte else "0" for byte in np.rint(255 * shift).astype(int))
            axes.set_title(f"{title if column == len(STEPS) // 2 else ''}\n{added}", fontsize=9)
    save(drawn, path)
