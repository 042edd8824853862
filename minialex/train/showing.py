"""What the scripts share that show a trained network at work: the network, and pictures to show it."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minialex.data import open_dataset
from minialex.errors import DataError, OutputError, UsageError
from minialex.train.commands import python_command, script_command
from minialex.train.config import TrainConfig
from minialex.train.judging import own_split
from minialex.train.predictor import Predictor, load
from minialex.train.run_folder import BEST, find_network

__all__ = ["Album", "folder_for", "open_album", "open_network", "place_for"]

Say = Callable[[str], None]


def open_network(checkpoint: Path | None, device: str, say: Say = print) -> tuple[Predictor, Path]:
    """The trained network and its file. Raises: UsageError that says how to get one, for None."""
    if checkpoint is None:
        raise UsageError(_how_to_train())
    return load(checkpoint, device, say), find_network(checkpoint)


def _how_to_train() -> str:
    """How to get a trained network, or which there are already."""
    runs = sorted(path.parent for path in Path("runs").glob(f"*/{BEST}"))
    if runs:
        there = "\n".join(f"  {script_command()} {shlex.quote(str(run))}" for run in runs[:5])
        return f"which network? Give a run's folder, such as\n{there}"
    return (
        "this shows a trained network: give a run's folder. There is none in runs/; a small one takes some "
        "minutes:\n"
        f"  {python_command()} -m minialex train --data drawn --batch-size 16 --crop-scale 0.4 --lr 3e-4 "
        "--schedule cosine --epochs 11 --out runs/flowers\n"
        f"  {script_command()} runs/flowers"
    )


@dataclass(frozen=True)
class Album:
    """Pictures to show a network.

    Args: dataset; known, fresh: numbers of the pictures that it was trained on, and of others, each with
          words for them. If nobody knows which are which, both are all pictures.
    """

    dataset: Any
    known: npt.NDArray[np.int64]
    known_words: str
    fresh: npt.NDArray[np.int64]
    fresh_words: str

    def limited(self, count: int | None, seed: int) -> Album:
        """With at most `count` of the known pictures, drawn at random; None keeps all."""
        if count is None or count >= len(self.known):
            return self
        chosen = np.sort(np.random.default_rng(seed).permutation(self.known)[:count])
        return dataclasses.replace(self, known=chosen)


def open_album(predictor: Predictor, path: Path, data: str | None = None, say: Say = print) -> Album:
    """The run's own pictures with its own split, or those of the folder `data`.

    Raises: DataError if the pictures are gone, or if without `data` they are not the run's any more.
    """
    config = TrainConfig.from_dict(predictor.checkpoint.config)
    folder = config.data if data is None else data
    dataset, _ = open_dataset(folder, on_bad_image=config.on_bad_image, say=say)
    try:
        split = own_split(dataset, predictor.checkpoint, config, path)
    except DataError:
        if data is None:
            raise
        say("these are not the pictures of the network's run: it may have been trained on some, or on none")
        everything, words = np.arange(len(dataset)), f"pictures in {dataset.root.name}"
        return Album(dataset, everything, words, everything, words)
    fresh, words = (
        (split.test, "test pictures") if len(split.test) else (split.validation, "validation pictures")
    )
    return Album(dataset, split.train, "training pictures", fresh, words)


def place_for(out: Path | None, folder: Path, name: str) -> Path:
    """The file to draw into: `out`, or `name` in `folder`.

    Raises: OutputError if its folder is not there: better now than when the work is done.
    """
    path = folder / name if out is None else out
    return folder_for(None if out is None else out.parent, folder) / path.name


def folder_for(out: Path | None, folder: Path) -> Path:
    """The folder to draw into: `out`, or `folder`. Raises: OutputError if it is not there."""
    chosen = folder if out is None else out
    if not chosen.is_dir():
        raise OutputError(f"there is no folder {chosen} to write to; make it, or give another --out")
    return chosen
