"""The mean and the standard deviation of a Normalize, where a kernel wants them."""

from __future__ import annotations

import functools

import numpy as np

from minialex.backend import Array, to_device
from minialex.data import Normalize

__all__ = ["constants"]


@functools.lru_cache(maxsize=16)
def constants(normalize: Normalize, channels: int, device: str) -> tuple[Array, Array]:
    """(mean, std), (C,) float32 each, on `device`; copied there once.

    Raises: DataError if they are not for so many channels.
    """
    normalize.check_channels(channels)
    mean, std = (
        to_device(np.full(channels, value, dtype=np.float32), device)
        for value in (normalize.mean, normalize.std)
    )
    return mean, std
