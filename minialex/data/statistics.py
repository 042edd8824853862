"""The mean of a data set's pictures and the covariance of their colours, for Normalize and PCAJitter.

All sums are of integers, bytes and products of two bytes, and so are exact: no order of adding, no number of
threads and no offset of the colours changes a digit. Only the last divisions round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from minialex.data.folder import Dataset
from minialex.data.picture_cache import PictureCache
from minialex.data.recipe import Recipe, describe
from minialex.data.team import Team
from minialex.data.transforms import (
    Compose,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Transform,
)
from minialex.errors import DataError, UsageError

__all__ = ["Statistics", "picture_statistics", "principal_components"]

Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int], object]

# They choose a part of the picture and which way round it is, and change no colour.
CHOOSING = frozenset([RandomCrop, RandomHorizontalFlip, RandomResizedCrop])
# Pictures that are decoded before they are added up: enough for all threads, and few enough for the memory.
AT_A_TIME = 32
# Components of an eigenvector that are so close count as equally large.
EQUAL = 1e-9


@dataclass(frozen=True, eq=False)
class Statistics:
    """What the pixels of pictures are like, where 255 counts as 1; C channels, 3 for RGB.

    Attributes: pictures, pixels: how many. mean_colour (C,). covariance (C, C) of the channels over all
            pixels, divided by pixels - 1. eigenvalues (C,) of that, the largest first: the variances along
            the principal components, which are the columns of eigenvectors (C, C), each of length 1 with its
            largest component positive. shape: (H, W, C) of the pictures, None if they are not of one size.
            mean_image (C, H, W), the mean of the pictures.
    """

    pictures: int
    pixels: int
    mean_colour: Floats
    covariance: Floats
    eigenvalues: Floats
    eigenvectors: Floats
    shape: tuple[int, ...] | None
    _mean_image: Floats | None = field(default=None, repr=False)

    @property
    def mean_image(self) -> Floats:
        """The mean of the pictures, (C, H, W). Raises: DataError if they are not of one size."""
        if self._mean_image is None:
            raise DataError(
                "pictures of different sizes have no mean image. Bring them to one size first: Resize to "
                "(height, width), or Resize and CenterCrop."
            )
        return self._mean_image


def picture_statistics(
    dataset: Dataset,
    indices: Sequence[int] | npt.NDArray[np.int64],
    transform: Transform | None = None,
    *,
    threads: int = 1,
    cache: PictureCache | None = None,
    progress: Progress | None = None,
) -> Statistics:
    """The statistics of the pictures `indices` of a data set, in one pass.

    Args:   transform: how they are prepared. What stands before the first random step counts, as the mean of
            the larger squares that crops are taken from is wanted, not of the crops; None takes the pictures
            as they are, each with as much weight as it has pixels. threads, cache: as of a `Loader`.
            progress: called with (pictures done, pictures in all).
    Raises: DataError naming a picture that cannot be prepared, or has other channels than the first;
            DataError for fewer than two pixels; UsageError for a transform that may change colours at random.
    """
    recipe = Recipe(dataset, transform or Compose([]), 0, cache)
    for step in recipe.varying:
        if type(step) not in CHOOSING:
            raise UsageError(f"statistics of pictures cannot be taken before {step!r}: it may change colours")
    numbers, team = [int(index) for index in indices], Team(threads)
    sums = _Sums()
    try:
        for start in range(0, len(numbers), AT_A_TIME):
            for index, pixels in _decoded(recipe, numbers[start : start + AT_A_TIME], team):
                sums.add(pixels, describe(dataset, index))
            if progress is not None:
                progress(min(start + AT_A_TIME, len(numbers)), len(numbers))
    finally:
        team.close()
    return sums.statistics()


def _decoded(recipe: Recipe, indices: list[int], team: Team) -> list[tuple[int, npt.NDArray[np.uint8]]]:
    found: dict[int, npt.NDArray[np.uint8]] = {}

    def decode(row: int) -> None:
        found[row] = recipe.pixels(indices[row])

    team.each(len(indices), decode)
    return [(index, found[row]) for row, index in enumerate(indices)]


class _Sums:
    """Pictures, pixels, colours, products of colours, and whole pictures while they are of one shape."""

    def __init__(self) -> None:
        self.pictures = self.pixels = 0
        self.colour: list[int] = []
        self.product: list[list[int]] = []
        self.image: npt.NDArray[np.int64] | None = None

    def add(self, pixels: npt.NDArray[np.uint8], name: str) -> None:
        """One more picture, (H, W, C). Raises: DataError naming it, for other channels than the first had."""
        C = pixels.shape[2]
        if not self.pictures:
            self.image = np.zeros(pixels.shape, np.int64)
            self.colour, self.product = [0] * C, [[0] * C for _ in range(C)]
        elif len(self.colour) != C:
            raise DataError(f"{name} has {C} channels, the pictures before it have {len(self.colour)}.")
        if self.image is not None and self.image.shape == pixels.shape:
            self.image += pixels
        else:
            self.image = None
        # Whole numbers below 2**53, up to 10**11 pixels a picture: exact, in whichever order they are added.
        rows = pixels.reshape(-1, C).astype(np.float64)
        self.colour = [a + int(b) for a, b in zip(self.colour, rows.sum(axis=0), strict=True)]
        products = (rows.T @ rows).tolist()
        self.product = [
            [a + int(b) for a, b in zip(old, new, strict=True)]
            for old, new in zip(self.product, products, strict=True)
        ]
        self.pictures += 1
        self.pixels += len(rows)

    def statistics(self) -> Statistics:
        """What the sums come to. Raises: DataError for fewer than two pixels."""
        n = self.pixels
        if n < 2:
            raise DataError(f"a covariance needs 2 pixels or more, got {n} of {self.pictures} pictures")
        covariance = [
            [
                float(Fraction(n * product - a * b, n * (n - 1) * 255 * 255))
                for product, b in zip(row, self.colour, strict=True)
            ]
            for row, a in zip(self.product, self.colour, strict=True)
        ]
        values, vectors = principal_components(np.array(covariance))
        return Statistics(
            pictures=self.pictures,
            pixels=n,
            mean_colour=np.array([float(Fraction(total, 255 * n)) for total in self.colour]),
            covariance=np.array(covariance),
            eigenvalues=values,
            eigenvectors=vectors,
            shape=None if self.image is None else self.image.shape,
            _mean_image=self._mean_image(),
        )

    def _mean_image(self) -> Floats | None:
        if self.image is None:
            return None
        return np.ascontiguousarray(self.image.transpose(2, 0, 1) / (255.0 * self.pictures))


def principal_components(covariance: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    """(eigenvalues (C,), the largest first; eigenvectors (C, C), a column each) of a covariance (C, C).

    Each eigenvector has length 1 and its largest component, the first of equally large ones, is positive: an
    eigenvector's sign is arbitrary, and with this one the same colours give the same jitter.
    """
    values, vectors = np.linalg.eigh(np.asarray(covariance, np.float64))
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]  # of one colour alone: 0, not -1e-18
    sizes = np.abs(vectors)
    largest = np.argmax(sizes >= sizes.max(axis=0) - EQUAL, axis=0)
    signs = np.where(vectors[largest, np.arange(len(values))] < 0, -1.0, 1.0)
    return values, np.ascontiguousarray(vectors * signs)
