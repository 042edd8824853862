"""Dropout for a GPU, in the emulator: the CPU's bits."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from minialex import rng
from minialex.backend import use_variant
from minialex.kernels.dropout import dropout_forward

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None, reason="no g++, with which the emulator compiles CUDA kernels"
)

ADDRESSES = ((0, 0, 0), (2**40 + 3, 9, 2), (2**64 - 1, 2**32 - 1, 2**32 - 1))


@pytest.mark.parametrize("address", ADDRESSES, ids=str)
@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 1021, 2050])
def test_masks_are_the_cpus(size: int, address: tuple[int, int, int]) -> None:
    for dtype in (np.float32, np.float64):
        x = rng.Stream(1, "test").normal(shape=(size,)).astype(dtype)
        results = {}
        for variant in ("reference", "numba", "cuda"):
            y = np.full_like(x, np.nan)
            with use_variant(variant):
                dropout_forward(x, y, 0.4, 1.0 / 0.6, *address)
            results[variant] = y
        np.testing.assert_array_equal(results["cuda"], results["reference"], strict=True)
        # Compiled for the CPU, the product is rounded from 64 bits.
        np.testing.assert_array_equal(results["cuda"] == 0, results["numba"] == 0)


def test_every_word_is_that_of_the_generator() -> None:
    """Masks for p at a word and just above it: only that element falls."""
    seed, step, item, size = 2**33 + 5, 7, 3, 37
    words = rng.bits(size, seed=seed, purpose="dropout", step=step, item=item) >> np.uint32(8)
    assert len(set(words.tolist())) == size
    ones = np.ones(size, np.float64)
    for element in range(0, size, 3):
        kept, fallen = np.empty(size), np.empty(size)
        with use_variant("cuda"):
            dropout_forward(ones, kept, float(words[element]) * 2.0**-24, 1.0, seed, step, item)
            dropout_forward(ones, fallen, float(words[element] + 0.5) * 2.0**-24, 1.0, seed, step, item)
        np.testing.assert_array_equal(np.flatnonzero(kept != fallen), [element])


@pytest.mark.parametrize(("p", "kept"), [(0.0, 1.0), (1.0, 0.0)])
def test_all_or_nothing(p: float, kept: float) -> None:
    x, y = np.array([1.0, np.nan, np.inf, -2.0, 3.0], np.float32), np.empty(5, np.float32)
    with use_variant("cuda"), np.errstate(invalid="ignore"):
        dropout_forward(x, y, p, 1.0, 1, 2, 3)
        np.testing.assert_array_equal(y, x * np.float32(kept))
