"""How much faster a network of ReLUs learns than one of tanhs: the AlexNet paper's Figure 1, made again.

python examples/relu_vs_tanh.py --data cifar10                      CIFAR-10: its folder, or a zip of pictures
python examples/relu_vs_tanh.py --data cifar10 --pictures 0         all of its training pictures
python examples/relu_vs_tanh.py --help                              everything that can be changed

Three four-layer networks (`minialex summary cifar-4`) that differ in their activation alone, and in the first
weights and the learning rate that suit it. No regularisation of any kind: no weight decay, no dropout, no
crops, no flips. All rates are tried for a few epochs, the two with the lowest training error go on to the
end, and the one that reaches the target first is drawn. Every run is kept: the same command goes on where it
was stopped, and draws the picture again.

Source: Krizhevsky, Sutskever, Hinton 2012, section 3.1 and Figure 1: 25 % training error six times sooner.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import typer

from minialex.cli.shared import DeviceOption, user_errors
from minialex.errors import NumericalError, UsageError
from minialex.train import TrainConfig, figures
from minialex.train.files import atomic_write_json, atomic_write_text
from minialex.train.metrics import as_percent
from minialex.train.repeats import quiet_reporter, train_once

FINALISTS = 2  # A rate that is best after few epochs need not reach the target first.
LINES = {"relu": "-", "tanh": "--", "sigmoid": ":"}  # As in the paper: solid and dashed.


@dataclass(frozen=True)
class Curve:
    """Training error, as a share of the pictures, epoch by epoch, at one learning rate.

    Each picture counts with the answer that it got when it was trained on, while the weights change, so that
    the error of epoch n is placed in the middle of that epoch, at n - 1/2.
    """

    activation: str
    lr: float
    errors: list[float]
    trained_on: int
    data: str
    seconds_per_epoch: float

    @property
    def epochs(self) -> list[float]:
        return [n + 0.5 for n in range(len(self.errors))]

    def epochs_to(self, target: float) -> float | None:
        """Epochs until the error is `target`, on a straight line between two points; None if it never is."""
        points = list(zip(self.epochs, self.errors, strict=True))
        if points[0][1] <= target:
            return points[0][0]
        for (before, high), (after, low) in pairwise(points):
            if low <= target:
                return before + (after - before) * (high - target) / (high - low)
        return None

    def says(self, target: float, first: Curve) -> str:
        """How many epochs it takes, and how many times as many as the first curve."""
        mine, its = self.epochs_to(target), first.epochs_to(target)
        text = f"not reached in {len(self.errors)} epochs" if mine is None else f"{mine:.1f} epochs"
        if self is first or its is None:
            return text
        times = f"more than {self.epochs[-1] / its:.1f}" if mine is None else f"{mine / its:.1f}"
        return f"{text}, {times} times as many as {first.activation}"


def learn(common: TrainConfig, lr: float, epochs: int) -> Curve | None:
    """The curve of one run of so many epochs, or of more if it has done them; None if it broke down."""
    name = f"{common.activation}-{lr:g}"
    config = replace(common, lr=lr, epochs=epochs, out=str(Path(str(common.out)) / name))
    try:
        run = train_once(config, quiet_reporter(name), longer_will_do=True)
    except NumericalError:  # A rate that is far too high.
        return None
    errors = [1 - record.train_accuracy for record in run.history]
    return Curve(str(config.activation), lr, errors, run.trained_on, run.data, run.seconds / len(errors))


def search(common: TrainConfig, rates: Sequence[float], epochs: int) -> dict[float, float]:
    """{learning rate: training error in the last epoch of the search}; a run that broke down is left out."""
    found = {}
    for lr in rates:
        curve = learn(common, lr, epochs)
        if curve is not None:
            found[lr] = curve.errors[epochs - 1]
        text = "broke down" if curve is None else f"training error {as_percent(found[lr])} in epoch {epochs}"
        print(f"{common.activation}, learning rate {lr:g}: {text}", flush=True)
    if not found:
        raise UsageError(f"{common.activation} broke down at every learning rate; give lower ones (--rates)")
    return found


def compared(curves: Sequence[Curve], target: float) -> str:
    """What each curve took, a line each."""
    lines = [f"epochs to a training error of {100 * target:g} %:"]
    for curve in curves:
        says, seconds = curve.says(target, curves[0]), curve.seconds_per_epoch
        lines.append(f"  {curve.activation}, rate {curve.lr:g}: {says} ({seconds:.1f} s an epoch)")
    return "\n".join(lines)


def draw(curves: Sequence[Curve], target: float, title: str, path: Path) -> None:
    """Training error against epochs, and where each curve meets the target. Raises: OutputError."""
    sheet = figures.figure(8, 6)
    axes = sheet.subplots()
    axes.set_title(figures.plain(title), fontsize=10)
    axes.axhline(100 * target, color="0.5", linewidth=1)
    for curve, colour in zip(curves, figures.COLOURS, strict=False):
        label = f"{curve.activation}, learning rate {curve.lr:g}: {curve.says(target, curves[0])}"
        percent = [100 * error for error in curve.errors]
        axes.plot(curve.epochs, percent, LINES[curve.activation], color=colour, linewidth=2, label=label)
        if (reached := curve.epochs_to(target)) is not None:
            axes.plot([reached, reached], [100 * target, 0], color=colour, linewidth=1)
            axes.plot(reached, 100 * target, "o", color=colour)
    axes.set(xlabel="epochs", ylabel="training error, %", ylim=(0, 100))
    axes.set_xlim(0, max(len(curve.errors) for curve in curves))
    axes.grid(alpha=0.3)
    sheet.legend(title=f"epochs to {100 * target:g} % training error", loc="outside lower center")
    figures.save(sheet, path)


def write(
    curves: Sequence[Curve], target: float, searches: Mapping[str, Mapping[float, float]], folder: Path
) -> None:
    """curves.csv, one line for each epoch of each curve, and results.json. Raises: OutputError."""
    rows = ["activation,learning_rate,epochs,training_error"]
    for c in curves:
        rows += [f"{c.activation},{c.lr:g},{x:g},{y:.6g}" for x, y in zip(c.epochs, c.errors, strict=True)]
    atomic_write_text(folder / "curves.csv", "\n".join(rows) + "\n")
    found = [asdict(curve) | {"epochs_to_target": curve.epochs_to(target)} for curve in curves]
    atomic_write_json(folder / "results.json", {"target": target, "searches": searches, "curves": found})


def fastest(
    common: TrainConfig, rates: Sequence[float], search_epochs: int, target: float
) -> tuple[Curve, dict[float, float]]:
    """The curve of the rate that reaches the target first, of the two best ones in a search over all.

    Where neither reaches it, the curve that ends lowest; and {rate: training error} of the search.
    """
    found = search(common, rates, min(search_epochs, common.epochs))
    best = sorted(found, key=lambda lr: found[lr])[:FINALISTS]
    edge = (
        ", the last one tried on its side" if len(rates) > 1 and best[0] in (min(rates), max(rates)) else ""
    )
    print(f"{common.activation} goes on with {' and '.join(f'{lr:g}' for lr in best)}{edge}", flush=True)
    curves = [curve for lr in best if (curve := learn(common, lr, common.epochs)) is not None]
    if not curves:
        raise UsageError(f"{common.activation} broke down after the search; give lower rates (--rates)")

    def order(curve: Curve) -> tuple[float, float]:
        reached = curve.epochs_to(target)
        return math.inf if reached is None else reached, curve.errors[-1]

    for curve in curves:
        print(f"{curve.activation}, learning rate {curve.lr:g}: {curve.says(target, curve)}", flush=True)
    return min(curves, key=order), found


def experiment(
    common: TrainConfig, activations: Sequence[str], rates: Sequence[float], search_epochs: int, target: float
) -> list[Curve]:
    """The curves of all activations, drawn and written after each: the next one may take hours."""
    folder, searches, curves = Path(str(common.out)), {}, []
    for activation in activations:
        mine = replace(common, activation=activation)
        curve, searches[activation] = fastest(mine, rates, search_epochs, target)
        curves.append(curve)
        title = f"Four layers, no regularisation, trained on {curve.trained_on:,} of {curve.data}"
        draw(curves, target, title.replace(" from ", "\nfrom ", 1), folder / "relu_vs_tanh.png")
        write(curves, target, searches, folder)
    return curves


def main(
    data: Annotated[str, typer.Option(help="CIFAR-10, or any pictures in classes.")],
    pictures: Annotated[
        int, typer.Option(help="How many to use, 0 for all; one in a hundred is kept apart.")
    ] = 5000,
    epochs: Annotated[int, typer.Option(help="Of each curve.")] = 20,
    rates: Annotated[str, typer.Option(help="The learning rates to try.")] = "0.003,0.01,0.03,0.1",
    search_epochs: Annotated[int, typer.Option(help="Epochs after which the two best rates go on.")] = 3,
    activations: Annotated[str, typer.Option(help="Compared with the first of them.")] = "relu,tanh,sigmoid",
    target: Annotated[float, typer.Option(help="The training error to reach, as a share.")] = 0.25,
    batch_size: Annotated[int, typer.Option(help="Pictures in a batch.")] = 128,
    init: Annotated[
        str | None,
        typer.Option(help="First weights: paper, course, pytorch or xavier. [default: those that suit each]"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides weights, pictures and their order.")] = 0,
    device: DeviceOption = "auto",
    out: Annotated[Path, typer.Option(help="The folder of all runs.")] = Path("runs/relu_vs_tanh"),
) -> None:
    """Training error against epochs for ReLU, tanh and sigmoid, each at a learning rate of its own."""
    common = TrainConfig(
        data=data, limit=pictures or None, split="99/1", model="cifar-4", device=device, out=str(out)
    )
    common = replace(common, epochs=epochs, batch_size=batch_size, init=init, seed=seed)
    # No regularisation of any kind, and a rate that stays: the curves differ in nothing else.
    common = replace(
        common, optimizer="sgd", momentum=0.9, weight_decay=0.0, augment=False, schedule="constant"
    )
    with user_errors():
        if not 0 < target < 1:
            raise UsageError(f"--target must be a share between 0 and 1, such as 0.25, got {target:g}")
        try:
            tried = [float(rate) for rate in rates.split(",")]
        except ValueError:
            raise UsageError(f"--rates must be numbers with commas between, got {rates!r}") from None
        curves = experiment(common, activations.split(","), tried, search_epochs, target)
        print(f"\n{compared(curves, target)}\n\nthe picture: {out / 'relu_vs_tanh.png'}")
        print(f"its figures: {out / 'curves.csv'}, {out / 'results.json'}")


if __name__ == "__main__":
    script = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    script.command()(main)
    script()
