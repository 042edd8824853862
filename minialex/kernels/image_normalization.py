"""From the bytes of pictures to the numbers that a net takes: scaled, shifted, channels first.

A byte has 256 values: the compiled variants work each of them out once a channel and look them up, which
gives the bits of the formula without a division a pixel. `data.transforms.Normalize` says the same in NumPy,
for those who need no kernel.

`crop_and_normalize` also augments, shifts colours and subtracts a mean image. It takes rectangles of the
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
    _entry.for_each(N * OH * OW, *inputs, y, int(mean.ndim == 3), N, H, W, C, OH, OW)


normalize_images = Kernel(
    "normalize_images",
    outputs=("y",),
    reference=normalize_reference,
    array=normalize_array,
    numba=normalize_numba,
    cuda=normalize_cuda,
)


# -------------------------------------------------------- with crops, shifts of the colours and a mean image


class Crops(NamedTuple):
    """Which rectangle of each picture is taken, and whether left and right are exchanged in it.

    Chosen where random numbers are, on the host: NumPy arrays, on whatever device the pictures are.
    Shapes: top, left (N,) integers, the rectangle's first row and column; flip (N,) of bool.
    """

    top: Array
    left: Array
    flip: Array


def crop_reference(
    mean: Array, std: Array, pixels: Array, crops: Crops | None, shift: Array | None, y: Array
) -> None:
    """y[n, c, h, w] = (pixels[n, top + h, left + v, c] / 255 + shift[n, c] - mean[c, h, w]) / std[c],

    v = OW-1-w where flip, else w; each step is rounded to y's dtype.

    Shapes: mean (C,), one number for a channel, or (C, OH, OW), an image that is the same for all rectangles,
            wherever they are and whether they are flipped; std (C,); pixels (N, H, W, C) uint8; crops None
            for whole pictures, (OH, OW) = (H, W); shift (N, C), or None for no shift of the colours;
            y (N, C, OH, OW), written.
    Args:   mean, std, shift: where 255 counts as 1. A colour shift is drawn for each picture along the
            principal components of the data set's colours, for example (Krizhevsky, Sutskever, Hinton 2012,
            section 4.1).
    Raises: ShapeError for a rectangle that is not within its picture, or another number of them, and for a
            mean or a shift of another shape.
    """
    rectangles = checked_crops(crops, pixels.shape, y.shape)
    check_colours(mean, shift, y.shape)
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
                    y[n, c, h, w] = (value - (mean[c] if mean.ndim == 1 else mean[c, h, w])) / std[c]


def check_colours(mean: Array, shift: Array | None, y: tuple[int, ...]) -> None:
    """Raises: ShapeError if the mean is neither (C,) nor an image (C, OH, OW), or the shift not (N, C)."""
    N, C, OH, OW = y
    if mean.shape not in ((C,), (C, OH, OW)):
        raise ShapeError(f"crop_and_normalize: mean must be {(C,)} or {(C, OH, OW)}, got {mean.shape}; y {y}")
    if shift is not None and shift.shape != (N, C):
        raise ShapeError(f"crop_and_normalize: shift must be {(N, C)} or None, got {shift.shape}; y {y}")


def checked_crops(
    crops: Crops | None, pixels: tuple[int, ...], y: tuple[int, ...]
) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """(N, 3): top, left and flip of each picture.

    Raises: ShapeError for a rectangle of y's size that is not within a picture of pixels' size, another
            number of rectangles than of pictures, or another size than the pictures' without crops.
    """
    N, sizes, extents = pixels[0], pixels[1:3], y[2:]
    if crops is None:
        if sizes != extents:
            raise ShapeError(
                f"crop_and_normalize: without crops, y must be of the pictures' size; pixels {pixels}, y {y}"
            )
        return np.zeros((N, 3), np.int64)
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


def crop_array(
    mean: Array, std: Array, pixels: Array, crops: Crops | None, shift: Array | None, y: Array
) -> None:
    """A picture at a time into y, then all of them at once."""
    rectangles = checked_crops(crops, pixels.shape, y.shape)
    check_colours(mean, shift, y.shape)
    OH, OW = y.shape[2:]
    for n, (top, left, flip) in enumerate(rectangles.tolist()):
        rectangle = pixels[n, top : top + OH, left : left + OW].transpose(2, 0, 1)
        y[n] = rectangle[:, :, ::-1] if flip else rectangle
    y /= y.dtype.type(255)
    if shift is not None:
        y += shift[:, :, None, None]
    y -= mean[:, None, None] if mean.ndim == 1 else mean
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


def _crop_rows_of_image(
    tables: Array, mean: Array, std: Array, pixels: Array, rectangles: Array, y: Array
) -> None:
    N, C, OH, OW = y.shape
    for n in range(N):
        top, left, flip = rectangles[n]
        start, step = (left + OW - 1, -1) if flip else (left, 1)
        table = tables[n % len(tables)]
        for h in range(OH):
            for c in range(C):
                for w in range(OW):
                    y[n, c, h, w] = table[c, pixels[n, top + h, start + step * w, c]]
                for w in range(OW):  # apart, as several at once can be divided but not looked up
                    y[n, c, h, w] = (y[n, c, h, w] - mean[c, h, w]) / std[c]


_crop_compiled, _crop_of_image_compiled = jit(_crop_rows), jit(_crop_rows_of_image)


def crop_numba(
    mean: Array, std: Array, pixels: Array, crops: Crops | None, shift: Array | None, y: Array
) -> None:
    """Tables by whole arrays, one for each picture if colours shift, then a look-up a pixel.

    A mean image is subtracted after the look-up; a mean colour is in the tables already.
    """
    rectangles = checked_crops(crops, pixels.shape, y.shape)
    check_colours(mean, shift, y.shape)
    tables = np.empty((1 if shift is None else len(shift), len(std), VALUES), dtype=y.dtype)
    tables[...] = np.arange(VALUES) / y.dtype.type(255)
    if shift is not None:
        tables += shift[:, :, None]
    if mean.ndim == 1:
        tables -= mean[:, None]
        tables /= std[:, None]

    def work(start: int, stop: int) -> None:
        part = slice(start, stop)
        own = tables if shift is None else tables[part]
        if mean.ndim == 1:
            _crop_compiled(own, pixels[part], rectangles[part], y[part])
        else:
            _crop_of_image_compiled(own, mean, std, pixels[part], rectangles[part], y[part])

    for_ranges(len(y), work)


def crop_cuda(
    mean: Array, std: Array, pixels: Array, crops: Crops | None, shift: Array | None, y: Array
) -> None:
    """As the reference: a thread for an output pixel. The rectangles are checked on the host, then copied."""
    rectangles = checked_crops(crops, pixels.shape, y.shape)
    check_colours(mean, shift, y.shape)
    with on_device_of(y):
        there = None if crops is None else to_device(rectangles, device_of(y))
        _launch(mean, std, pixels, there, shift, y)


crop_and_normalize = Kernel(
    "crop_and_normalize",
    outputs=("y",),
    reference=crop_reference,
    array=crop_array,
    numba=crop_numba,
    cuda=crop_cuda,
)
