"""Who gets signals: the emulator while a kernel runs (include/faults.hpp), and else whoever did."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Libraries that catch signals, in the order in which they began to: each hands on to the one before what is
# not its own, and the first to whoever was there.
_catching: list[ctypes.CDLL] = []
_idle: set[int] = set()  # Those of them that run no kernel, by id.
_lock = threading.Lock()


@contextmanager
def caught_signals(functions: ctypes.CDLL) -> Iterator[None]:
    """Inside, a division by zero and the like in a kernel of this library is a mistake as any other.

    Kernels of other libraries may run at the same time, on other threads, and end in any order; a library
    stays in the chain until those that came after it are done.
    """
    with _lock:
        if functions not in _catching:
            functions.minialex_catch_signals()
            _catching.append(functions)
        _idle.discard(id(functions))
    try:
        yield
    finally:
        with _lock:
            _idle.add(id(functions))
            while _catching and id(_catching[-1]) in _idle:
                last = _catching.pop()
                _idle.discard(id(last))
                last.minialex_release_signals()
