"""Softmax, log-softmax and cross-entropy for a GPU, in the emulator, against the loops."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest

from minialex.backend import Kernel, use_variant
from minialex.kernels.cross_entropy import cross_entropy_backward, cross_entropy_forward
from minialex.kernels.softmax import (
    log_softmax_backward,
    log_softmax_forward,
    softmax_backward,
    softmax_forward,
)
from minialex.rng import Stream

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None, reason="no g++, with which the emulator compiles CUDA kernels"
)

Array = np.ndarray[Any, Any]
INF = np.inf
# One class, a rest of a warp, a whole warp, a rest of a block, and more classes than threads.
SHAPES = ((3, 1), (5, 7), (2, 32), (2, 257), (1, 1003), (0, 4))
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


def numbers(shape: tuple[int, ...], dtype: str, item: int = 0, std: float = 3.0) -> Array:
    return np.asarray(Stream(9, "test", item=item).normal(std=std, shape=shape)).astype(dtype)


def result(kernel: Kernel, variant: str, *args: Any, shape: tuple[int, ...]) -> Array:
    """The output, which comes last but for the numbers."""
    arrays = [a for a in args if isinstance(a, np.ndarray)]
    out = np.full(shape, np.nan, arrays[0].dtype)
    with use_variant(variant), np.errstate(all="ignore"):
        kernel(*arrays, out, *args[len(arrays) :])
    return out


def assert_agrees(kernel: Kernel, *args: Any, shape: tuple[int, ...]) -> None:
    wanted = result(kernel, "reference", *args, shape=shape)
    got = result(kernel, "cuda", *args, shape=shape)
    tolerance = 2e-6 if got.dtype == np.float32 else 1e-14
    np.testing.assert_allclose(got, wanted, rtol=4 * tolerance, atol=8 * tolerance, strict=True)


@DTYPES
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kernel", [softmax_forward, log_softmax_forward], ids=repr)
def test_forward(kernel: Kernel, shape: tuple[int, ...], dtype: str) -> None:
    assert_agrees(kernel, numbers(shape, dtype), shape=shape)


@DTYPES
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kernel", [softmax_backward, log_softmax_backward], ids=repr)
def test_backward(kernel: Kernel, shape: tuple[int, ...], dtype: str) -> None:
    forward = softmax_forward if kernel is softmax_backward else log_softmax_forward
    y = result(forward, "array", numbers(shape, dtype), shape=shape) if shape[0] else numbers(shape, dtype)
    assert_agrees(kernel, numbers(shape, dtype, item=1, std=1.0), y, shape=shape)


@DTYPES
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("labels", ["int64", "int32", "uint8"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_cross_entropy(shape: tuple[int, ...], labels: str, smoothing: float, dtype: str) -> None:
    N, K = shape
    logits, dlosses = numbers(shape, dtype), numbers((N,), dtype, item=1)
    classes = np.asarray(Stream(9, "test", item=2).integers(0, min(K, 256), (N,))).astype(labels)
    assert_agrees(cross_entropy_forward, logits, classes, smoothing, shape=(N,))
    assert_agrees(cross_entropy_backward, dlosses, logits, classes, smoothing, shape=shape)


SPECIAL = {
    "minus infinity": [0.0, -INF, 1.0],
    "far apart": [-1e4, 1e4, 0.0],
    "infinity": [0.0, INF, 1.0],
    "all minus infinity": [-INF] * 3,
    "NaN first": [np.nan, 1.0, 2.0],
    "NaN later": [1.0, 2.0, np.nan],
}


@DTYPES
@pytest.mark.parametrize("row", SPECIAL.values(), ids=SPECIAL)
def test_special_values(row: list[float], dtype: str) -> None:
    x = np.array([row, [0.5, -0.5, 0.25]], dtype)
    for kernel in (softmax_forward, log_softmax_forward):
        assert_agrees(kernel, x, shape=(2, 3))
    for label in range(3):
        for smoothing in (0.0, 0.1):
            labels, dlosses = np.array([label, 1]), np.array([1.0, 2.0], dtype)
            assert_agrees(cross_entropy_forward, x, labels, smoothing, shape=(2,))
            assert_agrees(cross_entropy_backward, dlosses, x, labels, smoothing, shape=(2, 3))


def test_rows_that_are_not_contiguous() -> None:
    x = numbers((7, 4), "float64").T
    assert_agrees(softmax_forward, x, shape=(4, 7))
