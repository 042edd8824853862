"""Convolution straight from the pixels, against the plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minialex import rng
from minialex.kernels.convolution import conv2d_backward_reference, conv2d_reference
from minialex.kernels.direct_convolution import conv2d_backward_direct, conv2d_direct, direct_is_better

GEOMETRIES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    # x, weight, and what is not the default.
    "plain": ((2, 2, 7, 9), (4, 2, 3, 5), {}),
    "odd channels and filters": ((2, 3, 6, 8), (5, 3, 5, 5), {}),
    "one of each": ((1, 1, 5, 5), (1, 1, 5, 5), {}),
    "padding by side": ((2, 1, 6, 5), (2, 1, 3, 5), {"padding": ((1, 2), (0, 3))}),
    "more padding than picture": ((1, 2, 2, 2), (2, 2, 1, 5), {"padding": ((1, 1), (4, 4))}),
    "dilation": ((1, 2, 9, 12), (3, 2, 3, 5), {"dilation": (3, 2)}),
    "groups": ((2, 6, 5, 7), (9, 2, 2, 5), {"groups": 3, "padding": ((0, 1), (2, 2))}),
    "a part for each image and more": ((17, 2, 5, 6), (3, 2, 5, 5), {"padding": ((2, 2), (2, 2))}),
}


def geometry_of(options: dict[str, Any]) -> tuple[Any, ...]:
    defaults = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}
    return tuple((defaults | options).values())


def arrays(x: tuple[int, ...], weight: tuple[int, ...], options: dict[str, Any], dtype: str) -> list[Any]:
    """x, weight, bias and dy."""
    _, ((top, bottom), (left, right)), (DH, DW), _ = geometry_of(options)
    OH, OW = x[2] + top + bottom - DH * (weight[2] - 1), x[3] + left + right - DW * (weight[3] - 1)
    stream, y = rng.Stream(0, "test"), (x[0], weight[0], OH, OW)
    return [stream.normal(shape=shape).astype(dtype) for shape in (x, weight, weight[:1], y)]


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-4)])
@pytest.mark.parametrize(("x", "weight", "options"), GEOMETRIES.values(), ids=GEOMETRIES)
def test_the_plain_loops_say_the_same(
    x: Any, weight: Any, options: dict[str, Any], dtype: str, tolerance: float, relu: bool
) -> None:
    geometry = geometry_of(options)
    x, weight, bias, dy = arrays(x, weight, options, dtype)
    results = []
    for forward, backward in (
        (conv2d_reference, conv2d_backward_reference),
        (conv2d_direct, conv2d_backward_direct),
    ):
        y, dx, dweight, dbias = (np.full_like(a, np.nan) for a in (dy, x, weight, bias))
        forward(x, weight, bias, y, *geometry, relu)
        backward(dy, x, weight, y if relu else None, dx, dweight, dbias, *geometry)
        results.append((y, dx, dweight, dbias))
    for wanted, got in zip(*results, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * max(1.0, abs(wanted).max()))


def test_only_what_is_asked_for_is_worked_out() -> None:
    x, weight, _, dy = arrays((3, 2, 6, 7), (4, 2, 5, 5), {}, "float64")
    geometry = geometry_of({})
    dx, dweight, dbias = np.empty_like(x), np.empty_like(weight), np.empty(4)
    conv2d_backward_direct(dy, x, weight, None, dx, dweight, dbias, *geometry)
    alone = [np.empty_like(a) for a in (dx, dweight, dbias)]
    conv2d_backward_direct(dy, None, weight, None, alone[0], None, None, *geometry)
    conv2d_backward_direct(dy, x, None, None, None, alone[1], None, *geometry)
    conv2d_backward_direct(dy, x, None, None, None, alone[1], alone[2], *geometry)
    for got, wanted in zip(alone, (dx, dweight, dbias), strict=True):
        np.testing.assert_array_equal(got, wanted)
    y = np.empty_like(dy)
    conv2d_direct(x, weight, None, y, *geometry, False)
    biased = np.empty_like(dy)
    conv2d_direct(x, weight, np.full(4, 2.0), biased, *geometry, False)
    np.testing.assert_allclose(biased - 2.0, y, atol=1e-12)


def test_small_pictures_with_few_channels_and_no_others() -> None:
    assert direct_is_better((6, 1, 5, 5), (64, 6, 28, 28), (1, 1))
    assert direct_is_better((16, 6, 5, 5), (64, 16, 10, 10), (1, 1))
    assert not direct_is_better((48, 3, 11, 11), (32, 48, 55, 55), (4, 4))
    assert not direct_is_better((128, 48, 5, 5), (32, 128, 27, 27), (1, 1))
    assert not direct_is_better((16, 6, 5, 5), (64, 16, 10, 10), (2, 1))
    assert not direct_is_better((16, 6, 3, 3), (64, 16, 10, 10), (1, 1))
