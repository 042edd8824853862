"""From the bytes of pictures to the numbers that a net takes: scaled, shifted, channels first.

A byte has 256 values: the compiled variants work each of them out once a channel and look them up, which
gives the bits of the formula without a division a pixel. `data.transforms.Normalize` says the same in NumPy,
for those who need no kernel.

`crop_and_normalize` also augments, for pictures that stay where the network is. It takes rectangles of the
output's size: RandomCrop and RandomHorizontalFlip, but not RandomResizedCrop, which scales.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minialex.backend import (
    Array,
    CudaKernel,
    Kernel,
    array_module,
    contiguous,
    device_of,
    for_ranges,
    jit,
    on_device_of,
    to_device,
)
from minialex.shapes import ShapeError

__all__ = ["Crops", "crop_and_normalize", "normalize_images"]

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


_entry = CudaKernel("image_normalization", "normalize_images")


def normalize_cuda(mean: Array, std: Array, pixels: Array, y: Array) -> None:
    """As the reference: a thread for a pixel."""
    _launch(mean, std, pixels, None, None, y)


def _launch(
    mean: Array, std: Array, pixels: Array, crops: Array | None, shift: Array | None, y: Array
) -> None:
    inputs = map(contiguous, (mean, std, pixels, crops, shift))
    (N, _, OH, OW), (H, W, C) = y.shape, pixels.shape[1:]
    _entry.for_each(N * OH * OW, *inputs, y, N, H, W, C, OH, OW)


normalize_images = Kernel(
    "normalize_images",
    outputs=("y",),
    reference=normalize_reference,
    array=normalize_array,
    numba=normalize_numba,
    cuda=normalize_cuda,
)


# ------------------------------------------------------------------------------------------ with augmentation


class Crops(NamedTuple):
    """Which rectangle of each picture is taken, and whether left and right are exchanged in it.

    Chosen where random numbers are, on the host: NumPy arrays, on whatever device the pictures are.
    Shapes: top, left (N,) integers, the rectangle's first row and column; flip (N,) of bool.
    """

    top: Array
    left: Array
    flip: Array


def crop_reference(
    mean: Array, std: Array, pixels: Array, crops: Crops, shift: Array | None, y: Array
) -> None:
    """y[n, c, h, w] = (pixels[n, top + h, left + v, c] / 255 + shift[n, c] - mean[c]) / std[c],

    v = OW-1-w where flip, else w; each step is rounded to y's dtype.

    Shapes: mean, std (C,); pixels (N, H, W, C) uint8; shift (N, C), or None for no shift of the colours;
            y (N, C, OH, OW), written.
    Args:   mean, std, shift: where 255 counts as 1. A colour shift is drawn for each picture along the
            principal components of the data set's colours, for example (Krizhevsky, Sutskever, Hinton 2012,
            section 4.1).
    Raises: ShapeError for a rectangle that is not within its picture, or another number of them.
    """
    rectangles = checked_crops(crops, pixels.shape, y.shape)
    N, C, OH, OW = y.shape
    number = y.dtype.type
    for n in range(N):
        top, left, flip = rectangles[n]
        for c in range(C):
            for h in range(OH):
                for w in range(OW):
                    byte = pixels[n, top + h, left + (OW - 1 - w if flip else w), c]
                    value = number(byte) / number(255)
                    if shift is not None:
                        value = value + shift[n, c]
                    y[n, c, h, w] = (value - mean[c]) / std[c]


def checked_crops(
    crops: Crops, pixels: tuple[int, ...], y: tuple[int, ...]
) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """(N, 3): top, left and flip of each picture.

    Raises: ShapeError for a rectangle of y's size that is not within a picture of pixels' size, or another
            number of rectangles than of pictures.
    """
    N, sizes, extents = pixels[0], pixels[1:3], y[2:]
    if {len(values) for values in crops} != {N}:
        lengths = ", ".join(str(len(values)) for values in crops)
        raise ShapeError(
            f"crop_and_normalize: expected a top, a left and a flip for each of N={N} pictures, got {lengths}"
        )
    rectangles = np.stack([np.asarray(values).astype(np.int64) for values in crops], axis=1)
    for axis, (size, extent) in enumerate(zip(sizes, extents, strict=True)):
        outside = (rectangles[:, axis] < 0) | (rectangles[:, axis] + extent > size)
        if outside.any():
            n = int(outside.argmax())
            raise ShapeError(
                f"crop_and_normalize: the rectangle of picture {n} begins at {('row', 'column')[axis]} "
                f"{rectangles[n, axis]}, and {extent} from there on are not within 0 .. {size - 1}; "
                f"pixels {pixels}, y {y}"
            )
    return rectangles


def crop_array(mean: Array, std: Array, pixels: Array, crops: Crops, shift: Array | None, y: Array) -> None:
    """A picture at a time into y, then all of them at once."""
    rectangles = checked_crops(crops, pixels.shape, y.shape)
    OH, OW = y.shape[2:]
    for n, (top, left, flip) in enumerate(rectangles.tolist()):
        rectangle = pixels[n, top : top + OH, left : left + OW].transpose(2, 0, 1)
        y[n] = rectangle[:, :, ::-1] if flip else rectangle
    y /= y.dtype.type(255)
    if shift is not None:
        y += shift[:, :, None, None]
    y -= mean[:, None, None]
    y /= std[:, None, None]


def _crop_rows(tables: Array, pixels: Array, rectangles: Array, y: Array) -> None:
    N, C, OH, OW = y.shape
    for n in range(N):
        top, left, flip = rectangles[n]
        start, step = (left + OW - 1, -1) if flip else (left, 1)
        table = tables[n % len(tables)]
        for h in range(OH):
            for c in range(C):
                for w in range(OW):
                    y[n, c, h, w] = table[c, pixels[n, top + h, start + step * w, c]]


_crop_compiled = jit(_crop_rows)


def crop_numba(mean: Array, std: Array, pixels: Array, crops: Crops, shift: Array | None, y: Array) -> None:
    """Tables by whole arrays, one for each picture if colours shift, then a look-up a pixel."""
    rectangles = checked_crops(crops, pixels.shape, y.shape)
    tables = np.empty((1 if shift is None else len(shift), len(mean), VALUES), dtype=y.dtype)
    tables[...] = np.arange(VALUES) / y.dtype.type(255)
    if shift is not None:
        tables += shift[:, :, None]
    tables -= mean[:, None]
    tables /= std[:, None]

    def work(start: int, stop: int) -> None:
        part = slice(start, stop)
        _crop_compiled(tables if shift is None else tables[part], pixels[part], rectangles[part], y[part])

    for_ranges(len(y), work)


def crop_cuda(mean: Array, std: Array, pixels: Array, crops: Crops, shift: Array | None, y: Array) -> None:
    """As the reference: a thread for an output pixel. The rectangles are checked on the host, then copied."""
    rectangles = checked_crops(crops, pixels.shape, y.shape)
    with on_device_of(y):
        _launch(mean, std, pixels, to_device(rectangles, device_of(y)), shift, y)


crop_and_normalize = Kernel(
    "crop_and_normalize",
    outputs=("y",),
    reference=crop_reference,
    array=crop_array,
    numba=crop_numba,
    cuda=crop_cuda,
)
