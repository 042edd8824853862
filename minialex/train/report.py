"""What is said and written at the beginning of a run, and at its end."""

from __future__ import annotations

import csv
import io
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minialex.data import RandomHorizontalFlip
from minialex.train.checkpoint import load_checkpoint
from minialex.train.commands import minialex_command
from minialex.train.config import TrainConfig
from minialex.train.files import atomic_write, atomic_write_json, atomic_write_text
from minialex.train.history import EpochRecord, write_history
from minialex.train.machine import device_name, environment
from minialex.train.metrics import Evaluation, IntArray, as_percent, class_figures, wilson_interval
from minialex.train.networks import load_weights
from minialex.train.plots import Mistake, plot_confusion, plot_history, plot_mistakes
from minialex.train.recipes import recipe_lines
from minialex.train.reporter import table
from minialex.train.run import Run
from minialex.train.run_folder import BEST, EXAMPLE
from minialex.train.schedule import ScheduleSpec

MOST_MISTAKES = 12


@dataclass(frozen=True)
class TrainResult:
    """What came out of a run.

    Args:
        out: the folder with everything. checkpoint: the best epoch's weights in it.
        history: one record an epoch. best_epoch, best_val_accuracy: by which the weights were chosen.
        part: what the figures below are of: "test", or "validation" for a split in two.
        accuracy, interval: on that part, with its 95 % interval. confusion: row = true class.
        example: the file of a picture of that part.
    """

    out: Path
    checkpoint: Path
    history: tuple[EpochRecord, ...]
    best_epoch: int
    best_val_accuracy: float
    part: str
    accuracy: float
    interval: tuple[float, float]
    confusion: IntArray
    example: Path

    @property
    def test_accuracy(self) -> float | None:
        """The accuracy on pictures that had no part in training or choosing; None for a split in two."""
        return self.accuracy if self.part == "test" else None


def announce(run: Run) -> None:
    """Say what is about to happen: device, data, split, parameters."""
    say = run.reporter.say
    precision = "" if run.config.precision == "fp32" else f", {run.config.precision}"
    say(f"device: {run.device} ({device_name(run.device)}){precision}")
    for line in recipe_lines(run.config):
        say(line)
    say(f"data: {run.parts.description}")
    training, validation, test = run.parts.sizes
    test_text = f"{test:,} to test on" if test else "none to test on"
    say(f"split: {training:,} pictures to train on, {validation:,} to choose the best epoch by, {test_text}")
    say(f"classes: {', '.join(run.parts.dataset.classes)}")
    for line in mirrored_lines(run.parts.dataset.classes, run.preprocessing.config["training"]):
        say(line)
    if run.config.cache == "device":
        say(f"keeping the pictures on {run.device}")
    if run.cache is not None:
        say(f"caching decoded pictures: {run.cache!r}")
    say()
    say(parameter_table(run.config.model, run.model))
    say()
    position = run.position
    if position.epoch > run.config.epochs:
        say(nothing_left(position.epoch - 1, run.config))
    elif position.step or position.epoch > 1:
        say(f"resuming {run.folder.path} at epoch {position.epoch}, batch {position.batch}")
    say(f"writing to {run.folder.path}")


def mirrored_lines(classes: Sequence[str], training: dict[str, Any]) -> list[str]:
    """A note if what is learnt from are mirrored digits or letters: of classes called 0 to 9, say.

    Args: training: the configuration of the transform.
    """
    steps = [step["name"] for step in training.get("transforms", [training])]
    if any(len(name) != 1 for name in classes) or RandomHorizontalFlip.__name__ not in steps:
        return []
    return [
        "note: half of the training pictures are mirrored, and these seem to be digits or letters, which "
        "mirrored mean something else or nothing; --no-augment shows them as they are"
    ]


def nothing_left(done: int, config: TrainConfig) -> str:
    """What a run that is resumed after its last epoch is told; `done` epochs are done."""
    if done > config.epochs:
        what = f"the run has done {done} epochs already, and --epochs asks for {config.epochs}"
    else:
        what = f"the run has done {f'all its {done} epochs' if done > 1 else 'its only epoch'}"
    if ScheduleSpec.parse(config.schedule).by_length:
        way = f"--schedule {config.schedule} ends here, and more epochs need a new run"
    else:
        way = "raise --epochs to go on"
    return f"{what}; nothing left to train; {way}"


def parameter_table(name: str, model: Any) -> str:
    """Every parameter with its shape and count, which of them are frozen, and the total."""
    rows = [("parameter", "shape", "count", "")]
    total = trained = 0
    for parameter_name, parameter in model.named_parameters():
        shape = " x ".join(map(str, parameter.shape))
        rows.append(
            (parameter_name, shape, f"{parameter.size:,}", "" if parameter.requires_grad else "frozen")
        )
        total += parameter.size
        trained += parameter.size * parameter.requires_grad
    rows.append((f"{name}, all", "", f"{total:,}", ""))
    if trained < total:
        rows.append(("trained", "", f"{trained:,}", ""))
    return table(rows, right=(2,))


def write_beginnings(run: Run) -> None:
    """class_indices.json, config.json and split.json. Raises: OutputError."""
    classes = {str(i): name for i, name in enumerate(run.parts.dataset.classes)}
    atomic_write_json(run.folder / "class_indices.json", classes)
    config = {
        "options": run.config.to_dict(),
        "data": {"folder": str(Path(run.parts.dataset.root).resolve()), "description": run.parts.description},
        "environment": environment(run.device),
        "command": sys.argv,
    }
    atomic_write_json(run.folder / "config.json", config)
    atomic_write_json(run.folder / "split.json", run.parts.split.manifest())


def finish(run: Run, evaluate: Callable[[str], Evaluation]) -> TrainResult:
    """Judge the best epoch's weights, write the last files, and say where everything is."""
    assert run.best is not None  # There is at least one epoch.
    load_weights(run.model, load_checkpoint(run.folder / BEST), run.folder / BEST)
    part = "test" if run.parts.sizes[2] else "validation"
    evaluation = evaluate(part)
    # Written again: a run that was killed between its last checkpoint and these has old ones, or none.
    write_history(run.folder / "history.csv", run.history)
    plot_history(run.folder / "history.png", run.history, run.best.epoch)
    write_answers(run.folder.path, run.parts.dataset, evaluation, part)
    result = TrainResult(
        out=run.folder.path,
        checkpoint=run.folder / BEST,
        history=tuple(run.history),
        best_epoch=run.best.epoch,
        best_val_accuracy=run.best.val_accuracy,
        part=part,
        accuracy=evaluation.accuracy,
        interval=wilson_interval(evaluation.correct, len(evaluation.labels)),
        confusion=evaluation.confusion(),
        example=example_picture(run.folder.path, run.parts.dataset, int(evaluation.indices[0])),
    )
    for line in closing_lines(run, result, evaluation):
        run.reporter.say(line)
    return result


def example_picture(folder: Path, dataset: Any, index: int) -> Path:
    """The file of picture `index`; example.png in `folder` if no file holds it alone. Raises: OutputError."""
    path = getattr(dataset, "example_path", lambda _: None)(index)
    if path is not None:
        return Path(path)
    buffer = io.BytesIO()
    dataset.load(index).save(buffer, format="PNG")
    atomic_write(folder / EXAMPLE, lambda file: file.write(buffer.getvalue()))
    return folder / EXAMPLE


def write_answers(folder: Path, dataset: Any, evaluation: Evaluation, part: str) -> None:
    """confusion.csv, confusion.png and mistakes.png in `folder`. Raises: OutputError."""
    classes = dataset.classes
    confusion = evaluation.confusion()
    atomic_write_text(folder / "confusion.csv", confusion_csv(confusion, classes))
    title = f"{part}: {evaluation.correct} of {len(evaluation.labels)} right"
    plot_confusion(folder / "confusion.png", confusion, classes, title)
    plot_mistakes(
        folder / "mistakes.png", find_mistakes(dataset, evaluation), f"{part}: surest wrong answers"
    )


def confusion_csv(confusion: IntArray, classes: Sequence[str]) -> str:
    """Rows are true classes, columns the answers."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["true class / answer", *classes])
    for name, row in zip(classes, confusion.tolist(), strict=True):
        writer.writerow([name, *row])
    return text.getvalue()


def find_mistakes(dataset: Any, evaluation: Evaluation) -> list[Mistake]:
    """The photographs of the surest wrong answers, surest first."""
    mistakes = []
    for i in evaluation.worst_mistakes(MOST_MISTAKES):
        index = int(evaluation.indices[i])
        answer = int(evaluation.predictions[i])
        mistakes.append(
            Mistake(
                dataset.load(index),
                dataset.names[index],
                dataset.classes[int(evaluation.labels[i])],
                dataset.classes[answer],
                float(evaluation.probabilities[i, answer]),
            )
        )
    return mistakes


def accuracy_lines(evaluation: Evaluation, classes: Sequence[str], part: str) -> list[str]:
    """The accuracy with its interval, and a table of the classes."""
    low, high = wilson_interval(evaluation.correct, len(evaluation.labels))
    whole = part == "all"
    what = "accuracy on all pictures:" if whole else f"{part} accuracy:"
    loss = "loss on all pictures:" if whole else f"{part} loss:"
    rows = [("class", "pictures", "found", "of its answers right")]
    for figures in class_figures(evaluation.confusion(), classes):
        rows.append(
            (figures.name, str(figures.count), as_percent(figures.recall), as_percent(figures.precision))
        )
    return [
        f"{what} {evaluation.accuracy:.3f} ({evaluation.correct} of {len(evaluation.labels)}), "
        f"95 % interval {low:.3f} to {high:.3f}",
        f"{loss} {evaluation.loss:.3f}",
        "",
        table(rows, right=(1, 2, 3)),
    ]


def closing_lines(run: Run, result: TrainResult, evaluation: Evaluation) -> list[str]:
    """What the user reads when the run is over."""
    lines = ["", f"best epoch: {result.best_epoch}, validation accuracy {result.best_val_accuracy:.3f}"]
    lines += accuracy_lines(evaluation, run.parts.dataset.classes, result.part)
    if result.part == "validation":
        lines += [
            "The epoch was chosen by these same pictures, so that new ones will do a little worse; "
            "--split 80/10/10 keeps some apart to test on."
        ]
    lines += [
        "",
        f"written to {result.out}:",
        f"  {BEST} (the best epoch's network), last.safetensors (to resume from)",
        "  history.csv, history.png, confusion.csv, confusion.png, mistakes.png",
        "  class_indices.json, config.json, split.json",
        "Try it on a picture:",
        f"  {minialex_command()} predict {shlex.join([str(result.checkpoint), str(result.example)])}",
    ]
    return lines
