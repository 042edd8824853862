"""Bytes to the numbers that a network takes, where the bytes lie: one way for the host and for a device."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from minialex.backend import Array, empty, on_device_of, to_device
from minialex.data import Normalize
from minialex.kernels.image_normalization import Crops, crop_and_normalize, normalize_images

__all__ = ["constants", "normalized"]


def normalized(
    normalize: Normalize,
    pixels: Array,
    device: str,
    *,
    shifts: npt.NDArray[np.float32] | None = None,
    crops: Crops | None = None,
    size: tuple[int, int] | None = None,
) -> Array:
    """(N, C, OH, OW) float32 of pictures (N, H, W, C) of bytes, both on `device`; the bits of `data.Batch`.

    Args:   shifts: (N, C), on the host, what is added to the colours; None for nothing. crops: the rectangles
            that are taken, of `size` (OH, OW); None for whole pictures.
    Raises: DataError if the Normalize is not for pictures of this shape.
    """
    N, H, W, C = pixels.shape
    OH, OW = (H, W) if size is None else size
    mean, std = constants(normalize, (OH, OW, C), device)
    with on_device_of(pixels):
        images = empty((N, C, OH, OW), mean)
        if shifts is None and crops is None and mean.ndim == 1:
            normalize_images(mean, std, pixels, images)
        else:
            there = None if shifts is None else to_device(shifts, device)
            crop_and_normalize(mean, std, pixels, crops, there, images)
    return images


@functools.lru_cache(maxsize=16)
def constants(normalize: Normalize, shape: tuple[int, int, int], device: str) -> tuple[Array, Array]:
    """(mean, std) for pictures (H, W, C), on `device`; copied there once.

    Shapes: mean (C,) or, of a mean image, (C, H, W); std (C,); float32.
    Raises: DataError if they are not for such pictures.
    """
    normalize.check(shape)
    H, W, C = shape
    mean = normalize.mean_at(H, W)
    if normalize.mean_image is None:
        mean = np.full(C, mean.ravel(), np.float32)
    std = np.full(C, normalize.std, np.float32)
    return to_device(np.ascontiguousarray(mean), device), to_device(std, device)
