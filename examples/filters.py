"""What the first layer of a network looks for, as a picture, and what its layers make of a photograph.

python examples/filters.py runs/flowers                      three pictures in the run's folder
python examples/filters.py runs/flowers --picture a.jpg      the feature maps of a photograph of your own
python examples/filters.py --model grouped                   a network that has learnt nothing yet: noise
python examples/filters.py --help                            everything that can be changed

filters.png is the paper's figure 3. The filters of the first layer have the channels of the photograph, so
that they can be looked at as small photographs themselves. Middle grey is a weight of zero. With --scale
filter, the default, each filter is scaled by its own largest weight: the pattern of a weak one is seen as
well as that of a strong one. With --scale all they are all scaled by the largest weight of all: strong ones
can be told from weak ones. The two towers of the network "grouped" are drawn apart.

learnt_filters.png is the same without the weights that training began with, which its seed can draw again.
After a few thousand photographs, that noise is most of what filters.png shows; what was added is smooth.

feature_maps.png shows a photograph and, layer by layer, the feature maps that answer to it most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image

from minialex import models, nn
from minialex.cli.scripts import NetworkArgument, plain_script
from minialex.cli.shared import DeviceOption
from minialex.data import load_image
from minialex.data.drawn import drawn_image
from minialex.errors import MinialexError, UsageError
from minialex.train import Predictor, TrainConfig
from minialex.train.device import choose_device
from minialex.train.features import layer_outputs
from minialex.train.figures import around_zero, figure, grid, plain, save, show_picture, tiled
from minialex.train.metrics import as_percent
from minialex.train.networks import build_model
from minialex.train.preprocessing import evaluation_transform
from minialex.train.showing import folder_for, open_album, open_network

WIDTH = 14.0  # Inches.
# What is shown, and what it is called before the number of the last convolution: conv1, pool1, conv2, ...
# A convolution is shown after its nonlinearity, as the next layer gets it.
SHOWN = {nn.ReLU: "conv", nn.Sigmoid: "conv", nn.Tanh: "conv", nn.MaxPool2d: "pool", nn.AvgPool2d: "pool"}

COLOURS_OF_MAPS = """Dark: a map's smallest value,
most often 0. Yellow: its
largest. The strongest maps
are largest on average."""


# ------------------------------------------------------------------------------------------ the filters


@dataclass(frozen=True)
class Filters:
    """The first convolution's name and weights (F, C, KH, KW), and how many towers its filters go to."""

    layer: str
    weights: np.ndarray
    towers: int


def first_filters(model: Any) -> Filters:
    """The filters of the first convolution, which divide into the groups of the second one."""
    convolutions = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)]
    (name, first), following = convolutions[0], convolutions[1:2]
    return Filters(name, first.weight.numpy(), max([1, *(conv.groups for _, conv in following)]))


def as_shades(weights: np.ndarray, scale: str) -> np.ndarray:
    """Filters (F, C, KH, KW) as pictures (F, KH, KW, C) of shades from 0 to 1, zero in the middle."""
    axes = (1, 2, 3) if scale == "filter" else None
    return around_zero(weights, np.abs(weights).max(axis=axes, keepdims=True)).transpose(0, 2, 3, 1)


def draw_filters(path: Path, filters: Filters, title: str, scale: str) -> None:
    """Draw filters, each tower apart. Raises: OutputError."""
    towers = np.split(as_shades(filters.weights, scale), filters.towers)
    each = len(towers[0])
    columns = columns_for(each, len(towers))
    sheets = [tiled(framed(tower), columns, gap=8) for tower in towers]
    height = WIDTH * sheets[0].shape[0] / sheets[0].shape[1] + 0.4 * (len(towers) > 1)
    drawing = figure(WIDTH, height * len(towers) + 0.8, title, fontsize=16)
    for number, (axes, sheet) in enumerate(zip(grid(drawing, len(towers), 1), sheets, strict=True)):
        show_picture(axes, sheet[..., 0] if sheet.shape[2] == 1 else sheet, cmap="gray", vmin=0, vmax=1)
        if len(towers) > 1:
            text = f"tower {number + 1}: filters {number * each + 1} to {(number + 1) * each}"
            axes.set_title(text, fontsize=14)
    save(drawing, path)


def titles(name: str, filters: Filters, scale: str) -> tuple[str, str]:
    """Over the filters, and over what was learnt."""
    F, C, KH, KW = filters.weights.shape
    these = f"{F} filters of {filters.layer}, {KH} x {KW} x {C}"
    as_they_are, learnt = (
        f"each filter scaled by its own largest {what}" if scale == "filter" else "all filters on one scale"
        for what in ("weight", "change")
    )
    return (
        f"{name}: the {these}\ngrey is zero; {as_they_are}",
        f"{name}: what training added to the {these}\ngrey is no change; {learnt}",
    )


def columns_for(count: int, towers: int) -> int:
    """How many of a tower's filters stand side by side: in full rows, and all towers together about 2.4 times
    as wide as high."""
    full = [columns for columns in range(min(count, 6), 17) if count % columns == 0]
    return min(full, key=lambda c: abs(math.log(c * c / count / towers / 2.4)), default=12)


def framed(tiles: np.ndarray, side: int = 88) -> np.ndarray:
    """Filters (F, KH, KW, C) about `side` pixels wide in thin dark frames: white weights have an edge."""
    times = max(1, side // tiles.shape[2])
    larger = tiles.repeat(times, axis=1).repeat(times, axis=2)  # Squares of pixels, which do not blur.
    return np.pad(larger, ((0, 0), (1, 1), (1, 1), (0, 0)))


# ------------------------------------------------------------------------------------- the feature maps


@dataclass(frozen=True)
class Maps:
    """What a layer makes of an image, in words and as shades from 0 to 1: (maps, height, width)."""

    what: str
    shades: np.ndarray


def maps_of(model: Any, image: np.ndarray, count: int) -> list[Maps]:
    """The `count` strongest feature maps for an image (C, H, W), layer by layer."""
    modules, convolutions, found = dict(model.named_modules()), 0, []
    for layer, output in layer_outputs(model, image[None]).items():
        kind = type(modules[layer])
        convolutions += kind is nn.Conv2d
        if kind in SHOWN and output.ndim == 4 and convolutions:
            name = f"{SHOWN[kind]}{convolutions}" + (f" + {kind.__name__}" if SHOWN[kind] == "conv" else "")
            shades, (_, N, H, W) = strongest(output[0], count), output.shape
            found.append(Maps(f"{name} ({layer}): {len(shades)} of {N} maps of {H} x {W}", shades))
    return found


def strongest(maps: np.ndarray, count: int) -> np.ndarray:
    """The maps whose activations are largest on average, each from its smallest, 0, to its largest, 1."""
    chosen = maps[np.argsort(-np.abs(maps).mean(axis=(1, 2)), kind="stable")[:count]]
    low, high = chosen.min(axis=(1, 2), keepdims=True), chosen.max(axis=(1, 2), keepdims=True)
    return (chosen - low) / np.where(high > low, high - low, 1.0)


def as_seen(image: np.ndarray) -> np.ndarray:
    """The image (C, H, W) as it goes into the network, from its smallest number, 0, to its largest, 1."""
    low, high = float(image.min()), float(image.max())
    shades = ((image - low) / max(high - low, 1e-9)).transpose(1, 2, 0)
    return shades[..., 0] if shades.shape[-1] == 1 else shades


def draw_maps(path: Path, image: np.ndarray, layers: Sequence[Maps], title: str, caption: str) -> None:
    """Draw the image, and beside it a row of feature maps for each layer. Raises: OutputError."""
    side, count = 3.0, max(len(layer.shades) for layer in layers)
    lines = caption.count("\n") + 1
    height = max(((WIDTH - side) / count + 0.35) * len(layers), side + 0.6 + 0.29 * lines)  # Inches.
    sheet = figure(WIDTH, height + 0.5, title, fontsize=16)
    left, right = sheet.subfigures(1, 2, width_ratios=(side, WIDTH - side))
    (axes,) = grid(left, 1, 1)
    show_picture(axes, as_seen(image), cmap="gray")
    axes.set_anchor("N")
    axes.set_title("the image: {1} x {2} x {0}".format(*image.shape), fontsize=13)
    axes.text(0, -0.05, plain(caption), transform=axes.transAxes, va="top", fontsize=13, linespacing=1.5)
    for axes, layer in zip(grid(right, len(layers), 1), layers, strict=True):
        width = layer.shades.shape[2]
        # Between the maps is nothing, which is drawn as the paper's white.
        row = tiled(layer.shades, count, gap=max(1, width // 20), ground=np.nan)
        show_picture(axes, row, cmap="viridis", vmin=0, vmax=1)
        axes.set_anchor("W")
        axes.set_title(layer.what, fontsize=13, loc="left")
    save(sheet, path)


# -------------------------------------------------------------------------------------------- which ones


@dataclass(frozen=True)
class Subject:
    """What is drawn: a network, its name in titles, the network before its first step if it was trained and
    that can be had again, a photograph as the network takes it, words for it."""

    model: Any
    name: str
    before: Any
    image: np.ndarray
    caption: str


def trained(
    checkpoint: Path | None, picture: Path | None, data: str | None, seed: int, device: str
) -> tuple[Subject, Path]:
    """A trained network with a photograph that it was not trained on, or the one given; and its folder."""
    predictor, file = open_network(checkpoint, device)
    photograph: Image.Image
    if picture is not None:
        photograph, truth = load_image(picture), picture.name
    else:
        album = open_album(predictor, file, data)
        index = int(np.random.default_rng(seed).choice(album.fresh))
        photograph = album.dataset.load(index)
        truth = f"{album.dataset.classes[album.dataset.labels[index]]}\none of the {album.fresh_words}"
    answer = predictor.predict(photograph)
    name = predictor.checkpoint.model_name
    caption = f"{truth}\nThe network says:\n{answer.label} ({as_percent(answer.probability)})"
    image = predictor.transform(photograph)
    return Subject(predictor.model, name, before(predictor), image, caption), file.parent


def before(predictor: Predictor) -> Any:
    """The network with the weights that its training began with: the seed gives them again; None if not."""
    config = TrainConfig.from_dict(predictor.checkpoint.config)
    try:
        return build_model(config, len(predictor.classes), "cpu", lambda text: None)
    except MinialexError as error:  # They came from a file that is gone.
        print(f"learnt_filters.png is not drawn: the first weights cannot be had again: {error}")
        return None


def untrained(name: str, picture: Path | None, device: str) -> Subject:
    """A network as it is before it learns, with a flower drawn by code, or the photograph given."""
    model = models.build(name).to(choose_device(device, print)).eval()
    transform = evaluation_transform(model.image_size, model.channels)
    photograph = drawn_image("daisy", 0) if picture is None else load_image(picture)
    caption = "a flower drawn by code" if picture is None else picture.name
    return Subject(model, f"{name}, UNTRAINED", None, transform(photograph), caption)


def draw_all(folder: Path, subject: Subject, scale: str, maps: int) -> list[str]:
    """Draw everything into a folder: the files' names. Raises: OutputError."""
    names, filters = ["filters.png"], first_filters(subject.model)
    over_filters, over_learnt = titles(subject.name, filters, scale)
    draw_filters(folder / names[-1], filters, over_filters, scale)
    if subject.before is not None:
        names.append("learnt_filters.png")
        change = replace(filters, weights=filters.weights - first_filters(subject.before).weights)
        draw_filters(folder / names[-1], change, over_learnt, scale)
    names.append("feature_maps.png")
    title = f"{subject.name}: the strongest feature maps of each layer, strongest first"
    caption = f"{subject.caption}\n\n{COLOURS_OF_MAPS}"
    found = maps_of(subject.model, subject.image, maps)
    draw_maps(folder / names[-1], subject.image, found, title, caption)
    return names


@plain_script
def main(
    checkpoint: NetworkArgument = None,
    model: Annotated[
        str | None, typer.Option(help="In place of a checkpoint: a network by name, with random weights.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="A photograph. [default: one that the network was not trained on]")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Take it from this folder. [default: the run's]")] = None,
    scale: Annotated[
        str, typer.Option(help="filter or all: whose largest weight is the brightest.")
    ] = "filter",
    maps: Annotated[int, typer.Option(help="Feature maps of each layer.")] = 12,
    seed: Annotated[int, typer.Option(help="Decides which photograph is taken.")] = 0,
    out: Annotated[Path | None, typer.Option(help="A folder for the pictures. [default: the run's]")] = None,
    device: DeviceOption = "cpu",
) -> None:
    """Draw the filters of a network's first layer, and the feature maps of a photograph."""
    if scale not in ("filter", "all"):
        raise UsageError(f"--scale must be filter or all, got {scale!r}")
    if maps < 1:
        raise UsageError(f"--maps must be at least 1, got {maps}")
    if out is not None:
        folder_for(out, out)  # Better refused now than when the work is done.
    if model is None:
        subject, folder = trained(checkpoint, picture, data, seed, device)
    elif checkpoint is None:
        subject, folder = untrained(model, picture, device), Path()
        print(f"--model {model}: the weights are random, as they are before the first step of training")
    else:
        raise UsageError(f"--model {model} is for a network without a checkpoint; leave out one of the two")
    folder = folder_for(out, folder)
    print(f"written to {folder}: {', '.join(draw_all(folder, subject, scale, maps))}")


if __name__ == "__main__":
    main()
