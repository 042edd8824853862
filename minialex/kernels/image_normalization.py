"""From the bytes of pictures to the numbers that a net takes: scaled, shifted, channels first.

A byte has 256 values: the compiled variant works each of them out once a channel and looks them up, which
gives the bits of the formula without a division a pixel. `data.transforms.Normalize` says the same in NumPy,
for those who need no kernel.
"""

from __future__ import annotations

import numpy as np

from minialex.backend import Array, Kernel, array_module, for_ranges, jit

__all__ = ["normalize_images"]

VALUES = 256


def normalize_reference(mean: Array, std: Array, pixels: Array, y: Array) -> None:
    """y[n, c, h, w] = (pixels[n, h, w, c] / 255 - mean[c]) / std[c], each step rounded to y's dtype.

    Shapes: mean, std (C,); pixels (N, H, W, C) uint8; y (N, C, H, W), written.
    Args:   mean, std: of the pixels, where 255 counts as 1.
    """
    N, H, W, C = pixels.shape
    number = y.dtype.type
    for n in range(N):
        for c in range(C):
            for h in range(H):
                for w in range(W):
                    y[n, c, h, w] = (number(pixels[n, h, w, c]) / number(255) - mean[c]) / std[c]


def normalize_array(mean: Array, std: Array, pixels: Array, y: Array) -> None:
    """All pixels at once, in place."""
    y[...] = array_module(y).asarray(pixels).transpose(0, 3, 1, 2)
    y /= y.dtype.type(255)
    y -= mean[:, None, None]
    y /= std[:, None, None]


def _normalize_rows(table: Array, pixels: Array, y: Array) -> None:
    N, H, W, C = pixels.shape
    for n in range(N):
        for h in range(H):
            for c in range(C):
                for w in range(W):
                    y[n, c, h, w] = table[c, pixels[n, h, w, c]]


_rows_compiled = jit(_normalize_rows)


def normalize_numba(mean: Array, std: Array, pixels: Array, y: Array) -> None:
    """The table by whole arrays, then a look-up a pixel, the images shared out to threads."""
    table = np.empty((len(mean), VALUES), dtype=y.dtype)
    values = np.arange(VALUES, dtype=np.uint8).reshape(1, 1, VALUES, 1)
    normalize_array(mean, std, values, table[None, :, None, :])
    for_ranges(len(y), lambda start, stop: _rows_compiled(table, pixels[start:stop], y[start:stop]))


normalize_images = Kernel(
    "normalize_images",
    outputs=("y",),
    reference=normalize_reference,
    array=normalize_array,
    numba=normalize_numba,
)
