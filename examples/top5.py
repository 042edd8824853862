"""Photographs with the five labels that a network thinks most probable, as bars: the paper's figure 4, left.

python examples/top5.py runs/flowers                      eight photographs that it was not trained on
python examples/top5.py runs/flowers a.jpg b.jpg          photographs of your own
python examples/top5.py --help                            everything that can be changed

A network of five or fewer classes shows all of them. The right label's bar is orange. Of a photograph of your
own it is known if the folder that it lies in is called like a class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from minialex.cli.scripts import NetworkArgument, OutOption, plain_script
from minialex.cli.shared import DeviceOption
from minialex.data import load_image
from minialex.errors import UsageError
from minialex.train import Prediction, Predictor
from minialex.train.figures import VAL_COLOUR, bars, figure, plain, save, shortened, show_picture
from minialex.train.showing import Album, open_album, open_network, place_for

MOST_LABELS = 5
COLUMNS = 4
RIGHT, OTHERS = VAL_COLOUR, "#8fa9c9"


@dataclass(frozen=True)
class Answer:
    """A photograph, its right label if that is known, and what the network says."""

    picture: Image.Image
    truth: str | None
    prediction: Prediction


def answers_to_album(predictor: Predictor, album: Album, count: int, seed: int) -> list[Answer]:
    """`count` photographs drawn at random: not the best ones, nor the funniest."""
    chosen = np.random.default_rng(seed).permutation(album.fresh)[:count].tolist()
    pictures = [album.dataset.load(index) for index in chosen]
    truths = [album.dataset.classes[album.dataset.labels[index]] for index in chosen]
    return [Answer(*three) for three in zip(pictures, truths, predictor.predict(pictures), strict=True)]


def answers_to_files(predictor: Predictor, files: Sequence[Path]) -> list[Answer]:
    """Photographs by their files."""
    pictures = [load_image(file) for file in files]
    folders = [file.resolve().parent.name for file in files]
    truths = [name if name in predictor.classes else None for name in folders]
    return [Answer(*three) for three in zip(pictures, truths, predictor.predict(pictures), strict=True)]


def draw(path: Path, answers: Sequence[Answer], title: str) -> None:
    """Draw each photograph over the bars of its most probable labels."""
    columns = min(COLUMNS, len(answers))
    rows = math.ceil(len(answers) / columns)
    labels = min(MOST_LABELS, len(answers[0].prediction))
    heights = (2.3, 0.5 + 0.25 * labels)  # Inches: of a photograph, of its bars.
    sheet = figure(3.5 * columns, sum(heights) * rows + 0.6, title, fontsize=17)
    cells = sheet.subplots(2 * rows, columns, squeeze=False, height_ratios=heights * rows)
    for axes in cells.flat:
        axes.axis("off")
    for number, answer in enumerate(answers):
        row, column = divmod(number, columns)
        above, below = cells[2 * row, column], cells[2 * row + 1, column]
        show_picture(above, answer.picture)
        above.set_anchor("S")  # All photographs stand on their labels, whatever their shapes.
        below.axis("on")
        below.set_title(plain(shortened(answer.truth or "?")), fontsize=15, fontweight="bold")
        names, shares = zip(*list(answer.prediction)[:labels], strict=True)
        colours = [RIGHT if name == answer.truth else OTHERS for name in names]
        bars(below, names, shares, colours, fontsize=12)
    save(sheet, path)


@plain_script
def main(
    checkpoint: NetworkArgument = None,
    pictures: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PICTURE]...", help="Photographs of your own.", show_default=False),
    ] = None,
    data: Annotated[str | None, typer.Option(help="A folder of pictures. [default: the run's]")] = None,
    count: Annotated[int, typer.Option(help="Photographs.")] = 8,
    seed: Annotated[int, typer.Option(help="Decides which ones are drawn.")] = 0,
    out: OutOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """Draw photographs with their most probable labels as bars."""
    if count < 1:
        raise UsageError(f"--count must be at least 1, got {count}")
    predictor, file = open_network(checkpoint, device)
    path = place_for(out, file.parent, "top5.png")
    if pictures:
        answers, what = answers_to_files(predictor, pictures), "photographs"
    else:
        album = open_album(predictor, file, data)
        answers = answers_to_album(predictor, album, count, seed)
        what = f"{len(answers)} {album.fresh_words} drawn at random"
    few = len(predictor.classes) <= MOST_LABELS
    shown = "all labels by their probability" if few else f"the {MOST_LABELS} most probable labels"
    known = [answer for answer in answers if answer.truth is not None]
    note = "; the right one is orange" if known else ""
    draw(path, answers, f"{predictor.checkpoint.model_name}: {what}, {shown}{note}")
    right = sum(answer.prediction.label == answer.truth for answer in known)
    if known:
        print(f"the most probable label is the right one for {right} of {len(known)} photographs")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
