"""Code that is taken for some shapes only: CUDA's kernels in the emulator, and a convolution's algorithms."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest

pytest.importorskip("hypothesis", reason="hypothesis is not installed: pip install -e '.[test]'")

from drawn_rows import ROWS, paddings
from holding import hold
from hypothesis import assume, given, note, settings
from hypothesis import strategies as st

from minialex.backend import Array, use_variant
from minialex.kernels.convolution import conv2d_backward_reference, conv2d_reference
from minialex.kernels.direct_convolution import conv2d_backward_direct, conv2d_direct
from minialex.kernels.winograd import conv2d_backward_winograd, conv2d_winograd
from minialex.kernels.winograd_plan import OUTPUTS
from minialex.shapes import conv_output_size
from minialex.tensor import Op
from minialex.testing import grid

# The emulator runs a thread at a time.
FEWER = settings(max_examples=max(10, settings().max_examples // 5))


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed: no CUDA kernels on the CPU")
@pytest.mark.parametrize("op", ROWS, ids=lambda op: op.name)
@FEWER
@given(data=st.data())
def test_cuda_kernels(op: type[Op], data: st.DataObject) -> None:
    case = data.draw(ROWS[op])
    with use_variant("cuda"):
        hold(case)


@st.composite
def convolutions_for(draw: st.DrawFn, kernels: Any) -> tuple[list[Array], tuple[Any, ...]]:
    """Arrays x, weight, bias, dy for kernels (KH, KW, stride), and stride, padding and groups."""
    KH, KW, stride = draw(kernels)
    _, pads = draw(paddings((4, 4)))
    groups, item = draw(st.integers(1, 2)), draw(st.integers(0, 1000))
    channels, filters = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    sides = [k - sum(p) + draw(st.integers(0, 9)) for k, p in zip((KH, KW), pads, strict=True)]
    assume(min(sides) > 0)
    x = grid(draw(st.integers(1, 3)), groups * channels, *sides, item=item)
    weight = grid(groups * filters, channels, KH, KW, item=item + 1)
    sizes = [conv_output_size(n, k, stride, p) for n, k, p in zip(sides, (KH, KW), pads, strict=True)]
    dy = grid(len(x), groups * filters, *sizes, item=item + 3)
    return [x, weight, grid(groups * filters, item=item + 2), dy], ((stride, stride), pads, groups)


# Kernels of three or five blocks of stride x stride pixels.
WINOGRAD = st.sampled_from(
    [(k, k, s) for blocks in OUTPUTS for s in (1, 2) for k in range(s * (blocks - 1) + 1, s * blocks + 1)]
)
DIRECT = st.integers(1, 5).map(lambda KH: (KH, 5, 1))


@given(convolutions_for(WINOGRAD), st.booleans())
def test_winograd(drawn: tuple[list[Array], tuple[Any, ...]], relu: bool) -> None:
    arrays, (stride, pads, groups) = drawn
    compare(arrays, (stride, pads, (1, 1), groups), relu, conv2d_winograd, conv2d_backward_winograd, 1e-9)


@given(convolutions_for(DIRECT), st.booleans())
def test_direct(drawn: tuple[list[Array], tuple[Any, ...]], relu: bool) -> None:
    arrays, (stride, pads, groups) = drawn
    compare(arrays, (stride, pads, (1, 1), groups), relu, conv2d_direct, conv2d_backward_direct, 1e-12)


def compare(
    arrays: list[Array], geometry: tuple[Any, ...], relu: bool, forward: Any, backward: Any, tolerance: float
) -> None:
    """Output and gradients are those of the plain loops, whatever was in the memory before."""
    x, weight, bias, dy = arrays
    note(f"x {x.shape} weight {weight.shape} {geometry}")
    given_to_it = (geometry[0], geometry[1], geometry[3]) if forward is conv2d_winograd else geometry
    wanted, y = np.full_like(dy, np.nan), np.full_like(dy, np.nan)
    conv2d_reference(x, weight, bias, wanted, *geometry, relu)
    forward(x, weight, bias, y, *given_to_it, relu)
    np.testing.assert_allclose(y, wanted, rtol=0, atol=tolerance * max(1.0, np.abs(wanted).max()))
    mask = wanted if relu else None
    right, got = ([np.full_like(a, np.nan) for a in (x, weight, bias)] for _ in range(2))
    conv2d_backward_reference(dy, x, weight, mask, *right, *geometry)
    backward(dy, x, weight, mask, *got, *given_to_it)
    for gradient, loops in zip(got, right, strict=True):
        np.testing.assert_allclose(gradient, loops, rtol=0, atol=tolerance * max(1.0, np.abs(loops).max()))
