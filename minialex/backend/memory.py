"""Memory for arrays, kept for the next training step when they are freed.

A training step makes and frees the same few hundred megabytes as the step before. Given back, the system
must find and clear them anew every time: on two cores that took up to half of a step.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
import threading
from collections import deque
from typing import Any

import numpy as np

from minialex.backend.device import Array, array_module
from minialex.backend.emulated import EmulatedArray
from minialex.backend.threads import drop_scratch

# Bytes from which an array's memory is worth keeping; for less, the C library does as well.
SMALLEST = 256 * 1024
# A kept block serves arrays down to this part of its size.
LEAST_USED = 0.5
# Blocks that so many allocations passed over are given back: another model's, or a last, small batch's.
PATIENCE = 2000
ALIGNMENT = 64  # A cache line, and the widest vector register.

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Ask the C library to keep freed memory for reuse instead of giving it back to the system.

    For what does not come from `empty`: NumPy's own temporaries, decoded pictures. This changes the whole
    process, so it is for programs to call, not for `import minialex`.

    Returns: whether it was possible: on Linux with glibc; elsewhere nothing is changed.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none.
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_INT) and mallopt(M_TRIM_THRESHOLD, LARGEST_INT))


class _Lease:
    """An array's hold on a block: NumPy keeps it for as long as the array or a view of it lives."""

    __slots__ = ("__array_interface__", "_returned", "block")

    def __init__(
        self, block: Array, shape: tuple[int, ...], dtype: np.dtype[Any], returned: deque[Array]
    ) -> None:
        self.block, self._returned = block, returned
        address = -(-block.ctypes.data // ALIGNMENT) * ALIGNMENT
        self.__array_interface__ = {
            "version": 3,
            "shape": shape,
            "typestr": dtype.str,
            "data": (address, False),
        }

    def __del__(self) -> None:
        # A deque takes this from any thread, and from the garbage collector in the middle of anything.
        self._returned.append(self.block)


class Pool:
    """Blocks of memory that arrays were freed from, for the next arrays of about that size."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._returned: deque[Array] = deque()
        self._free: list[tuple[int, Array]] = []  # When it came back, in allocations, and the block.
        self._clock = 0

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """A new array with whatever the memory holds."""
        size = math.prod(shape) * dtype.itemsize
        if size < SMALLEST:
            return np.empty(shape, dtype)
        with self._lock:
            block = self._take(size + ALIGNMENT)
        if block is None:
            try:
                block = np.empty(size + ALIGNMENT, np.uint8)
            except MemoryError:  # What is kept may be what is missing.
                self.clear()
                block = np.empty(size + ALIGNMENT, np.uint8)
        return np.asarray(_Lease(block, shape, dtype, self._returned))

    def clear(self) -> None:
        """Give back every block that no array uses."""
        with self._lock:
            self._returned.clear()
            self._free.clear()

    def kept(self) -> int:
        """Bytes of the blocks that no array uses."""
        with self._lock:
            self._collect()
            return sum(block.nbytes for _, block in self._free)

    def renew_lock(self) -> None:
        """After a fork: a thread that is not here any more may have held it."""
        self._lock = threading.Lock()

    def _take(self, size: int) -> Array | None:
        """The smallest block that is large enough, and not far too large."""
        self._clock += 1
        self._collect()
        fitting = [
            (block.nbytes, i)
            for i, (_, block) in enumerate(self._free)
            if size <= block.nbytes <= size / LEAST_USED
        ]
        if fitting:
            return self._free.pop(min(fitting)[1])[1]
        self._free = [(since, block) for since, block in self._free if self._clock - since < PATIENCE]
        return None

    def _collect(self) -> None:
        while self._returned:
            self._free.append((self._clock, self._returned.popleft()))


_pool = Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.renew_lock)


def empty(shape: tuple[int, ...], like: Array, dtype: Any = None) -> Array:
    """An array on the device of `like`, not cleared; large ones on the CPU in memory that was used before.

    Args: dtype: None for that of `like`.
    """
    dtype = np.dtype(like.dtype if dtype is None else dtype)
    if isinstance(like, np.ndarray) and not isinstance(like, EmulatedArray):
        return _pool.empty(shape, dtype)
    return array_module(like).empty(shape, dtype=dtype)  # CuPy has a pool of its own.


def empty_cache() -> None:
    """Give memory that is kept for the next step back to the system, as `torch.cuda.empty_cache` does."""
    _pool.clear()
    drop_scratch()
    if "cupy" in sys.modules:
        sys.modules["cupy"].get_default_memory_pool().free_all_blocks()
        sys.modules["cupy"].get_default_pinned_memory_pool().free_all_blocks()


def kept_memory() -> int:
    """Bytes that freed arrays left behind, and that the next arrays will use."""
    return _pool.kept()
