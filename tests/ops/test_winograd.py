"""Winograd's algorithm gives the convolution: exactly in float64, and with a bounded error in float32."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import minialex as mx
from minialex import ops
from minialex.backend import Array, use_variant
from minialex.kernels import winograd, winograd_plan, winograd_tiles
from minialex.kernels.column_convolution import conv2d_backward_columns, conv2d_columns
from minialex.kernels.convolution import conv2d_backward_reference, conv2d_reference
from minialex.kernels.winograd import conv2d_backward_winograd, conv2d_winograd
from minialex.kernels.winograd_plan import OUTPUTS, winograd_is_better, winograd_matrices
from minialex.rng import Stream
from minialex.shapes import Padding, Pair, conv_output_size


def normal(*shape: int, item: int = 0) -> Array:
    return np.asarray(Stream(0, "test", 0, item).normal(0.0, 1.0, shape), dtype=np.float64)


@pytest.mark.parametrize(("kernel", "outputs"), [(k, m) for k, counts in OUTPUTS.items() for m in counts])
def test_the_matrices_are_a_convolution_exactly(kernel: int, outputs: int) -> None:
    """In fractions, every filter tap and pixel gives the output that a sliding window gives: no rounding."""
    n = outputs + kernel - 1
    A_T, G, B_T = (
        np.array([[Fraction(value).limit_denominator(10_000) for value in row] for row in matrix])
        for matrix in winograd_matrices(outputs, kernel)
    )
    for tap in range(kernel):
        for pixel in range(n):
            result = A_T @ (G[:, tap] * B_T[:, pixel])
            assert result.tolist() == [int(pixel - tap == i) for i in range(outputs)]


# x, weight, stride, padding, groups: overhanging tiles, uneven padding, blocks, pixels that no window sees.
SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...], int, Padding, int]] = {
    "3 x 3": ((2, 3, 9, 10), (4, 3, 3, 3), 1, ((1, 1), (1, 1)), 1),
    "5 x 5": ((1, 2, 9, 8), (3, 2, 5, 5), 1, ((2, 2), (2, 2)), 1),
    "no padding": ((2, 2, 6, 7), (2, 2, 3, 3), 1, ((0, 0), (0, 0)), 1),
    "padding by side": ((1, 2, 7, 6), (2, 2, 3, 3), 1, ((0, 3), (2, 1)), 1),
    "groups": ((3, 4, 7, 7), (6, 2, 3, 3), 1, ((1, 1), (1, 1)), 2),
    "stride 4, as in conv1": ((1, 2, 24, 27), (2, 2, 11, 11), 4, ((1, 2), (1, 2)), 1),
    "a whole number of blocks": ((1, 2, 15, 14), (2, 2, 6, 6), 2, ((1, 0), (0, 1)), 1),
    "stride 2 and groups": ((2, 2, 12, 11), (4, 1, 5, 5), 2, ((2, 2), (2, 2)), 2),
    "pixels that no window sees": ((1, 1, 22, 21), (2, 1, 11, 11), 4, ((0, 0), (0, 0)), 1),
    "one window": ((1, 2, 3, 3), (2, 2, 3, 3), 1, ((0, 0), (0, 0)), 1),
}


def experiment(case: str, dtype: str) -> tuple[dict[str, Array], Pair, Padding, int]:
    x, weight, stride, padding, groups = SHAPES[case]
    sizes = [conv_output_size(x[2 + i], weight[2 + i], stride, padding[i], 1) for i in range(2)]
    arrays = {
        "x": normal(*x),
        "weight": normal(*weight, item=1),
        "bias": normal(weight[0], item=2),
        "dy": normal(x[0], weight[0], *sizes, item=3),
    }
    return {name: array.astype(dtype) for name, array in arrays.items()}, (stride, stride), padding, groups


def gradients_like(arrays: dict[str, Array]) -> list[Array]:
    return [np.full_like(arrays[name], np.nan) for name in ("x", "weight", "bias")]


@pytest.mark.parametrize("variant", ["reference", "array", "numba"])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("case", SHAPES)
def test_forward_and_backward_are_the_plain_loops(case: str, relu: bool, variant: str) -> None:
    arrays, stride, padding, groups = experiment(case, "float64")
    x, weight, bias, dy = arrays.values()
    wanted, y = np.empty_like(dy), np.full_like(dy, np.nan)
    conv2d_reference(x, weight, bias, wanted, stride, padding, (1, 1), groups, relu)
    right, got = gradients_like(arrays), gradients_like(arrays)
    mask = wanted if relu else None
    conv2d_backward_reference(dy, x, weight, mask, *right, stride, padding, (1, 1), groups)
    with use_variant(variant):
        conv2d_winograd(x, weight, bias, y, stride, padding, groups, relu)
        conv2d_backward_winograd(dy, x, weight, mask, *got, stride, padding, groups)
    np.testing.assert_allclose(y, wanted, rtol=0, atol=1e-11 * abs(wanted).max())
    for gradient, loops in zip(got, right, strict=True):
        np.testing.assert_allclose(gradient, loops, rtol=0, atol=1e-11 * max(1.0, abs(loops).max()))


@pytest.mark.parametrize("missing", [(0,), (1,), (2,), (0, 2), (1, 2)])
def test_gradients_that_nobody_asks_for_are_left_out(missing: tuple[int, ...]) -> None:
    arrays, stride, padding, groups = experiment("groups", "float64")
    x, weight, _, dy = arrays.values()
    right = gradients_like(arrays)
    conv2d_backward_winograd(dy, x, weight, None, *right, stride, padding, groups)
    got: list[Any] = [None if i in missing else g for i, g in enumerate(gradients_like(arrays))]
    inputs = (None if 1 in missing else x, None if 0 in missing else weight)
    conv2d_backward_winograd(dy, *inputs, None, *got, stride, padding, groups)
    for i, gradient in enumerate(got):
        assert i in missing or np.array_equal(gradient, right[i])


# channels, filters, side, kernel: layers of AlexNet, with fewer images.
LAYERS = {
    "conv1": (3, 48, 224, 11, 4, 2),
    "conv2": (48, 128, 27, 5, 1, 2),
    "conv4": (192, 192, 13, 3, 1, 1),
    "tiles of four": (64, 64, 16, 3, 1, 1),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_errors_in_float32_are_few_times_those_of_the_direct_sum(layer: str) -> None:
    """Root mean square against float64, in units of the result's: the bounds that the module states."""
    C, F, side, kernel, stride, pad = LAYERS[layer]
    x, weight = np.maximum(normal(2, C, side, side), 0), normal(F, C, kernel, kernel, item=1)
    sizes = [conv_output_size(side, kernel, stride, (pad, pad), 1)] * 2
    dy = normal(2, F, *sizes, item=2)
    geometry: Any = {"stride": stride, "padding": pad}

    def run(dtype: str, enabled: bool) -> list[Array]:
        inputs = [mx.Tensor(a.astype(dtype), requires_grad=True) for a in (x, weight)]
        with mx.use_winograd(enabled):
            y = ops.conv2d(*inputs, **geometry)
            y.backward(dy.astype(dtype))
        return [y.numpy(), *(tensor.grad for tensor in inputs)]

    exact = run("float64", True)
    direct, fast = run("float32", False), run("float32", True)
    for true, plain, quick in zip(exact, direct, fast, strict=True):
        scale = np.sqrt(np.mean(true**2))
        rounding, error = (np.sqrt(np.mean((a - true) ** 2)) / scale for a in (plain, quick))
        assert not np.array_equal(plain, quick)  # It ran.
        assert error < 6e-6
        assert error < 20 * rounding


def test_it_is_used_where_it_saves_and_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    single = np.dtype(np.float32)
    conv3 = ((192, 128, 3, 3), (1, 192, 13, 13), (1, 1), (1, 1), 1)
    assert winograd_is_better(single, *conv3)
    assert not winograd_is_better(np.dtype(np.float64), *conv3)
    with mx.use_winograd(False):
        assert not winograd_is_better(single, *conv3)
        with mx.use_winograd(True):
            assert winograd_is_better(single, *conv3)
    monkeypatch.setenv("MINIALEX_WINOGRAD", "0")
    assert not winograd_is_better(single, *conv3)
    with mx.use_winograd(True):
        assert winograd_is_better(single, *conv3)
    monkeypatch.delenv("MINIALEX_WINOGRAD")
    assert not winograd_is_better(single, (16, 6, 5, 5), (1, 16, 10, 10), (1, 1), (1, 1), 1)  # Few channels.
    assert not winograd_is_better(single, (64, 64, 3, 3), (1, 64, 2, 2), (1, 1), (1, 1), 1)  # Half a tile.
    assert not winograd_is_better(single, (64, 64, 3, 5), (1, 64, 9, 9), (1, 1), (1, 1), 1)
    assert not winograd_is_better(single, (64, 64, 3, 3), (1, 64, 9, 9), (1, 1), (2, 2), 1)
    assert not winograd_is_better(single, (64, 64, 3, 3), (1, 64, 9, 9), (2, 1), (1, 1), 1)


# For 13 pictures of four tiles: bunches of one, of two, of all; a dU for each part of the batch, or tiles
# that wait, in chunks of one bunch, of some, of all.
LARGE = 2**25
SUMS = [
    (1, LARGE, 1),
    (8, LARGE, 1),
    (LARGE, LARGE, 1),
    (1, 0, 1),
    (8, 0, 20_000),
    (1, 0, 20_000),
    (8, 0, LARGE),
]


def in_sums(sums: tuple[int, int, int], dtype: str, monkeypatch: pytest.MonkeyPatch) -> list[Array]:
    """y and the gradients of a convolution of 13 pictures in two groups, cut up in this way."""
    places = ((winograd_plan, "BUNCH_TILES"), (winograd, "SUM_BUDGET"), (winograd_plan, "TILE_BUDGET"))
    for (module, name), value in zip(places, sums, strict=True):
        monkeypatch.setattr(module, name, value)
    x, weight, bias = normal(13, 4, 7, 7), normal(6, 2, 3, 3, item=1), normal(6, item=2)
    dy = normal(13, 6, 7, 7, item=3)
    arrays = [array.astype(dtype) for array in (x, weight, bias, dy)]
    geometry: Any = ((1, 1), ((1, 1), (1, 1)), 2)
    y, got = np.full_like(arrays[3], np.nan), [np.full_like(array, np.nan) for array in arrays[:3]]
    conv2d_winograd(*arrays[:3], y, *geometry, True)
    conv2d_backward_winograd(arrays[3], arrays[0], arrays[1], y, *got, *geometry)
    return [y, *got]


@pytest.mark.parametrize("sums", SUMS)
def test_however_the_batch_is_cut_the_sums_are_the_same(
    sums: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weight, bias = normal(13, 4, 7, 7), normal(6, 2, 3, 3, item=1), normal(6, item=2)
    dy, y = normal(13, 6, 7, 7, item=3), np.empty((13, 6, 7, 7))
    geometry: Any = ((1, 1), ((1, 1), (1, 1)), (1, 1), 2)
    right = [np.empty_like(array) for array in (x, weight, bias)]
    conv2d_columns(x, weight, bias, y, *geometry, True)
    conv2d_backward_columns(dy, x, weight, y, *right, *geometry)
    for got, wanted in zip(in_sums(sums, "float64", monkeypatch), [y, *right], strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-11 * abs(wanted).max())


@pytest.mark.parametrize("sums", SUMS)
def test_bits_do_not_depend_on_the_number_of_threads(
    sums: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("MINIALEX_NUM_THREADS", threads)
        results.append([array.tobytes() for array in in_sums(sums, "float32", monkeypatch)])
    assert results[0] == results[1] == results[2]


def test_an_empty_batch_has_gradients_of_zero() -> None:
    x = mx.Tensor(np.empty((0, 16, 9, 9), np.float32), requires_grad=True)
    weight = mx.Tensor(normal(16, 16, 3, 3).astype(np.float32), requires_grad=True)
    bias = mx.Tensor(np.ones(16, np.float32), requires_grad=True)
    for op in (ops.conv2d, ops.conv2d_relu):
        y = op(x, weight, bias, padding=1)
        assert y.shape == (0, 16, 9, 9)
        y.backward(np.empty(y.shape, np.float32))
        assert x.grad.shape == x.shape
        assert not weight.grad.any()
        assert not bias.grad.any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("variant", ["reference", "array", "numba"])
@pytest.mark.parametrize("shape", [(16, 16, 3, 3), (2, 3, 5, 5), (2, 3, 3, 3)])  # Winograd, direct, columns.
def test_relu_keeps_nan_and_stops_an_infinite_gradient(
    shape: tuple[int, ...], variant: str, dtype: str
) -> None:
    """As relu(conv2d(x)): nothing passes a dead unit, and a NaN's gradient is not lost."""
    F, C = shape[:2]
    dy = np.full((1, F, 6, 6), np.inf, dtype)
    grads = []
    for bias in (-100.0, np.nan):
        for fused in (True, False):
            inputs = [np.ones((1, C, 6, 6)), normal(*shape), np.full(F, bias)]
            tensors = [mx.Tensor(a.astype(dtype), requires_grad=True) for a in inputs]
            padding = shape[2] // 2
            with use_variant(variant), np.errstate(all="ignore"):
                if fused:
                    y = ops.conv2d_relu(*tensors, padding=padding)
                else:
                    y = ops.relu(ops.conv2d(*tensors, padding=padding))
                y.backward(dy)
            grads.append(tensors[2].grad)
    np.testing.assert_array_equal(grads[0], np.zeros(F))
    np.testing.assert_array_equal(grads[1], grads[0])
    np.testing.assert_array_equal(grads[2], grads[3])
    assert not np.isfinite(grads[2]).any()


def test_the_matrices_cannot_be_edited() -> None:
    with pytest.raises(ValueError, match="read-only"):
        winograd_matrices(4, 3)[1][:] *= 2


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("block", [1, 2, 3])
@pytest.mark.parametrize(("points", "extent", "hop"), [(6, 6, 4), (6, 4, 4), (7, 7, 3), (5, 3, 3), (4, 4, 1)])
def test_the_variants_of_the_two_maps_agree(
    points: int, extent: int, hop: int, block: int, dtype: str
) -> None:
    """Any matrix, zeros in it, channels from the middle, a mask, a bias: reference, array and numba."""
    C, used, tiles, origin = 12 // block, 10 // block, (2, 3), (1, 2)
    x, mask = (normal(2, C, 9, 8, item=i).astype(dtype) for i in range(2))
    matrix = normal(points, extent, item=2).astype(dtype) * (normal(points, extent, item=3) > -0.5)
    matrix = np.ascontiguousarray(matrix, dtype=dtype)
    bias, shape = normal(used, item=4).astype(dtype), (points, points, 2, *tiles, used * block**2)
    made: dict[str, list[Array]] = {}
    for variant in ("reference", "array", "numba"):
        outputs = [np.full(shape, np.nan, dtype=dtype) for _ in range(2)]
        pictures = [np.full(x.shape, 7.0, dtype=dtype) for _ in range(2)]
        with use_variant(variant):
            for out, masked in zip(outputs, (None, mask), strict=True):
                winograd_tiles.tiles_from_pictures(x, masked, matrix, out, hop, block, origin, 1)
            back = np.ascontiguousarray(matrix.T)
            for out, (added, relu) in zip(pictures, ((None, False), (bias, True)), strict=True):
                winograd_tiles.pictures_from_tiles(outputs[0], back, added, relu, out, hop, block, origin, 1)
        made[variant] = outputs + pictures
    for variant in ("array", "numba"):
        for got, wanted in zip(made[variant], made["reference"], strict=True):
            tolerance = (1e-4 if dtype == "float32" else 1e-12) * abs(wanted).max()
            np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance)
