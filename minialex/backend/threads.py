"""One pool of threads for compiled kernels and matrix products, which run without the GIL.

BLAS is held to one thread meanwhile: its own threads wait for each other by spinning, and lose many times
over what they gain as soon as another process wants a core.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_pool_process: int | None = None
_blas: ThreadpoolController | None = None
_blas_holders = 0
_in_part: ContextVar[bool] = ContextVar("minialex_in_part", default=False)
_limit: list[ThreadpoolController] = []


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


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Inside, each call of BLAS runs in the thread that makes it; outside, as it was before.

    The outermost block sets and restores; blocks inside it, on any thread, find it done.
    """
    global _blas, _blas_holders
    with _lock:
        if _blas is None:
            _blas = ThreadpoolController()
        if _blas_holders == 0:
            _limit.append(_blas.limit(limits=1, user_api="blas"))
        _blas_holders += 1
    try:
        yield
    finally:
        with _lock:
            _blas_holders -= 1
            if _blas_holders == 0:
                _limit.pop().restore_original_limits()


def for_ranges(count: int, work: Callable[[int, int], object]) -> None:
    """Call work(start, stop) on parts of range(count), one part a thread; returns when all are done.

    Each part must write its own outputs: then the result does not depend on the number of threads. A call
    from within a part runs there and then, because the threads are taken.
    """
    threads = min(num_threads(), count)
    if threads <= 1 or _in_part.get():
        work(0, count)
        return
    bounds = [count * i // threads for i in range(threads + 1)]
    pool = _shared_pool(threads)
    # Context variables (a forced kernel variant, NumPy's error state) follow the work into the threads.
    futures = [
        pool.submit(copy_context().run, _run_part, work, start, stop)
        for start, stop in itertools.pairwise(bounds[1:])
    ]
    try:
        copy_context().run(_run_part, work, bounds[0], bounds[1])
    finally:
        wait(futures)  # All of them, also after a failure: none may still write into the caller's arrays.
    for future in futures:
        future.result()


class _Scratch(threading.local):
    def __init__(self) -> None:
        self.buffers: dict[str, np.ndarray[Any, np.dtype[np.uint8]]] = {}


_scratch = _Scratch()


def scratch(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, np.dtype[Any]]:
    """An array of the calling thread's own, not cleared, that holds until its next call with this name.

    For what is filled and used up at once: the system need not find and clear fresh memory every time.
    """
    size = math.prod(shape) * dtype.itemsize
    buffer = _scratch.buffers.get(name)
    if buffer is None or buffer.nbytes < size:
        buffer = _scratch.buffers[name] = np.empty(size, dtype=np.uint8)
    return buffer[:size].view(dtype).reshape(shape)


def _run_part(work: Callable[[int, int], object], start: int, stop: int) -> None:
    _in_part.set(True)
    work(start, stop)


def _shared_pool(threads: int) -> ThreadPoolExecutor:
    """The process's pool, made anew after a fork or when more threads are asked for."""
    global _pool, _pool_process
    with _lock:
        if _pool is None or _pool_process != os.getpid() or _pool._max_workers < threads:
            _pool = ThreadPoolExecutor(threads, thread_name_prefix="minialex")
            _pool_process = os.getpid()
        return _pool
