"""What this machine can do at most, measured: matrix products, and copies between memory and memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from minialex.backend import for_ranges, matmul, num_threads

# Side of the matrices: large enough for the full speed of BLAS, small enough for a fraction of a second.
MATRIX_SIDE = 2048
# Bytes of an array that is copied: more than the caches of the processors that this runs on hold.
COPY_BYTES = 2**27
REPEATS = 5


@dataclass(frozen=True)
class Ceilings:
    """Floating-point operations and bytes (read and written) a second, on so many threads."""

    flops: float
    bytes: float
    threads: int


def measure_ceilings(side: int = MATRIX_SIDE, copy_bytes: int = COPY_BYTES) -> Ceilings:
    """The better of several products of float32 matrices, through the engine's own BLAS, and of copies."""
    a = np.ones((side, side), np.float32)
    product = np.empty_like(a)
    source = np.ones(copy_bytes, np.uint8)
    target = np.ones_like(source)

    def copy(start: int, stop: int) -> None:
        target[start:stop] = source[start:stop]

    multiplied = _least_seconds(lambda: matmul(a, a, out=product))
    copied = _least_seconds(lambda: for_ranges(copy_bytes, copy))
    return Ceilings(2 * side**3 / multiplied, 2 * copy_bytes / copied, num_threads())


def _least_seconds(work: Callable[[], object]) -> float:
    least = float("inf")
    for _ in range(REPEATS):
        start = perf_counter()
        work()
        least = min(least, perf_counter() - start)
    return least
