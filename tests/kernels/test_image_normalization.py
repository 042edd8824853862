"""The bytes of pictures to numbers: every variant the same bits, and the bits of the transform."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minialex import rng
from minialex.backend import DTypeError, use_variant
from minialex.data import Normalize
from minialex.kernels.image_normalization import normalize_images


def pictures(*shape: int) -> np.ndarray[Any, Any]:
    return rng.Stream(0, "test").integers(0, 256, shape).astype(np.uint8)


def normalized(pixels: Any, mean: Any, std: Any, dtype: str, variant: str) -> np.ndarray[Any, Any]:
    N, H, W, C = pixels.shape
    y = np.full((N, C, H, W), np.nan, dtype)
    with use_variant(variant):
        normalize_images(np.array(mean, dtype), np.array(std, dtype), pixels, y)
    return y


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("mean", "std"), [([0.5], [0.5]), ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
def test_variants_agree_bit_for_bit(mean: list[float], std: list[float], dtype: str) -> None:
    pixels = pictures(3, 5, 7, len(mean))
    # The one for a GPU: test_cuda_images.py.
    results = {name: normalized(pixels, mean, std, dtype, name) for name in ("reference", "array", "numba")}
    for name, y in results.items():
        np.testing.assert_array_equal(y, results["reference"], err_msg=name, strict=True)
    exact = (pixels / 255.0 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(results["reference"], exact.transpose(0, 3, 1, 2), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.5), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
@pytest.mark.parametrize("threads", ["1", "3"])
def test_every_byte_becomes_what_the_transform_makes_of_it(
    mean: Any, std: Any, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINIALEX_NUM_THREADS", threads)
    pixels = np.arange(2 * 256 * 3, dtype=np.int64).astype(np.uint8).reshape(2, 16, 16, 3)
    expected = Normalize(mean, std).batch(pixels)
    got = normalized(pixels, np.broadcast_to(mean, 3), np.broadcast_to(std, 3), "float32", "numba")
    np.testing.assert_array_equal(got, expected, strict=True)
    np.testing.assert_array_equal(Normalize(mean, std)(pixels[1]), expected[1])


def test_an_answer_by_hand() -> None:
    pixels = np.array([0, 51, 255], np.uint8).reshape(1, 1, 1, 3)
    y = normalized(pixels, [0.0, 0.2, 0.5], [1.0, 1.0, 0.5], "float64", "reference")
    np.testing.assert_allclose(y.reshape(-1), [0.0, 0.0, 1.0], atol=1e-15)


def test_other_types_of_numbers_are_refused() -> None:
    mean, std, y = np.ones(1, np.float16), np.ones(1, np.float16), np.empty((1, 1, 2, 2), np.float16)
    with pytest.raises(DTypeError, match="normalize_images"):
        normalize_images(mean, std, pictures(1, 2, 2, 1), y)
