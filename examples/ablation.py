"""What each part of an AlexNet is worth: the flowers' net as a whole, and without one part at a time.

python examples/ablation.py                             on flowers that are drawn by code: no download
python examples/ablation.py --data flower_photos --pictures 0 --epochs 30    all photographs: for a night
python examples/ablation.py --help                      everything that can be changed

All runs see the same photographs, divided alike; a seed decides the first weights, the order and the crops of
a run. What counts is the difference from the whole net, seed by seed. All nets are trained by one recipe,
which may suit one of them better than another. Every run is kept: the same command goes on where it stopped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated

import typer

from minialex.cli.shared import DeviceOption, user_errors
from minialex.errors import UsageError
from minialex.train import TrainConfig, figures
from minialex.train.files import atomic_write_json
from minialex.train.metrics import as_percent
from minialex.train.repeats import quiet_reporter, train_once
from minialex.train.reporter import table

WHOLE = TrainConfig(model="flowers", lrn=True, pooling="overlapping", dropout=0.5, augment=True)
NETS = {
    "whole": WHOLE,
    "without LRN": replace(WHOLE, lrn=False),
    "without overlapping pooling": replace(WHOLE, pooling="separate"),
    "without dropout": replace(WHOLE, dropout=0.0),
    "without augmentation": replace(WHOLE, augment=False),
}
# Student's t for 1, 2, ... degrees of freedom: 2.5 % of the distribution lies above it.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def half_width(differences: Sequence[float]) -> float:
    """Of the 95 % interval of the mean difference, over seeds; infinite for one seed, which cannot tell.

    Formula: t * s / sqrt(n), s the deviation of the n differences (Student 1908). From eleven seeds on t is
    smaller than for ten, whose value is taken.
    """
    n = len(differences)
    return STUDENT[min(n - 2, len(STUDENT) - 1)] * stdev(differences) / math.sqrt(n) if n > 1 else math.inf


def differences(accuracies: Mapping[str, Sequence[float]], name: str) -> list[float]:
    """In percentage points, seed by seed: what the net has more than the whole one."""
    return [100 * (mine - whole) for mine, whole in zip(accuracies[name], accuracies["whole"], strict=True)]


def as_table(accuracies: Mapping[str, Sequence[float]], seeds: Sequence[int]) -> str:
    """One row a net: the mean, each seed, and the difference from the whole net."""
    rows = [("net", "mean", *(f"seed {seed}" for seed in seeds), "difference, points", "of each seed")]
    for name, shares in accuracies.items():
        cells = [as_percent(share) for share in (mean(shares), *shares)]
        own = differences(accuracies, name)
        wide = f" ± {half_width(own):.1f}" if len(own) > 1 else ""
        last = (
            ("", "") if name == "whole" else (f"{mean(own):+.1f}{wide}", ", ".join(f"{d:+.1f}" for d in own))
        )
        rows.append((name, *cells, *last))
    return table(rows, right=tuple(range(1, len(seeds) + 3)))


def verdict(accuracies: Mapping[str, Sequence[float]]) -> str:
    """Which differences are more than chance between seeds."""
    beyond = []
    for name in list(accuracies)[1:]:
        own = differences(accuracies, name)
        if abs(mean(own)) > half_width(own):
            beyond.append(f"{name} {'worse' if mean(own) < 0 else 'better'}")
    if len(accuracies["whole"]) < 2:
        return "One seed cannot tell a difference from chance: give --seeds 3 or more."
    said = "".join(f"\n  {text}" for text in beyond) or " none; more seeds and more test pictures tell more"
    return f"± is the 95 % interval over seeds, on these test pictures. Differences larger than it:{said}"


def draw(accuracies: Mapping[str, Sequence[float]], title: str, path: Path) -> None:
    """Each seed's difference as a point, their mean and its interval as a line. Raises: OutputError."""
    sheet = figures.figure(9, 4)
    axes = sheet.subplots()
    axes.set_title(figures.plain(title), fontsize=10)
    names = list(accuracies)[1:]
    axes.axvline(0, color="0.3", linewidth=1)
    for row, name in enumerate(names):
        own = differences(accuracies, name)
        wide = half_width(own) if len(own) > 1 else 0
        axes.errorbar(mean(own), row, xerr=wide, fmt="|", markersize=18, color="0.4", capsize=4)
        axes.scatter(own, [row] * len(own), color=figures.TRAIN_COLOUR, zorder=3, alpha=0.8)
    labels = [f"{name}\n{as_percent(mean(accuracies[name]))} right" for name in names]
    axes.set_yticks(range(len(names)), labels)
    axes.set_ylim(len(names) - 0.5, -0.5)
    whole = f"the whole net ({as_percent(mean(accuracies['whole']))} right)"
    axes.set_xlabel(
        f"difference from {whole}, percentage points\n"
        "points: each seed; lines: their mean and its 95 % interval"
    )
    axes.grid(axis="x", alpha=0.3)
    figures.save(sheet, path)


def main(
    data: Annotated[str, typer.Option(help="A folder of classes of pictures, or drawn.")] = "drawn",
    pictures: Annotated[int, typer.Option(help="How many to use in all; 0 for all there are.")] = 1000,
    seeds: Annotated[int, typer.Option(help="Runs of each net.")] = 3,
    epochs: Annotated[int, typer.Option(help="Of each run.")] = 7,
    split: Annotated[
        str, typer.Option(help="Per cent to train on, to choose by and to test on.")
    ] = "70/10/20",
    lr: Annotated[float, typer.Option(help="Learning rate of Adam; it falls as a cosine.")] = 3e-4,
    batch_size: Annotated[int, typer.Option(help="Pictures in a batch.")] = 16,
    crop_scale: Annotated[float, typer.Option(help="Smallest part of a picture that a crop takes.")] = 0.4,
    device: DeviceOption = "auto",
    keep_networks: Annotated[bool, typer.Option(help="350 MB a run.")] = False,
    out: Annotated[Path, typer.Option(help="The folder of all runs.")] = Path("runs/ablation"),
) -> None:
    """The flowers' net without LRN, overlapping pooling, dropout and augmentation, one at a time."""
    accuracies: dict[str, list[float]] = {name: [] for name in NETS}
    recipe = {"epochs": epochs, "lr": lr, "schedule": "cosine", "batch_size": batch_size}
    recipe |= {"crop_scale": crop_scale, "device": device}
    common = recipe | {"data": data, "limit": pictures or None, "split": split, "split_seed": 0}
    with user_errors():
        if seeds < 1:
            raise UsageError(f"--seeds must be at least 1, got {seeds}")
        for seed in range(seeds):  # Seed by seed: whoever stops early has all nets of the first ones.
            for name, config in NETS.items():
                folder = f"{name.replace(' ', '-')}-{seed}"
                config = replace(config, **common, seed=seed, out=str(out / folder))
                run = train_once(config, quiet_reporter(folder), keep_network=keep_networks)
                accuracies[name].append(run.accuracy)
                print(
                    f"{name}, seed {seed}: {as_percent(run.accuracy)} right, {run.seconds:.0f} s", flush=True
                )
        what = f"Trained on {run.trained_on:,} of {run.data}, {epochs} epoch{'s' * (epochs > 1)}; "
        what += f"{run.tested:,} {run.part} pictures"
        print(f"\n{what}\n\n{as_table(accuracies, range(seeds))}\n\n{verdict(accuracies)}")
        draw(accuracies, what.replace(" from ", "\nfrom ", 1), out / "ablation.png")
        atomic_write_json(out / "ablation.json", {"what": what, "accuracies": accuracies})
        print(f"\nthe picture: {out / 'ablation.png'}, its figures: {out / 'ablation.json'}")


if __name__ == "__main__":
    script = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    script.command()(main)
    script()
