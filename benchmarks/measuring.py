"""What the benchmarks share: this process's memory, and on which machine a figure was measured.

Imports nothing but the standard library before it is asked: a benchmark's processes import it, too.
"""

from __future__ import annotations

import ctypes
import datetime
import os
import sys
from pathlib import Path
from typing import Any


def now() -> str:
    """The date and time, with the zone."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine(threads: int) -> dict[str, Any]:
    """Where and with what the figures were measured."""
    from minialex.train.machine import environment, package_version

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    return {
        **environment("cpu"),
        "torch": package_version("torch"),
        "threads": threads,
        "cores": usable_cores(),
        "memory": memory,
        "load": os.getloadavg(),
    }


def keep_freed_memory() -> None:
    """What `minialex.backend.keep_freed_memory` asks the C library for, without importing minialex."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    if mallopt is not None:
        for parameter in (-3, -1):  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of glibc's malloc.h.
            mallopt(parameter, 2**31 - 1)


def resident_memory() -> int:
    """Bytes of this process that are in memory now; 0 where the system does not say."""
    return _status("VmRSS") or 0


def peak_memory() -> int:
    """The largest that `resident_memory` ever was in this process."""
    peak = _status("VmHWM")
    if peak is None:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return peak


def _status(key: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # Not Linux.
        return None
    found = [line.split() for line in lines if line.startswith(f"{key}:")]
    return int(found[0][1]) * 1024 if found else None
