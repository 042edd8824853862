"""The loader: batches of pictures, the same bits for any number of worker processes.

What is in a batch depends on the seed, the epoch and the batch's number, and on nothing that ran before: an
epoch can be resumed at any batch, and two workers make the batches that none would have made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from minialex.data.folder import Dataset
from minialex.data.picture_cache import PictureCache
from minialex.data.pool import WorkerPool, fitting_slots
from minialex.data.recipe import Recipe, Sample
from minialex.data.team import Team
from minialex.data.transforms import Normalize, Transform
from minialex.data.worker import Layout, Task
from minialex.errors import UsageError
from minialex.rng import Stream

__all__ = ["Batch", "Loader"]


@dataclass(frozen=True)
class Batch:
    """Pictures with their labels.

    Attributes: samples: what the transform made, without the Normalize at its end: bytes (N, H, W, C), or
            float32 (N, C, H, W) if there is none. labels (N,) int64; indices (N,) int64, into the data set;
            normalize: what is to be done to the bytes; shifts (N, C) float32: what is added to the colours of
            each picture before that, where 255 counts as 1, or None.
    """

    samples: npt.NDArray[Any]
    labels: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int64]
    normalize: Normalize | None = None
    shifts: npt.NDArray[np.float32] | None = None

    @cached_property
    def images(self) -> npt.NDArray[np.float32]:
        """The pictures as a net takes them: (N, C, H, W) float32. Made at the first look."""
        return self.samples if self.normalize is None else self.normalize.batch(self.samples, self.shifts)

    def __len__(self) -> int:
        return len(self.labels)


class Loader:
    """Batches of the pictures `indices` of a data set, epoch by epoch.

    Args:   indices: which pictures (a part of a `Split`).
            transform: makes float32 CHW arrays of one shape (ends with Normalize); its random choices follow
            (seed, epoch, picture).
            shuffle: a new order each epoch, which follows (seed, epoch); else the order of `indices`.
            workers: processes that prepare batches ahead; 0 prepares them here, when they are asked for.
            threads: how many of them share that work where there are no workers; the data set's `load` must
            bear being called by several at once, as ImageFolder's does.
            cache: where decoded pictures are kept, with all that is done to them before the first random
            transform; it changes no bit of a batch. Only data sets that say how they load are kept: see
            `Dataset`.
            drop_last: leave out the last batch if it is smaller than the others.
            prefetch: how many batches each worker is ahead.
    Workers start with the first epoch and live until `close()`; a `with` block closes, and so does the end of
    the program, however it comes.
    Raises: UsageError for a batch size or a number of workers that makes no sense, and for workers with a
            cache in the memory of one process.
    """

    def __init__(
        self,
        dataset: Dataset,
        indices: Sequence[int] | npt.NDArray[np.int64],
        transform: Transform,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        workers: int = 0,
        drop_last: bool = False,
        prefetch: int = 2,
        threads: int = 1,
        cache: PictureCache | None = None,
    ) -> None:
        numbers = {"batch_size": batch_size, "prefetch": prefetch, "threads": threads}
        _check_arguments(numbers, workers, cache)
        self.dataset = dataset
        self.indices = np.array(indices, dtype=np.int64).reshape(-1)
        if self.indices.size and not (self.indices.min() >= 0 and self.indices.max() < len(dataset)):
            raise IndexError(f"indices must lie between 0 and {len(dataset) - 1}, the last of the data set")
        self.transform = transform
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.workers = workers
        self.drop_last = drop_last
        self.prefetch = prefetch
        self.recipe = Recipe(dataset, transform, seed, cache)
        self._sample: Sample | None = None
        self._team = Team(threads)
        self._pool: WorkerPool | None = None

    def __len__(self) -> int:
        """Batches an epoch."""
        full, rest = divmod(len(self.indices), self.batch_size)
        return full + (1 if rest and not self.drop_last else 0)

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """The pictures in the order of an epoch, as indices into the data set."""
        if not self.shuffle:
            return self.indices
        return self.indices[Stream(self.seed, "shuffle", epoch).permutation(len(self.indices))]

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from `start_batch` on.

        With workers, only one epoch at a time can be read.

        Raises: DataError, naming the file, if a picture cannot be prepared or a worker dies over it.
        """
        if not 0 <= start_batch <= len(self):
            raise ValueError(f"start_batch must lie between 0 and {len(self)}, got {start_batch}")
        order, size = self.order(epoch), self.batch_size
        batches = [order[batch * size : (batch + 1) * size] for batch in range(start_batch, len(self))]
        if self.workers == 0 or not batches:
            return self._here(epoch, batches)
        return self._by_workers(epoch, batches)

    def _here(self, epoch: int, batches: list[npt.NDArray[np.int64]]) -> Iterator[Batch]:
        for indices in batches:
            yield self._batch(self._prepared(indices.tolist(), epoch), indices, epoch)

    def _prepared(self, indices: list[int], epoch: int) -> npt.NDArray[Any]:
        sample = self._sample_of(indices[0], epoch)
        samples = np.empty((len(indices), *sample.shape), dtype=sample.dtype)

        def fill(row: int) -> None:
            samples[row] = self.recipe.prepare(indices[row], epoch, sample)

        self._team.each(len(indices), fill)
        return samples

    def _by_workers(self, epoch: int, batches: list[npt.NDArray[np.int64]]) -> Iterator[Batch]:
        """Batch k is prepared by worker k % workers in slot k % slots; a slot once read is filled again."""
        pool = self._running_pool(int(batches[0][0]), epoch)
        generation = pool.new_generation()
        slots = pool.layout.slots
        finished = False
        try:
            for number in range(min(slots, len(batches))):
                self._order_batch(pool, generation, number, epoch, batches)
            for number, indices in enumerate(batches):
                if pool.closed or pool.generation != generation:
                    raise RuntimeError("the loader was closed, or began another epoch, during this epoch")
                pool.receive(number % self.workers, generation)
                samples = pool.views.samples[number % slots, : len(indices)].copy()
                if number + slots < len(batches):
                    self._order_batch(pool, generation, number + slots, epoch, batches)
                yield self._batch(samples, indices, epoch)
            finished = True
        except GeneratorExit:
            finished = True  # the reader left early: the workers are sound
            raise
        finally:
            if not finished and pool.generation == generation:
                self.close()  # after an error or Ctrl-C nothing is left behind; the next epoch starts workers
            elif not pool.closed and pool.generation == generation:
                pool.new_generation()  # what was begun ahead is dropped

    def _order_batch(
        self, pool: WorkerPool, generation: int, number: int, epoch: int, batches: list[npt.NDArray[np.int64]]
    ) -> None:
        slot, count = number % pool.layout.slots, len(batches[number])
        pool.views.indices[slot, :count] = batches[number]
        pool.send(number % self.workers, Task(generation, number, slot, count, epoch))

    def _running_pool(self, first: int, epoch: int) -> WorkerPool:
        """The workers, started if they do not run yet."""
        if self._pool is None or self._pool.closed:
            sample = self._sample_of(first, epoch)
            batch_size = min(self.batch_size, len(self.indices))
            slots = fitting_slots(self.workers, self.prefetch, Layout(0, 1, batch_size, sample).nbytes)
            self._pool = WorkerPool(self.recipe, Layout(self.workers, slots, batch_size, sample))
        return self._pool

    def _sample_of(self, first: int, epoch: int) -> Sample:
        """What a prepared picture is, which one of them tells."""
        if self._sample is None:
            array = self.recipe.prepare(first, epoch)
            self._sample = Sample(array.shape, array.dtype)
        return self._sample

    def _batch(self, samples: npt.NDArray[Any], indices: npt.NDArray[np.int64], epoch: int) -> Batch:
        shifts = self.recipe.shifts(indices.tolist(), epoch)
        return Batch(samples, self.dataset.labels[indices], indices.copy(), self.recipe.normalize, shifts)

    def close(self) -> None:
        """End the workers and threads and give the shared memory back. The next epoch would start them
        anew."""
        self._team.close()
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check_arguments(numbers: Mapping[str, int], workers: int, cache: PictureCache | None) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise UsageError(f"{name} is {value}, expected 1 or more.")
    if workers < 0:
        raise UsageError(f"workers is {workers}, expected 0 or more.")
    if workers and cache is not None and not cache.shared:
        raise UsageError(
            f"workers is {workers}, but other processes cannot see what one keeps in its memory. Use a cache "
            "on disk, which the system keeps in memory for all of them, or no workers."
        )
