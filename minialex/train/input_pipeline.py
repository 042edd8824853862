"""From the files of the pictures to the tensor that goes into the network: who decodes, what is kept."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from minialex.backend import Array, Uploader, num_threads, parse_device, to_device
from minialex.data import Batch, DiskCache, Loader, MemoryCache, PictureCache, memory_budget, parse_bytes
from minialex.errors import UsageError
from minialex.folders import cache_folder
from minialex.tensor import Tensor
from minialex.train.config import TrainConfig
from minialex.train.device_pictures import DeviceBatch, DevicePictures
from minialex.train.normalization import normalized

MOST_WORKERS = MOST_THREADS = 8
FOLDER = "pictures"
# Bytes of pictures that a device keeps at most, unless --cache-budget says more.
DEVICE_BUDGET = 4 * 10**9


def count_workers(config: TrainConfig, device: str) -> int:
    """The processes that load pictures: as asked; else none for a CPU, whose cores all train.

    There the trainer's own threads load, between the steps. A GPU has one process a core besides the
    trainer's, at most 8, unless what they decode is to be kept in the trainer's memory.
    """
    if config.workers is not None:
        return config.workers
    if parse_device(device)[0] != "cuda" or config.cache in ("memory", "device"):
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
    if kind in ("none", "device"):
        return None
    if kind == "memory":
        return MemoryCache(memory_budget(asked))
    cache = DiskCache(cache_folder() / FOLDER) if asked is None else DiskCache(cache_folder() / FOLDER, asked)
    cache.trim(frozenset(digests))
    return cache


def on_the_device(loader: Loader, config: TrainConfig, device: str) -> Loader | DevicePictures:
    """The loader, or for --cache device one whose pictures stay on the device.

    Raises: UsageError if they cannot.
    """
    if config.cache != "device":
        return loader
    if parse_device(device)[0] == "cpu":
        raise UsageError(
            "--cache device is for a GPU; on the CPU, --cache memory keeps pictures where they are used"
        )
    budget = DEVICE_BUDGET if config.cache_budget is None else parse_bytes(config.cache_budget)
    return DevicePictures(loader, device, budget, count_threads())


class Sent:
    """A batch whose pixels are on their way to the device. All else is as in the batch."""

    def __init__(self, batch: Batch, arrival: Callable[[], Array]) -> None:
        self._batch, self.arrival = batch, arrival

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __len__(self) -> int:
        return len(self._batch)


def ahead(batches: Iterable[Any], device: str) -> Iterator[Any]:
    """The batches, each with the next one's pixels already on their way: the copy runs beside the step.

    On the CPU there is nothing to copy, and no batch is asked for before its turn.
    """
    if parse_device(device)[0] == "cpu":
        yield from batches
        return
    uploader, waiting = Uploader(device), deque[Any]()
    try:
        for batch in batches:
            # What stays on the device, or is numbers already, need not travel.
            is_bytes = isinstance(batch, Batch) and batch.normalize is not None
            waiting.append(Sent(batch, uploader.send(batch.samples)) if is_bytes else batch)
            if len(waiting) == 2:
                yield waiting.popleft()
        yield from waiting
    finally:
        uploader.close()  # Also if the reader leaves early.


def input_tensor(batch: Any, device: str) -> Tensor:
    """The pictures of a batch as the network takes them, on the device: (N, C, H, W) float32.

    Bytes are shifted and normalised there, by a kernel that gives the bits of `batch.images`.
    """
    if isinstance(batch, DeviceBatch):
        return batch.tensor()
    normalize = getattr(batch, "normalize", None)
    if normalize is None:
        return Tensor(batch.images, device=device)
    pixels = batch.arrival() if isinstance(batch, Sent) else to_device(batch.samples, device)
    images = normalized(normalize, pixels, device, shifts=batch.shifts)
    return Tensor._wrap(images)  # Nobody else has the array: no copy.
