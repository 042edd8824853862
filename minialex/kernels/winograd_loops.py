"""The loops behind winograd_tiles.py that Numba compiles, for a range of pictures.

A picture is first laid out on a sheet (rows, hop, columns/hop, channels): with channels last every step is a
long run over memory, and with the columns sorted by their place in a tile, so is the horizontal step, which
handles one column of all tiles of a row at a time. Half transformed, a row of tiles is a strip.
"""

from __future__ import annotations

import numpy as np

from minialex.backend import Array, jit
from minialex.shapes import Pair


@jit
def _combine(
    out: Array,
    at: int,
    width: int,
    add: bool,
    rows: Array,
    base: int,
    starts: Array,
    weights: Array,
    count: int,
) -> None:
    """out[at:] = (with `add`: +=) the sum of weights[r] * rows[base + starts[r]:] over r < count.

    `width` elements; four rows a pass, then two, then one. Both arrays are flat, and indexes unsigned: a
    slice for each row would cost as much as the row, and so would Python's rule for negative indexes.
    """
    o, n = np.uintp(at), np.uintp(width)
    done = 0
    while done < count:
        w0, r0 = weights[done], np.uintp(base + starts[done])
        fresh = not add and done == 0
        if count - done >= 4:
            w1, r1 = weights[done + 1], np.uintp(base + starts[done + 1])
            w2, r2 = weights[done + 2], np.uintp(base + starts[done + 2])
            w3, r3 = weights[done + 3], np.uintp(base + starts[done + 3])
            if fresh:
                for p in range(n):
                    out[o + p] = w0 * rows[r0 + p] + w1 * rows[r1 + p] + w2 * rows[r2 + p] + w3 * rows[r3 + p]
            else:
                for p in range(n):
                    out[o + p] += (
                        w0 * rows[r0 + p] + w1 * rows[r1 + p] + w2 * rows[r2 + p] + w3 * rows[r3 + p]
                    )
            done += 4
        elif count - done >= 2:
            w1, r1 = weights[done + 1], np.uintp(base + starts[done + 1])
            if fresh:
                for p in range(n):
                    out[o + p] = w0 * rows[r0 + p] + w1 * rows[r1 + p]
            else:
                for p in range(n):
                    out[o + p] += w0 * rows[r0 + p] + w1 * rows[r1 + p]
            done += 2
        else:
            if fresh:
                for p in range(n):
                    out[o + p] = w0 * rows[r0 + p]
            else:
                for p in range(n):
                    out[o + p] += w0 * rows[r0 + p]
            done += 1


@jit
def _nonzero(matrix: Array, i: int, places: Array, weights: Array, starts: Array) -> int:
    """Row i's entries that are not zero, and where the rows that they weigh begin."""
    count = 0
    for k in range(matrix.shape[1]):
        if matrix[i, k] != 0:
            weights[count], starts[count] = matrix[i, k], places[k]
            count += 1
    return count


@jit
def _lay_out(
    x: Array, mask: Array, masked: bool, image: int, sheet: Array, block: int, origin: Pair, channel: int
) -> None:
    """One picture (C, H, W) on the sheet (rows, hop, columns/hop, S*S*C), with zeros around it."""
    H, W = x.shape[2], x.shape[3]
    rows, hop, columns, channels = sheet.shape
    zero = x.dtype.type(0)  # A plain 0 would make the arithmetic float64.
    for r in range(rows):
        if block > 1:
            _lay_out_blocks(x, mask, masked, image, sheet, r, block, origin, channel)
            continue
        on = 0 <= r - origin[0] < H
        for phase in range(hop):
            for q in range(columns):
                col = q * hop + phase - origin[1]
                if not (on and 0 <= col < W):
                    for c in range(channels):
                        sheet[r, phase, q, c] = zero
        if on:
            _lay_out_row(x, mask, masked, image, sheet, r, origin, channel)


@jit
def _lay_out_row(
    x: Array, mask: Array, masked: bool, image: int, sheet: Array, r: int, origin: Pair, channel: int
) -> None:
    """One row of pixels; eight channels of it at a time, so that the cache lines read are still there."""
    _, hop, columns, C = sheet.shape
    row, width = r - origin[0], min(x.shape[3], columns * hop - origin[1])
    zero = x.dtype.type(0)
    for first in range(0, C, 8):
        phase, q = origin[1] % hop, origin[1] // hop
        for col in range(width):
            # Whole eights have a loop of their own: of known length, it becomes a few instructions.
            if first + 8 <= C:
                for c in range(8):
                    value = x[image, channel + first + c, row, col]
                    off = masked and mask[image, channel + first + c, row, col] <= zero
                    sheet[r, phase, q, first + c] = zero if off else value
            else:
                for c in range(first, C):
                    value = x[image, channel + c, row, col]
                    off = masked and mask[image, channel + c, row, col] <= zero
                    sheet[r, phase, q, c] = zero if off else value
            phase += 1
            if phase == hop:
                phase, q = 0, q + 1


@jit
def _lay_out_blocks(
    x: Array,
    mask: Array,
    masked: bool,
    image: int,
    sheet: Array,
    r: int,
    block: int,
    origin: Pair,
    channel: int,
) -> None:
    """One row of blocks: the pixels of a block one after another, as so many channels."""
    H, W = x.shape[2], x.shape[3]
    _, hop, columns, channels = sheet.shape
    zero, flat, pixels = x.dtype.type(0), sheet.reshape(-1), x.reshape(-1)
    one, two, three = np.uintp(1), np.uintp(2), np.uintp(3)
    for first in range(0, channels, block):
        c, row = channel + first // (block * block), r * block + first // block % block - origin[0]
        on = 0 <= row < H
        for phase in range(hop):
            for q in range(columns):
                left = (q * hop + phase) * block - origin[1]
                if block == 4 and on and not masked and left >= 0 and left + 4 <= W:
                    # AlexNet's first layer: without a loop, one load and one store.
                    at = np.uintp(((r * hop + phase) * columns + q) * channels + first)
                    pixel = np.uintp(((image * x.shape[1] + c) * H + row) * W + left)
                    flat[at], flat[at + one] = pixels[pixel], pixels[pixel + one]
                    flat[at + two], flat[at + three] = pixels[pixel + two], pixels[pixel + three]
                    continue
                for b in range(block):
                    keep = on and 0 <= left + b < W
                    keep = keep and not (masked and mask[image, c, row, left + b] <= zero)
                    sheet[r, phase, q, first + b] = x[image, c, row, left + b] if keep else zero


@jit
def _pick_up(
    sheet: Array,
    bias: Array,
    biased: bool,
    relu: bool,
    y: Array,
    image: int,
    block: int,
    origin: Pair,
    channel: int,
) -> None:
    """The picture (C, H, W) from its sheet, with bias and ReLU on the way."""
    H, W = y.shape[2], y.shape[3]
    rows, hop, columns, channels = sheet.shape
    zero, flat = y.dtype.type(0), sheet.reshape(-1)
    # Pixels beyond the last tile are in no product.
    height = min(H, rows * block - origin[0])
    width = min(W, hop * columns * block - origin[1])
    places = np.empty(W, dtype=np.int64)
    for col in range(width):
        w, b = (col + origin[1]) // block, (col + origin[1]) % block
        places[col] = (w % hop * columns + w // hop) * channels + b
    for row in range(H):
        r, a = (row + origin[0]) // block, (row + origin[0]) % block
        reached = width if row < height else 0
        for c in range(channels // (block * block)):
            first = (r * hop * columns) * channels + (c * block + a) * block
            add = bias[c] if biased else zero
            for col in range(reached):
                value = flat[first + places[col]] + add
                y[image, channel + c, row, col] = zero if relu and value < zero else value
            for col in range(reached, W):
                y[image, channel + c, row, col] = zero if relu and add < zero else add


@jit
def tiles_of_range(
    x: Array,
    mask: Array,
    masked: bool,
    matrix: Array,
    tiles: Array,
    sheet: Array,
    strip: Array,
    block: int,
    origin: Pair,
    channel: int,
    start: int,
    stop: int,
) -> None:
    """Pictures start to stop. tiles (n, n, N, TY, TX*channels); strip (n, hop, columns/hop, channels)."""
    n, e = matrix.shape
    _, hop, columns, channels = sheet.shape
    _, _, N, TY, width = tiles.shape
    flat_sheet, flat_strip, flat_tiles = sheet.reshape(-1), strip.reshape(-1), tiles.reshape(-1)
    line = hop * columns * channels
    weights, starts = np.empty(e, dtype=x.dtype), np.empty(e, dtype=np.int64)
    rows, cells = np.empty(e, dtype=np.int64), np.empty(e, dtype=np.int64)
    for k in range(e):
        rows[k], cells[k] = k * line, (k % hop * columns + k // hop) * channels
    never = np.bool_(False)  # For a plain False, Numba would compile another _combine.
    for image in range(start, stop):
        _lay_out(x, mask, masked, image, sheet, block, origin, channel)
        for ty in range(TY):
            for i in range(n):
                count = _nonzero(matrix, i, rows, weights, starts)
                first = ty * hop * line
                _combine(flat_strip, i * line, line, never, flat_sheet, first, starts, weights, count)
            for j in range(n):
                count = _nonzero(matrix, j, cells, weights, starts)
                for i in range(n):
                    at = (((i * n + j) * N + image) * TY + ty) * width
                    _combine(flat_tiles, at, width, never, flat_strip, i * line, starts, weights, count)


@jit
def pictures_of_range(
    tiles: Array,
    matrix: Array,
    bias: Array,
    biased: bool,
    relu: bool,
    y: Array,
    sheet: Array,
    strip: Array,
    block: int,
    origin: Pair,
    channel: int,
    start: int,
    stop: int,
) -> None:
    """Pictures start to stop. tiles (n, n, N, TY, TX*channels); strip (n, hop, columns/hop, channels)."""
    e, n = matrix.shape
    _, hop, columns, channels = sheet.shape
    _, _, N, TY, width = tiles.shape
    flat_sheet, flat_strip, flat_tiles = sheet.reshape(-1), strip.reshape(-1), tiles.reshape(-1)
    line = hop * columns * channels
    weights, starts = np.empty(n, dtype=y.dtype), np.empty(n, dtype=np.int64)
    rows, points = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    for k in range(n):
        rows[k], points[k] = k * line, k * N * TY * width
    begin = np.int64(0)  # For a plain 0, Numba would compile another _combine.
    overlap, zero = e - hop, y.dtype.type(0)  # Of a tile with the next one.
    for image in range(start, stop):
        for ty in range(TY):
            for k in range(n * hop):  # Where only the overlap of a tile to the left adds.
                for p in range((k * columns) * channels + width, (k + 1) * columns * channels):
                    flat_strip[p] = zero
            for j in range(e):
                count = _nonzero(matrix, j, points, weights, starts)
                cell = (j % hop * columns + j // hop) * channels
                for k in range(n):
                    first = (k * n * N + image) * TY * width + ty * width
                    at = k * line + cell
                    _combine(flat_strip, at, width, j >= hop, flat_tiles, first, starts, weights, count)
            for i in range(e):
                count = _nonzero(matrix, i, rows, weights, starts)
                at, add = (ty * hop + i) * line, ty > 0 and i < overlap
                _combine(flat_sheet, at, line, add, flat_strip, begin, starts, weights, count)
        _pick_up(sheet, bias, biased, relu, y, image, block, origin, channel)
