"""Matrix products: the one place that calls BLAS."""

from __future__ import annotations

import math

import numpy as np

from minialex.backend.cublas import gemm
from minialex.backend.device import Array, array_module, device_of
from minialex.backend.kernel import Kernel
from minialex.backend.memory import empty
from minialex.backend.threads import for_ranges, one_blas_thread, scratch
from minialex.shapes import ShapeError, broadcast_shape

# Columns or rows of a product that one thread works out at a time. A fixed number, so that the bits do not
# depend on how many threads there are.
SLICE = 512

# Multiplications for which waking a thread would take longer.
WORTH_A_THREAD = 4_000_000

# A batch with no more rows than this, times the transpose of a large matrix, is worked out transposed.
FEW = 64


def matmul_reference(a: Array, b: Array, y: Array) -> None:
    """y[..., i, j] = sum over k of a[..., i, k] * b[..., k, j].

    Shapes: a (..., M, K), b (..., K, N), y (..., M, N), written; leading axes broadcast.
    """
    a = np.broadcast_to(a, y.shape[:-2] + a.shape[-2:])
    b = np.broadcast_to(b, y.shape[:-2] + b.shape[-2:])
    for leading in np.ndindex(y.shape[:-2]):
        for i in range(y.shape[-2]):
            for j in range(y.shape[-1]):
                total = 0.0
                for k in range(a.shape[-1]):
                    total = total + a[(*leading, i, k)] * b[(*leading, k, j)]
                y[(*leading, i, j)] = total


def matmul_blas(a: Array, b: Array, y: Array) -> None:
    """BLAS, in slices on threads of our own where the product is large."""
    if device_of(y) != "cpu":
        array_module(y).matmul(a, b, out=y)
        return
    with one_blas_thread():
        if y.ndim != 2 or max(y.shape) < 2 * SLICE or y.size * a.shape[-1] < WORTH_A_THREAD:
            np.matmul(a, b, out=y)
            return
        if len(y) >= 2 * SLICE:
            _by_rows(a, b, y)
        elif b.flags.f_contiguous and len(y) <= FEW:
            # b.T lies in memory row by row: as the left factor it is read once, in order.
            transposed = scratch("transposed product", y.shape[::-1], y.dtype)
            _by_rows(b.T, a.T, transposed)
            np.copyto(y, transposed.T)
        else:
            _by_columns(a, b, y)


def _by_rows(a: Array, b: Array, y: Array) -> None:
    def work(start: int, stop: int) -> None:
        for i in range(start * SLICE, min(stop * SLICE, len(y)), SLICE):
            np.matmul(a[i : i + SLICE], b, out=y[i : i + SLICE])

    for_ranges(-(-len(y) // SLICE), work)


def _by_columns(a: Array, b: Array, y: Array) -> None:
    def work(start: int, stop: int) -> None:
        for i in range(start * SLICE, min(stop * SLICE, y.shape[1]), SLICE):
            np.matmul(a, b[:, i : i + SLICE], out=y[:, i : i + SLICE])

    for_ranges(-(-y.shape[1] // SLICE), work)


# ------------------------------------------------------------------------------------------------ on a GPU


def matmul_cublas(a: Array, b: Array, y: Array) -> None:
    """One product, or one batch of them; several batches one after another."""
    if a.ndim > 2 and b.ndim == 2 and a.flags.c_contiguous:
        # The same right factor for all rows: one tall matrix.
        rows = math.prod(a.shape[:-1])
        gemm(a.reshape(rows, a.shape[-1]), b, y.reshape(rows, y.shape[-1]))
        return
    if y.ndim <= 3:
        gemm(a, b, y)
        return
    # A batch is the last leading axis; the axes before it are gone through here.
    a = _with_axes(a, y.shape[:-2])
    b = _with_axes(b, y.shape[:-2])
    for leading in np.ndindex(y.shape[:-3]):
        gemm(a[leading], b[leading], y[leading])


def _with_axes(x: Array, leading: tuple[int, ...]) -> Array:
    """x with all leading axes, the stretched ones without a copy."""
    return array_module(x).broadcast_to(x, (*leading, *x.shape[-2:]))


# BLAS is compiled, and takes transposed arrays as they are: nothing is left for Numba to do.
matrix_product = Kernel(
    "matmul",
    outputs=("y",),
    reference=matmul_reference,
    array=matmul_blas,
    numba=matmul_blas,
    cuda=matmul_cublas,
)


def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """a @ b over the last two axes, by the kernel above, written into `out` where it is given.

    Shapes: a (..., M, K), b (..., K, N) -> (..., M, N); leading axes broadcast. A vector (K,) is a row on
    the left and a column on the right, and its axis is left out of the result.
    """
    left, right = a if a.ndim > 1 else a[None], b if b.ndim > 1 else b[:, None]
    leading = broadcast_shape(left.shape[:-2], right.shape[:-2], "matmul")
    shape = (*leading, left.shape[-2], right.shape[-1])
    result_shape = (*leading, *a.shape[-2:-1], *(b.shape[-1:] if b.ndim > 1 else ()))
    if out is not None and out.shape != result_shape:
        raise ShapeError(f"matmul: out has shape {out.shape}, expected {result_shape}")
    y = empty(shape, a) if out is None else out.reshape(shape)
    matrix_product(left, right, y)
    if out is not None:
        return out
    return y.reshape(result_shape)
