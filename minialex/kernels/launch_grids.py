"""Grids and blocks that several kernels on a GPU share."""

from __future__ import annotations

from minialex.shapes import Pair

# Threads of a block, and the most blocks along a grid's second axis: kernels stride over what is more.
THREADS = 256
MOST_ALONG_Y = 65535
# Channels that one thread does at most, and threads that are enough for any GPU.
MOST_CHANNELS, WORTH_OF_THREADS = 8, 1 << 20


def grid_of_lines(lines: int, width: int) -> tuple[Pair, Pair]:
    """(grid, block) with a thread for each element of `lines` lines of `width` elements.

    The line is blockIdx.x * blockDim.y + threadIdx.y, the element blockIdx.y * blockDim.x + threadIdx.x: no
    thread divides by the width. A block is as wide as leaves the fewest threads idle at the lines' ends.
    """
    columns = min((64, 32, 16, 8), key=lambda c: -(-width // c) * c)
    block = (columns, THREADS // columns)
    return (-(-lines // block[1]), -(-width // columns)), block


def grid_of_channels(count: int, channels: int) -> Pair:
    """The grid for `count` elements along x in each of `channels` channels along y.

    Where there are more threads than a GPU can hold, one does several channels: where its element stands is
    then worked out once for all of them.
    """
    together = max(1, min(MOST_CHANNELS, count * channels // WORTH_OF_THREADS))
    return -(-count // THREADS), min(-(-channels // together), MOST_ALONG_Y)
