"""The loader's worker: a process that prepares pictures and writes them into memory shared with the trainer.

A worker is a fresh interpreter (spawned, never forked) that imports this package, Pillow and NumPy, but
neither a compiler nor the user's script. It takes its orders from a pipe, one batch at a time, and before it
opens a picture it publishes which one, so that its death can be explained.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.shared_memory import SharedMemory
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from minialex.data.recipe import Recipe, Sample
from minialex.errors import DataError

__all__ = ["IDLE", "STOP", "Layout", "Reply", "Task", "Views", "serve"]

IDLE = -1  # published instead of a picture's index
STOP = -1  # a generation that no task has


class Task(NamedTuple):
    """Prepare the first `pictures` pictures of a slot. A task whose generation is over is dropped."""

    generation: int
    batch: int
    slot: int
    pictures: int
    epoch: int


class Reply(NamedTuple):
    """What became of a task: error is None, or a message for the user with the worker's traceback."""

    generation: int
    batch: int
    error: str | None = None
    trace: str = ""


@dataclass(frozen=True)
class Layout:
    """How the shared memory is divided: a header, then the indices and the pictures of each slot."""

    workers: int
    slots: int
    batch_size: int
    sample: Sample

    @property
    def header_bytes(self) -> int:
        return 8 * (1 + self.workers)

    @property
    def index_bytes(self) -> int:
        return 8 * self.slots * self.batch_size

    @property
    def nbytes(self) -> int:
        """Bytes in all."""
        return self.header_bytes + self.index_bytes + self.slots * self.batch_size * self.sample.nbytes


class Views:
    """The shared memory as arrays.

    Attributes: header (1 + workers,) int64: the generation, then the index that each worker is reading;
            indices (slots, batch) int64; samples (slots, batch, *shape of one).
    """

    def __init__(self, memory: SharedMemory, layout: Layout) -> None:
        rows = (layout.slots, layout.batch_size)
        self.header: npt.NDArray[np.int64] = np.ndarray((1 + layout.workers,), np.int64, memory.buf)
        self.indices: npt.NDArray[np.int64] = np.ndarray(rows, np.int64, memory.buf, layout.header_bytes)
        offset = layout.header_bytes + layout.index_bytes
        self.samples: npt.NDArray[Any] = np.ndarray(
            (*rows, *layout.sample.shape), layout.sample.dtype, memory.buf, offset
        )


def serve(connection: Connection, payload: bytes, memory_name: str, layout: Layout, number: int) -> None:
    """What a worker process runs: tasks from the connection until the trainer closes it or dies.

    Args: payload: the recipe, pickled. number: this worker's place in the header.
    """
    _leave_signals_to_the_trainer()
    _end_with_the_trainer()
    memory = None
    views = None
    try:
        memory = SharedMemory(memory_name)
        views = Views(memory, layout)
        recipe = pickle.loads(payload)
        while (task := _next_task(connection)) is not None:
            connection.send(_work(task, recipe, layout.sample, views, number))
    except (BrokenPipeError, ConnectionResetError):
        pass  # the trainer is gone, nobody is left to tell
    except Exception as error:
        text = f"A loader worker could not start: {type(error).__name__}: {error}"
        connection.send(Reply(STOP, 0, text, traceback.format_exc()))
    finally:
        del views  # an array over shared memory keeps it from closing
        if memory is not None:
            memory.close()


def _leave_signals_to_the_trainer() -> None:
    """Ctrl-C, or a SIGTERM to the whole group, reaches the workers as well; the trainer ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):  # blocked by the trainer until this function was reached
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})


def _end_with_the_trainer() -> None:
    """A trainer that is killed cannot say so. A thread waits for its end, even while a picture takes long."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            wait([parent.sentinel])
            os._exit(1)  # nobody is left to tell, and nothing here is worth keeping

    threading.Thread(target=watch, name="minialex-watch", daemon=True).start()


def _next_task(connection: Connection) -> Task | None:
    """The next task; None when the trainer closed the pipe."""
    try:
        task: Task | None = connection.recv()
    except (EOFError, OSError):
        return None
    return task


def _work(task: Task, recipe: Recipe, expected: Sample, views: Views, number: int) -> Reply:
    """Fill a slot, picture by picture; an error becomes a reply, and the worker lives on."""
    reply = Reply(task.generation, task.batch)
    try:
        for row in range(task.pictures):
            if views.header[0] != task.generation:
                break  # the trainer left this epoch
            index = int(views.indices[task.slot, row])
            views.header[1 + number] = index
            views.samples[task.slot, row] = recipe.prepare(index, task.epoch, expected)
    except DataError as error:
        reply = Reply(task.generation, task.batch, str(error), traceback.format_exc())
    views.header[1 + number] = IDLE  # not in a `finally`: what ends the worker must leave the index behind
    return reply
