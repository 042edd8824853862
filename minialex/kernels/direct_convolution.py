"""Convolution of small pictures with few channels, straight from the pixels: no column matrix.

At stride 1 a window that moves by one output moves by one pixel, so a whole picture can be done as one long
row. Each padded picture is laid into a plane of WP = OW + (KW-1)*DW pixels a row; output (p, q) is then
element t = p*WP + q of

    sum over c, i, j of weight[f, c, i, j] * plane[c][t + i*DH*WP + j*DW]

and every tap of a filter is a multiply and add over one long stretch, which the compiler does eight pixels at
a time; the five taps of a row (KW = 5) are taken at once. The (KW-1)*DW elements between one output row and
the next are worked out for nothing. Two filters are done together, so that pixels are loaded once for both.

Two habits of Numba shape the code. Indices in inner loops are unsigned: a signed one may be negative, so each
is looked at before it is used, and the loop is not vectorised. And arrays are passed whole, with offsets: a
slice counts its references with locked instructions, which took a fifth of the time.
"""

from __future__ import annotations

import numpy as np

from minialex.backend import Array, for_ranges, jit, scratch
from minialex.shapes import Padding, Pair

__all__ = [
    "WEIGHT_PARTS",
    "backward_input",
    "backward_scratch",
    "backward_weight",
    "conv2d_backward_direct",
    "conv2d_direct",
    "direct_is_better",
    "direct_scratch",
    "forward_direct",
    "images_worth_a_thread",
    "partial_gradients",
    "parts_worth_a_thread",
    "sum_pixels",
    "turned",
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
    y: Array,
    y0: int,
    y1: int,
    pixels: Array,
    at: int,
    taps: Array,
    a: int,
    b: int,
    count: int,
    T: int,
    moves: Pair,
) -> None:
    """y[y0 + t] += sum over i < count, j < 5 of taps[a + 5*i + j] * pixels[at + i*moves[0] + j*moves[1] + t],
    and y[y1 + t] with taps[b + ...], for t < T. All arrays are one-dimensional."""
    u0, u1, length, right = np.uint64(y0), np.uint64(y1), np.uint64(T), np.uint64(moves[1])
    for i in range(count):
        p0, v, w = np.uint64(at + i * moves[0]), a + 5 * i, b + 5 * i
        p1, p2 = p0 + right, p0 + right + right
        p3, p4 = p2 + right, p2 + right + right
        a0, a1, a2, a3, a4 = taps[v], taps[v + 1], taps[v + 2], taps[v + 3], taps[v + 4]
        b0, b1, b2, b3, b4 = taps[w], taps[w + 1], taps[w + 2], taps[w + 3], taps[w + 4]
        for t in range(length):
            x0, x1, x2 = pixels[p0 + t], pixels[p1 + t], pixels[p2 + t]
            x3, x4 = pixels[p3 + t], pixels[p4 + t]
            y[u0 + t] = y[u0 + t] + a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3 + a4 * x4
            y[u1 + t] = y[u1 + t] + b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3 + b4 * x4


def _add_dots(
    d: Array,
    d0: int,
    d1: int,
    pixels: Array,
    at: int,
    dtaps: Array,
    a: int,
    b: int,
    count: int,
    T: int,
    moves: Pair,
) -> None:
    """dtaps[a + 5*i + j] += sum over t < T of d[d0 + t] * pixels[at + i*moves[0] + j*moves[1] + t], and
    dtaps[b + ...] with d[d1 + t]; as above."""
    u0, u1, length, right = np.uint64(d0), np.uint64(d1), np.uint64(T), np.uint64(moves[1])
    zero = d.dtype.type(0)
    for i in range(count):
        p0 = np.uint64(at + i * moves[0])
        p1, p2 = p0 + right, p0 + right + right
        p3, p4 = p2 + right, p2 + right + right
        a0 = a1 = a2 = a3 = a4 = b0 = b1 = b2 = b3 = b4 = zero
        for t in range(length):
            x0, x1, x2 = pixels[p0 + t], pixels[p1 + t], pixels[p2 + t]
            x3, x4, v, w = pixels[p3 + t], pixels[p4 + t], d[u0 + t], d[u1 + t]
            a0, a1, a2, a3, a4 = a0 + v * x0, a1 + v * x1, a2 + v * x2, a3 + v * x3, a4 + v * x4
            b0, b1, b2, b3, b4 = b0 + w * x0, b1 + w * x1, b2 + w * x2, b3 + w * x3, b4 + w * x4
        for j, (v, w) in enumerate(((a0, b0), (a1, b1), (a2, b2), (a3, b3), (a4, b4))):
            dtaps[a + 5 * i + j] += v
            dtaps[b + 5 * i + j] += w


def _copy_rows(
    source: Array, first: int, target: Array, to: int, count: int, width: int, pitches: Pair
) -> None:
    """`count` rows of `width` pixels, pitches[0] apart in `source`, to rows pitches[1] apart in `target`."""
    for r in range(count):
        a, b = np.uint64(first + r * pitches[0]), np.uint64(to + r * pitches[1])
        for s in range(np.uint64(width)):
            target[b + s] = source[a + s]


def _fill_with(values: Array, start: int, stop: int, value: float) -> None:
    for i in range(np.uint64(start), np.uint64(stop)):
        values[i] = value


def _sum_images(dy: Array, dbias: Array) -> None:
    """dbias[f] = sum over n, p, q of dy[n, f, p, q]."""
    N, F, OH, OW = dy.shape
    rows = dy.reshape(N, F, OH * OW)
    _fill(dbias, 0, F, 0)
    for n in range(N):
        for f in range(F):
            total = dy.dtype.type(0)
            for t in range(OH * OW):
                total += rows[n, f, t]
            dbias[f] += total


# "reassoc": a sum over pixels in as many lanes as the processor has. The order is the same in every run.
_taps = jit(_add_taps, fastmath=("contract",))
_dots = jit(_add_dots, fastmath=("contract", "reassoc"))
sum_pixels = jit(_sum_images, fastmath=("reassoc",))
_copy, _fill = jit(_copy_rows), jit(_fill_with)


# -------------------------------------------------------------------------------- a thread's images


def _forward_images(
    x: Array, weight: Array, bias: Array, y: Array, plane: Array, sums: Array, corner: Pair, dilation: Pair
) -> None:
    """y of some images. Scratch: plane (C, HP, WP) and sums (F + 1, HP * WP), the last for no filter."""
    (N, C, H, W), (F, CG, KH, KW), (_, HP, WP) = x.shape, weight.shape, plane.shape
    FG, OH, OW, area, origin = F * CG // C, y.shape[2], y.shape[3], HP * WP, corner[0] * WP + corner[1]
    T, moves, window = OH * WP - WP + OW, (dilation[0] * WP, dilation[1]), KH * KW
    xs, ys, pixels, totals, taps = x.ravel(), y.ravel(), plane.ravel(), sums.ravel(), weight.ravel()
    _fill(pixels, 0, C * area, 0)
    for n in range(N):
        for c in range(C):
            _copy(xs, (n * C + c) * H * W, pixels, c * area + origin, H, W, (W, WP))
        for f in range(F):
            _fill(totals, f * area, f * area + T, bias[f])
        for f in range(F):
            if f % FG % 2 == 0:
                both, first = f % FG + 1 < FG, f // FG * CG
                y0, y1 = f * area, (f + 1 if both else F) * area
                for c in range(CG):
                    a = (f * CG + c) * window
                    b = a + CG * window if both else a
                    _taps(totals, y0, y1, pixels, (first + c) * area, taps, a, b, KH, T, moves)
        for f in range(F):
            _copy(totals, f * area, ys, (n * F + f) * OH * OW, OH, OW, (WP, OW))


def _backward_input_images(
    dy: Array, taps: Array, dx: Array, plane: Array, rows: Array, corner: Pair, dilation: Pair
) -> None:
    """dx of some images, from taps[c, i, f, j] = weight[f, c, i, KW-1-j].

    Scratch: plane (C + 1, HP, WP), the last for no channel; rows (F, gap + OH * WP), gap = (KW-1)*DW, hold dy
    with zeros before and between its rows: no tap reaches from one row into the next. Element u of the plane
    from row i*DH on gets the sum over f and j of weight[f, c, i, j] * dy[f, u - j*DW].
    """
    (N, C, H, W), (CG, KH, F, KW), (_, HP, WP) = dx.shape, taps.shape, plane.shape
    FG, OH, OW, area, origin = F * CG // C, dy.shape[2], dy.shape[3], HP * WP, corner[0] * WP + corner[1]
    pitch, gap, down = rows.shape[1], (KW - 1) * dilation[1], dilation[0] * WP
    totals, pixels, flat, dxs, dys = plane.ravel(), rows.ravel(), taps.ravel(), dx.ravel(), dy.ravel()
    _fill(pixels, 0, F * pitch, 0)
    for n in range(N):
        _fill(totals, 0, C * area, 0)
        for f in range(F):
            _copy(dys, (n * F + f) * OH * OW, pixels, f * pitch + gap, OH, OW, (OW, WP))
        for c in range(C):
            if c % CG % 2 == 0:
                both, first = c % CG + 1 < CG, c // CG * FG
                for i in range(KH):
                    d0, d1 = c * area + i * down, (c + 1 if both else C) * area + i * down
                    a = ((c % CG * KH + i) * F + first) * KW
                    b = a + KH * F * KW if both else a
                    moves = (pitch, dilation[1])
                    _taps(totals, d0, d1, pixels, first * pitch, flat, a, b, FG, OH * WP, moves)
        for c in range(C):
            _copy(totals, c * area + origin, dxs, (n * C + c) * H * W, H, W, (WP, W))


def _backward_weight_images(
    dy: Array, x: Array, dweight: Array, plane: Array, rows: Array, corner: Pair, dilation: Pair
) -> None:
    """dweight (F + 1, CG, KH, KW) of some images; its last filter is none, and holds what nobody wants.

    Scratch: plane (C, HP, WP); rows (F, OH * WP or more), which hold dy with zeros between its rows.
    """
    (N, C, H, W), (_, CG, KH, KW), (_, HP, WP), F = x.shape, dweight.shape, plane.shape, dy.shape[1]
    FG, OH, OW, area, origin = F * CG // C, dy.shape[2], dy.shape[3], HP * WP, corner[0] * WP + corner[1]
    T, moves, window = OH * WP - WP + OW, (dilation[0] * WP, dilation[1]), KH * KW
    pitch, none = rows.shape[1], F * CG * window
    xs, dys, pixels, d, dtaps = x.ravel(), dy.ravel(), plane.ravel(), rows.ravel(), dweight.ravel()
    _fill(dtaps, 0, none + CG * window, 0)
    _fill(pixels, 0, C * area, 0)
    _fill(d, 0, F * pitch, 0)
    for n in range(N):
        for c in range(C):
            _copy(xs, (n * C + c) * H * W, pixels, c * area + origin, H, W, (W, WP))
        for f in range(F):
            _copy(dys, (n * F + f) * OH * OW, d, f * pitch, OH, OW, (OW, WP))
        for f in range(F):
            if f % FG % 2 == 0:
                both, first = f % FG + 1 < FG, f // FG * CG
                d0, d1 = f * pitch, (f + 1 if both else f) * pitch
                for c in range(CG):
                    a = (f * CG + c) * window
                    b = a + CG * window if both else none
                    _dots(d, d0, d1, pixels, (first + c) * area, dtaps, a, b, KH, T, moves)


forward_direct, backward_input, backward_weight = map(
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
    corner = (padding[0][0], padding[1][0])
    biases = np.zeros(len(weight), dtype=x.dtype) if bias is None else bias

    def work(start: int, stop: int) -> None:
        plane, sums = direct_scratch(x, weight, y, dilation)
        part = y[start:stop]
        forward_direct(x[start:stop], weight, biases, part, plane, sums, corner, dilation)
        if relu:
            np.maximum(part, 0, out=part)

    for_ranges(len(x), work, images_worth_a_thread(weight.shape, y.shape))


def direct_scratch(x: Array, weight: Array, y: Array, dilation: Pair) -> tuple[Array, Array]:
    """The calling thread's plane and sums for `forward_direct`. Args: x, weight, y: as conv2d_direct."""
    HP, WP = _plane_size(weight.shape, y.shape, dilation)
    plane = scratch("plane", (x.shape[1], HP, WP), x.dtype)
    return plane, scratch("sums", (len(weight) + 1, HP * WP), x.dtype)


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

    (N, F), parts = dy.shape[:2], max(1, min(len(dy), WEIGHT_PARTS))
    filters: Array = dweight if weight is None else weight
    shape, corner, C = filters.shape, (padding[0][0], padding[1][0]), filters.shape[1] * groups
    dweights, dbiases = partial_gradients(filters, parts)
    taps = turned(filters)

    def work(first: int, last: int) -> None:
        plane, rows = backward_scratch(C, shape, dy, dilation)
        for part in range(first, last):
            images = slice(N * part // parts, N * (part + 1) // parts)
            d = dy[images] if mask is None else np.where(mask[images] <= 0, dy.dtype.type(0), dy[images])
            if dx is not None:
                backward_input(d, taps, dx[images], plane, rows, corner, dilation)
            if dweight is not None and x is not None:
                backward_weight(d, x[images], dweights[part], plane[:C], rows, corner, dilation)
            if dbias is not None:
                sum_pixels(d, dbiases[part])

    for_ranges(parts, work, parts_worth_a_thread(shape, dy.shape, parts))
    for total, partial in ((dweight, dweights[:, :F]), (dbias, dbiases)):
        if total is not None:
            total[...] = partial.sum(axis=0)


def backward_scratch(C: int, weight_shape: tuple[int, ...], dy: Array, dilation: Pair) -> tuple[Array, Array]:
    """The calling thread's plane and rows for `backward_input` and `backward_weight`."""
    HP, WP = _plane_size(weight_shape, dy.shape, dilation)
    plane = scratch("plane", (C + 1, HP, WP), dy.dtype)
    return plane, scratch("rows", (dy.shape[1], WP - dy.shape[3] + dy.shape[2] * WP), dy.dtype)


def partial_gradients(weight: Array, parts: int) -> tuple[Array, Array]:
    """What each part of the batch adds to dweight, with one filter that is none, and to dbias."""
    F = len(weight)
    dweights = np.empty((parts, F + 1, *weight.shape[1:]), dtype=weight.dtype)
    return dweights, np.empty((parts, F), dtype=weight.dtype)


def turned(weight: Array) -> Array:
    """The taps for `backward_input`."""
    return np.ascontiguousarray(weight[..., ::-1].transpose(1, 2, 0, 3))


def parts_worth_a_thread(weight_shape: tuple[int, ...], y_shape: tuple[int, ...], parts: int) -> int:
    """How many of so many parts of the batch are worth a thread."""
    return -(-images_worth_a_thread(weight_shape, y_shape) * parts // max(1, y_shape[0]))


def _plane_size(weight_shape: tuple[int, ...], y_shape: tuple[int, ...], dilation: Pair) -> Pair:
    """(HP, WP): the rows and columns of pixels that some window sees."""
    KH, KW = weight_shape[2:]
    return y_shape[2] + (KH - 1) * dilation[0], y_shape[3] + (KW - 1) * dilation[1]


def images_worth_a_thread(weight_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> int:
    """How many images are worth a thread."""
    _, CG, KH, KW = weight_shape
    return -(-WORTH_A_THREAD // max(1, 2 * CG * KH * KW * y_shape[1] * y_shape[2] * y_shape[3]))
