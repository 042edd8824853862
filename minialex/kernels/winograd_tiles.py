"""Between pictures and Winograd's tiles: L @ tile @ L.T for every tile of a picture, and the way back.

A Winograd convolution, and both of its gradients, consist of these two maps and one matrix product for each
of a tile's n x n points. `matrix` says which of its four transforms a call is.

Tiles have their channels last: (n, n, N, TY, TX, S*S*C), where a block of S x S pixels counts as S*S*C
channels, so that a convolution with stride S is one with stride 1 on blocks.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from minialex.backend import Array, Kernel, array_module, for_ranges, scratch
from minialex.kernels.winograd_loops import pictures_of_range, tiles_of_range
from minialex.shapes import Pair


def tiles_from_pictures_reference(
    x: Array,
    mask: Array | None,
    matrix: Array,
    tiles: Array,
    hop: int,
    block: int,
    origin: Pair,
    channel: int,
) -> None:
    """tiles[i, j, n, ty, tx, (c*S + a)*S + b] = sum over k, l of matrix[i, k] * matrix[j, l] * pixel.

    pixel is x[n, channel + c, (ty*hop + k)*S + a - top, (tx*hop + l)*S + b - left], and 0 off the picture or
    where `mask` is given and 0 there: the gradient of a ReLU whose output is `mask`.

    Shapes: x, mask (N, *, H, W); matrix (n, e); tiles (n, n, N, TY, TX, S*S*C), written.
    Args:   hop: from tile to tile, in blocks; block: S; origin: (top, left), pixels of padding;
            channel: the first of x's channels that is used.
    """
    N, _, H, W = x.shape
    n, e = matrix.shape
    _, _, _, TY, TX, channels = tiles.shape
    for i, j, image, ty, tx, last in product(*map(range, (n, n, N, TY, TX, channels))):
        c, a, b = channel + last // block**2, last // block % block, last % block
        total = 0.0
        for k in range(e):
            row = (ty * hop + k) * block + a - origin[0]
            for m in range(e):
                col = (tx * hop + m) * block + b - origin[1]
                if 0 <= row < H and 0 <= col < W and not (mask is not None and mask[image, c, row, col] <= 0):
                    total = total + matrix[i, k] * matrix[j, m] * x[image, c, row, col]
        tiles[i, j, image, ty, tx, last] = total


def pictures_from_tiles_reference(
    tiles: Array,
    matrix: Array,
    bias: Array | None,
    relu: bool,
    y: Array,
    hop: int,
    block: int,
    origin: Pair,
    channel: int,
) -> None:
    """y[n, channel + c] = bias[c] + the sum of all tiles' matrix @ tile @ matrix.T, where they lie on it.

    The transpose of `tiles_from_pictures`: tiles that overlap add up. relu: negative results become 0.

    Shapes: tiles (n, n, N, TY, TX, S*S*C); matrix (e, n); bias (C,) or None; y (N, *, H, W), of which the C
            channels from `channel` on are written.
    """
    N, _, H, W = y.shape
    e, n = matrix.shape
    _, _, _, TY, TX, last = tiles.shape
    C = last // block**2
    y[:, channel : channel + C] = 0
    for image, ty, tx, c, a, b in product(*map(range, (N, TY, TX, C, block, block))):
        for i, j in product(range(e), range(e)):
            row = (ty * hop + i) * block + a - origin[0]
            col = (tx * hop + j) * block + b - origin[1]
            if 0 <= row < H and 0 <= col < W:
                for k, m in product(range(n), range(n)):
                    value = tiles[k, m, image, ty, tx, (c * block + a) * block + b]
                    y[image, channel + c, row, col] += matrix[i, k] * matrix[j, m] * value
    for image, c, row, col in product(range(N), range(C), range(H), range(W)):
        value = y[image, channel + c, row, col] + (0.0 if bias is None else bias[c])
        # Written so that a NaN stays.
        y[image, channel + c, row, col] = 0.0 if relu and value < 0 else value


# ---------------------------------------------------------------------------------------------- by arrays


def tiles_from_pictures_array(
    x: Array,
    mask: Array | None,
    matrix: Array,
    tiles: Array,
    hop: int,
    block: int,
    origin: Pair,
    channel: int,
) -> None:
    """One product for all tiles, of a copy in which they no longer overlap."""
    xp = array_module(x)
    e = matrix.shape[1]
    _, _, N, TY, TX, last = tiles.shape
    C = last // block**2
    part = x[:, channel : channel + C]
    if mask is not None:
        part = xp.where(mask[:, channel : channel + C] <= 0, part.dtype.type(0), part)
    rows, cols = (_pixels(count, hop, e, block) for count in (TY, TX))
    canvas = _canvas(part, (int(rows.max()) + 1, int(cols.max()) + 1), origin)
    # (N, C, TY, e, S, TX, e, S)
    cells = canvas[:, :, rows.reshape(-1)][:, :, :, cols.reshape(-1)].reshape(N, C, *rows.shape, *cols.shape)
    mapped = xp.einsum("ik,jl,nctkaxlb->ijntxcab", matrix, matrix, cells)
    tiles[...] = mapped.reshape(tiles.shape)


def pictures_from_tiles_array(
    tiles: Array,
    matrix: Array,
    bias: Array | None,
    relu: bool,
    y: Array,
    hop: int,
    block: int,
    origin: Pair,
    channel: int,
) -> None:
    """One product for all tiles, and an addition for each of a tile's cells."""
    xp = array_module(tiles)
    e, n = matrix.shape
    _, _, N, TY, TX, last = tiles.shape
    C = last // block**2
    split = tiles.reshape(n, n, N, TY, TX, C, block, block)
    mapped = xp.einsum("ik,jl,klntxcab->ijnctaxb", matrix, matrix, split)
    rows, cols = (_pixels(count, hop, e, block) for count in (TY, TX))
    height = max(int(rows.max()) + 1, origin[0] + y.shape[2])
    width = max(int(cols.max()) + 1, origin[1] + y.shape[3])
    canvas = xp.zeros((N, C, height, width), dtype=y.dtype)
    for i in range(e):
        for j in range(e):
            # The cells (i, j) of two tiles are never the same pixel.
            row, col = rows[:, i].reshape(-1), cols[:, j].reshape(-1)
            canvas[:, :, row[:, None], col] += mapped[i, j].reshape(N, C, row.size, col.size)
    top, left = origin
    part = canvas[:, :, top : top + y.shape[2], left : left + y.shape[3]]
    part = part if bias is None else part + bias[:, None, None]
    y[:, channel : channel + C] = xp.maximum(part, 0) if relu else part


def _pixels(tiles: int, hop: int, extent: int, block: int) -> Array:
    """(tiles, extent, block) positions on the padded picture, along one axis."""
    blocks = np.arange(tiles)[:, None] * hop + np.arange(extent)
    return blocks[:, :, None] * block + np.arange(block)


def _canvas(x: Array, size: Pair, origin: Pair) -> Array:
    """x on a larger sheet of zeros, cut where the sheet ends."""
    canvas = array_module(x).zeros((*x.shape[:2], *size), dtype=x.dtype)
    top, left = origin
    canvas[:, :, top : top + x.shape[2], left : left + x.shape[3]] = x[
        :, :, : size[0] - top, : size[1] - left
    ]
    return canvas


# ------------------------------------------------------------------------------------------- compiled


def tiles_from_pictures_numba(
    x: Array,
    mask: Array | None,
    matrix: Array,
    tiles: Array,
    hop: int,
    block: int,
    origin: Pair,
    channel: int,
) -> None:
    """The reference's sums, a dimension at a time, over long runs of channels."""
    n, e = matrix.shape
    _, _, N, TY, TX, channels = tiles.shape
    flat = tiles.reshape(n, n, N, TY, TX * channels)

    def work(start: int, stop: int) -> None:
        sheet, strip = _sheet_and_strip(tiles, n, e, hop)
        masks = x if mask is None else mask
        tiles_of_range(
            x, masks, mask is not None, matrix, flat, sheet, strip, block, origin, channel, start, stop
        )

    for_ranges(N, work)


def pictures_from_tiles_numba(
    tiles: Array,
    matrix: Array,
    bias: Array | None,
    relu: bool,
    y: Array,
    hop: int,
    block: int,
    origin: Pair,
    channel: int,
) -> None:
    """The reference's sums, a dimension at a time, over long runs of channels."""
    e, n = matrix.shape
    _, _, N, TY, TX, channels = tiles.shape
    flat = tiles.reshape(n, n, N, TY, TX * channels)

    def work(start: int, stop: int) -> None:
        sheet, strip = _sheet_and_strip(tiles, n, e, hop)
        added = matrix if bias is None else bias
        pictures_of_range(
            flat,
            matrix,
            added.reshape(-1),
            bias is not None,
            relu,
            y,
            sheet,
            strip,
            block,
            origin,
            channel,
            start,
            stop,
        )

    for_ranges(N, work)


def _sheet_and_strip(tiles: Array, n: int, extent: int, hop: int) -> tuple[Array, Array]:
    """The thread's own memory for one picture laid out, and for one row of its tiles, half transformed."""
    _, _, _, TY, TX, channels = tiles.shape
    columns = TX + (extent - 1) // hop
    sheet = scratch("sheet", ((TY - 1) * hop + extent, hop, columns, channels), tiles.dtype)
    strip = scratch("strip", (n, hop, columns, channels), tiles.dtype)
    return sheet, strip


tiles_from_pictures = Kernel(
    "tiles_from_pictures",
    outputs=("tiles",),
    reference=tiles_from_pictures_reference,
    array=tiles_from_pictures_array,
    numba=tiles_from_pictures_numba,
)
pictures_from_tiles = Kernel(
    "pictures_from_tiles",
    outputs=("y",),
    reference=pictures_from_tiles_reference,
    array=pictures_from_tiles_array,
    numba=pictures_from_tiles_numba,
)
