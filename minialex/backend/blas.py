"""Matrix products: the one place that calls BLAS."""

from __future__ import annotations

from minialex.backend.device import Array, array_module


def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """a @ b over the last two axes, written into `out` where it is given.

    Shapes: a (..., M, K), b (..., K, N) -> (..., M, N); leading axes broadcast.
    """
    return array_module(a).matmul(a, b, out=out)
