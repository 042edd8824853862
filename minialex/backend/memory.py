"""Keeping freed memory for the next training step."""

from __future__ import annotations

import ctypes
import sys

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Ask the C library to keep freed arrays for reuse instead of giving them back to the system.

    A training step frees and allocates the same few hundred megabytes as the step before. Given back, they
    must be found and cleared by the system every time: on two cores that took up to half of a step. This
    changes the whole process, so it is for programs to call, not for `import minialex`.

    Returns: whether it was possible: on Linux with glibc; elsewhere nothing is changed.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none.
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_INT) and mallopt(M_TRIM_THRESHOLD, LARGEST_INT))
