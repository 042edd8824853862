"""One pool of threads for compiled kernels and matrix products, which run without the GIL.

BLAS is held to one thread meanwhile: its own threads wait for each other by spinning, and lose many times
over what they gain as soon as another process wants a core.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

_in_part: ContextVar[bool] = ContextVar("minialex_in_part", default=False)


def num_threads() -> int:
    """Threads to use: MINIALEX_NUM_THREADS, else the cores that this process may run on.

    Raises: ValueError if the variable is not a whole number above zero.
    """
    text = os.environ.get("MINIALEX_NUM_THREADS", "")
    if not text:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    if not text.isdecimal() or int(text) == 0:
        raise ValueError(f"MINIALEX_NUM_THREADS must be a whole number above zero, got {text!r}")
    return int(text)


class one_blas_thread:
    """Inside `with one_blas_thread():`, each call of BLAS runs in the thread that makes it.

    The outermost block sets this and restores what was before; blocks inside it, on any thread, find it done
    and cost next to nothing. Programs hold it around a whole training step.
    """

    _lock = threading.Lock()
    _holders = 0
    _libraries: list[Any] | None = None
    _before: list[int]

    def __enter__(self) -> None:
        shared = one_blas_thread
        with shared._lock:
            if shared._libraries is None:
                blas = ThreadpoolController().select(user_api="blas")
                shared._libraries = list(blas.lib_controllers)
            if shared._holders == 0:
                shared._before = [library.num_threads for library in shared._libraries]
                for library in shared._libraries:
                    library.set_num_threads(1)
            shared._holders += 1

    def __exit__(self, *exception: object) -> None:
        shared = one_blas_thread
        with shared._lock:
            shared._holders -= 1
            if shared._holders == 0:
                for library, threads in zip(shared._libraries or (), shared._before, strict=True):
                    library.set_num_threads(threads)


def for_ranges(count: int, work: Callable[[int, int], object], smallest: int = 1) -> None:
    """Call work(start, stop) on parts of range(count), one part a thread; returns when all are done.

    Each part must write its own outputs: then the result does not depend on the number of threads. A call
    from within a part runs there and then, because the threads are taken.

    Args: smallest: how long a part must be to be worth a thread. Waking one takes 10 to 60 microseconds.
    """
    threads = 1 if count < 2 * smallest or _in_part.get() else min(num_threads(), count // max(1, smallest))
    if threads <= 1:
        work(0, count)
        return
    bounds = [count * i // threads for i in range(threads + 1)]
    helpers = [_idle.pop() if _idle else _Helper() for _ in range(threads - 1)]
    try:
        for i, helper in enumerate(helpers, start=1):
            # Context variables (a forced kernel variant, NumPy's error state) follow the work to its thread.
            helper.start(copy_context(), work, bounds[i], bounds[i + 1])
        copy_context().run(_run_part, work, bounds[0], bounds[1])
    finally:
        # All of them, also after a failure: none may still write into the caller's arrays.
        errors = [_finish(helper) for helper in helpers]
    for error in errors:
        if error is not None:
            raise error


def _finish(helper: _Helper) -> BaseException | None:
    """Wait for the helper's end, also if Ctrl-C comes meanwhile. Returns: what was raised, or None."""
    interrupted: BaseException | None = None
    while True:
        try:
            error = helper.finish()
            break
        except KeyboardInterrupt as interrupt:
            interrupted = interrupt
    _idle.append(helper)
    return interrupted or error


def _run_part(work: Callable[[int, int], object], start: int, stop: int) -> None:
    _in_part.set(True)
    work(start, stop)


class _Helper:
    """A thread that sleeps until it is given a part. Two locks hand the part over and the end back: less
    than half of what a queue with futures takes."""

    def __init__(self) -> None:
        self._given, self._busy = threading.Lock(), threading.Lock()
        self._given.acquire()
        self._part: tuple[Context, Callable[[int, int], object], int, int] | None = None
        self._error: BaseException | None = None
        threading.Thread(target=self._serve, name="minialex", daemon=True).start()

    def start(self, context: Context, work: Callable[[int, int], object], start: int, stop: int) -> None:
        """Begin with a part; returns at once."""
        self._busy.acquire()
        self._part = (context, work, start, stop)
        self._given.release()

    def finish(self) -> BaseException | None:
        """Wait until it has nothing to do; can be asked again. Returns: what the work raised, or None."""
        with self._busy:
            pass
        error, self._error = self._error, None
        return error

    def _serve(self) -> None:
        while True:
            self._given.acquire()
            self._run()
            self._busy.release()

    def _run(self) -> None:
        part, self._part = self._part, None  # Nothing of the caller's is held while waiting.
        if part is not None:
            context, work, start, stop = part
            try:
                context.run(_run_part, work, start, stop)
            except BaseException as error:  # The caller raises it, on its own thread.
                self._error = error


# Helpers without work. Callers on several threads each take their own: none waits for another's part.
_idle: list[_Helper] = []


def _after_fork() -> None:
    """Threads do not survive a fork, and a lock may have been held by one of them."""
    _idle.clear()
    one_blas_thread._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class _Scratch(threading.local):
    def __init__(self) -> None:
        self.buffers: dict[str, np.ndarray[Any, np.dtype[np.uint8]]] = {}
        self.generation = 0


_scratch = _Scratch()
_generation = 0


def drop_scratch() -> None:
    """Give up the memory of `scratch`: the caller's now, that of each other thread when it next asks."""
    global _generation
    _generation += 1
    _scratch.buffers.clear()


def scratch(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, np.dtype[Any]]:
    """An array of the calling thread's own, not cleared, that holds until its next call with this name.

    For what is filled and used up at once: the system need not find and clear fresh memory every time.
    """
    size = math.prod(shape) * dtype.itemsize
    if _scratch.generation != _generation:
        _scratch.buffers.clear()
        _scratch.generation = _generation
    buffer = _scratch.buffers.get(name)
    if buffer is None or buffer.nbytes < size:
        buffer = _scratch.buffers[name] = np.empty(size, dtype=np.uint8)
    return buffer[:size].view(dtype).reshape(shape)
