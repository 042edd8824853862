"""How a convolution is cut into tiles for Winograd's algorithm, by which matrices, and whether it pays.

What the algorithm is, and what it costs in accuracy: winograd.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from minialex.backend import Array, scratch, winograd_enabled
from minialex.shapes import Padding, Pair

# Outputs that a tile may have, along each axis, for a filter of so many pixels. Larger ones round worse.
OUTPUTS = {3: (4, 5), 5: (3,)}

# Where the polynomials behind the transforms are evaluated, besides infinity; by the tile's size n.
POINTS = {6: (0, 1, -1, Fraction(1, 2), -2), 7: (0, 1, -1, 2, -2, Fraction(1, 2))}

# Rows that make a matrix product worth its while: so many tiles, of as many pictures as that takes (a power
# of two, for whole bunches in whole batches), are multiplied together. More would leave the cache before.
BUNCH_TILES = 100

# Bytes of tiles that may wait for the sum over pictures in the weights' gradient.
TILE_BUDGET = 32 * 2**20

# It must save at least this part of the multiplications, on at least so many channels and filters: the maps
# cost as much for a few channels as for many.
WORTH_SAVING = 0.4
WORTH_CHANNELS = 16


@lru_cache
def winograd_matrices(outputs: int, kernel: int) -> tuple[Array, Array, Array]:
    """(A.T (m, n), G (n, r), B.T (n, n)) for m outputs of an r-tap filter, float64, worked out exactly.

    The product of two polynomials is fixed by its values at n points: evaluate both (A and G), multiply,
    interpolate. A filter slides where a product carries, so its algorithm is the transposed one: B.T is
    the interpolation's transpose, scaled to whole numbers; G takes the scale back.
    """
    n = outputs + kernel - 1
    points = [Fraction(point) for point in POINTS[n]]
    A, G, values = (_powers(points, count) for count in (outputs, kernel, n))
    B_transposed = np.linalg.inv(values.astype(np.float64)).T
    exact = np.array([[Fraction(v).limit_denominator(10**6) for v in row] for row in B_transposed])
    # The inverse was taken in floating point; the product says whether its fractions are the right ones.
    assert (values @ exact.T == np.eye(n, dtype=int)).all()
    scale = np.array([[np.lcm.reduce([v.denominator for v in row])] for row in exact], dtype=object)
    A_T, G, B_T = (np.ascontiguousarray(matrix, np.float64) for matrix in (A.T, G / scale, exact * scale))
    for matrix in (A_T, G, B_T):
        matrix.setflags(write=False)  # They are handed out again.
    return A_T, G, B_T


def _powers(points: list[Fraction], count: int) -> Array:
    """Row p: the powers 0 to count - 1 of point p. At infinity only the highest counts."""
    rows = [[point**power for power in range(count)] for point in points]
    return np.array([*rows, [Fraction(0)] * (count - 1) + [Fraction(1)]])


@dataclass(frozen=True)
class Plan:
    """How one convolution is cut: S x S pixels are a block, the filter KB x KB blocks, a tile n x n."""

    block: int
    kernel: int  # In blocks.
    outputs: int  # Of a tile, along each axis.
    tiles: Pair  # Rows and columns of tiles.
    origin: Pair  # Padding at the top and on the left, pixels.
    channels: int  # Of a block, in one group.
    filters: int  # In one group.
    groups: int

    @property
    def points(self) -> int:
        return (self.outputs + self.kernel - 1) ** 2

    def matrices(self, dtype: np.dtype) -> tuple[Array, Array, Array]:
        return tuple(matrix.astype(dtype) for matrix in winograd_matrices(self.outputs, self.kernel))

    def bunches(self, images: int) -> list[slice]:
        """Pictures that are multiplied together: the same for any number of threads, and so are the bits."""
        step = 1
        while step * math.prod(self.tiles) < BUNCH_TILES:
            step *= 2
        return [slice(start, min(start + step, images)) for start in range(0, images, step)]

    def chunks(self, images: int, itemsize: int) -> Iterator[list[slice]]:
        """Bunches whose tiles, before and after the product, fit the budget together; one at least."""
        bunches = self.bunches(images)
        for_one = self.points * math.prod(self.tiles) * (self.channels + self.filters) * itemsize
        count = max(1, TILE_BUDGET // (for_one * bunches[0].stop)) if bunches else 1
        for first in range(0, len(bunches), count):
            yield bunches[first : first + count]

    def empty(self, name: str, images: slice, channels: int, dtype: Any) -> Array:
        """Memory of the calling thread's own for the tiles of these pictures, until it asks again."""
        n = self.outputs + self.kernel - 1
        return scratch(name, (n, n, images.stop - images.start, *self.tiles, channels), dtype)

    def empties(self, name: str, bunches: list[slice], channels: int, dtype: Any) -> list[Array]:
        """The same for several bunches at once."""
        n = self.outputs + self.kernel - 1
        rest = (*self.tiles, channels)
        first = bunches[0].start
        all_of_them = scratch(name, ((bunches[-1].stop - first) * n * n * math.prod(rest),), dtype)
        cuts = [(bunch.stop - first) * n * n * math.prod(rest) for bunch in bunches[:-1]]
        return [part.reshape(n, n, -1, *rest) for part in np.split(all_of_them, cuts)]


def winograd_is_better(
    dtype: Any,
    weight_shape: tuple[int, ...],
    y_shape: tuple[int, ...],
    stride: Pair,
    dilation: Pair,
    groups: int,
) -> bool:
    """Whether Winograd's algorithm is allowed, applies to this convolution, and saves enough."""
    F, CG, KH, KW = weight_shape
    S = stride[0]
    kernel = -(-KH // S)
    if dtype != np.float32 or KH != KW or stride[0] != stride[1] or dilation != (1, 1):
        return False
    if kernel not in OUTPUTS or min(CG * S * S, F // groups) < WORTH_CHANNELS or not winograd_enabled():
        return False
    multiplications = min(_points(outputs, kernel, y_shape) for outputs in OUTPUTS[kernel]) * S * S
    return multiplications <= (1 - WORTH_SAVING) * y_shape[2] * y_shape[3] * KH * KW


def _points(outputs: int, kernel: int, y_shape: tuple[int, ...]) -> int:
    """Of all tiles of a picture: so many multiplications for each channel and filter."""
    return (outputs + kernel - 1) ** 2 * -(-y_shape[2] // outputs) * -(-y_shape[3] // outputs)


def plan_for(
    weight_shape: tuple[int, ...], y_shape: tuple[int, ...], stride: Pair, padding: Padding, groups: int
) -> Plan:
    F, CG, KH, _ = weight_shape
    block, kernel = stride[0], -(-KH // stride[0])
    outputs = min(OUTPUTS[kernel], key=lambda count: _points(count, kernel, y_shape))
    tiles = (-(-y_shape[2] // outputs), -(-y_shape[3] // outputs))
    origin = (padding[0][0], padding[1][0])
    return Plan(block, kernel, outputs, tiles, origin, CG * block**2, F // groups, groups)
