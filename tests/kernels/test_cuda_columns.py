"""im2col's and col2im's CUDA kernels, run by the emulator: the bits of the plain loops."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest

from minialex.backend import use_variant
from minialex.kernels.im2col import ColumnLayout, col2im, im2col, launch_col2im, launch_im2col
from minialex.shapes import conv_output_size
from minialex.testing import grid

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None, reason="no g++, with which the emulator compiles CUDA kernels"
)

GEOMETRIES: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {
    "plain": ((3, 2), {}),
    "3 x 3": ((3, 3), {"padding": ((1, 1), (1, 1))}),
    "5 x 5": ((5, 5), {"padding": ((2, 2), (2, 2))}),
    "3 x 3 with a stride": ((3, 3), {"stride": (2, 3)}),
    "5 x 5, dilated": ((2, 5), {"dilation": (1, 2)}),
    "11 x 11": ((11, 11), {"stride": (4, 4), "padding": ((3, 4), (3, 3))}),
    "a stride longer than the kernel": ((2, 1), {"stride": (3, 2)}),
    "dilation": ((2, 3), {"dilation": (3, 2)}),
    "padding by side": ((3, 4), {"padding": ((2, 1), (0, 3))}),
    "a kernel that reaches across": ((6, 7), {"padding": ((3, 4), (5, 2))}),
    "stride and dilation without a common factor": ((3, 3), {"stride": (2, 3), "dilation": (3, 2)}),
    "stride and dilation with one": ((2, 3), {"stride": (4, 2), "dilation": (2, 4)}),
}


def geometry_of(kernel: tuple[int, int], options: dict[str, Any], x: Any) -> tuple[Any, ...]:
    """Output size; stride, padding, dilation."""
    defaults = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}
    stride, padding, dilation = (defaults | options).values()
    output = tuple(
        conv_output_size(x.shape[2 + i], kernel[i], stride[i], padding[i], dilation[i]) for i in range(2)
    )
    return output, (stride, padding, dilation)


@pytest.mark.parametrize("height", [1, 2, 100])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("kernel", "options"), GEOMETRIES.values(), ids=GEOMETRIES)
def test_the_bits_of_the_plain_loops(
    kernel: tuple[int, int], options: dict[str, Any], dtype: str, height: int
) -> None:
    x = grid(2, 3, 7, 9).astype(dtype)
    (OH, OW), geometry = geometry_of(kernel, options, x)
    for first in range(0, OH, height):
        shape = (*x.shape[:2], *kernel, min(height, OH - first), OW)
        weights = grid(*shape, item=first).astype(dtype)
        results = []
        for variant in ("reference", "cuda"):
            columns, dx = np.full(shape, np.nan, dtype), x.copy()  # col2im adds to what is there.
            with use_variant(variant):
                im2col(x, columns, *geometry, first)
                col2im(weights, dx, *geometry, first)
            results.append((columns, dx))
        for wanted, got in zip(*results, strict=True):
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(("kernel", "options"), GEOMETRIES.values(), ids=GEOMETRIES)
def test_pictures_side_by_side(kernel: tuple[int, int], options: dict[str, Any]) -> None:
    """Columns (C, KH, KW, N, OH, OW), as the convolution wants them, and dx written instead of added to."""
    x = grid(3, 2, 7, 8).astype(np.float32)
    (OH, OW), geometry = geometry_of(kernel, options, x)
    (N, C), pixels = x.shape[:2], OH * OW
    separate, wanted = np.empty((N, C, *kernel, OH, OW), x.dtype), np.zeros_like(x)
    with use_variant("reference"):
        im2col(x, separate, *geometry, 0)
        col2im(separate, wanted, *geometry, 0)
    layout = ColumnLayout(kernel, (OH, OW), 0, pixels, N * pixels)
    columns, dx = np.full((C, *kernel, N, OH, OW), np.nan, x.dtype), np.full_like(x, np.nan)
    launch_im2col(x, columns, layout, *geometry)
    launch_col2im(columns, dx, layout, *geometry, add=False)
    np.testing.assert_array_equal(columns, np.moveaxis(separate, 0, 3))
    np.testing.assert_array_equal(dx, wanted)
