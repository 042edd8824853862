"""The convolution's CUDA kernels, run by the emulator, against the plain loops."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest

from minialex import rng
from minialex.backend import use_variant
from minialex.emulator import use_seed
from minialex.kernels import cuda_convolution, launch_grids
from minialex.kernels.convolution import conv2d_backward, conv2d_forward
from minialex.shapes import conv_output_size

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None, reason="no g++, with which the emulator compiles CUDA kernels"
)

GEOMETRIES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    # x, weight, and what is not the default.
    "plain": ((2, 2, 5, 7), (3, 2, 3, 2), {}),
    "one of each": ((1, 1, 1, 1), (1, 1, 1, 1), {"padding": ((1, 0), (0, 0))}),
    "a pixel for a window": ((3, 5, 3, 5), (4, 5, 1, 1), {}),
    "a pixel for a window, in groups": ((2, 4, 3, 3), (6, 2, 1, 1), {"groups": 2}),
    "a pixel for a window, some left out": ((2, 3, 5, 4), (2, 3, 1, 1), {"stride": (2, 3)}),
    "3 x 3": ((2, 3, 5, 7), (5, 3, 3, 3), {"padding": ((1, 1), (1, 1))}),
    "5 x 5 in groups": ((1, 4, 6, 5), (4, 2, 5, 5), {"padding": ((2, 2), (2, 2)), "groups": 2}),
    "11 x 11, stride 4": ((1, 1, 19, 18), (2, 1, 11, 11), {"stride": (4, 4), "padding": ((1, 2), (1, 2))}),
    "padding by side": ((2, 1, 4, 5), (2, 1, 3, 5), {"padding": ((1, 2), (0, 3))}),
    "more padding than picture": ((1, 2, 2, 2), (2, 2, 1, 5), {"padding": ((1, 1), (4, 4))}),
    "stride and dilation": ((2, 2, 9, 8), (2, 2, 3, 3), {"stride": (2, 3), "dilation": (3, 2)}),
    "stride and dilation alike": ((1, 1, 9, 11), (1, 1, 3, 3), {"stride": (4, 2), "dilation": (2, 4)}),
    "a group a channel": ((2, 3, 4, 4), (6, 1, 2, 2), {"groups": 3, "padding": ((0, 1), (1, 0))}),
    "more than one block": ((2, 1, 12, 14), (2, 1, 3, 3), {"padding": ((1, 1), (1, 1))}),
}


def arrays_and_geometry(
    x: tuple[int, ...], weight: tuple[int, ...], options: dict[str, Any], dtype: str
) -> tuple[list[Any], tuple[Any, ...]]:
    """x, weight, bias, dy, and stride, padding, dilation, groups."""
    defaults = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}
    stride, padding, dilation, groups = (defaults | options).values()
    output = (conv_output_size(x[2 + i], weight[2 + i], stride[i], padding[i], dilation[i]) for i in range(2))
    stream, y = rng.Stream(0, "test"), (x[0], weight[0], *output)
    arrays = [stream.normal(shape=shape).astype(dtype) for shape in (x, weight, weight[:1], y)]
    return arrays, (stride, padding, dilation, groups)


def both_ways(variant: str, arrays: list[Any], geometry: tuple[Any, ...], relu: bool) -> list[Any]:
    """y, dx, dweight and dbias."""
    x, weight, bias, dy = arrays
    y, dx, dweight, dbias = (np.full(a.shape, np.nan, a.dtype) for a in (dy, x, weight, bias))
    with use_variant(variant):
        conv2d_forward(x, weight, bias, y, *geometry, relu)
        conv2d_backward(dy, x, weight, y if relu else None, dx, dweight, dbias, *geometry)
    return [y, dx, dweight, dbias]


def assert_close(got: list[Any], wanted: list[Any], tolerance: float) -> None:
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * max(1.0, abs(other).max()))


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize(("x", "weight", "options"), GEOMETRIES.values(), ids=GEOMETRIES)
def test_the_plain_loops_say_the_same(
    x: Any, weight: Any, options: dict[str, Any], dtype: str, tolerance: float, relu: bool
) -> None:
    arrays, geometry = arrays_and_geometry(x, weight, options, dtype)
    wanted = both_ways("reference", arrays, geometry, relu)
    assert_close(both_ways("cuda", arrays, geometry, relu), wanted, tolerance)


def test_the_order_of_threads_changes_no_bit() -> None:
    arrays, geometry = arrays_and_geometry((3, 2, 7, 9), (3, 2, 3, 3), {"stride": (1, 2)}, "float32")
    results = []
    for seed in range(3):
        with use_seed(seed):
            results.append([a.tobytes() for a in both_ways("cuda", arrays, geometry, True)])
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("budget", [1, 300, 700, 2000, 4000, 2**20])
def test_strips_of_any_size(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Output rows, single images, several images: the budget changes no value."""
    options = {"stride": (2, 1), "padding": ((1, 2), (0, 1)), "groups": 2}
    arrays, geometry = arrays_and_geometry((5, 4, 7, 5), (4, 2, 3, 2), options, "float64")
    wanted = both_ways("reference", arrays, geometry, True)
    monkeypatch.setattr(cuda_convolution, "COLUMN_BUDGET", budget)
    assert_close(both_ways("cuda", arrays, geometry, True), wanted, 1e-12)


@pytest.mark.parametrize(("N", "budget"), [(1, 100), (5, 100), (100, 4000), (128, 10**6), (0, 10)])
def test_strips_are_the_whole_output_within_the_budget(
    N: int, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    F, OH, OW, cells = 3, 4, 5, 7
    monkeypatch.setattr(cuda_convolution, "COLUMN_BUDGET", budget)
    strips = cuda_convolution._strips((N, F, OH, OW), cells, 4)
    seen = np.zeros((N, OH))
    for strip in strips:
        seen[strip.images, strip.rows] += 1
        needed = strip.count * strip.pixels * (cells + F) * 4
        assert needed <= budget or (strip.count, strip.pixels) == (1, OW)
    assert (seen == 1).all()


@pytest.mark.parametrize("limit", ["MOST_ALONG_Y", "WORTH_OF_THREADS"])
def test_several_channels_a_thread(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the grid ends, and where threads enough are busy."""
    arrays, geometry = arrays_and_geometry((2, 5, 4, 3), (7, 5, 3, 3), {}, "float64")
    wanted = both_ways("reference", arrays, geometry, True)
    monkeypatch.setattr(launch_grids, limit, 2)
    monkeypatch.setattr(cuda_convolution, "MOST_ALONG_Y", 2)
    assert launch_grids.grid_of_channels(12, 7)[1] < 7
    assert_close(both_ways("cuda", arrays, geometry, True), wanted, 1e-12)


@pytest.mark.parametrize(
    ("lines", "width"), [(1, 1), (7, 13), (100, 27), (9, 55), (3, 64), (5, 65), (2, 700)]
)
def test_a_grid_covers_every_line(lines: int, width: int) -> None:
    (blocks_of_lines, blocks_of_columns), (columns, rows) = launch_grids.grid_of_lines(lines, width)
    assert columns * rows == launch_grids.THREADS
    assert 0 <= blocks_of_lines * rows - lines < rows
    assert 0 <= blocks_of_columns * columns - width < columns


def test_only_what_is_asked_for_is_worked_out() -> None:
    (x, weight, _, dy), geometry = arrays_and_geometry((3, 2, 5, 6), (4, 2, 3, 3), {}, "float64")
    _, dx, dweight, dbias = both_ways("cuda", [x, weight, np.zeros(4), dy], geometry, False)
    alone = [np.full_like(a, np.nan) for a in (dx, dweight, dbias)]
    with use_variant("cuda"):
        conv2d_backward(dy, None, weight, None, alone[0], None, None, *geometry)
        conv2d_backward(dy, x, None, None, None, alone[1], alone[2], *geometry)
    for got, wanted in zip(alone, (dx, dweight, dbias), strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("window", [1, 2])
def test_without_a_bias(window: int) -> None:
    (x, weight, _, dy), geometry = arrays_and_geometry((2, 2, 3, 4), (3, 2, window, window), {}, "float64")
    plain, biased = np.full_like(dy, np.nan), np.full_like(dy, np.nan)
    with use_variant("cuda"):
        conv2d_forward(x, weight, None, plain, *geometry, False)
        conv2d_forward(x, weight, np.arange(3.0), biased, *geometry, False)
    np.testing.assert_allclose(biased - plain, np.broadcast_to(np.arange(3.0)[:, None, None], dy.shape))


def test_a_pixel_for_a_window_needs_no_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("columns were made")

    monkeypatch.setattr(cuda_convolution, "launch_im2col", never)
    (x, weight, bias, dy), geometry = arrays_and_geometry((2, 3, 2, 2), (4, 3, 1, 1), {}, "float64")
    y = np.empty_like(dy)
    with use_variant("cuda"):
        conv2d_forward(x, weight, bias, y, *geometry, True)
    wanted = np.einsum("fc,ncpq->nfpq", weight[:, :, 0, 0], x) + bias[:, None, None]
    np.testing.assert_allclose(y, np.maximum(wanted, 0), atol=1e-12)


def test_a_dead_pixel_stops_nan_and_a_living_one_does_not() -> None:
    (x, weight, _, dy), geometry = arrays_and_geometry((1, 1, 4, 4), (2, 1, 3, 3), {}, "float32")
    mask = np.ones_like(dy)
    mask[0, 0, 1, 1], dy[0, 0, 1, 1] = 0, np.nan
    dy[0, 1, 0, 0] = np.nan
    dx, dweight, dbias = (np.zeros_like(a) for a in (x, weight, weight[:, 0, 0, 0].copy()))
    with use_variant("cuda"):
        conv2d_backward(dy, x, weight, mask, dx, dweight, dbias, *geometry)
    np.testing.assert_array_equal(np.isnan(dbias), [False, True])
    np.testing.assert_array_equal(np.isnan(dweight).all(axis=(1, 2, 3)), [False, True])
    assert np.isnan(dx[0, 0, 0, 0])
    assert not np.isnan(dx[0, 0, 3, 3])


def test_nan_goes_through_the_relu() -> None:
    (x, weight, bias, dy), geometry = arrays_and_geometry((1, 1, 3, 3), (1, 1, 3, 3), {}, "float32")
    x[0, 0, 1, 1] = np.nan
    y = np.zeros_like(dy)
    with use_variant("cuda"):
        conv2d_forward(x, weight, bias, y, *geometry, True)
    assert np.isnan(y).all()


def test_an_empty_batch() -> None:
    arrays, geometry = arrays_and_geometry((0, 2, 5, 5), (3, 2, 3, 3), {}, "float32")
    y, dx, dweight, dbias = both_ways("cuda", arrays, geometry, True)
    assert y.shape == (0, 3, 3, 3)
    assert dx.shape == arrays[0].shape
    assert not dweight.any()
    assert not dbias.any()


def test_inputs_need_not_be_contiguous() -> None:
    (x, weight, bias, dy), geometry = arrays_and_geometry((2, 3, 5, 4), (2, 3, 2, 2), {}, "float64")
    strided = [np.asfortranarray(x), np.asfortranarray(weight), np.repeat(bias, 2)[::2], dy[:, :, ::-1]]
    wanted = both_ways("reference", [x, weight, bias, dy[:, :, ::-1]], geometry, False)
    assert_close(both_ways("cuda", strided, geometry, False), wanted, 1e-12)


@pytest.mark.parametrize("blocks", [0, 1, 255, 256, 300])
def test_a_bias_gradient_is_the_sum_over_blocks(blocks: int) -> None:
    partial = rng.Stream(0, "test").normal(shape=(2, blocks))
    dbias = np.full(2, np.nan)
    cuda_convolution._bias_gradient.launch(2, launch_grids.THREADS, partial, dbias, blocks)
    np.testing.assert_allclose(dbias, partial.sum(axis=1), atol=1e-12)


@pytest.mark.parametrize(("N", "H", "W"), [(3, 50, 30), (17, 16, 16), (60, 9, 8), (4200, 1, 1)])
def test_a_bias_gradient_over_several_blocks(N: int, H: int, W: int) -> None:
    """One filter's pixels are more than one block moves, and not as many as two."""
    assert N * H * W > cuda_convolution.GRADIENTS_PER_BLOCK
    dy, mask = (rng.Stream(i, "test").normal(shape=(N, 2, H, W)) for i in range(2))
    x, dweight, dbias = mask[:, :1].copy(), np.full((2, 1, 1, 1), np.nan), np.full(2, np.nan)
    with use_variant("cuda"):
        conv2d_backward(dy, x, None, mask, None, dweight, dbias, (1, 1), ((0, 0), (0, 0)), (1, 1), 1)
    masked = np.where(mask > 0, dy, 0)
    np.testing.assert_allclose(dbias, masked.sum(axis=(0, 2, 3)), atol=1e-10)
    np.testing.assert_allclose(dweight[:, 0, 0, 0], (masked * x).sum(axis=(0, 2, 3)), atol=1e-10)
