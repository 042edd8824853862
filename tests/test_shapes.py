"""Integer arithmetic on shapes, held against counting and against examples from the papers."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from minialex.shapes import (
    ShapeError,
    as_int,
    broadcast_shape,
    conv_output_size,
    normalize_axes,
    normalize_axis,
    numel,
    padding_pairs,
    pair,
    pool_output_size,
    reduced_shape,
    require_ndim,
)


def test_alexnets_sizes() -> None:
    assert conv_output_size(227, 11, 4, (0, 0)) == 55
    assert conv_output_size(224, 11, 4, (1, 2)) == 55
    assert conv_output_size(224, 11, 4, (2, 2)) == 55
    assert conv_output_size(27, 5, 1, (2, 2)) == 27
    assert [pool_output_size(size, 3, 2, (0, 0)) for size in (55, 27, 13)] == [27, 13, 6]


def windows(size: int, kernel: int, stride: int, padding: tuple[int, int], dilation: int = 1) -> int:
    """Whole windows, counted."""
    last = size + padding[0] + padding[1] - dilation * (kernel - 1) - 1
    return sum(1 for start in range(0, size + sum(padding), stride) if start <= last)


def test_conv_output_size_counts_windows() -> None:
    for size, kernel, stride, dilation in itertools.product(range(1, 9), range(1, 5), range(1, 4), (1, 2, 3)):
        for padding in ((0, 0), (1, 0), (1, 2)):
            got = conv_output_size(size, kernel, stride, padding, dilation)
            assert max(got, 0) == windows(size, kernel, stride, padding, dilation)


def test_pool_output_size_counts_windows() -> None:
    for size, kernel, stride in itertools.product(range(1, 10), range(1, 5), range(1, 6)):
        for padding in [p for p in ((0, 0), (1, 0), (0, 1), (1, 1), (2, 1)) if 2 * max(p) <= kernel]:
            whole = windows(size, kernel, stride, padding)
            assert pool_output_size(size, kernel, stride, padding) == whole
            rest = whole == 0 or (whole - 1) * stride + kernel < size + sum(padding)
            starts_before_the_far_padding = whole * stride < size + padding[0]
            first = whole > 0 or kernel - stride < size + sum(padding)
            cut = rest and starts_before_the_far_padding and first
            assert pool_output_size(size, kernel, stride, padding, ceil_mode=True) == whole + cut


@pytest.mark.parametrize(
    ("arguments", "floor", "ceil"),
    [
        ((6, 3, 2, (0, 0)), 2, 3),
        ((7, 3, 2, (0, 0)), 3, 3),
        ((4, 2, 2, (1, 1)), 3, 3),
        ((3, 2, 2, (1, 1)), 2, 2),  # A third window would start in the far padding.
        ((2, 3, 2, (0, 0)), 0, 1),  # The window is longer than the picture.
    ],
)
def test_ceil_mode(arguments: Any, floor: int, ceil: int) -> None:
    assert pool_output_size(*arguments) == floor
    assert pool_output_size(*arguments, True) == ceil


def test_pairs() -> None:
    assert pair(3, "k") == (3, 3)
    assert pair((2, 5), "k") == pair([2, 5], "k") == (2, 5)
    assert pair(np.int64(3), "k") == (3, 3)
    for wrong in (0, (1, 2, 3), (1,), 2.0, "33", (1, 2.5), True, None):
        with pytest.raises(ShapeError, match="k must be"):
            pair(wrong, "k")  # type: ignore[arg-type]


def test_paddings() -> None:
    assert padding_pairs(2) == ((2, 2), (2, 2))
    assert padding_pairs((1, 2)) == ((1, 1), (2, 2))
    assert padding_pairs(((1, 2), (3, 4))) == padding_pairs([[1, 2], [3, 4]]) == ((1, 2), (3, 4))
    for wrong in (-1, (1, -1), ((1, 2), (3, -4)), (1, 2, 3, 4), ((1, 2), 3), "same", ((1, 2, 3), (1, 2))):
        with pytest.raises(ShapeError, match="padding must be"):
            padding_pairs(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [2.0, "2", None, True, [2]])
def test_as_int_takes_whole_numbers_alone(wrong: object) -> None:
    with pytest.raises(ShapeError, match="groups must be a whole number"):
        as_int(wrong, "groups")


def test_numel() -> None:
    assert [numel(s) for s in ((), (0, 3), (2, 3, 4))] == [1, 0, 24]


def test_axes() -> None:
    assert normalize_axis(-1, 4, "sum") == 3
    assert normalize_axes(None, 3, "sum") == (0, 1, 2)
    assert normalize_axes((2, -3), 3, "sum") == (0, 2)
    assert normalize_axes([], 3, "sum") == ()
    for wrong in (3, -4):
        with pytest.raises(ShapeError, match=rf"sum: axis {wrong} is out of range for an array of 3 dim"):
            normalize_axis(wrong, 3, "sum")
    with pytest.raises(ShapeError, match="an axis comes twice"):
        normalize_axes((0, -3), 3, "sum")


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axes", [(), (0,), (1, 2), (0, 1, 2)])
def test_reduced_shape_is_numpys(axes: tuple[int, ...], keepdims: bool) -> None:
    expected = np.zeros((2, 3, 4)).sum(axis=axes, keepdims=keepdims).shape
    assert reduced_shape((2, 3, 4), axes, keepdims) == expected


def test_broadcasting_is_numpys() -> None:
    shapes = [(), (1,), (3,), (2, 3), (2, 1), (4, 1, 3), (0,), (1, 0), (4, 2, 3)]
    for a, b in itertools.product(shapes, repeat=2):
        try:
            expected = np.broadcast_shapes(a, b)
        except ValueError:
            with pytest.raises(ShapeError, match="do not broadcast"):
                broadcast_shape(a, b, "add")
        else:
            assert broadcast_shape(a, b, "add") == expected


def test_errors_name_operation_axis_and_both_numbers() -> None:
    with pytest.raises(ShapeError) as caught:
        broadcast_shape((2, 3), (4, 3), "add")
    assert str(caught.value) == (
        "add: shapes (2, 3) and (4, 3) do not broadcast: axis -2 has 2 and 4, expected equal extents or a 1"
    )
    with pytest.raises(ShapeError, match=r"conv2d: x must be \(N, C, H, W\), 4 dimensions, got .*\(3, 4\)"):
        require_ndim("conv2d", "x", (3, 4), 4, "(N, C, H, W)")
