"""Which kernels Numba, or g++ for the emulator, compiles in this process, and for how long: what is found on
disk is no compilation.

The library itself prints nothing. A program that wants to say why its first step takes long listens:

    with on_compile(lambda kernel: print("compiling", kernel.name)):
        train()
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Compilation:
    """One function that Numba compiles, or one .cu file that g++ does.

    Args: name: its own; seconds: None while it is being compiled; kept: whether the result goes to disk, so
          that the next process finds it there.
    """

    name: str
    seconds: float | None
    kept: bool


_lock = threading.Lock()
_watcher: _Watcher | None = None
_callbacks: list[Callable[[Compilation], object]] = []
_compiled: list[Compilation] = []


def compilations() -> tuple[Compilation, ...]:
    """What was compiled in this process so far, in order; empty if everything came from disk."""
    return tuple(_compiled)


@contextmanager
def on_compile(callback: Callable[[Compilation], object]) -> Iterator[None]:
    """Inside, `callback` is told of every compilation, at its beginning and again, with its time, at its end.

    It is called on whichever thread compiles, one at a time. A function that is compiled as a part of another
    is not told of: its time is in that of the other.
    """
    _callbacks.append(callback)
    try:
        yield
    finally:
        _callbacks.remove(callback)


def import_numba() -> ModuleType:
    """Numba, with its compilations reported from now on."""
    global _watcher
    numba = importlib.import_module("numba")
    with _lock:
        if _watcher is None:
            _watcher = _Watcher()
            events = importlib.import_module("numba.core.event")
            events.Listener.register(_Watcher)  # An abstract class, which this file must not import.
            events.register("numba:compile", _watcher)
    return numba


def import_emulator() -> ModuleType:
    """The emulator of CUDA kernels, with its compilations reported from now on."""
    emulator = importlib.import_module("minialex.emulator")
    if _of_emulator not in emulator.build_listeners:
        emulator.build_listeners.append(_of_emulator)
    return emulator


def _of_emulator(name: str, seconds: float | None) -> None:
    """What the emulator calls when g++ begins with a file and when it is done with it."""
    compilation = Compilation(name, seconds, kept=True)
    if seconds is not None:
        _compiled.append(compilation)
    _tell(compilation)


def _tell(compilation: Compilation) -> None:
    for callback in tuple(_callbacks):
        callback(compilation)


class _Watcher:
    """Listens to Numba's events. Numba compiles under a lock of its own, so this needs none."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._started = 0.0

    def notify(self, event: Any) -> None:
        """What Numba calls at the beginning and at the end of each compilation."""
        dispatcher = event.data["dispatcher"]
        name, kept = dispatcher.py_func.__name__, dispatcher.stats.cache_path is not None
        if event.is_start:
            if not self._names:
                self._started = perf_counter()
                _tell(Compilation(name, None, kept))
            self._names.append(name)
            return
        self._names.pop()
        if not self._names:
            done = Compilation(name, perf_counter() - self._started, kept)
            _compiled.append(done)
            _tell(done)
