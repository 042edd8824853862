"""Matrix products: the one place that calls BLAS."""

from __future__ import annotations

import numpy as np

from minialex.backend.device import Array, array_module
from minialex.backend.threads import for_ranges, one_blas_thread

# Columns or rows of a product that one thread works out at a time. A fixed number, so that the bits do not
# depend on how many threads there are.
SLICE = 256


def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """a @ b over the last two axes, written into `out` where it is given.

    Shapes: a (..., M, K), b (..., K, N) -> (..., M, N); leading axes broadcast.
    """
    if not isinstance(a, np.ndarray):
        return array_module(a).matmul(a, b, out=out)
    with one_blas_thread():
        if a.ndim != 2 or b.ndim != 2 or max(len(a), b.shape[1]) < 2 * SLICE:
            return np.matmul(a, b, out=out)
        if out is None:
            out = np.empty((len(a), b.shape[1]), dtype=np.result_type(a, b))
        by_rows, extent = len(a) >= b.shape[1], max(out.shape)

        def work(start: int, stop: int) -> None:
            for i in range(start, stop):
                part = slice(i * SLICE, min((i + 1) * SLICE, extent))
                if by_rows:
                    np.matmul(a[part], b, out=out[part])
                else:
                    np.matmul(a, b[:, part], out=out[:, part])

        for_ranges(-(-extent // SLICE), work)
        return out
