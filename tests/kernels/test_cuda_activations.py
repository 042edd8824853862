"""The activations' CUDA kernels, run by the emulator, against the plain loops."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from minialex.backend import Kernel, use_variant
from minialex.kernels.activations import (
    relu_backward,
    relu_forward,
    sigmoid_backward,
    sigmoid_forward,
    tanh_backward,
    tanh_forward,
)
from minialex.testing import grid

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None, reason="no g++, with which the emulator compiles CUDA kernels"
)

NAN, INF = np.nan, np.inf
SPECIAL = [NAN, INF, -INF, 0.0, -0.0, 1e-30, -1e-30, 1e3, -1e3, 88.0, -88.0, 1.0]
PAIRS = {
    "relu": (relu_forward, relu_backward),
    "sigmoid": (sigmoid_forward, sigmoid_backward),
    "tanh": (tanh_forward, tanh_backward),
}


@pytest.mark.parametrize("count", [1, 255, 256, 700])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-14)])
@pytest.mark.parametrize(("forward", "backward"), PAIRS.values(), ids=PAIRS)
def test_the_plain_loops_say_the_same(
    forward: Kernel, backward: Kernel, dtype: str, tolerance: float, count: int
) -> None:
    x = np.concatenate([SPECIAL, grid(count)])[:count].astype(dtype)
    dy = np.concatenate([[INF, NAN], grid(count, item=1)])[:count].astype(dtype)
    results = []
    for variant in ("reference", "cuda"):
        y, dx = np.full_like(x, NAN), np.full_like(x, NAN)
        with use_variant(variant), np.errstate(all="ignore"):
            forward(x, y)
            backward(dy, y, dx)
        results.append((y, dx))
    for wanted, got in zip(*results, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("forward", "backward"), PAIRS.values(), ids=PAIRS)
def test_no_elements(forward: Kernel, backward: Kernel) -> None:
    nothing = np.zeros(0, np.float32)
    with use_variant("cuda"):
        forward(nothing, nothing)
        backward(nothing, nothing, nothing)


def test_every_second_element() -> None:
    x = grid(600).astype(np.float32)[::2]
    y = np.empty(300, np.float32)
    with use_variant("cuda"):
        relu_forward(x, y)
    np.testing.assert_array_equal(y, np.maximum(x, 0))
