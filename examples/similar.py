"""Photographs and those that a network finds most like them: the paper's figure 4, right.

python examples/similar.py runs/flowers                   a photograph of each class, and the six most like it
python examples/similar.py runs/flowers a.jpg b.jpg       for photographs of your own
python examples/similar.py --help                         everything that can be changed

Two photographs are alike if the network's last hidden layer answers alike to them: if the Euclidean distance
between the two rows of activations is small. Their pixels may have little in common. The photographs on the
left are ones that the network was not trained on; those that are like them come from the training part.
`minialex features` writes the activations into a file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image

from minialex.cli.scripts import NetworkArgument, OutOption, plain_script
from minialex.cli.shared import DeviceOption
from minialex.data import Loader
from minialex.errors import UsageError
from minialex.train import Predictor
from minialex.train.features import Notes, PictureFiles, choose_layer, extract_features
from minialex.train.figures import RIGHT_COLOUR, WRONG_COLOUR, figure, plain, save, shortened, show_picture
from minialex.train.input_pipeline import count_threads
from minialex.train.showing import Album, open_album, open_network, place_for


@dataclass(frozen=True)
class Query:
    """A photograph, its class if that is known, its file's name and hash, and its activations (D,)."""

    picture: Image.Image
    truth: str | None
    name: str
    digest: str
    row: np.ndarray


@dataclass(frozen=True)
class Neighbour:
    """A photograph that is like the query, and the distance between the activations."""

    index: int
    distance: float

    def __str__(self) -> str:
        return f"{self.distance:#.3g}".rstrip(".")


def nearest(query: Query, rows: np.ndarray, digests: Sequence[str], count: int) -> list[Neighbour]:
    """The `count` rows nearest to the query's, nearest first; copies of the query itself do not count."""
    distances = np.linalg.norm(rows.astype(np.float64) - query.row, axis=1)
    order = [int(i) for i in np.argsort(distances, kind="stable") if digests[i] != query.digest]
    return [Neighbour(i, float(distances[i])) for i in order[:count]]


def rows_of(predictor: Predictor, album: Album, indices: np.ndarray, layer: str) -> np.ndarray:
    """The layer's activations (N, D) for pictures of the album."""
    loader = Loader(album.dataset, indices, predictor.transform, batch_size=32, threads=count_threads())
    with loader:
        return extract_features(predictor, loader, layer, Notes(print))[1]


def queries_from_album(predictor: Predictor, album: Album, layer: str, count: int, seed: int) -> list[Query]:
    """Fresh photographs drawn at random, as many of one class as of another."""
    chosen = one_of_each(album.dataset.labels, np.random.default_rng(seed).permutation(album.fresh), count)
    data, rows = album.dataset, rows_of(predictor, album, chosen, layer)
    return [
        Query(data.load(i), data.classes[data.labels[i]], data.names[i], data.digest(i), row)
        for i, row in zip(chosen.tolist(), rows, strict=True)
    ]


def one_of_each(labels: np.ndarray, shuffled: np.ndarray, count: int) -> np.ndarray:
    """`count` of the pictures: the first of each class, then the second of each class, and so on."""
    seen: Counter[int] = Counter()
    turns = []
    for label in labels[shuffled].tolist():
        turns.append(seen[label])
        seen[label] += 1
    chosen = shuffled[np.argsort(turns, kind="stable")[:count]]
    return chosen[np.argsort(labels[chosen], kind="stable")]


def queries_from_files(predictor: Predictor, paths: Sequence[Path], layer: str) -> list[Query]:
    """Photographs by their files; a folder that is called like a class tells what is on them."""
    files, (names, rows) = PictureFiles(paths), extract_features(predictor, paths, layer)
    folders = [path.resolve().parent.name for path in paths]
    truths = [name if name in predictor.classes else None for name in folders]
    return [Query(files.load(i), truths[i], names[i], files.digest(i), row) for i, row in enumerate(rows)]


def draw(
    path: Path, queries: Sequence[Query], found: Sequence[Sequence[Neighbour]], album: Album, title: str
) -> None:
    """Draw a row for each query: the photograph itself, then its neighbours with class and distance."""
    columns = max(len(neighbours) for neighbours in found)
    under = "under each its class and distance"
    if any(query.truth for query in queries):
        under += "; green: the same class as on the left, red: another one"
    sheet = figure(2.1 * columns + 2.5, 2.05 * len(queries) + 1.0, f"{title}\n{under}", fontsize=15)
    # An empty column sets the queries apart.
    widths = (2.1, 0.25, *[2.1] * columns)
    cells = sheet.subplots(len(queries), columns + 2, squeeze=False, width_ratios=widths)
    for axes in cells.flat:
        axes.axis("off")
    for row, query, neighbours in zip(cells, queries, found, strict=True):
        show_picture(row[0], query.picture)
        caption(row[0], shortened(query.truth or Path(query.name).name), "black", "bold")
        for axes, neighbour in zip(row[2:], neighbours, strict=False):
            index = int(album.known[neighbour.index])
            name = album.dataset.classes[album.dataset.labels[index]]
            show_picture(axes, album.dataset.load(index))
            colour = RIGHT_COLOUR if name == query.truth else WRONG_COLOUR if query.truth else "black"
            caption(axes, f"{shortened(name, 14)}  {neighbour}", colour)
    save(sheet, path)


def caption(axes: Any, text: str, colour: str, weight: str = "normal") -> None:
    """Write under a photograph. All photographs stand on their captions, whatever their shapes."""
    axes.set_anchor("S")
    style = {"fontsize": 13, "color": colour, "fontweight": weight, "transform": axes.transAxes}
    axes.text(0.5, -0.04, plain(text), ha="center", va="top", **style)


@plain_script
def main(
    checkpoint: NetworkArgument = None,
    pictures: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PICTURE]...", help="Photographs of your own.", show_default=False),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="The pictures to search. [default: the run's training part]")
    ] = None,
    queries: Annotated[int, typer.Option(help="Photographs whose like is searched.")] = 5,
    neighbours: Annotated[int, typer.Option(help="Photographs that are shown for each.")] = 6,
    layer: Annotated[
        str | None, typer.Option(help="Whose activations are compared. [default: the last hidden one]")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Search so many pictures, drawn at random. [default: all]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides which ones are drawn.")] = 0,
    out: OutOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """Draw photographs with those that a network finds most like them."""
    for name, value in (("--queries", queries), ("--neighbours", neighbours), ("--limit", limit)):
        if value is not None and value < 1:
            raise UsageError(f"{name} must be at least 1, got {value}")
    predictor, file = open_network(checkpoint, device)
    path = place_for(out, file.parent, "similar.png")
    layer = choose_layer(predictor.model, layer)
    # A bad photograph is told of before thousands are looked at.
    asked = queries_from_files(predictor, pictures, layer) if pictures else []
    album = open_album(predictor, file, data).limited(limit, seed)
    asked = asked or queries_from_album(predictor, album, layer, queries, seed)
    rows = rows_of(predictor, album, album.known, layer)
    digests = [album.dataset.digest(int(i)) for i in album.known]
    found = [nearest(query, rows, digests, neighbours) for query in asked]
    name, what = predictor.checkpoint.model_name, f"{len(album.known):,} {album.known_words}"
    title = (
        f"{name}: the nearest of {what}, by the Euclidean distance of {rows.shape[1]:,} activations ({layer})"
    )
    draw(path, asked, found, album, title)
    for query, near in zip(asked, found, strict=True):
        print(query.name)
        for neighbour in near:
            print(f"  {neighbour!s:>8}  {album.dataset.names[int(album.known[neighbour.index])]}")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
