"""Average pooling over the rectangles that bounds describe: windows of one size, or adaptive bins.

The bounds of one axis are a tuple of (start, stop, divisor): pixels start .. stop - 1 are summed, and the
window counts as `divisor` pixels long (more than stop - start where padding is counted).
"""

from __future__ import annotations

from typing import TypeAlias

from minialex.backend import Array, Kernel, array_module, jit, per_image
from minialex.shapes import Pair

Bounds: TypeAlias = tuple[tuple[int, int, int], ...]


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


average_pool_forward = Kernel(
    "average_pool_forward",
    outputs=("y",),
    reference=average_pool_reference,
    array=average_pool_array,
    numba=per_image(jit(average_pool_reference), arrays=2),
)
average_pool_backward = Kernel(
    "average_pool_backward",
    outputs=("dx",),
    reference=average_pool_backward_reference,
    array=average_pool_backward_array,
    numba=per_image(jit(average_pool_backward_reference), arrays=2),
)
