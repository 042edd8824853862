"""Experiments of many runs: each is trained once, gone on with where it was cut, read where it is finished.

    run = train_once(TrainConfig(data="photos", seed=1, out="runs/all-1"), quiet_reporter("all-1"))
    run.accuracy, run.history[-1].train_accuracy

The same call on the next day costs nothing: a script of such calls can be stopped and started again, and what
it says at its end is the same.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from minialex.data import NAMED_DATA
from minialex.errors import CheckpointError, UsageError
from minialex.train.checkpoint import load_checkpoint
from minialex.train.commands import script_command
from minialex.train.config import MAY_CHANGE_ON_RESUME, TrainConfig
from minialex.train.files import atomic_write_json
from minialex.train.history import EpochRecord
from minialex.train.interrupt import Interrupted
from minialex.train.loop import train
from minialex.train.report import TrainResult
from minialex.train.reporter import Reporter, SilentReporter, TerminalReporter
from minialex.train.run_folder import BEST, LAST
from minialex.train.schedule import ScheduleSpec

__all__ = ["FinishedRun", "quiet_reporter", "train_once"]

FINISHED, CONFIG = "finished.json", "config.json"
# Where the run was computed, and what was kept meanwhile: its figures are the same.
_NO_MATTER = MAY_CHANGE_ON_RESUME - {"data", "epochs"}


@dataclass(frozen=True)
class FinishedRun:
    """What an experiment wants to know of a run.

    Args:
        out: its folder, with the pictures and checkpoints of any run.
        history: one record an epoch.
        best_epoch, best_val_accuracy: by which the weights were chosen.
        part, tested, accuracy: right answers as a share, on that part ("test", or "validation" for a split in
            two) of so many pictures.
        trained_on: pictures in its training part.
        data: all that there are, as `open_dataset` says it, with the folder's name for its path:
            "25,000 pictures in 10 classes from cifar10.zip (a zip of class folders)".
    """

    out: Path
    history: tuple[EpochRecord, ...]
    best_epoch: int
    best_val_accuracy: float
    part: str
    tested: int
    accuracy: float
    trained_on: int
    data: str

    @property
    def seconds(self) -> float:
        """Seconds of training, without the looks at validation pictures."""
        return sum(record.seconds for record in self.history)


def train_once(
    config: TrainConfig,
    reporter: Reporter | None = None,
    *,
    longer_will_do: bool = False,
    keep_network: bool = True,
) -> FinishedRun:
    """Train into the folder config.out, or go on with the run there, or read it if it is finished.

    Args:   longer_will_do: whether a run that has done more epochs than config.epochs is taken, as it is; its
            first epochs are those of the shorter run only if the schedule does not depend on the length.
            keep_network: without it the checkpoints go when the run is finished, and its figures stay: an
            AlexNet's are hundreds of megabytes a run.
    Raises: UsageError if the folder holds a run with other options; Interrupted, with the run saved; and all
            that `train` raises.
    """
    if config.out is None or config.resume is not None:
        raise UsageError("train_once needs config.out, a folder of the run's own, and no config.resume")
    folder, config = Path(config.out), dataclasses.replace(config, data=_place(config.data)).checked()
    if (folder / FINISHED).exists():
        finished = _read(folder, config)
        if len(finished.history) == config.epochs:
            return finished
        if len(finished.history) > config.epochs:
            if longer_will_do and not ScheduleSpec.parse(config.schedule).by_length:
                return finished
            raise _other_options(folder, f"epochs {len(finished.history)}, not {config.epochs}")
    finished = _finished(_train(folder, config, reporter))
    kept = {"config": config.to_dict()} | dataclasses.asdict(finished) | {"out": folder.name}
    atomic_write_json(folder / FINISHED, kept)
    if not keep_network:
        for name in (LAST, BEST):
            (folder / name).unlink(missing_ok=True)
    return finished


def _train(folder: Path, config: TrainConfig, reporter: Reporter | None) -> TrainResult:
    begun = (folder / LAST).exists()
    if begun:  # All options count as given, so that a run that was begun with others is refused.
        everything = frozenset(f.name for f in dataclasses.fields(TrainConfig))
        config = dataclasses.replace(config, resume=str(folder), given=everything)
    try:
        return train(config, reporter)
    except UsageError as error:
        if not begun:
            raise
        raise _other_options(folder, str(error)) from error
    except Interrupted as stop:
        where = str(stop).partition(" Go on")[0].rstrip(".")
        again = f"{script_command()} {shlex.join(sys.argv[1:])}".rstrip()
        raise Interrupted(
            f"{folder}: {where}. The same command goes on from there:\n  {again}", stop.exit_code - 128
        ) from None


def _finished(result: TrainResult) -> FinishedRun:
    return FinishedRun(
        out=result.out,
        history=result.history,
        best_epoch=result.best_epoch,
        best_val_accuracy=result.best_val_accuracy,
        part=result.part,
        tested=int(result.confusion.sum()),
        accuracy=result.accuracy,
        trained_on=load_checkpoint(result.checkpoint).part_sizes[0],
        data=_description(result.out),
    )


def _description(folder: Path) -> str:
    data = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["data"]
    return str(data["description"]).replace(data["folder"], Path(data["folder"]).name)


def _read(folder: Path, config: TrainConfig) -> FinishedRun:
    """The finished run in the folder. Raises: UsageError if it was made with other options."""
    path = folder / FINISHED
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        theirs = values.pop("config")
        history = tuple(EpochRecord(**record) for record in values.pop("history"))
        finished = FinishedRun(**values | {"out": folder, "history": history})
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); remove the folder, and run again") from error
    mine = config.to_dict()
    for name in sorted(mine.keys() - _NO_MATTER - {"epochs"}):
        if mine[name] != theirs.get(name):
            raise _other_options(folder, f"{name} {theirs.get(name)}, not {mine[name]}")
    return finished


def _place(data: str | None) -> str | None:
    """The data's folder from the root on: the next call may come from another working folder."""
    if data is None or data in NAMED_DATA or not Path(data).expanduser().exists():
        return data
    return str(Path(data).expanduser().resolve())


def _other_options(folder: Path, what: str) -> UsageError:
    return UsageError(
        f"{folder} holds a run with other options: {what}\nGive another --out, or remove that folder."
    )


def quiet_reporter(name: str) -> Reporter:
    """Of the run `name` among many: warnings with its name before them, a bar where there is a terminal, and
    nothing else."""
    base = TerminalReporter if sys.stdout.isatty() else SilentReporter

    class QuietReporter(base):  # type: ignore[misc,valid-type]
        """One run's part of what is said about many."""

        def say(self, text: str = "") -> None:
            """Nothing."""

        def warn(self, text: str) -> None:
            super().warn(f"{name}: {text}")

    return QuietReporter()
