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
def _combine(out: Array, add: bool, weights: Array, rows: Array, starts: Array, count: int) -> None:
    """out = (with `add`: +=) the sum of weights[r] * rows[starts[r]:] over r < count, four rows a pass."""
    width = out.size
    done = 0
    while count - done >= 4:
        w0, w1, w2, w3 = weights[done], weights[done + 1], weights[done + 2], weights[done + 3]
        row0 = rows[starts[done] : starts[done] + width]
        row1 = rows[starts[done + 1] : starts[done + 1] + width]
        row2 = rows[starts[done + 2] : starts[done + 2] + width]
        row3 = rows[starts[done + 3] : starts[done + 3] + width]
        if add or done > 0:
            for p in range(width):
                out[p] += w0 * row0[p] + w1 * row1[p] + w2 * row2[p] + w3 * row3[p]
        else:
            for p in range(width):
                out[p] = w0 * row0[p] + w1 * row1[p] + w2 * row2[p] + w3 * row3[p]
        done += 4
    for r in range(done, count):
        w0, row0 = weights[r], rows[starts[r] : starts[r] + width]
        if add or r > 0:
            for p in range(width):
                out[p] += w0 * row0[p]
        else:
            for p in range(width):
                out[p] = w0 * row0[p]


@jit
def _nonzero(row: Array, stride: int, weights: Array, starts: Array) -> int:
    """The entries of a matrix row that are not zero, and where the rows that they weigh begin."""
    count = 0
    for k in range(row.size):
        if row[k] != 0:
            weights[count], starts[count] = row[k], k * stride
            count += 1
    return count


@jit
def _lay_out(
    x: Array, mask: Array, masked: bool, sheet: Array, block: int, origin: Pair, channel: int
) -> None:
    """One picture (C, H, W) on the sheet (rows, hop, columns/hop, S*S*C), with zeros around it."""
    _, H, W = x.shape
    rows, hop, _, _ = sheet.shape
    for r in range(rows):
        if block == 1 and 0 <= r - origin[0] < H:
            sheet[r, :, : max(0, origin[1]) // hop + 1] = 0
            sheet[r, :, (W + origin[1]) // hop :] = 0
            _lay_out_row(x, mask, masked, sheet[r], r - origin[0], origin[1], channel)
        elif block == 1:
            sheet[r] = 0
        else:
            _lay_out_blocks(x, mask, masked, sheet[r], r, block, origin, channel)


@jit
def _lay_out_row(x: Array, mask: Array, masked: bool, line: Array, row: int, left: int, channel: int) -> None:
    """One row of pixels; eight channels of it at a time, so that the cache lines read are still there."""
    hop, _, C = line.shape
    W = min(x.shape[2], line.shape[1] * hop - left)
    zero = x.dtype.type(0)  # A plain 0 would make the arithmetic float64.
    for first in range(0, C, 8):
        phase, q = left % hop, left // hop
        for col in range(W):
            # Whole eights have a loop of their own: of known length, it becomes a few instructions.
            if first + 8 <= C:
                for c in range(8):
                    value = x[channel + first + c, row, col]
                    off = masked and not mask[channel + first + c, row, col] > zero
                    line[phase, q, first + c] = zero if off else value
            else:
                for c in range(first, C):
                    value = x[channel + c, row, col]
                    off = masked and not mask[channel + c, row, col] > zero
                    line[phase, q, c] = zero if off else value
            phase += 1
            if phase == hop:
                phase, q = 0, q + 1


@jit
def _lay_out_blocks(
    x: Array, mask: Array, masked: bool, line: Array, r: int, block: int, origin: Pair, channel: int
) -> None:
    """One row of blocks: the pixels of a block one after another, as so many channels."""
    _, H, W = x.shape
    hop, columns, channels = line.shape
    zero = x.dtype.type(0)
    for c in range(channel, channel + channels // (block * block)):
        for a in range(block):
            row, first = r * block + a - origin[0], ((c - channel) * block + a) * block
            row_on = 0 <= row < H
            for phase in range(hop):
                for q in range(columns):
                    left = (q * hop + phase) * block - origin[1]
                    if row_on and not masked and left >= 0 and left + block <= W:
                        for b in range(block):
                            line[phase, q, first + b] = x[c, row, left + b]
                        continue
                    for b in range(block):
                        on = row_on and 0 <= left + b < W
                        on = on and (not masked or mask[c, row, left + b] > zero)
                        line[phase, q, first + b] = x[c, row, left + b] if on else zero


@jit
def _pick_up(
    sheet: Array, bias: Array, biased: bool, relu: bool, y: Array, block: int, origin: Pair, channel: int
) -> None:
    """The picture (C, H, W) from its sheet, with bias and ReLU on the way."""
    _, H, W = y.shape
    rows, hop, columns, channels = sheet.shape
    C = channels // (block * block)
    zero = y.dtype.type(0)  # A plain 0 would make the arithmetic float64.
    # Pixels beyond the last tile are in no product.
    height = min(H, rows * block - origin[0])
    width = min(W, hop * columns * block - origin[1])
    places = np.empty(width, dtype=np.int64)
    for col in range(width):
        w, b = (col + origin[1]) // block, (col + origin[1]) % block
        places[col] = (w % hop * columns + w // hop) * channels + b
    for row in range(H):
        r, a = min((row + origin[0]) // block, rows - 1), (row + origin[0]) % block
        line = sheet[r].reshape(-1)
        for c in range(C):
            target, source = y[channel + c, row], line[(c * block + a) * block :]
            add = bias[c] if biased else zero
            reached = width if row < height else 0
            for col in range(reached):
                target[col] = source[places[col]] + add
            for col in range(reached, W):
                target[col] = add
            if relu:
                for col in range(W):
                    target[col] = zero if target[col] < zero else target[col]


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
    """Pictures start to stop. tiles (n, n, N, TY, TX*channels); strip (n, hop, columns/hop * channels)."""
    n, e = matrix.shape
    _, hop, columns, channels = sheet.shape
    TY = tiles.shape[3]
    lines, flat = sheet.reshape(-1), strip.reshape(-1)
    line = hop * columns * channels
    weights, starts = np.empty(e, dtype=x.dtype), np.empty(e, dtype=np.int64)
    for image in range(start, stop):
        _lay_out(x[image], mask[image if masked else 0], masked, sheet, block, origin, channel)
        for ty in range(TY):
            for i in range(n):
                count = _nonzero(matrix[i], line, weights, starts)
                _combine(strip[i], False, weights, lines[ty * hop * line :], starts, count)
            for j in range(n):
                count = 0
                for k in range(e):
                    if matrix[j, k] != 0:
                        weights[count] = matrix[j, k]
                        starts[count] = (k % hop * columns + k // hop) * channels
                        count += 1
                for i in range(n):
                    _combine(tiles[i, j, image, ty], False, weights, flat[i * line :], starts, count)


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
    """Pictures start to stop. tiles (n, n, N, TY, TX*channels); strip (n, hop, columns/hop * channels)."""
    e, n = matrix.shape
    rows, hop, columns, channels = sheet.shape
    TY, width = tiles.shape[3], tiles.shape[4]
    TX = width // channels
    flat_tiles, flat_strip = tiles.reshape(-1), strip.reshape(-1)
    line = hop * columns * channels
    point = tiles[0, 0].size
    weights, starts = np.empty(n, dtype=y.dtype), np.empty(n, dtype=np.int64)
    lines = sheet.reshape(rows, line)
    overlap = max(e - hop, 0)  # Of a tile with the next one.
    for image in range(start, stop):
        for ty in range(TY):
            strip.reshape(n, hop, columns, channels)[:, :, TX:] = 0
            for j in range(e):
                count = _nonzero(matrix[j], point, weights, starts)
                at = (j % hop * columns + j // hop) * channels
                for k in range(n):
                    out = strip[k, at : at + width]
                    place = (k * n * tiles.shape[2] + image) * TY + ty
                    _combine(out, j >= hop, weights, flat_tiles[place * width :], starts, count)
            for i in range(e):
                count = _nonzero(matrix[i], line, weights, starts)
                _combine(lines[ty * hop + i], ty > 0 and i < overlap, weights, flat_strip, starts, count)
        _pick_up(sheet, bias, biased, relu, y[image], block, origin, channel)
