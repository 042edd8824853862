"""Max-pooling, of x or of relu(x), and the gradient's way back to the pixel that won.

A window that ReLU left nothing of sends its gradient nowhere: its winner is KH*KW, one past the last cell.

In compiled loops an unsigned index (np.uintp) spares the question whether it counts from the end; a slice
of an array costs some 20 ns for its reference count, too much for each row.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from minialex.backend import Array, CudaKernel, Kernel, array_module, contiguous, jit, per_image
from minialex.kernels.launch_grids import grid_of_lines
from minialex.shapes import Padding, Pair

PoolScratch: TypeAlias = tuple[int, Array, Array, Array, Array, Array, Array]


def max_pool2d_reference(
    x: Array, y: Array, argmax: Array, kernel_size: Pair, stride: Pair, padding: Padding, rectify: bool
) -> None:
    """y[n, c, p, q] = the largest pixel of its window; argmax = the cell i*KW + j where it first stands.

    Shapes: x (N, C, H, W); y and argmax (N, C, OH, OW), written. A NaN wins over every number, the last NaN
    over the others. Padding is minus infinity, and so is what a window sees beyond it.
    Args:   rectify: pool relu(x): the largest of max(x, 0) is max(largest x, 0), so ReLU comes last.
    """
    N, C, H, W = x.shape
    KH, KW = kernel_size
    for n in range(N):
        for c in range(C):
            for p in range(y.shape[2]):
                for q in range(y.shape[3]):
                    top = p * stride[0] - padding[0][0]
                    left = q * stride[1] - padding[1][0]
                    best = -float("inf")
                    winner = -1
                    for row in range(max(top, 0), min(top + KH, H)):
                        for col in range(max(left, 0), min(left + KW, W)):
                            value = x[n, c, row, col]
                            # The first pixel wins even if it is minus infinity itself; NaN always wins.
                            if value > best or value != value or winner < 0:
                                best = value
                                winner = (row - top) * KW + col - left
                    if rectify and best <= 0:
                        best = 0.0
                        winner = KH * KW
                    y[n, c, p, q] = best
                    argmax[n, c, p, q] = winner


def max_pool2d_backward_reference(
    dy: Array, argmax: Array, dx: Array, kernel_size: Pair, stride: Pair, padding: Padding
) -> None:
    """dx[winner of each window] += dy: a pixel that wins several windows gets all their gradients.

    Shapes: dy and argmax (N, C, OH, OW); dx (N, C, H, W), written. The winner KH*KW is nobody.
    """
    KH, KW = kernel_size
    N, C, OH, OW = dy.shape
    dx[...] = 0
    for n in range(N):
        for c in range(C):
            for p in range(OH):
                for q in range(OW):
                    winner = int(argmax[n, c, p, q])
                    if winner < KH * KW:
                        row = p * stride[0] - padding[0][0] + winner // KW
                        col = q * stride[1] - padding[1][0] + winner % KW
                        dx[n, c, row, col] += dy[n, c, p, q]


def max_pool2d_array(
    x: Array, y: Array, argmax: Array, kernel_size: Pair, stride: Pair, padding: Padding, rectify: bool
) -> None:
    """One comparison of whole planes for each cell of the window, in the window's order."""
    xp = array_module(x)
    padded = _padded(x, y.shape[2:], kernel_size, stride, padding, fill=-xp.inf)
    on_picture = xp.ones((1, 1, *x.shape[2:]), dtype=bool)
    real = _padded(on_picture, y.shape[2:], kernel_size, stride, padding, fill=False)
    y[...] = -xp.inf
    found = xp.zeros((1, 1, *y.shape[2:]), dtype=bool)
    argmax[...] = 0
    for i in range(kernel_size[0]):
        for j in range(kernel_size[1]):
            cells = _cells(i, j, y.shape[2:], stride)
            value, inside = padded[cells], real[cells]
            better = (value > y) | xp.isnan(value) | (inside & ~found)
            y[...] = xp.where(better, value, y)
            argmax[...] = xp.where(better, argmax.dtype.type(i * kernel_size[1] + j), argmax)
            found |= inside
    if rectify:
        dead = y <= 0
        argmax[...] = xp.where(dead, argmax.dtype.type(kernel_size[0] * kernel_size[1]), argmax)
        y[...] = xp.where(dead, y.dtype.type(0), y)


def max_pool2d_backward_array(
    dy: Array, argmax: Array, dx: Array, kernel_size: Pair, stride: Pair, padding: Padding
) -> None:
    """For each cell of the window, add dy where that cell won."""
    xp = array_module(dy)
    H, W = dx.shape[2:]
    total = _padded(xp.zeros_like(dx), dy.shape[2:], kernel_size, stride, padding, fill=0)
    for i in range(kernel_size[0]):
        for j in range(kernel_size[1]):
            won = argmax == argmax.dtype.type(i * kernel_size[1] + j)
            total[_cells(i, j, dy.shape[2:], stride)] += xp.where(won, dy, dy.dtype.type(0))
    top, left = padding[0][0], padding[1][0]
    dx[...] = total[:, :, top : top + H, left : left + W]


def _padded(
    x: Array, output: tuple[int, ...], kernel_size: Pair, stride: Pair, padding: Padding, fill: float
) -> Array:
    """x with its padding, and as much more at the end as the last window reaches beyond it."""
    N, C, H, W = x.shape
    top, left = padding[0][0], padding[1][0]
    height = max(H + sum(padding[0]), (output[0] - 1) * stride[0] + kernel_size[0])
    width = max(W + sum(padding[1]), (output[1] - 1) * stride[1] + kernel_size[1])
    padded = array_module(x).full((N, C, height, width), fill, dtype=x.dtype)
    padded[:, :, top : top + H, left : left + W] = x
    return padded


def _cells(i: int, j: int, output: tuple[int, ...], stride: Pair) -> tuple[slice, ...]:
    """Cell (i, j) of every window of a padded picture."""
    rows = slice(i, i + (output[0] - 1) * stride[0] + 1, stride[0])
    cols = slice(j, j + (output[1] - 1) * stride[1] + 1, stride[1])
    return slice(None), slice(None), rows, cols


# ------------------------------------------------------------------------------------- compiled for the CPU


@jit
def larger(best: float, winner: int, value: float, cell: int) -> tuple[float, int]:
    """What wins, and where it stands: the newcomer if it is larger or NaN."""
    if (value > best) | (value != value):
        return value, cell
    return best, winner


@jit
def shifted_maxima(
    source: Array,
    cells: Array,
    shift: int,
    count: int,
    code: int,
    length: int,
    best: Array,
    winner: Array,
) -> None:
    """best[k] = max over i < count of source[k + i*shift]; winner[k] = cells[k + i*shift] + i*code there.

    One long loop over the plane, also where a window would hang over a row's end and nobody looks: the
    processor then compares eight pixels at a time, whatever the length of a row. Three shifts at once,
    because each pass costs more for storing than for comparing.
    Shapes: source, cells (length + (count-1)*shift,), or more; best, winner (length,), written, or more.
    """
    second, third = min(1, count - 1), min(2, count - 1)
    code_b, code_c = np.int32(second * code), np.int32(third * code)
    for k in range(length):
        a, b, c = np.uintp(k), np.uintp(k + second * shift), np.uintp(k + third * shift)
        value, cell = larger(source[a], cells[a], source[b], cells[b] + code_b)
        best[k], winner[k] = larger(value, cell, source[c], cells[c] + code_c)
    for i in range(3, count):
        code_b = np.int32(i * code)
        for k in range(length):
            b = np.uintp(k + i * shift)
            best[k], winner[k] = larger(best[k], winner[k], source[b], cells[b] + code_b)


@jit
def pool_scratch(x: Array, y: Array, kernel_size: Pair, stride: Pair, padding: Padding) -> PoolScratch:
    """What pool_channel works in: the width of its frame, the frame, zeros, maxima of rows and of windows.

    The frame is a channel with its padding of minus infinity and what the last windows see beyond it; empty
    if windows see nothing but the channel. The others are as large; with maxima go their cells.
    """
    H, W = x.shape[2:]
    height = max(H + padding[0][0] + padding[0][1], (y.shape[2] - 1) * stride[0] + kernel_size[0])
    width = max(W + padding[1][0] + padding[1][1], (y.shape[3] - 1) * stride[1] + kernel_size[1])
    frame = np.empty(0 if height == H and width == W else height * width, x.dtype)
    for place in range(len(frame)):
        frame[place] = -np.inf
    rows, best = np.empty(height * width, x.dtype), np.empty(height * width, x.dtype)
    row_cells, winner = np.empty(height * width, np.int32), np.empty(height * width, np.int32)
    zeros = np.empty(height * width, np.int32)
    for place in range(height * width):
        zeros[place] = 0
    return width, frame, zeros, rows, row_cells, best, winner


@jit
def pool_channel(
    channel: Array,
    y: Array,
    argmax: Array,
    kernel_size: Pair,
    stride: Pair,
    padding: Padding,
    floor: float,
    scratch: PoolScratch,
) -> None:
    """Pool one channel: the maxima of each row's KW neighbours, then of KH rows, then every stride-th.

    Rows last, with only larger values taken: the first of equal pixels is then the first row by row.
    Shapes: channel (H, W); y, argmax (OH, OW), written.
    Args:   floor: pooled values at or below it become it, won by nobody: 0 for ReLU, NaN for none, because
            nothing compares with NaN; scratch: pool_scratch's.
    """
    (KH, KW), (H, W) = kernel_size, channel.shape
    width, frame, zeros, rows, row_cells, best, winner = scratch
    plane = channel.reshape(H * W)
    if len(frame) > 0:
        start = padding[0][0] * width + padding[1][0]
        for place in range(H * W):
            frame[np.uintp(start + place // W * width + place % W)] = plane[place]
        plane = frame
    across = len(plane) - KW + 1
    down = across - (KH - 1) * width
    one = min(KW, 1)  # A constant in a call would be compiled in: the same code twice.
    shifted_maxima(plane, zeros, one, KW, one, across, rows, row_cells)
    shifted_maxima(rows, row_cells, width, KH, KW, down, best, winner)
    pick_windows(best, winner, width, y, argmax, kernel_size, stride, padding, floor)


@jit
def pick_windows(
    best: Array,
    winner: Array,
    width: int,
    y: Array,
    argmax: Array,
    kernel_size: Pair,
    stride: Pair,
    padding: Padding,
    floor: float,
) -> None:
    """Every stride-th of the maxima, with pool_channel's floor."""
    KH, KW = kernel_size
    nobody = np.int32(KH * KW)
    for p in range(y.shape[0]):
        for q in range(y.shape[1]):
            place = np.uintp(p * stride[0] * width + q * stride[1])
            dead = best[place] <= floor
            y[p, q] = floor if dead else best[place]
            argmax[p, q] = nobody if dead else winner[place]
    if padding[0][0] + padding[1][0] == 0:
        return
    for p in range(y.shape[0]):
        for q in range(y.shape[1]):
            if y[p, q] == -np.inf:  # The first pixel wins, and not the padding before it.
                top, left = padding[0][0] - p * stride[0], padding[1][0] - q * stride[1]
                argmax[p, q] = max(top, 0) * KW + max(left, 0)


@jit
def max_pool2d_planes(
    x: Array, y: Array, argmax: Array, kernel_size: Pair, stride: Pair, padding: Padding, rectify: bool
) -> None:
    """A channel at a time."""
    N, C = x.shape[:2]
    scratch = pool_scratch(x, y, kernel_size, stride, padding)
    floor = x.dtype.type(0.0 if rectify else np.nan)
    for n in range(N):
        for c in range(C):
            pool_channel(x[n, c], y[n, c], argmax[n, c], kernel_size, stride, padding, floor, scratch)


@jit
def offsets_of_cells(width: int, kernel_size: Pair) -> Array:
    """How far each cell of a window lies from its first, in a plane of this width."""
    KH, KW = kernel_size
    offsets = np.empty(KH * KW + 1, np.int64)  # Nobody's cell is looked up as well, and not used.
    for cell in range(KH * KW + 1):
        offsets[cell] = cell // KW * width + cell % KW
    return offsets


@jit
def send_to_winners(
    dy: Array, argmax: Array, plane: Array, width: int, offsets: Array, stride: Pair, padding: Padding
) -> None:
    """plane[winner of each window] += dy, in the order of the windows.

    Shapes: dy, argmax (OH, OW); plane (H*W + 1,), written: what nobody wins goes into its last element, since
            a branch would be guessed wrongly too often; offsets: of offsets_of_cells.
    """
    nobody, dump = len(offsets) - 1, len(plane) - 1
    plane[:] = 0
    for p in range(dy.shape[0]):
        start = (p * stride[0] - padding[0][0]) * width - padding[1][0]
        for q in range(dy.shape[1]):
            cell = argmax[p, q]
            place = dump if cell == nobody else start + q * stride[1] + offsets[cell]
            plane[np.uintp(place)] += dy[p, q]


@jit
def max_pool2d_backward_planes(
    dy: Array, argmax: Array, dx: Array, kernel_size: Pair, stride: Pair, padding: Padding
) -> None:
    """A channel at a time, added up where it is near, then written once."""
    N, C, H, W = dx.shape
    plane = np.empty(H * W + 1, dx.dtype)
    offsets = offsets_of_cells(W, kernel_size)
    for n in range(N):
        for c in range(C):
            send_to_winners(dy[n, c], argmax[n, c], plane, W, offsets, stride, padding)
            row = dx[n, c].reshape(H * W)
            for place in range(H * W):
                row[place] = plane[place]


# ----------------------------------------------------------------------------------------------- on a GPU

# Pixels below one another that a thread owns, forward and backward: as in kernels/max_pooling.cu.
OUTPUT_TILE, TILE = 4, 8
# By the type of argmax, a byte unless windows have more cells.
_forward, _backward = (
    {cell: CudaKernel("max_pooling", f"max_pool2d_{name}_{cell}") for cell in ("uint8", "uint16", "uint32")}
    for name in ("forward", "backward")
)


def max_pool2d_cuda(
    x: Array, y: Array, argmax: Array, kernel_size: Pair, stride: Pair, padding: Padding, rectify: bool
) -> None:
    """kernels/max_pooling.cu: one thread looks at a few windows below one another."""
    (N, C, H, W), (OH, OW) = x.shape, y.shape[2:]
    grid, block = grid_of_lines(N * C * -(-OH // OUTPUT_TILE), OW)
    geometry = (N * C, H, W, OH, OW, *kernel_size, *stride, padding[0][0], padding[1][0])
    _forward[argmax.dtype.name].launch(grid, block, contiguous(x), y, argmax, *geometry, rectify)


def max_pool2d_backward_cuda(
    dy: Array, argmax: Array, dx: Array, kernel_size: Pair, stride: Pair, padding: Padding
) -> None:
    """kernels/max_pooling.cu: one thread asks the windows that see its pixels whether they won."""
    (N, C, H, W), (OH, OW) = dx.shape, dy.shape[2:]
    grid, block = grid_of_lines(N * C * -(-H // TILE), W)
    geometry = (N * C, H, W, OH, OW, *kernel_size, *stride, padding[0][0], padding[1][0])
    arrays = (contiguous(dy), contiguous(argmax), dx)
    _backward[argmax.dtype.name].launch(grid, block, *arrays, *geometry)


max_pool2d_forward = Kernel(
    "max_pool2d_forward",
    outputs=("y", "argmax"),
    reference=max_pool2d_reference,
    array=max_pool2d_array,
    numba=per_image(max_pool2d_planes, arrays=3),
    cuda=max_pool2d_cuda,
)
max_pool2d_backward = Kernel(
    "max_pool2d_backward",
    outputs=("dx",),
    reference=max_pool2d_backward_reference,
    array=max_pool2d_backward_array,
    numba=per_image(max_pool2d_backward_planes, arrays=3),
    cuda=max_pool2d_backward_cuda,
)
