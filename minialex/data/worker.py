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
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from minialex.data.folder import Dataset
from minialex.data.transforms import Transform
from minialex.errors import DataError
from minialex.rng import Stream

__all__ = ["IDLE", "STOP", "Layout", "Reply", "Task", "Views", "prepare", "serve"]

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
    sample_shape: tuple[int, ...]

    @property
    def header_bytes(self) -> int:
        return 8 * (1 + self.workers)

    @property
    def index_bytes(self) -> int:
        return 8 * self.slots * self.batch_size

    @property
    def nbytes(self) -> int:
        """Bytes in all."""
        sample = 4 * int(np.prod(self.sample_shape))
        return self.header_bytes + self.index_bytes + self.slots * self.batch_size * sample


class Views:
    """The shared memory as arrays.

    Attributes: header (1 + workers,) int64: the generation, then the index that each worker is reading;
            indices (slots, batch) int64; images (slots, batch, *sample) float32.
    """

    def __init__(self, memory: SharedMemory, layout: Layout) -> None:
        rows = (layout.slots, layout.batch_size)
        self.header: npt.NDArray[np.int64] = np.ndarray((1 + layout.workers,), np.int64, memory.buf)
        self.indices: npt.NDArray[np.int64] = np.ndarray(rows, np.int64, memory.buf, layout.header_bytes)
        offset = layout.header_bytes + layout.index_bytes
        self.images: npt.NDArray[np.float32] = np.ndarray(
            (*rows, *layout.sample_shape), np.float32, memory.buf, offset
        )


def prepare(
    dataset: Dataset,
    transform: Transform,
    index: int,
    seed: int,
    epoch: int,
    sample_shape: tuple[int, ...] | None = None,
) -> npt.NDArray[np.float32]:
    """Picture `index` as it appears in an epoch: float32, CHW. The one path for 0 and for many workers.

    Raises: DataError that names the file, whatever went wrong with it.
    """
    try:
        sample = transform(dataset.load(index), Stream(seed, "augment", epoch, index))
    except DataError as error:
        if dataset.names[index] in str(error):
            raise
        raise DataError(f"{describe(dataset, index)} cannot be prepared: {error}") from error
    except Exception as error:
        raise DataError(
            f"{describe(dataset, index)} cannot be prepared: {type(error).__name__}: {error}. "
            "Remove the picture, or mend the transform if it happens with all of them."
        ) from error
    if not isinstance(sample, np.ndarray) or sample.ndim != 3 or sample.dtype != np.float32:
        raise DataError(
            f"The transform must make float32 arrays of 3 axes (CHW), got {type(sample).__name__} of "
            f"{getattr(sample, 'dtype', 'no')} and shape {getattr(sample, 'shape', '?')}. End it with "
            "Normalize."
        )
    if sample_shape is not None and sample.shape != sample_shape:
        raise DataError(
            f"{describe(dataset, index)} becomes an array of shape {sample.shape}, expected {sample_shape} "
            "as the first picture: a batch needs equal shapes. Put a Resize to (height, width) or a crop "
            "first."
        )
    return sample


def describe(dataset: Dataset, index: int) -> str:
    """A picture's file for a message."""
    return str(dataset.root / dataset.names[index])


def serve(connection: Connection, payload: bytes, memory_name: str, layout: Layout, number: int) -> None:
    """What a worker process runs: tasks from the connection until the trainer closes it or dies.

    Args: payload: (dataset, transform, seed), pickled. number: this worker's place in the header.
    """
    _leave_signals_to_the_trainer()
    _end_with_the_trainer()
    memory = None
    views = None
    try:
        memory = SharedMemory(memory_name)
        views = Views(memory, layout)
        dataset, transform, seed = pickle.loads(payload)
        while (task := _next_task(connection)) is not None:
            connection.send(_work(task, dataset, transform, seed, views, number))
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


def _work(task: Task, dataset: Dataset, transform: Transform, seed: int, views: Views, number: int) -> Reply:
    """Fill a slot, picture by picture; an error becomes a reply, and the worker lives on."""
    shape = views.images.shape[2:]
    reply = Reply(task.generation, task.batch)
    try:
        for row in range(task.pictures):
            if views.header[0] != task.generation:
                break  # the trainer left this epoch
            index = int(views.indices[task.slot, row])
            views.header[1 + number] = index
            views.images[task.slot, row] = prepare(dataset, transform, index, seed, task.epoch, shape)
    except DataError as error:
        reply = Reply(task.generation, task.batch, str(error), traceback.format_exc())
    views.header[1 + number] = IDLE  # not in a `finally`: what ends the worker must leave the index behind
    return reply
