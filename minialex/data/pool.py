"""The trainer's side of the loader's workers: starting them, giving orders, noticing a death, clearing up.

Each worker has a pipe of its own and slots of its own in the shared memory. There is no queue and no lock
that
a worker could take to its grave: whatever happens to one, the trainer only ever waits for a pipe or an exit.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import secrets
import signal
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.shared_memory import SharedMemory
from multiprocessing.util import Finalize

from minialex.data.recipe import Recipe, describe
from minialex.data.worker import IDLE, STOP, Layout, Reply, Task, Views, serve
from minialex.errors import DataError

__all__ = ["WorkerPool", "fitting_slots"]

# A worker is one thread: it decodes pictures, and the trainer needs the other cores.
ONE_THREAD = dict.fromkeys(
    [
        "MINIALEX_NUM_THREADS",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
    ],
    "1",
)
SHARED_MEMORY_MOUNT = "/dev/shm"  # where Linux keeps it; a container may have 64 MB of it


@dataclass
class _Resources:
    """What must be given back, held apart from the pool so that its finaliser does not keep it alive."""

    memory: SharedMemory
    views: Views | None
    processes: list[BaseProcess] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)

    def release(self) -> None:
        """End the workers and remove the shared memory. They hold nothing of worth, so they are killed."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join(timeout=10)
        for connection in self.connections:
            connection.close()
        self.processes, self.connections, self.views = [], [], None
        try:
            self.memory.close()
        finally:
            self.memory.unlink()


class WorkerPool:
    """`layout.workers` processes that prepare batches, and the memory shared with them.

    Raises: DataError if the data set or the transform cannot be sent to another process.
    """

    def __init__(self, recipe: Recipe, layout: Layout) -> None:
        payload = _pickle(recipe)
        self.dataset = recipe.dataset
        self.layout = layout
        self.generation = 0
        # At most 31 characters, which macOS allows; the process's number tells whose it is.
        name = f"minialex-{os.getpid()}-{secrets.token_hex(4)}"
        memory = SharedMemory(name, create=True, size=layout.nbytes)
        self._resources = _Resources(memory, Views(memory, layout))
        # Runs when the pool is closed, collected, or the interpreter exits, whichever comes first, and before
        # multiprocessing waits for its children.
        self._release = Finalize(self, self._resources.release, exitpriority=10)
        self.views.header[0] = STOP
        self.views.header[1:] = IDLE
        try:
            with _starting(hide_main=b"__main__" not in payload):
                for number in range(layout.workers):
                    self._start(payload, memory.name, number)
        except BaseException:
            self.close()
            raise

    @property
    def views(self) -> Views:
        """The shared memory as arrays."""
        assert self._resources.views is not None, "the pool is closed"
        return self._resources.views

    @property
    def processes(self) -> list[BaseProcess]:
        """The workers, in order."""
        return self._resources.processes

    @property
    def closed(self) -> bool:
        return self._resources.views is None

    def _start(self, payload: bytes, memory_name: str, number: int) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=serve,
            args=(theirs, payload, memory_name, self.layout, number),
            name=f"minialex-loader-{number}",
            daemon=True,
        )
        process.start()
        theirs.close()  # else the end of the worker would not close the pipe
        self._resources.processes.append(process)
        self._resources.connections.append(ours)

    def new_generation(self) -> int:
        """Begin a new round of tasks: workers drop what they have of earlier ones."""
        self.generation += 1
        self.views.header[0] = self.generation
        return self.generation

    def send(self, worker: int, task: Task) -> None:
        """Give a task to a worker. Raises: DataError if it is dead."""
        try:
            self._resources.connections[worker].send(task)
        except OSError as error:
            raise self._obituary(worker) from error

    def receive(self, worker: int, generation: int) -> Reply:
        """The next reply of a worker that belongs to this generation.

        Raises: DataError if any worker died, with the file it was reading, or if the task failed.
        """
        connection = self._resources.connections[worker]
        sentinels = {process.sentinel: number for number, process in enumerate(self.processes)}
        while True:
            ready = wait([connection, *sentinels])
            if connection not in ready:
                raise self._obituary(next(sentinels[item] for item in ready if isinstance(item, int)))
            try:
                reply: Reply = connection.recv()
            except (EOFError, OSError) as error:
                raise self._obituary(worker) from error
            if reply.error is not None and reply.generation in (generation, STOP):
                raise _failure(reply)
            if reply.generation == generation:
                return reply

    def _obituary(self, worker: int) -> DataError:
        """Why a worker ended, and over which file."""
        process, connection = self.processes[worker], self._resources.connections[worker]
        process.join(timeout=10)
        with contextlib.suppress(EOFError, OSError):
            while connection.poll():
                last: Reply = connection.recv()
                if last.error is not None and last.generation == STOP:
                    return _failure(last)
        code = process.exitcode
        if code is not None and code < 0:
            names = {int(item): item.name for item in signal.Signals}
            how = f"was killed by {names.get(-code, f'signal {-code}')}"
        else:
            how = f"ended with exit code {code}"
        index = int(self.views.header[1 + worker])
        if index == IDLE:
            where, advice = "while it read no picture", "Use --workers 0 to see what goes wrong."
        else:
            where = f"while it read {describe(self.dataset, index)}"
            advice = (
                "If the machine ran out of memory, use fewer --workers or a smaller --batch-size; "
                "if it happens again at this picture, remove it."
            )
        return DataError(f"A loader worker (process {process.pid}) {how} {where}. {advice}")

    def close(self) -> None:
        """End the workers and remove the shared memory. Closing twice is fine."""
        self._release()


def fitting_slots(workers: int, prefetch: int, slot_bytes: int) -> int:
    """How many slots the shared memory has room for: workers x prefetch, or fewer if it is tight.

    Writing beyond the room that Linux has there kills the process (SIGBUS), so it is looked at before.

    Raises: DataError if there is no room for one batch a worker.
    """
    try:
        status = os.statvfs(SHARED_MEMORY_MOUNT)
    except (OSError, AttributeError):  # another system, another mechanism
        return workers * prefetch
    room = status.f_bavail * status.f_frsize * 0.9
    ahead = min(prefetch, int(room // (workers * slot_bytes)))
    if ahead < 1:
        raise DataError(
            f"{workers} loader workers need {workers * slot_bytes / 1e6:.0f} MB of shared memory "
            f"({SHARED_MEMORY_MOUNT}), but {room / 1e6:.0f} MB are free. Use fewer --workers (0 needs none) "
            "or a smaller --batch-size; in a container, give it more (docker run --shm-size 1g)."
        )
    return workers * ahead


def _failure(reply: Reply) -> DataError:
    """A worker's error, with its traceback as a note."""
    assert reply.error is not None
    failure = DataError(reply.error)
    failure.add_note(f"In a loader worker:\n{reply.trace}")
    return failure


def _pickle(recipe: Recipe) -> bytes:
    try:
        return pickle.dumps(recipe)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise DataError(
            f"The data set or the transform cannot be sent to a loader worker ({error}). Define their "
            "classes at the top of a module, without lambdas or open files, or use workers=0."
        ) from error


@contextlib.contextmanager
def _starting(hide_main: bool) -> Iterator[None]:
    """How workers are started: with signals held back, one thread each, and without the user's script.

    A spawned process imports the parent's main script again, which costs time and runs it twice if it lacks
    `if __name__ == "__main__"`. Unless something that we send is defined there, we keep it out of sight.
    """
    main = sys.modules["__main__"]
    environment = {name: os.environ.get(name) for name in ONE_THREAD}
    held: set[signal.Signals] = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held) if hasattr(signal, "pthread_sigmask") else None
    try:
        os.environ.update(ONE_THREAD)
        if hide_main:
            sys.modules["__main__"] = types.ModuleType("__main__")
        yield
    finally:
        sys.modules["__main__"] = main
        for name, value in environment.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
