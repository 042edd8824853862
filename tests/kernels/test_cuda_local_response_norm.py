"""LRN for a GPU, alone and between ReLU and max-pooling, in the emulator, against the loops."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest

from minialex.backend import cuda_source_dir, use_variant
from minialex.kernels import fused_pooling, local_response_norm
from minialex.kernels.fused_pooling import relu_lrn_max_pool2d_backward, relu_lrn_max_pool2d_forward
from minialex.kernels.local_response_norm import lrn_backward, lrn_forward
from minialex.rng import Stream

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None, reason="no g++, with which the emulator compiles CUDA kernels"
)

Array = np.ndarray[Any, Any]
# lower, upper, alpha, beta, k. alpha is near 1: at 1e-4 a window that is a channel short would pass.
NORMS = {
    "of the paper": (2, 2, 0.9, 0.75, 2.0),
    "even": (2, 1, 0.8, 0.6, 1.0),
    "alone": (0, 0, 1.0, 1.0, 1.5),
    "looking back": (3, 0, 1.0, 0.75, 1.0),
    "looking ahead": (0, 2, 1.0, 0.75, 1.0),
    "wide": (9, 8, 0.3, 0.5, 1.0),
    "without a floor": (2, 2, 1.0, 0.75, 0.0),
}
# Fewer channels than the window, a pixel, channels for several threads with a rest, more than one block.
SHAPES = ((2, 3, 3, 5), (1, 1, 1, 1), (1, 67, 1, 3), (2, 33, 9, 8))


def numbers(shape: tuple[int, ...], dtype: str, item: int = 0) -> Array:
    return np.asarray(Stream(8, "test", item=item).normal(shape=shape)).astype(dtype)


def close(got: Array, wanted: Array) -> None:
    assert got.dtype == wanted.dtype
    tolerance = 1e-5 if got.dtype == np.float32 else 1e-13
    np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)


def both_ways(variant: str, x: Array, dy: Array, norm: Any) -> tuple[Array, Array]:
    y, dx = np.full_like(x, np.nan), np.full_like(x, np.nan)
    with use_variant(variant), np.errstate(all="ignore"):
        lrn_forward(x, y, *norm)
        lrn_backward(dy, x, dx, *norm)
    return y, dx


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_normalisation(shape: tuple[int, ...], norm: Any, dtype: str) -> None:
    x, dy = numbers(shape, dtype), numbers(shape, dtype, item=1)
    wanted = both_ways("reference" if x.size < 200 else "numba", x, dy, norm)
    for got, expected in zip(both_ways("cuda", x, dy, norm), wanted, strict=True):
        close(got, expected)


def test_special_values_go_the_same_ways() -> None:
    x, dy = numbers((2, 9, 3, 4), "float32"), numbers((2, 9, 3, 4), "float32", item=1)
    for place, value in ((3, np.nan), (50, np.inf), (100, -np.inf), (130, 0.0)):
        x.reshape(-1)[place] = value
    wanted = both_ways("reference", x, dy, NORMS["of the paper"])
    for got, expected in zip(both_ways("cuda", x, dy, NORMS["of the paper"]), wanted, strict=True):
        close(got, expected)


def test_channels_that_are_not_there_send_nothing() -> None:
    """Without k the scale of a window that holds nothing but zeros is 0, and its inverse is no number."""
    x, dy = numbers((1, 9, 2, 3), "float64"), numbers((1, 9, 2, 3), "float64", item=1)
    x[:, :2] = x[:, -2:] = 0.0
    wanted = both_ways("reference", x, dy, NORMS["without a floor"])
    assert all(np.isfinite(array).all() for array in wanted)
    for got, expected in zip(both_ways("cuda", x, dy, NORMS["without a floor"]), wanted, strict=True):
        close(got, expected)


# --------------------------------------------------------------------------- between ReLU and max-pooling

# (H, W), kernel_size, stride, padding, (OH, OW)
WINDOWS: dict[str, Any] = {
    "of the paper": ((11, 13), (3, 3), (2, 2), ((0, 0), (0, 0)), (5, 6)),
    "padded": ((5, 7), (3, 4), (1, 2), ((1, 0), (2, 1)), (4, 4)),
    "rounded up": ((6, 7), (3, 3), (2, 2), ((0, 0), (0, 0)), (3, 3)),
    "apart": ((9, 8), (2, 2), (3, 3), ((0, 0), (0, 0)), (3, 3)),
    "a winner in two bytes": ((18, 17), (17, 16), (1, 1), ((0, 0), (0, 0)), (2, 2)),
    "one pixel": ((3, 2), (1, 1), (2, 2), ((0, 0), (0, 0)), (2, 1)),
}


def pooled_both_ways(
    variant: str, x: Array, norm: Any, window: Any, wide: Any = None
) -> tuple[Array, Array, Array]:
    _, kernel_size, stride, padding, output = window
    cells = np.uint8 if kernel_size[0] * kernel_size[1] < 256 else np.uint16
    y = np.full((*x.shape[:2], *output), np.nan, x.dtype)
    argmax, dx = np.full(y.shape, 77, wide or cells), np.full_like(x, np.nan)
    dy = numbers(y.shape, str(x.dtype), item=2)
    with use_variant(variant), np.errstate(all="ignore"):
        relu_lrn_max_pool2d_forward(x, y, argmax, norm, kernel_size, stride, padding)
        relu_lrn_max_pool2d_backward(dy, argmax, x, dx, norm, kernel_size, stride, padding)
    return y, argmax, dx


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
@pytest.mark.parametrize("norm", ["of the paper", "even", "wide"])
def test_fused(norm: str, window: Any, dtype: str) -> None:
    x = numbers((2, 5, *window[0]), dtype)
    wanted = pooled_both_ways("numba", x, NORMS[norm], window)
    got = pooled_both_ways("cuda", x, NORMS[norm], window)
    np.testing.assert_array_equal(got[1], wanted[1], strict=True)
    close(got[0], wanted[0])
    close(got[2], wanted[2])


@pytest.mark.parametrize("tile", [9, 20, 40, 64])
def test_the_picture_in_rectangles(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks with one output, a part of a row, one row and more; and channels for two blocks."""
    window = WINDOWS["of the paper"]
    x = numbers((2, 18, *window[0]), "float32")
    monkeypatch.setattr(fused_pooling, "TILE", tile)
    wanted = pooled_both_ways("numba", x, NORMS["even"], window)
    got = pooled_both_ways("cuda", x, NORMS["even"], window)
    np.testing.assert_array_equal(got[1], wanted[1])
    close(got[0], wanted[0])
    close(got[2], wanted[2])


def test_a_window_that_no_tile_holds() -> None:
    """33 x 32 cells: the three kernels one after another."""
    window = ((34, 35), (33, 32), (1, 2), ((0, 0), (0, 0)), (2, 2))
    x = numbers((1, 3, 34, 35), "float32")
    wanted = pooled_both_ways("numba", x, NORMS["even"], window)
    got = pooled_both_ways("cuda", x, NORMS["even"], window)
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["ties", "special"])
def test_ties_and_special_values_in_windows(kind: str) -> None:
    x = numbers((2, 4, 11, 13), "float32")
    if kind == "ties":
        x = np.round(x)
    else:
        for i, value in enumerate((np.nan, np.inf, -np.inf, 0.0, -0.0)):
            x.reshape(-1)[37 * i :: 211] = value
    # alpha 0: every pixel keeps its value, so that ties stay ties whatever a square root rounds to.
    norm = (2, 2, 0.0, 0.75, 1.0) if kind == "ties" else NORMS["of the paper"]
    wanted = pooled_both_ways("reference", x, norm, WINDOWS["of the paper"])
    got = pooled_both_ways("cuda", x, norm, WINDOWS["of the paper"])
    np.testing.assert_array_equal(got[1], wanted[1])
    close(got[0], wanted[0])
    close(got[2], wanted[2])


def test_sizes_are_those_of_the_kernels() -> None:
    source = (cuda_source_dir() / "fused_pooling.cu").read_text(encoding="utf-8")
    assert f"BLOCK = {fused_pooling.BLOCK}, PIXELS = 4, TILE = BLOCK * PIXELS;" in source
    assert fused_pooling.TILE == fused_pooling.BLOCK * 4
    header = (cuda_source_dir() / "local_response_norm.cuh").read_text(encoding="utf-8")
    assert f"CHANNELS = {local_response_norm.CHANNELS};" in header


def test_rectangles_fit_their_tile() -> None:
    for output, kernel_size, stride in (
        ((27, 27), (3, 3), (2, 2)),
        ((500, 700), (2, 9), (1, 3)),
        ((3, 900), (31, 33), (7, 7)),
        ((1, 1), (32, 32), (32, 32)),
    ):
        rows, columns = fused_pooling.rectangle_of_outputs(output, kernel_size, stride)
        assert 1 <= rows <= output[0]
        assert 1 <= columns <= output[1]
        height, width = (
            (n - 1) * s + k for n, s, k in zip((rows, columns), stride, kernel_size, strict=True)
        )
        assert height * width <= fused_pooling.TILE
        if rows < output[0]:
            assert (height + stride[0]) * width > fused_pooling.TILE
