"""Decoded pictures kept as bytes, so that an epoch after the first need not decode them again.

A picture is found by the SHA-256 of its file and by how it was made from it (data set, decoder and fixed
transforms): a changed file, another size or another version of Pillow never meets an old picture. What a
cache gives is what decoding would give, bit for bit: it changes how long an epoch takes, and nothing else.
Data sets that do not say how they load (see `Dataset`) are not kept.

Both kinds stop keeping pictures when their budget is used up, and the rest is decoded every time.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from minialex.errors import UsageError

__all__ = ["MemoryCache", "PictureCache", "available_memory", "memory_budget", "parse_bytes"]

Pixels = npt.NDArray[np.uint8]

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
DEFAULT_BUDGET = 2 * 10**9
CGROUP = Path("/sys/fs/cgroup")


class PictureCache(Protocol):
    """What the loader asks of a cache. The calls come from several threads at once."""

    shared: bool  # whether several processes see the same pictures; then it must pickle

    def read(self, digest: str, way: str) -> Pixels | None:
        """The picture, (H, W, 3) or (H, W), made from the file with this SHA-256 in this way, or None."""

    def keep(self, digest: str, way: str, pixels: Pixels) -> None:
        """Keep a picture, if there is room."""


class MemoryCache:
    """Pictures in the memory of this process, gone with it.

    Args: budget: bytes that the pictures may add up to.
    """

    shared = False

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.used = 0
        self._pictures: dict[tuple[str, str], Pixels] = {}
        self._lock = threading.Lock()

    def read(self, digest: str, way: str) -> Pixels | None:
        """The picture, or None."""
        return self._pictures.get((digest, way))

    def keep(self, digest: str, way: str, pixels: Pixels) -> None:
        """Keep a copy of the picture, if there is room."""
        with self._lock:
            key = (digest, way)
            if key in self._pictures or self.used + pixels.nbytes > self.budget:
                return
            self.used += pixels.nbytes
            self._pictures[key] = pixels.copy()

    def clear(self) -> None:
        """Forget all pictures."""
        with self._lock:
            self._pictures.clear()
            self.used = 0

    def __len__(self) -> int:
        return len(self._pictures)

    def __repr__(self) -> str:
        return f"in memory, up to {in_words(self.budget)}"


def parse_bytes(text: str) -> int:
    """Bytes in words ("2GB", "500 MB", "1.5gb") as a number; units of 1,000.

    Raises: UsageError for anything else, and for less than one byte.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip(), re.IGNORECASE)
    unit = UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None or float(match[1]) * unit < 1:
        raise UsageError(f"{text!r} is no number of bytes: expected for example 500MB, 2GB or 1.5GB")
    return int(float(match[1]) * unit)


def memory_budget(asked: int | None) -> int:
    """Bytes for a cache in memory: as asked, but at most three quarters of the memory that is available now.

    Unless somebody asked, 2 GB, but at most a quarter.
    """
    room = available_memory()
    if asked is None:
        return DEFAULT_BUDGET if room is None else min(DEFAULT_BUDGET, room // 4)
    return asked if room is None else min(asked, room * 3 // 4)


def available_memory() -> int | None:
    """Bytes that can still be used without swapping, in this container if it has a limit; None if unknown."""
    found = [*_system_memory(), *_container_memory()]
    return min(found) if found else None


def _system_memory() -> Iterable[int]:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024
        return
    except (OSError, ValueError):
        pass  # not Linux
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        yield os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2  # how much is in use is not told


def _container_memory() -> Iterable[int]:
    """Version 2 of Linux's control groups, then version 1."""
    for limit, usage in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            most, used = (int((CGROUP / name).read_text(encoding="ascii")) for name in (limit, usage))
            yield max(0, most - used)
        except (OSError, ValueError):
            continue  # no such file, or "max": no limit


def in_words(count: int) -> str:
    """1.2 GB for 1,234,567,890: the way back from `parse_bytes`, rounded."""
    unit = next(name for name in ("TB", "GB", "MB", "KB", "B") if count >= UNITS[name] or name == "B")
    return f"{count / UNITS[unit]:.{0 if unit == 'B' else 1}f} {unit}"
