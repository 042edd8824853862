"""From the files of the pictures to the tensor that goes into the network: who decodes, what is kept."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from minialex.backend import empty, num_threads, on_device_of, parse_device, to_device
from minialex.data import DiskCache, MemoryCache, PictureCache, memory_budget, parse_bytes
from minialex.data.flowers import cache_folder
from minialex.kernels.image_normalization import normalize_images
from minialex.tensor import Tensor
from minialex.train.config import TrainConfig

MOST_WORKERS = MOST_THREADS = 8
FOLDER = "pictures"


def count_workers(config: TrainConfig, device: str) -> int:
    """The processes that load pictures: as asked; else none for a CPU, whose cores all train.

    There the trainer's own threads load, between the steps. A GPU has one process a core besides the
    trainer's, at most 8, unless what they decode is to be kept in the trainer's memory.
    """
    if config.workers is not None:
        return config.workers
    if parse_device(device)[0] != "cuda" or config.cache == "memory":
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST_WORKERS, cores - 1)


def count_threads() -> int:
    """The threads that load pictures where no process does."""
    return min(MOST_THREADS, num_threads())


def open_cache(config: TrainConfig, workers: int, digests: Iterable[str]) -> PictureCache | None:
    """Where decoded pictures are kept, as the options say; in memory unless there are workers.

    Args: digests: of the run's pictures, for which room is made on disk.
    """
    kind = config.cache or ("disk" if workers else "memory")
    asked = None if config.cache_budget is None else parse_bytes(config.cache_budget)
    if kind == "none":
        return None
    if kind == "memory":
        return MemoryCache(memory_budget(asked))
    cache = DiskCache(cache_folder() / FOLDER) if asked is None else DiskCache(cache_folder() / FOLDER, asked)
    cache.trim(frozenset(digests))
    return cache


def input_tensor(batch: Any, device: str) -> Tensor:
    """The pictures of a batch as the network takes them, on the device: (N, C, H, W) float32.

    Bytes are normalised there, by a kernel that gives the bits of `batch.images`.
    """
    normalize = getattr(batch, "normalize", None)
    if normalize is None:
        return Tensor(batch.images, device=device)
    pixels = to_device(batch.samples, device)
    N, H, W, C = pixels.shape
    normalize.check_channels(C)
    mean, std = (
        to_device(np.full(C, value, dtype=np.float32), device) for value in (normalize.mean, normalize.std)
    )
    with on_device_of(pixels):
        images = empty((N, C, H, W), mean)
        normalize_images(mean, std, pixels, images)
    return Tensor._wrap(images)  # Nobody else has the array: no copy.
