"""Average pooling over the rectangles that bounds describe: windows of one size, or adaptive bins.

The bounds of one axis are a tuple of (start, stop, divisor): pixels start .. stop - 1 are summed, and the
window counts as `divisor` pixels long (more than stop - start where padding is counted).
"""

from __future__ import annotations

import functools
from typing import TypeAlias

import numpy as np

from minialex.backend import Array, CudaKernel, Kernel, array_module, contiguous, jit, per_image
from minialex.kernels.launch_grids import grid_of_lines
from minialex.shapes import Pair

Bounds: TypeAlias = tuple[tuple[int, int, int], ...]


@functools.cache
def sliding_bounds(
    size: int, output: int, kernel: int, stride: int, padding: Pair, count_include_pad: bool
) -> Bounds:
    """Bounds of a window that slides. A last window cut off by ceil_mode is not as long as the others."""
    bounds = []
    for p in range(output):
        first = p * stride - padding[0]
        last = min(first + kernel, size + padding[1])
        start, stop = max(first, 0), min(last, size)
        bounds.append((start, stop, last - first if count_include_pad else stop - start))
    return tuple(bounds)


@functools.cache
def adaptive_bounds(size: int, output: int) -> Bounds:
    """Bounds of `output` bins that cover the axis: floor(i*size/output) to ceil((i+1)*size/output)."""
    bounds = []
    for p in range(output):
        start, stop = p * size // output, -(-(p + 1) * size // output)
        bounds.append((start, stop, stop - start))
    return tuple(bounds)


def average_pool_reference(x: Array, y: Array, rows: Array, cols: Array) -> None:
    """y[n, c, p, q] = sum of the rectangle rows[p] x cols[q] divided by its count.

    Shapes: x (N, C, H, W); y (N, C, OH, OW), written; rows (OH, 3), cols (OW, 3): start, stop, divisor.
    """
    N, C, _, _ = x.shape
    for n in range(N):
        for c in range(C):
            for p in range(len(rows)):
                for q in range(len(cols)):
                    total = 0.0
                    for row in range(rows[p, 0], rows[p, 1]):
                        for col in range(cols[q, 0], cols[q, 1]):
                            total = total + x[n, c, row, col]
                    y[n, c, p, q] = total / (rows[p, 2] * cols[q, 2])


def average_pool_backward_reference(dy: Array, dx: Array, rows: Array, cols: Array) -> None:
    """Each pixel of a rectangle gets dy divided by the rectangle's count.

    Shapes: dy (N, C, OH, OW); dx (N, C, H, W), written.
    """
    N, C, _, _ = dy.shape
    dx[...] = 0
    for n in range(N):
        for c in range(C):
            for p in range(len(rows)):
                for q in range(len(cols)):
                    share = dy[n, c, p, q] / (rows[p, 2] * cols[q, 2])
                    for row in range(rows[p, 0], rows[p, 1]):
                        for col in range(cols[q, 0], cols[q, 1]):
                            dx[n, c, row, col] += share


def average_pool_array(x: Array, y: Array, rows: Array, cols: Array) -> None:
    """Rows are added up first, then columns: a window is a product of two intervals."""
    xp = array_module(x)
    N, C, _, W = x.shape
    strips = xp.empty((N, C, len(rows), W), dtype=x.dtype)
    for p, (start, stop, divisor) in enumerate(rows.tolist()):
        strips[:, :, p] = x[:, :, start:stop].sum(axis=2) / x.dtype.type(divisor)
    for q, (start, stop, divisor) in enumerate(cols.tolist()):
        y[:, :, :, q] = strips[:, :, :, start:stop].sum(axis=3) / x.dtype.type(divisor)


def average_pool_backward_array(dy: Array, dx: Array, rows: Array, cols: Array) -> None:
    """The same two steps, spreading."""
    xp = array_module(dy)
    N, C, OH, _ = dy.shape
    strips = xp.zeros((N, C, OH, dx.shape[3]), dtype=dy.dtype)
    for q, (start, stop, divisor) in enumerate(cols.tolist()):
        strips[:, :, :, start:stop] += dy[:, :, :, q : q + 1] / dy.dtype.type(divisor)
    dx[...] = 0
    for p, (start, stop, divisor) in enumerate(rows.tolist()):
        dx[:, :, start:stop] += strips[:, :, p : p + 1] / dy.dtype.type(divisor)


def average_pool_rows(x: Array, y: Array, rows: Array, cols: Array) -> None:
    """A window's rows are added up first, for all columns at once; then its columns."""
    N, C, _, W = x.shape
    OW, to_dtype, pairs, strip = len(cols), x.dtype.type, _side_by_side(cols), np.empty(W, x.dtype)
    for n in range(N):
        for c in range(C):
            for p in range(len(rows)):
                source, target = x[n, c, rows[p, 0]], y[n, c, p]
                for s in range(W):
                    strip[s] = source[s]
                for row in range(rows[p, 0] + 1, rows[p, 1]):
                    source = x[n, c, row]
                    for s in range(W):
                        strip[s] += source[s]
                if pairs:
                    count = to_dtype(rows[p, 2] * 2)
                    for q in range(OW):
                        target[q] = (strip[2 * q] + strip[2 * q + 1]) / count
                else:
                    for q in range(OW):
                        total = to_dtype(0)
                        for s in range(cols[q, 0], cols[q, 1]):
                            total += strip[s]
                        target[q] = total / to_dtype(rows[p, 2] * cols[q, 2])


def average_pool_backward_rows(dy: Array, dx: Array, rows: Array, cols: Array) -> None:
    """The same two steps, spreading. The first window to reach a row writes it, later ones add to it."""
    N, C, H, W = dx.shape
    pairs, strips, zero = _side_by_side(cols), np.empty((len(rows), W), dy.dtype), dy.dtype.type(0)
    for n in range(N):
        for c in range(C):
            _spread(dy[n, c], strips, rows, cols, pairs)
            written = 0  # Rows above this one have been reached, or have no window.
            for p in range(len(rows)):
                for row in range(written, rows[p, 0]):
                    for s in range(W):
                        dx[n, c, row, s] = zero
                for row in range(rows[p, 0], rows[p, 1]):
                    target, strip = dx[n, c, row], strips[p]
                    if row < written:
                        for s in range(W):
                            target[s] += strip[s]
                    else:
                        for s in range(W):
                            target[s] = strip[s]
                written = max(written, rows[p, 1])
            for row in range(written, H):
                for s in range(W):
                    dx[n, c, row, s] = zero


def spread_columns(dy: Array, strips: Array, rows: Array, cols: Array, pairs: bool) -> None:
    """strips[p, s] = sum of dy[p, q] / (height * width of the window) over the windows q of column s."""
    (OH, OW), W, to_dtype = dy.shape, strips.shape[1], dy.dtype.type
    for p in range(OH):
        source, strip = dy[p], strips[p]
        for s in range(2 * OW if pairs else 0, W):
            strip[s] = to_dtype(0)
        if pairs:
            count = to_dtype(rows[p, 2] * 2)
            for q in range(OW):
                share = source[q] / count
                strip[2 * q] = share
                strip[2 * q + 1] = share
        else:
            for q in range(OW):
                share = source[q] / to_dtype(rows[p, 2] * cols[q, 2])
                for s in range(cols[q, 0], cols[q, 1]):
                    strip[s] += share


def side_by_side(cols: Array) -> bool:
    """Whether window q is just pixels 2q and 2q + 1: then the compiler can do several windows at once."""
    for q in range(len(cols)):
        if cols[q, 0] != 2 * q or cols[q, 1] != 2 * q + 2 or cols[q, 2] != 2:
            return False
    return True


_side_by_side, _spread = jit(side_by_side), jit(spread_columns)


# Pixels that are worth a thread.
MANY = 1 << 18
average_pool_compiled, average_pool_backward_compiled = map(
    jit, (average_pool_rows, average_pool_backward_rows)
)
average_pool_numba = per_image(average_pool_compiled, 2, MANY)
average_pool_backward_numba = per_image(average_pool_backward_compiled, 2, MANY)

# ----------------------------------------------------------------------------------------------- on a GPU


_forward = CudaKernel("average_pooling", "average_pool_forward")
_backward = CudaKernel("average_pooling", "average_pool_backward")


def launch_pooling(
    kernel: CudaKernel, arrays: tuple[Array, ...], picture: Array, owned: Array, rows: Array, cols: Array
) -> None:
    """Launch an entry of kernels/average_pooling.cu on `arrays`, a thread for each element of `owned`.

    Shapes: picture (N, C, H, W): what the bounds rows (OH, 3) and cols (OW, 3) cut.
    """
    planes = owned.shape[0] * owned.shape[1]
    grid, block = grid_of_lines(planes * owned.shape[2], owned.shape[3])
    bounds, sizes = (contiguous(rows), contiguous(cols)), (*picture.shape[2:], len(rows), len(cols))
    kernel.launch(grid, block, *map(contiguous, arrays), *bounds, planes, *sizes)


def average_pool_cuda(x: Array, y: Array, rows: Array, cols: Array) -> None:
    """kernels/average_pooling.cu: one thread adds up one rectangle."""
    launch_pooling(_forward, (x, y), x, y, rows, cols)


def average_pool_backward_cuda(dy: Array, dx: Array, rows: Array, cols: Array) -> None:
    """kernels/average_pooling.cu: one thread gathers what one pixel is part of."""
    launch_pooling(_backward, (dy, dx), dx, dx, rows, cols)


average_pool_forward = Kernel(
    "average_pool_forward",
    outputs=("y",),
    reference=average_pool_reference,
    array=average_pool_array,
    numba=average_pool_numba,
    cuda=average_pool_cuda,
)
average_pool_backward = Kernel(
    "average_pool_backward",
    outputs=("dx",),
    reference=average_pool_backward_reference,
    array=average_pool_backward_array,
    numba=average_pool_backward_numba,
    cuda=average_pool_backward_cuda,
)
