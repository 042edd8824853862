"""Means, covariances and principal components of pictures, held against NumPy's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loader_datasets import Pictures
from PIL import Image

from minialex.data import (
    CenterCrop,
    Compose,
    Greyscale,
    MemoryCache,
    Normalize,
    PCAJitter,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    Statistics,
    Transform,
    picture_statistics,
    principal_components,
)
from minialex.errors import DataError, UsageError
from minialex.rng import Stream

Array = np.ndarray[Any, Any]
SQUARE = Compose([Resize((9, 8)), Normalize()])


class Given:
    """The pictures of a list of arrays."""

    def __init__(self, *pixels: Array) -> None:
        self.pixels = pixels
        self.root, self.classes = Path("given"), ["one"]
        self.labels, self.names = np.zeros(len(pixels), np.int64), [f"{i}.png" for i in range(len(pixels))]

    def __len__(self) -> int:
        return len(self.pixels)

    def load(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index])

    def digest(self, index: int) -> str:
        return f"{index:064x}"


def coloured(*shape: int, seed: int = 0) -> Array:
    """Noise whose channels have something to do with each other."""
    noise = np.asarray(Stream(seed, "test").normal(shape=(*shape, 3)))
    mixed = noise @ np.array([[30.0, 20.0, 10.0], [0.0, 12.0, -8.0], [0.0, 0.0, 5.0]]) + [120.0, 100.0, 70.0]
    return np.clip(np.round(mixed), 0, 255).astype(np.uint8)


def assert_same(a: Statistics, b: Statistics) -> None:
    for name in ("mean_colour", "covariance", "eigenvalues", "eigenvectors", "mean_image"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name, strict=True)


def test_the_figures_are_numpys() -> None:
    data = Pictures(11)
    found = picture_statistics(data, range(1, 11), SQUARE)
    pictures = np.stack([np.asarray(Resize((9, 8))(data.load(i))) for i in range(1, 11)]) / 255.0
    colours = pictures.reshape(-1, 3)
    assert (found.pictures, found.pixels, found.shape) == (10, 720, (9, 8, 3))
    np.testing.assert_allclose(found.mean_colour, colours.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(found.covariance, np.cov(colours.T), rtol=1e-12)
    np.testing.assert_allclose(found.mean_image, pictures.mean(axis=0).transpose(2, 0, 1), rtol=1e-14)
    assert found.mean_image.flags.c_contiguous
    values, vectors = found.eigenvalues, found.eigenvectors
    np.testing.assert_allclose(values, np.linalg.eigvalsh(np.cov(colours.T))[::-1], rtol=1e-12)
    np.testing.assert_allclose(vectors @ np.diag(values) @ vectors.T, found.covariance, rtol=1e-12)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-14)


def test_pictures_of_different_sizes_count_by_their_pixels() -> None:
    small, large = coloured(2, 3), coloured(7, 5, seed=1)
    found = picture_statistics(Given(small, large), [0, 1])
    colours = np.concatenate([small.reshape(-1, 3), large.reshape(-1, 3)]) / 255.0
    np.testing.assert_allclose(found.covariance, np.cov(colours.T), rtol=1e-12)
    np.testing.assert_allclose(found.mean_colour, colours.mean(axis=0), rtol=1e-14)
    assert found.shape is None
    with pytest.raises(DataError, match="different sizes have no mean image"):
        _ = found.mean_image
    with pytest.raises(DataError, match="different sizes"):  # nor if the last is of the first one's size
        _ = picture_statistics(Given(small, large, small), range(3)).mean_image


def test_no_digit_depends_on_how_it_was_computed() -> None:
    data = Pictures(70)
    once = picture_statistics(data, range(70), SQUARE)
    assert_same(once, picture_statistics(data, range(69, -1, -1), SQUARE))
    assert_same(once, picture_statistics(data, np.arange(70), SQUARE, threads=3))
    told: list[tuple[int, int]] = []
    cache = MemoryCache(10**6)
    again = picture_statistics(data, range(70), SQUARE, cache=cache, progress=lambda *a: told.append(a))
    assert_same(once, again)
    assert told == [(32, 70), (64, 70), (70, 70)]


def test_a_small_spread_far_from_black_loses_no_digits() -> None:
    """Sums of squares in floating point would cancel: all but one of 40,000 pixels are alike."""
    pixels = np.full((200, 200, 3), 254, np.uint8)
    pixels[0, 0] = 255
    found = picture_statistics(Given(pixels), [0])
    n = 40_000
    np.testing.assert_allclose(found.covariance, np.full((3, 3), 1 / n / 255**2), rtol=1e-15)
    np.testing.assert_allclose(found.eigenvalues, [3 / n / 255**2, 0, 0], rtol=1e-12, atol=1e-24)
    assert (found.eigenvalues >= 0).all()


def test_one_channel() -> None:
    data = Pictures(5)
    found = picture_statistics(data, range(5), Compose([Greyscale(), Resize((6, 6)), Normalize()]))
    assert found.shape == (6, 6, 1)
    assert found.mean_image.shape == (1, 6, 6)
    np.testing.assert_array_equal(found.eigenvectors, [[1.0]])
    np.testing.assert_array_equal(found.eigenvalues, found.covariance[0])


def test_what_stands_before_the_first_random_step_counts() -> None:
    """The mean of the larger squares that crops are taken from, also for the crops themselves."""
    data = Pictures(6)
    jitter = PCAJitter((1, 1, 1), np.eye(3).tolist())
    head: list[Transform] = [Resize(9), CenterCrop(9)]
    training = Compose([*head, RandomCrop(7), RandomHorizontalFlip(), jitter, Normalize()])
    assert_same(
        picture_statistics(data, range(6), training), picture_statistics(data, range(6), Compose(head))
    )
    free = picture_statistics(data, range(6), Compose([RandomResizedCrop(7), Normalize()]))
    assert free.shape is None


class Tinted(Transform):
    """A step of somebody else's."""

    def __call__(self, image: Image.Image, stream: Stream | None = None) -> Image.Image:
        return image


def test_what_has_no_statistics_is_refused() -> None:
    data = Pictures(4)
    with pytest.raises(UsageError, match=r"cannot be taken before .*Tinted.*: it may change colours"):
        picture_statistics(data, range(4), Compose([Tinted(), Normalize()]))
    with pytest.raises(DataError, match="needs 2 pixels or more, got 0 of 0 pictures"):
        picture_statistics(data, [])
    with pytest.raises(DataError, match="needs 2 pixels or more, got 1 of 1 pictures"):
        picture_statistics(Given(coloured(1, 1)), [0])
    with pytest.raises(DataError, match=r"1\.png has 1 channels, the pictures before it have 3"):
        picture_statistics(Given(coloured(3, 3), coloured(3, 3)[:, :, 0]), [0, 1])


def test_signs_and_order_are_settled() -> None:
    turn = np.linalg.qr(np.asarray(Stream(3, "test").normal(shape=(3, 3))))[0]
    covariance = turn @ np.diag([0.3, 0.1, 0.01]) @ turn.T
    values, vectors = principal_components(covariance)
    np.testing.assert_allclose(values, [0.3, 0.1, 0.01], rtol=1e-12)
    assert (vectors[np.abs(vectors).argmax(axis=0), range(3)] > 0).all()
    np.testing.assert_allclose(np.abs(vectors), np.abs(turn), atol=1e-12)
    # Where two components are equally large but for the last digits, the first of them decides.
    for nudge in (-1e-14, 0.0, 1e-14):
        _, vectors = principal_components(np.array([[1.0 + nudge, -0.5], [-0.5, 1.0]]))
        np.testing.assert_allclose(vectors, np.sqrt(0.5) * np.array([[1, 1], [-1, 1]]), atol=1e-12)
    values, vectors = principal_components(np.zeros((3, 3)))
    np.testing.assert_array_equal(values, 0.0)
    np.testing.assert_array_equal(np.abs(vectors).sum(axis=0), 1.0)


def test_a_jitter_can_be_made_of_them() -> None:
    found = picture_statistics(Given(coloured(30, 30)), [0])
    jitter = PCAJitter(found.eigenvalues.tolist(), found.eigenvectors.tolist(), sigma=1.0)
    shifts = jitter.shifts(Stream(0, "augment", 1), range(5000)).astype(np.float64)
    # alpha * eigenvalue along each component: the square of the covariance.
    np.testing.assert_allclose(np.cov(shifts.T), found.covariance @ found.covariance, atol=3e-5)
