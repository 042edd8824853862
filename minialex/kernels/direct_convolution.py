"""Convolution of small pictures with few channels, straight from the pixels: no column matrix.

At stride 1 a window that moves by one output moves by one pixel, so a whole picture can be done as one long
row. Each padded picture is laid into a plane of WP = OW + (KW-1)*DW pixels a row; output (p, q) is then element
t = p*WP + q of

    sum over c, i, j of weight[f, c, i, j] * plane[c][t + i*DH*WP + j*DW]

and every tap of a filter is a multiply and add over one long stretch, which the compiler does eight pixels at a
time; the five taps of a row (KW = 5) are taken at once. The (KW-1)*DW elements between one output row and the next are worked out for nothing. Two filters are
done together, so that pixels are loaded once for both.

Indices are unsigned: a signed one may be negative, and Numba then looks at each before it is used, which
keeps the loop from being vectorised.
"""

from __future__ import annotations

import numpy as np

from minialex.backend import Array, for_ranges, jit, scratch
from minialex.shapes import Padding, Pair

__all__ = [
    "conv2d_backward_direct",
    "conv2d_direct",
    "direct_is_better",
]

# Into how many parts the batch is cut for the weights' gradient; the parts are summed in their order.
WEIGHT_PARTS = 8
# Multiplications and additions that are worth a thread.
WORTH_A_THREAD = 2_000_000


def direct_is_better(weight_shape: tuple[int, ...], y_shape: tuple[int, ...], stride: Pair) -> bool:
    """Whether the functions below beat matrix products of columns for a convolution of these shapes.

    They can do filters five wide at stride 1. Measured, they are twice as fast while the picture is small and
    the channels are few: a product is then too small for BLAS, and columns are all copying.
    """
    F, CG, _, KW = weight_shape
    return stride == (1, 1) and KW == 5 and CG * F <= 128 and y_shape[2] * y_shape[3] <= 48 * 48


# --------------------------------------------------------------------------------------- the inner loops


def _add_taps(
    y0: Array, y1: Array, pixels: Array, taps0: Array, taps1: Array, T: int, under: int, right: int
) -> None:
    """y0[t] += sum over i and j of taps0[i, j] * pixels[i*under + j*right + t] for t < T, y1 alike.

    Shapes: y0, y1, pixels: one-dimensional; taps0, taps1 (I, 5). The whole numbers are unsigned.
    """
    for i in range(np.uint64(len(taps0))):
        p0 = i * under
        p1, p2 = p0 + right, p0 + right + right
        p3, p4 = p2 + right, p2 + right + right
        a0, a1, a2, a3, a4 = taps0[i, 0], taps0[i, 1], taps0[i, 2], taps0[i, 3], taps0[i, 4]
        b0, b1, b2, b3, b4 = taps1[i, 0], taps1[i, 1], taps1[i, 2], taps1[i, 3], taps1[i, 4]
        for t in range(T):
            x0, x1, x2 = pixels[p0 + t], pixels[p1 + t], pixels[p2 + t]
            x3, x4 = pixels[p3 + t], pixels[p4 + t]
            y0[t] = y0[t] + a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3 + a4 * x4
            y1[t] = y1[t] + b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3 + b4 * x4


def _add_dots(
    d0: Array, d1: Array, pixels: Array, dtaps0: Array, dtaps1: Array, T: int, under: int, right: int
) -> None:
    """dtaps0[i, j] += sum over t < T of d0[t] * pixels[i*under + j*right + t], dtaps1 alike; as above."""
    zero = d0.dtype.type(0)
    for i in range(np.uint64(len(dtaps0))):
        p0 = i * under
        p1, p2 = p0 + right, p0 + right + right
        p3, p4 = p2 + right, p2 + right + right
        a0 = a1 = a2 = a3 = a4 = b0 = b1 = b2 = b3 = b4 = zero
        for t in range(T):
            x0, x1, x2 = pixels[p0 + t], pixels[p1 + t], pixels[p2 + t]
            x3, x4, a, b = pixels[p3 + t], pixels[p4 + t], d0[t], d1[t]
            a0, a1, a2, a3, a4 = a0 + a * x0, a1 + a * x1, a2 + a * x2, a3 + a * x3, a4 + a * x4
            b0, b1, b2, b3, b4 = b0 + b * x0, b1 + b * x1, b2 + b * x2, b3 + b * x3, b4 + b * x4
        for j, (a, b) in enumerate(((a0, b0), (a1, b1), (a2, b2), (a3, b3), (a4, b4))):
            dtaps0[i, j] += a
            dtaps1[i, j] += b


def _copy_rows(source: Array, target: Array, count: int, width: int, pitches: Pair) -> None:
    """`count` rows of `width` pixels, pitches[0] apart in `source`, to rows pitches[1] apart in `target`."""
    for r in range(count):
        a, b = np.uint64(r * pitches[0]), np.uint64(r * pitches[1])
        for s in range(np.uint64(width)):
            target[b + s] = source[a + s]


def _fill_with(values: Array, value: float) -> None:
    for i in range(len(values)):
        values[i] = value


def _sum_images(dy: Array, dbias: Array) -> None:
    """dbias[f] = sum over n, p, q of dy[n, f, p, q]."""
    N, F, OH, OW = dy.shape
    rows = dy.reshape(N, F, OH * OW)
    _fill(dbias, 0)
    for n in range(N):
        for f in range(F):
            total = dy.dtype.type(0)
            for t in range(OH * OW):
                total += rows[n, f, t]
            dbias[f] += total


# "reassoc": a sum over pixels in as many lanes as the processor has. The order is the same in every run.
_taps = jit(_add_taps, fastmath=("contract",))
_dots = jit(_add_dots, fastmath=("contract", "reassoc"))
_sum_pixels = jit(_sum_images, fastmath=("reassoc",))
_copy, _fill = jit(_copy_rows), jit(_fill_with)


# -------------------------------------------------------------------------------- a thread's images


def _forward_images(
    x: Array, weight: Array, bias: Array, y: Array, plane: Array, sums: Array, corner: Pair, dilation: Pair
) -> None:
    """y of some images. Scratch: plane (C, HP, WP) and sums (F + 1, HP * WP), the last for no filter."""
    (N, C, H, W), (F, CG, _, _), (_, HP, WP) = x.shape, weight.shape, plane.shape
    FG, OH, OW, area, origin = F * CG // C, y.shape[2], y.shape[3], HP * WP, corner[0] * WP + corner[1]
    T, pixels = np.uint64(OH * WP - WP + OW), plane.reshape(-1)
    under, right = np.uint64(dilation[0] * WP), np.uint64(dilation[1])
    xs, ys = x.reshape(-1), y.reshape(-1)
    _fill(pixels, 0)
    for n in range(N):
        for c in range(C):
            _copy(xs[(n * C + c) * H * W :], pixels[c * area + origin :], H, W, (W, WP))
        for f in range(F):
            _fill(sums[f, :T], bias[f])
        for f in range(F):
            if f % FG % 2 == 0:
                both, first = f % FG + 1 < FG, f // FG * CG
                y0, y1, g = sums[f], sums[f + 1 if both else F], f + 1 if both else f
                for c in range(CG):
                    channel = pixels[(first + c) * area :]
                    _taps(y0, y1, channel, weight[f, c], weight[g, c], T, under, right)
        for f in range(F):
            _copy(sums[f], ys[(n * F + f) * OH * OW :], OH, OW, (WP, OW))


def _backward_input_images(
    dy: Array, taps: Array, dx: Array, plane: Array, rows: Array, corner: Pair, dilation: Pair
) -> None:
    """dx of some images, from taps[c, i, f, j] = weight[f, c, i, KW-1-j].

    Scratch: plane (C + 1, HP, WP), the last for no channel; rows (F, gap + OH * WP), gap = (KW-1)*DW, hold dy with
    zeros before and between its rows: no tap reaches from one row into the next. Element u of the stretch of
    the plane that begins i*DH rows down gets the sum over f and j of weight[f, c, i, j] * dy[f, u - j*DW].
    """
    (N, C, H, W), (CG, KH, F, KW), (_, HP, WP) = dx.shape, taps.shape, plane.shape
    FG, OH, OW, area, origin = F * CG // C, dy.shape[2], dy.shape[3], HP * WP, corner[0] * WP + corner[1]
    T, pitch, right = np.uint64(OH * WP), np.uint64(rows.shape[1]), np.uint64(dilation[1])
    gap, totals, dxs, dys = (KW - 1) * dilation[1], plane.reshape(-1), dx.reshape(-1), dy.reshape(-1)
    _fill(rows.reshape(-1), 0)
    for n in range(N):
        _fill(totals, 0)
        for f in range(F):
            _copy(dys[(n * F + f) * OH * OW :], rows[f, gap:], OH, OW, (OW, WP))
        for c in range(C):
            if c % CG % 2 == 0:
                both, first = c % CG + 1 < CG, c // CG * FG
                for i in range(KH):
                    d0 = totals[c * area + i * dilation[0] * WP :]
                    d1 = totals[(c + 1 if both else C) * area + i * dilation[0] * WP :]
                    taps0 = taps[c % CG, i, first : first + FG]
                    taps1 = taps[c % CG + 1, i, first : first + FG] if both else taps0
                    _taps(d0, d1, rows[first:].reshape(-1), taps0, taps1, T, pitch, right)
        for c in range(C):
            _copy(totals[c * area + origin :], dxs[(n * C + c) * H * W :], H, W, (WP, W))


def _backward_weight_images(
    dy: Array, x: Array, dweight: Array, plane: Array, rows: Array, corner: Pair, dilation: Pair
) -> None:
    """dweight of some images. Scratch: plane (C, HP, WP); rows (F, OH * WP or more): dy, zeros between its rows."""
    (N, C, H, W), (F, CG, _, _), (_, HP, WP) = x.shape, dweight.shape, plane.shape
    FG, OH, OW, area, origin = F * CG // C, dy.shape[2], dy.shape[3], HP * WP, corner[0] * WP + corner[1]
    T, pixels, spare = np.uint64(OH * WP - WP + OW), plane.reshape(-1), np.empty_like(dweight[0, 0])
    under, right = np.uint64(dilation[0] * WP), np.uint64(dilation[1])
    xs, dys = x.reshape(-1), dy.reshape(-1)
    _fill(dweight.reshape(-1), 0)
    _fill(pixels, 0)
    _fill(rows.reshape(-1), 0)
    for n in range(N):
        for c in range(C):
            _copy(xs[(n * C + c) * H * W :], pixels[c * area + origin :], H, W, (W, WP))
        for f in range(F):
            _copy(dys[(n * F + f) * OH * OW :], rows[f], OH, OW, (OW, WP))
        for f in range(F):
            if f % FG % 2 == 0:
                both, first = f % FG + 1 < FG, f // FG * CG
                d1 = rows[f + 1 if both else f]
                for c in range(CG):
                    second = dweight[f + 1, c] if both else spare
                    channel = pixels[(first + c) * area :]
                    _dots(rows[f], d1, channel, dweight[f, c], second, T, under, right)


_forward, _backward_input, _backward_weight = map(
    jit, (_forward_images, _backward_input_images, _backward_weight_images)
)


# ------------------------------------------------------------------------------- as in convolution.py


def conv2d_direct(
    x: Array,
    weight: Array,
    bias: Array | None,
    y: Array,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    relu: bool,
) -> None:
    """As conv2d_reference, for stride (1, 1) and KW = 5 only."""
    (F, C), (HP, WP) = (len(weight), x.shape[1]), _plane_size(weight.shape, y.shape, dilation)
    corner = (padding[0][0], padding[1][0])
    biases = np.zeros(F, dtype=x.dtype) if bias is None else bias

    def work(start: int, stop: int) -> None:
        plane, sums = scratch("plane", (C, HP, WP), x.dtype), scratch("sums", (F + 1, HP * WP), x.dtype)
        part = y[start:stop]
        _forward(x[start:stop], weight, biases, part, plane, sums, corner, dilation)
        if relu:
            np.maximum(part, 0, out=part)

    for_ranges(len(x), work, _worth_a_thread(weight.shape, y.shape))


def conv2d_backward_direct(
    dy: Array,
    x: Array | None,
    weight: Array | None,
    mask: Array | None,
    dx: Array | None,
    dweight: Array | None,
    dbias: Array | None,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> None:
    """As conv2d_backward_reference, for stride (1, 1) and KW = 5 only.

    The parts of the batch are the same for any number of threads, and so are the bits of their sums.
    """
    (N, F), shape = dy.shape[:2], (dweight if weight is None else weight).shape
    corner, (HP, WP) = (padding[0][0], padding[1][0]), _plane_size(shape, dy.shape, dilation)
    C, row, parts = shape[1] * groups, WP - dy.shape[3] + dy.shape[2] * WP, max(1, min(N, WEIGHT_PARTS))
    dweights, dbiases = np.empty((parts, *shape), dtype=dy.dtype), np.empty((parts, F), dtype=dy.dtype)
    taps = None if dx is None else np.ascontiguousarray(weight[..., ::-1].transpose(1, 2, 0, 3))

    def work(first: int, last: int) -> None:
        plane, rows = scratch("plane", (C + 1, HP, WP), dy.dtype), scratch("rows", (F, row), dy.dtype)
        for part in range(first, last):
            images = slice(N * part // parts, N * (part + 1) // parts)
            d = dy[images] if mask is None else np.where(mask[images] > 0, dy[images], dy.dtype.type(0))
            if dx is not None:
                _backward_input(d, taps, dx[images], plane, rows, corner, dilation)
            if dweight is not None:
                _backward_weight(d, x[images], dweights[part], plane[:C], rows, corner, dilation)
            if dbias is not None:
                _sum_pixels(d, dbiases[part])

    for_ranges(parts, work, -(-_worth_a_thread(shape, dy.shape) * parts // max(1, N)))
    for total, partial in ((dweight, dweights), (dbias, dbiases)):
        if total is not None:
            total[...] = partial.sum(axis=0) if N else 0


def _plane_size(weight_shape: tuple[int, ...], y_shape: tuple[int, ...], dilation: Pair) -> Pair:
    """(HP, WP): the rows and columns of pixels that some window sees."""
    KH, KW = weight_shape[2:]
    return y_shape[2] + (KH - 1) * dilation[0], y_shape[3] + (KW - 1) * dilation[1]


def _worth_a_thread(weight_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> int:
    """How many images are worth a thread."""
    _, CG, KH, KW = weight_shape
    return -(-WORTH_A_THREAD // max(1, 2 * CG * KH * KW * y_shape[1] * y_shape[2] * y_shape[3]))
