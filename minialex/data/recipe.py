"""How one picture of a data set is prepared, the same in the trainer and in its workers.

A transform is taken in parts. What stands first and is not random makes the same picture every time, and may
be kept in a cache; what is random follows; and a `Normalize` at the end, with a `PCAJitter` right before it,
is left to whoever takes the batches, so that bytes travel from the workers instead of numbers four times as
long.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from minialex.data.folder import Dataset, ImageFolder
from minialex.data.picture_cache import PictureCache
from minialex.data.transforms import (
    CenterCrop,
    Compose,
    Greyscale,
    Normalize,
    PCAJitter,
    Resize,
    Transform,
)
from minialex.errors import DataError
from minialex.rng import Stream

__all__ = ["Recipe", "Sample", "Steps", "describe", "split_transform"]

Array = npt.NDArray[Any]
Last = TypeVar("Last", bound=Transform)

# Exactly these: a subclass may do anything, and may do something else tomorrow.
FIXED = frozenset([Resize, CenterCrop, Greyscale])


@dataclass(frozen=True)
class Sample:
    """What one prepared picture is, and so all of a batch: uint8 (H, W, C), or float32 (C, H, W)."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Bytes of one picture."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


class Steps(NamedTuple):
    """A transform in parts: what is the same every time, the rest, and what is done to whole batches."""

    fixed: tuple[Transform, ...]
    varying: tuple[Transform, ...]
    jitter: PCAJitter | None
    normalize: Normalize | None


def split_transform(transform: Transform) -> Steps:
    """The transform in parts; the last two are None where it does not end with them.

    Raises: DataError for a PCAJitter elsewhere than right before the Normalize at the end.
    """
    steps = list(transform.transforms) if type(transform) is Compose else [transform]
    normalize = _taken_off(steps, Normalize)
    jitter = None if normalize is None else _taken_off(steps, PCAJitter)
    if any(type(step) is PCAJitter for step in steps):
        raise DataError("PCAJitter must stand right before a Normalize at the end of the transform.")
    fixed = next((i for i, step in enumerate(steps) if type(step) not in FIXED), len(steps))
    return Steps(tuple(steps[:fixed]), tuple(steps[fixed:]), jitter, normalize)


def _taken_off(steps: list[Transform], kind: type[Last]) -> Last | None:
    """The last of the steps, taken off them, if it is one of exactly this class."""
    return cast(Last, steps.pop()) if steps and type(steps[-1]) is kind else None


class Recipe:
    """From a picture's index to the bytes or numbers that go into a batch.

    Args:   seed: of the random choices, whose address is (seed, epoch, picture). cache: where pictures are
            kept once they are decoded and what is not random has been done to them; None decodes them anew,
            and so do data sets that do not say how they load (see `Dataset`).
    Attributes: varying: the transforms that are random, and what follows them; jitter, normalize: what is
                still to be done to a batch of bytes; None if the transform does it all.
    """

    def __init__(
        self, dataset: Dataset, transform: Transform, seed: int, cache: PictureCache | None = None
    ) -> None:
        self._fixed, self.varying, self.jitter, self.normalize = split_transform(transform)
        loading = way_of_loading(dataset)
        self.dataset, self.seed, self.cache = dataset, seed, cache if loading else None
        self._way = json.dumps([loading, *(step.to_config() for step in self._fixed)], sort_keys=True)

    def prepare(self, index: int, epoch: int, expected: Sample | None = None) -> Array:
        """Picture `index` as it appears in an epoch.

        Raises: DataError that names the file, whatever went wrong with it.
        """
        with self._naming(index):
            sample = self.apply(self._picture(index), self.stream(index, epoch))
        self._check(sample, index, expected)
        return sample

    def pixels(self, index: int) -> npt.NDArray[np.uint8]:
        """Picture `index` with all done that is not random, as bytes (H, W, C). Raises: as `prepare`."""
        with self._naming(index):
            pixels = np.asarray(self._picture(index))
            return pixels[:, :, None] if pixels.ndim == 2 else pixels

    def stream(self, index: int, epoch: int) -> Stream:
        """What the random choices for a picture in an epoch are drawn from."""
        return Stream(self.seed, "augment", epoch, index)

    def shifts(self, indices: Sequence[int], epoch: int) -> npt.NDArray[np.float32] | None:
        """What is added to the colours of these pictures in an epoch, (N, C); None without a PCAJitter.

        It takes nothing but the indices: whoever makes the batch asks here, whether workers, threads or a
        device prepared the pictures.
        """
        return None if self.jitter is None else self.jitter.shifts(self.stream(0, epoch), indices)

    @contextmanager
    def _naming(self, index: int) -> Iterator[None]:
        """Inside, whatever goes wrong is a DataError that names the picture."""
        try:
            yield
        except DataError as error:
            if self.dataset.names[index] in str(error):
                raise
            raise DataError(f"{describe(self.dataset, index)} cannot be prepared: {error}") from error
        except Exception as error:
            raise DataError(
                f"{describe(self.dataset, index)} cannot be prepared: {type(error).__name__}: {error}. "
                "Remove the picture, or mend the transform if it happens with all of them."
            ) from error

    def apply(self, picture: Any, stream: Stream) -> Array:
        """What is random done to a picture, and its bytes taken."""
        for step in self.varying:
            picture = step(picture, stream)
        if self.normalize is None:
            return picture  # whether it is an array is checked by the caller
        pixels = np.asarray(picture)
        pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
        if pixels.dtype != np.uint8:
            raise DataError(f"Normalize takes pictures of bytes (uint8), got {pixels.dtype}.")
        if self.jitter is not None:
            self.jitter.check_channels(pixels.shape[2])
        self.normalize.check(pixels.shape)
        return pixels

    def _picture(self, index: int) -> Image.Image:
        """The picture after what is not random, out of the cache or into it."""
        if self.cache is None:
            return self._decode(index)
        digest = self.dataset.digest(index)
        pixels = self.cache.read(digest, self._way)
        if pixels is not None:
            return Image.fromarray(pixels)
        picture = self._decode(index)
        # Other modes cannot be told from their bytes. A file that changed since the audit has another content
        # than its digest says, and must not be kept under it.
        if picture.mode in ("RGB", "L") and _is_unchanged(self.dataset, index):
            self.cache.keep(digest, self._way, np.asarray(picture))
        return picture

    def _decode(self, index: int) -> Any:
        picture = self.dataset.load(index)
        for step in self._fixed:
            picture = step(picture)
        return picture

    def _check(self, sample: Any, index: int, expected: Sample | None) -> None:
        if self.normalize is None and (
            not isinstance(sample, np.ndarray) or sample.ndim != 3 or sample.dtype != np.float32
        ):
            raise DataError(
                f"The transform must make float32 arrays of 3 axes (CHW), got {type(sample).__name__} of "
                f"{getattr(sample, 'dtype', 'no')} and shape {getattr(sample, 'shape', '?')}. End it with "
                "Normalize."
            )
        if expected is not None and sample.shape != expected.shape:
            found, wanted = _channels_first(sample), _channels_first(np.empty(expected.shape, expected.dtype))
            raise DataError(
                f"{describe(self.dataset, index)} becomes an array of shape {found}, expected {wanted} as "
                "the first picture: a batch needs equal shapes. Put a Resize to (height, width) or a crop "
                "first."
            )


def describe(dataset: Dataset, index: int) -> str:
    """A picture's file for a message."""
    return str(dataset.root / dataset.names[index])


def way_of_loading(dataset: Dataset) -> list[str] | None:
    """All that the pixels of a picture depend on besides its file; None if nobody knows.

    A subclass of ImageFolder may load in another way, and any other data set in ways that its settings
    decide: they must say so. The class is in it because a subclass inherits what its parent says.
    """
    kind = type(dataset)
    way = "" if kind is ImageFolder else getattr(dataset, "way", None)
    return [f"{kind.__module__}.{kind.__qualname__}", way] if isinstance(way, str) else None


def _is_unchanged(dataset: Dataset, index: int) -> bool:
    """Whether the file is still the one that was hashed, for data sets that can tell."""
    check = getattr(dataset, "is_unchanged", None)
    return True if check is None else bool(check(index))


def _channels_first(sample: Array) -> Sequence[int]:
    """The shape as a net sees it, (C, H, W)."""
    return sample.shape if sample.dtype != np.uint8 else (sample.shape[2], *sample.shape[:2])
