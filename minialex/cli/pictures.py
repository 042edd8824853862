"""`minialex pca`: the mean colour of pictures, and the directions in which their colours vary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from minialex.cli.shared import JsonOption, PlainCommand, app, user_errors
from minialex.errors import OutputError, UsageError

if TYPE_CHECKING:
    from minialex.data import Dataset
    from minialex.data.files import OnBadImage

__all__ = ["pca"]


@app.command(cls=PlainCommand)
def pca(
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="The pictures. [default: the flowers, from MINIALEX_DATA, the cache, or the network]",
            show_default=False,
        ),
    ] = None,
    image_size: Annotated[int, typer.Option(help="Pixels a side of what the network sees.")] = 224,
    crops: Annotated[
        str,
        typer.Option(
            help="As of `minialex train`: paper measures the middle squares that it takes parts of."
        ),
    ] = "scaled",
    split: Annotated[
        str | None,
        typer.Option(
            metavar="PERCENT",
            help="Measure the training pictures of such a split, 80/10/10 for example, as a run does. "
            "[default: all pictures]",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of that split.")] = 0,
    sigma: Annotated[float, typer.Option(help="Of the jitter that is shown.")] = 0.1,
    plot: Annotated[
        Path | None, typer.Option(help="A picture: a photograph under several jitters.", show_default=False)
    ] = None,
    on_bad_image: Annotated[
        str, typer.Option(help="stop, or skip: at files that are no readable pictures.")
    ] = "stop",
    as_json: JsonOption = False,
) -> None:
    """Show how the colours of pictures vary.

    The mean colour, the covariance of red, green and blue over all pixels as the network sees them, and its
    eigenvalues and eigenvectors, along which --pca-jitter shifts colours. A byte of 255 counts as 1.
    """
    from minialex.data import open_dataset, picture_statistics
    from minialex.data.recipe import Recipe
    from minialex.train.colours import colours_json, colours_text, measured_transform, plot_jitters
    from minialex.train.input_pipeline import count_threads
    from minialex.train.reporter import SilentReporter, default_reporter

    reporter = SilentReporter() if as_json else default_reporter()
    with user_errors():
        _check(image_size, crops, sigma, on_bad_image)
        _check_plot(plot)
        bad = cast("OnBadImage", on_bad_image)  # one of its two words, as was just checked
        dataset, description = open_dataset(data, on_bad_image=bad, say=reporter.say)
        reporter.say(f"data: {description}")
        indices, transform = _chosen(dataset, split, seed), measured_transform(image_size, crops)
        statistics = picture_statistics(dataset, indices, transform, threads=count_threads())
        part = "" if split is None else f" to train on, of {len(dataset):,}"
        reporter.say(
            f"measured: {statistics.pictures:,} pictures{part}, {statistics.pixels:,} pixels\n\n"
            f"{colours_text(statistics, sigma)}"
        )
        if as_json:
            about = {"data": str(dataset.root), "image_size": image_size, "crops": crops, "split": split}
            print(json.dumps({**about, **colours_json(statistics, sigma)}, indent=2, ensure_ascii=False))
        if plot is not None:
            plot_jitters(plot, Recipe(dataset, transform, 0).pixels(indices[0]), statistics, sigma)
            reporter.say(f"\nwritten to {plot}")


def _chosen(dataset: Dataset, split: str | None, seed: int) -> list[int]:
    """All pictures, or those that a run with this split trains on."""
    from minialex.data import divide, parse_fractions

    if split is None:
        return list(range(len(dataset)))
    return divide(dataset, parse_fractions(split), seed).train.tolist()


def _check(image_size: int, crops: str, sigma: float, on_bad_image: str) -> None:
    """Raises: UsageError for options that make no sense."""
    if image_size < 1:
        raise UsageError(f"--image-size must be at least 1, got {image_size}")
    if not 0 <= sigma < float("inf"):
        raise UsageError(f"--sigma must be 0 or more, got {sigma:g}")
    if crops not in ("scaled", "fixed", "paper", "whole"):
        raise UsageError(f"--crops must be scaled, fixed, paper or whole, got {crops!r}")
    if on_bad_image not in ("stop", "skip"):
        raise UsageError(f"--on-bad-image must be stop or skip, got {on_bad_image!r}")


def _check_plot(plot: Path | None) -> None:
    """Raises: UsageError, OutputError: now, and not when the work is done."""
    if plot is None:
        return
    if plot.suffix != ".png":
        raise UsageError(f"--plot must end in .png, got {plot}")
    if not plot.parent.is_dir():
        raise OutputError(
            f"cannot write {plot}: there is no folder {plot.parent}; make it, or choose another"
        )
