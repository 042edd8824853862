"""Data sets that misbehave, in a module of their own so that a loader's worker can import them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from minialex.rng import Stream


class Pictures:
    """`count` pictures made on the fly, in two classes."""

    def __init__(self, count: int) -> None:
        self.root = Path("pictures")
        self.classes = ["even", "odd"]
        self.labels = np.arange(count, dtype=np.int64) % 2
        self.names = [f"{self.classes[i % 2]}/{i}.png" for i in range(count)]

    def __len__(self) -> int:
        return len(self.names)

    def digest(self, index: int) -> str:
        return f"{index:064x}"

    def load(self, index: int) -> Image.Image:
        size = (12 + index % 5, 10 + index % 3)
        return Image.fromarray(
            Stream(1, "test", item=index).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
        )


class KilledAt(Pictures):
    """The process that reads picture `fatal` is killed: by a decoder's crash, or for want of memory."""

    def __init__(self, count: int, fatal: int) -> None:
        super().__init__(count)
        self.fatal = fatal

    def load(self, index: int) -> Image.Image:
        if index == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().load(index)


class ExitsAt(KilledAt):
    """The process that reads picture `fatal` ends."""

    def load(self, index: int) -> Image.Image:
        if index == self.fatal:
            os._exit(7)
        return super().load(index)


class RaisesAt(KilledAt):
    """Picture `fatal` raises an error that has nothing to do with pictures."""

    def load(self, index: int) -> Image.Image:
        if index == self.fatal:
            raise ZeroDivisionError("a number was divided by nought")
        return super().load(index)


class Hangs(Pictures):
    """Every picture but the first takes a minute."""

    def load(self, index: int) -> Image.Image:
        if index:
            time.sleep(60)
        return super().load(index)


class SaysWhatIsImported(Pictures):
    """A picture whose red value counts the modules in a worker that have no business there."""

    UNWANTED = ("numba", "cupy", "matplotlib", "rich", "typer", "minialex.train", "minialex.cli")

    def load(self, index: int) -> Image.Image:
        if multiprocessing.parent_process() is not None:
            assert os.environ["MINIALEX_NUM_THREADS"] == os.environ["OMP_NUM_THREADS"] == "1"
        present = [name for name in self.UNWANTED if name in sys.modules]
        return Image.new("RGB", (4, 4), (len(present), 0, 0))
