"""The pooling kernels for a GPU, run by the emulator, against the plain loops."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest

from minialex.backend import use_variant
from minialex.kernels.average_pooling import (
    adaptive_bounds,
    average_pool_backward,
    average_pool_forward,
    sliding_bounds,
)
from minialex.kernels.max_pooling import max_pool2d_backward, max_pool2d_forward
from minialex.kernels.sigmoid_pooling import sigmoid_average_pool_backward, sigmoid_average_pool_forward
from minialex.ops import MaxPool2dOp
from minialex.shapes import pool_output_size
from minialex.testing import grid

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None, reason="no g++, with which the emulator compiles CUDA kernels"
)

NAN, INF = np.nan, np.inf
WINDOWS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    # The picture, and what is not the default.
    "side by side": ((2, 3, 6, 8), {"kernel_size": (2, 2)}),
    "side by side, the end left out": ((2, 1, 5, 7), {"kernel_size": (2, 2)}),
    "overlapping": ((1, 2, 7, 9), {"kernel_size": (3, 3), "stride": (2, 2)}),
    "overlapping, padded": (
        (2, 2, 7, 6),
        {"kernel_size": (3, 3), "stride": (2, 2), "padding": ((1, 1), (1, 1))},
    ),
    "every pixel begins a window": ((1, 1, 5, 6), {"kernel_size": (3, 3), "stride": (1, 1)}),
    "padding by side": ((1, 2, 5, 7), {"kernel_size": (3, 4), "stride": (1, 2), "padding": ((1, 0), (0, 2))}),
    "a cut last window": ((1, 2, 6, 8), {"kernel_size": (3, 3), "stride": (2, 2), "ceil_mode": True}),
    "cut and padded": (
        (2, 1, 6, 7),
        {"kernel_size": (2, 2), "stride": (2, 2), "padding": ((1, 0), (0, 1)), "ceil_mode": True},
    ),
    "gaps": ((1, 2, 8, 9), {"kernel_size": (2, 1), "stride": (3, 4)}),
    "many windows a pixel": (
        (1, 1, 9, 6),
        {"kernel_size": (5, 4), "stride": (1, 1), "padding": ((2, 2), (0, 2))},
    ),
    "wider than a block": ((1, 1, 3, 70), {"kernel_size": (2, 3), "stride": (1, 1)}),
    "higher than a block": (
        (1, 2, 35, 3),
        {"kernel_size": (3, 3), "stride": (2, 1), "padding": ((1, 1), (1, 1))},
    ),
    "one pixel": ((1, 1, 1, 1), {"kernel_size": (1, 1)}),
}


def geometry_of(
    x: tuple[int, ...],
    kernel_size: Any,
    stride: Any = None,
    padding: Any = ((0, 0), (0, 0)),
    ceil_mode: bool = False,
) -> tuple[tuple[int, ...], tuple[Any, ...]]:
    """The output's shape; kernel_size, stride, padding."""
    stride = stride or kernel_size
    output = (pool_output_size(x[2 + i], kernel_size[i], stride[i], padding[i], ceil_mode) for i in range(2))
    return (*x[:2], *output), (kernel_size, stride, padding)


def max_both_ways(
    variant: str,
    x: Any,
    output: tuple[int, ...],
    geometry: tuple[Any, ...],
    rectify: bool,
    cell: str = "uint8",
) -> tuple[Any, Any, Any]:
    """y, argmax, and dx for a cotangent in which no two elements are equal."""
    y, argmax, dx = np.full(output, NAN, x.dtype), np.full(output, 77, cell), np.full_like(x, NAN)
    dy = grid(*output, item=9).astype(x.dtype)
    with use_variant(variant):
        max_pool2d_forward(x, y, argmax, *geometry, rectify)
        max_pool2d_backward(dy, argmax, dx, *geometry)
    return y, argmax, dx


def assert_same_bits(got: tuple[Any, ...], wanted: tuple[Any, ...]) -> None:
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("x", "options"), WINDOWS.values(), ids=WINDOWS)
def test_max_pooling_gives_the_bits_of_the_plain_loops(
    x: tuple[int, ...], options: dict[str, Any], dtype: str, rectify: bool
) -> None:
    output, geometry = geometry_of(x, **options)
    for values in (
        grid(*x),
        np.round(grid(*x)),
        -abs(grid(*x)),
    ):  # The second has ties, the third no winners.
        arguments = (values.astype(dtype), output, geometry, rectify)
        assert_same_bits(max_both_ways("cuda", *arguments), max_both_ways("reference", *arguments))


@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize("window", [(2, 2), (3, 3), (2, 3)])
def test_nan_and_infinities_in_a_window(window: tuple[int, int], rectify: bool) -> None:
    x = grid(2, 3, 6, 7).astype(np.float32)
    x[0, 0, 2, 3], x[0, 0, 2, 4], x[0, 0, 3, 3] = NAN, INF, NAN
    x[0, 1], x[0, 2, 1:5, 2:6], x[1, 0], x[1, 1, ::2] = -INF, -INF, NAN, -INF
    for padding in (((0, 0), (0, 0)), ((1, 1), (1, 0))):
        output, geometry = geometry_of(x.shape, window, (1, 2), padding)
        arguments = (x, output, geometry, rectify)
        assert_same_bits(max_both_ways("cuda", *arguments), max_both_ways("reference", *arguments))


@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize(
    ("window", "cell"),
    [((15, 17), "uint8"), ((16, 16), "uint16"), ((17, 16), "uint16"), ((257, 256), "uint32")],
)
def test_windows_of_many_cells(window: tuple[int, int], cell: str, rectify: bool) -> None:
    """A byte counts to 255: larger windows number their cells in wider integers."""
    x = np.sort(grid(window[0] * window[1] + window[0])).reshape(1, 1, window[0], window[1] + 1)
    op = MaxPool2dOp(window, 1)
    op.rectify = rectify  # type: ignore[misc]
    if (window, rectify) != ((16, 16), False):  # 256 cells fit a byte, and one number more does not.
        assert op.outputs(x)[1].dtype == cell
    output, geometry = geometry_of(x.shape, window, (1, 1))
    for values in (x, -abs(x)):
        arguments = (values, output, geometry, rectify, cell)
        assert_same_bits(max_both_ways("cuda", *arguments), max_both_ways("reference", *arguments))


def test_max_pooling_of_nothing() -> None:
    y, argmax, dx = max_both_ways(
        "cuda", np.zeros((0, 2, 4, 4)), (0, 2, 2, 2), ((2, 2), (2, 2), ((0, 0), (0, 0))), False
    )
    assert (y.size, argmax.size, dx.size) == (0, 0, 0)


# ----------------------------------------------------------------------------------------------- averages

Bounds = tuple[tuple[int, int, int], ...]


def bounds_of_windows(x: tuple[int, ...], options: dict[str, Any], count_include_pad: bool) -> list[Bounds]:
    output, (kernel_size, stride, padding) = geometry_of(x, **options)
    return [
        sliding_bounds(x[2 + i], output[2 + i], kernel_size[i], stride[i], padding[i], count_include_pad)
        for i in range(2)
    ]


ADAPTIVE = {
    "fewer bins": ((2, 2, 7, 5), (3, 2)),
    "as many": ((1, 2, 3, 4), (3, 4)),
    "more bins than pixels": ((1, 1, 3, 2), (7, 5)),
    "one": ((1, 3, 5, 6), (1, 1)),
}
RECTANGLES: dict[str, tuple[tuple[int, ...], list[Bounds]]] = {
    "the edges are in no rectangle": (
        (2, 1, 7, 8),
        [((1, 3, 2), (3, 6, 3)), ((2, 3, 1), (3, 4, 1), (4, 7, 9))],
    ),
    **{name: (x, bounds_of_windows(x, options, True)) for name, (x, options) in WINDOWS.items()},
    **{
        f"{name}, without padding": (x, bounds_of_windows(x, options, False))
        for name, (x, options) in WINDOWS.items()
        if "padding" in options
    },
    **{
        f"adaptive: {name}": (x, [adaptive_bounds(x[2 + i], output[i]) for i in range(2)])
        for name, (x, output) in ADAPTIVE.items()
    },
}


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-14)])
@pytest.mark.parametrize(("x", "bounds"), RECTANGLES.values(), ids=RECTANGLES)
def test_average_pooling_agrees_with_the_plain_loops(
    x: tuple[int, ...], bounds: list[Bounds], dtype: str, tolerance: float
) -> None:
    rows, cols = (np.array(b, np.int64) for b in bounds)
    values, output = grid(*x).astype(dtype), (*x[:2], len(rows), len(cols))
    dy, results = grid(*output, item=1).astype(dtype), []
    for variant in ("reference", "cuda"):
        y, dx = np.full(output, NAN, dtype), np.full(x, NAN, dtype)
        pooled, sigmoids, dsigmoid = np.full_like(y, NAN), np.full_like(dx, NAN), np.full_like(dx, NAN)
        with use_variant(variant):
            average_pool_forward(values, y, rows, cols)
            average_pool_backward(dy, dx, rows, cols)
            sigmoid_average_pool_forward(values, sigmoids, pooled, rows, cols)
            sigmoid_average_pool_backward(dy, sigmoids, dsigmoid, rows, cols)
        results.append((y, dx, pooled, sigmoids, dsigmoid))
    for wanted, got in zip(*results, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_a_nan_stays_in_the_windows_that_hold_it(sigmoid: bool) -> None:
    x = np.ones((1, 1, 6, 6), np.float32)
    x[0, 0, 2, 5] = NAN
    bounds = [np.array(sliding_bounds(6, 3, 2, 2, (0, 0), True), np.int64)] * 2
    y, sigmoids = np.empty((1, 1, 3, 3), np.float32), np.empty_like(x)
    with use_variant("cuda"):
        if sigmoid:
            sigmoid_average_pool_forward(x, sigmoids, y, *bounds)
            np.testing.assert_array_equal(np.isnan(sigmoids), np.isnan(x))
        else:
            average_pool_forward(x, y, *bounds)
    assert np.argwhere(np.isnan(y)).tolist() == [[0, 0, 1, 2]]
