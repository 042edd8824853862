"""The input kernel for a GPU, in the emulator; and crops, flips and colour shifts in every variant."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
from PIL import Image

from minialex import rng
from minialex.backend import use_variant
from minialex.data import Compose, Normalize, RandomCrop, RandomHorizontalFlip
from minialex.kernels.image_normalization import Crops, crop_and_normalize, normalize_images
from minialex.shapes import ShapeError

Array = np.ndarray[Any, Any]
EMULATED = pytest.param(
    "cuda",
    marks=pytest.mark.skipif(
        shutil.which("g++") is None, reason="no g++, with which the emulator compiles CUDA kernels"
    ),
)
VARIANTS = pytest.mark.parametrize("variant", ["array", "numba", EMULATED])
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def pictures(*shape: int) -> Array:
    return np.asarray(rng.Stream(0, "test").integers(0, 256, shape)).astype(np.uint8)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(3, 5, 7, 3), (1, 1, 1, 1), (2, 13, 11, 2), (0, 4, 4, 3)])
@pytest.mark.parametrize("variant", [EMULATED])
def test_normalisation_has_the_bits_of_the_loops(variant: str, shape: tuple[int, ...], dtype: str) -> None:
    N, H, W, C = shape
    results = []
    for name in ("reference", variant):
        y = np.full((N, C, H, W), np.nan, dtype)
        with use_variant(name):
            normalize_images(np.array(MEAN[:C], dtype), np.array(STD[:C], dtype), pictures(*shape), y)
        results.append(y)
    np.testing.assert_array_equal(results[1], results[0], strict=True)


def mean_picture(*shape: int, dtype: str = "float32") -> Array:
    return np.asarray(rng.Stream(2, "test").uniform(0.3, 0.6, shape)).astype(dtype)


def cropped(
    variant: str,
    crops: Crops | None,
    size: tuple[int, int],
    dtype: str = "float32",
    shifted: bool = False,
    mean: Array | None = None,
) -> Array:
    pixels = pictures(4 if crops is None else len(crops.top), 9, 8, 3)
    shift = np.asarray(rng.Stream(1, "test").normal(std=0.1, shape=(len(pixels), 3))).astype(dtype)
    mean = np.array(MEAN, dtype) if mean is None else mean
    y = np.full((len(pixels), 3, *size), np.nan, dtype)
    with use_variant(variant):
        crop_and_normalize(mean, np.array(STD, dtype), pixels, crops, shift if shifted else None, y)
    return y


SOME = Crops(np.array([0, 3, 1, 2]), np.array([2, 0, 1, 0]), np.array([True, False, False, True]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shifted", [False, True])
@VARIANTS
def test_crops_have_the_bits_of_the_loops(variant: str, shifted: bool, dtype: str) -> None:
    wanted = cropped("reference", SOME, (6, 5), dtype, shifted)
    got = cropped(variant, SOME, (6, 5), dtype, shifted)
    np.testing.assert_array_equal(got, wanted, strict=True)
    unshifted = cropped(variant, SOME, (6, 5), dtype)
    assert (np.abs(got - unshifted).max() > 0.01) == shifted


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("whole", [False, True])
@VARIANTS
def test_mean_images_have_the_bits_of_the_loops(variant: str, whole: bool, shifted: bool, dtype: str) -> None:
    crops, size = (None, (9, 8)) if whole else (SOME, (6, 5))
    mean = mean_picture(3, *size, dtype=dtype)
    got = cropped(variant, crops, size, dtype, shifted, mean)
    np.testing.assert_array_equal(got, cropped("reference", crops, size, dtype, shifted, mean), strict=True)
    # The same part of it for all pictures, however they were cropped and flipped; each channel has its own.
    none = cropped(variant, crops, size, dtype, shifted, np.zeros(3, dtype))
    for removed in (none - got) * np.array(STD)[:, None, None]:
        np.testing.assert_allclose(removed, mean, atol=1e-6)


@pytest.mark.parametrize("variant", ["reference", "array", "numba", EMULATED])
def test_means_and_shifts_of_another_shape_are_refused(variant: str) -> None:
    for mean in (mean_picture(2), mean_picture(3, 5, 6), mean_picture(1, 6, 5), mean_picture(3, 1, 1)):
        with pytest.raises(ShapeError, match=r"mean must be \(3,\) or \(3, 6, 5\), got"):
            cropped(variant, SOME, (6, 5), mean=mean)
    with pytest.raises(ShapeError, match="without crops, y must be of the pictures' size"):
        cropped(variant, None, (6, 5))
    y, std = np.empty((2, 3, 9, 8), np.float32), np.array(STD, np.float32)
    with (
        use_variant(variant),
        pytest.raises(ShapeError, match=r"shift must be \(2, 3\) or None, got \(1, 3\)"),
    ):
        crop_and_normalize(std, std, pictures(2, 9, 8, 3), None, std[None], y)


@pytest.mark.parametrize("shifted", [False, True])
@VARIANTS
def test_a_mean_image_and_shifts_are_those_of_the_transforms(variant: str, shifted: bool) -> None:
    mean, pixels = mean_picture(3, 11, 9), pictures(4, 9, 8, 3)
    normalize = Normalize(mean, STD)
    shift = np.asarray(rng.Stream(1, "test").normal(std=0.1, shape=(4, 3))).astype("float32")
    got = cropped(variant, None, (9, 8), shifted=shifted, mean=normalize.mean_at(9, 8))
    np.testing.assert_array_equal(got, normalize.batch(pixels, shift if shifted else None), strict=True)


@VARIANTS
def test_crops_are_those_of_the_transforms(variant: str) -> None:
    """RandomCrop, RandomHorizontalFlip and Normalize of each picture, with the rectangles that they drew."""
    pixels, size = pictures(6, 9, 8, 3), (5, 4)
    transform = Compose([RandomCrop(size), RandomHorizontalFlip(), Normalize(MEAN, STD)])
    streams = [rng.Stream(3, "augment", item=n) for n in range(len(pixels))]
    wanted = [transform(Image.fromarray(p), s) for p, s in zip(pixels, streams, strict=True)]
    drawn = []
    for n in range(len(pixels)):
        stream = rng.Stream(3, "augment", item=n)
        x, y = stream.uniform(shape=(2,)).tolist()
        drawn.append((int(y * (9 - 5 + 1)), int(x * (8 - 4 + 1)), stream.uniform() < 0.5))
    crops = Crops(*map(np.array, zip(*drawn, strict=True)))
    assert set(crops.flip.tolist()) == {True, False}
    np.testing.assert_array_equal(cropped(variant, crops, size), np.stack(wanted), strict=True)


@VARIANTS
def test_a_whole_picture_is_normalised_as_it_is(variant: str) -> None:
    pixels, zeros = pictures(2, 9, 8, 3), np.zeros(2, np.int64)
    got = cropped(variant, Crops(zeros, zeros, zeros > 0), (9, 8))
    np.testing.assert_array_equal(got, Normalize(MEAN, STD).batch(pixels), strict=True)


@pytest.mark.parametrize("variant", ["reference", "array", "numba", EMULATED])
def test_rectangles_beyond_a_picture_are_refused(variant: str) -> None:
    zeros = np.zeros(2, np.int64)
    for top, left, message in (
        ([0, 5], [0, 0], "picture 1 begins at row 5, and 5 from there on are not within 0 .. 8"),
        ([0, 0], [-1, 0], "picture 0 begins at column -1"),
        ([0, 0], [0, 4], "picture 1 begins at column 4, and 5"),
    ):
        with pytest.raises(ShapeError, match=message):
            cropped(variant, Crops(np.array(top), np.array(left), zeros > 0), (5, 5))
    with pytest.raises(ShapeError, match="for each of N=2 pictures, got 2, 1, 2"):
        cropped(variant, Crops(zeros, zeros[:1], zeros > 0), (5, 5))
