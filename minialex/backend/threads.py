"""One pool of threads for compiled kernels, which run without the GIL."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_pool_process: int | None = None


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


def for_ranges(count: int, work: Callable[[int, int], object]) -> None:
    """Call work(start, stop) on parts of range(count), one part a thread; returns when all are done.

    Each part must write its own outputs: then the result does not depend on the number of threads.
    """
    threads = min(num_threads(), count)
    if threads <= 1:
        work(0, count)
        return
    bounds = [count * i // threads for i in range(threads + 1)]
    pool = _shared_pool(threads)
    futures = [pool.submit(work, a, b) for a, b in zip(bounds[1:-1], bounds[2:], strict=True)]
    try:
        work(bounds[0], bounds[1])
    finally:
        for future in futures:
            future.result()


def _shared_pool(threads: int) -> ThreadPoolExecutor:
    """The process's pool, made anew after a fork or when more threads are asked for."""
    global _pool, _pool_process
    with _lock:
        if _pool is None or _pool_process != os.getpid() or _pool._max_workers < threads:
            _pool = ThreadPoolExecutor(threads, thread_name_prefix="minialex")
            _pool_process = os.getpid()
        return _pool
