"""What Hypothesis draws: rows (shapes, parameters, values) for convolution, pooling and normalisation."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from minialex.backend import Array
from minialex.ops import (
    AdaptiveAvgPool2dOp,
    AvgPool2dOp,
    Conv2dOp,
    Conv2dReluOp,
    Conv2dSigmoidAvgPool2dOp,
    LocalResponseNormOp,
    MaxPool2dOp,
    ReluLrnMaxPool2dOp,
    ReluMaxPool2dOp,
    SigmoidAvgPool2dOp,
)
from minialex.tensor import Op
from minialex.testing import Case, grid, positive, references

# A ReLU at a sum that is nearly zero has no derivative that differences could find.
CLEAR_OF_KINKS = 1e-4

Geometry = dict[str, Any]


def windows_fit(case: Case) -> bool:
    """Whether the plain loops, which count windows one by one, find any along both axes."""
    if case.op is Conv2dSigmoidAvgPool2dOp and not windows_fit(convolution_of(case)):
        return False
    return min(case.expected(*case.inputs).shape[2:]) > 0


def convolution_of(case: Case) -> Case:
    """The convolution with which a fused op begins."""
    alone = {name: case.params[name] for name in ("stride", "padding", "dilation", "groups")}
    return Case(Conv2dOp, case.inputs, alone, references.conv2d)


def spellings(low: int, high: int) -> st.SearchStrategy[tuple[Any, tuple[int, int]]]:
    """A size as users write it, an int or a pair, and the pair that is meant."""
    one = st.integers(low, high)
    return st.one_of(one.map(lambda n: (n, (n, n))), st.tuples(one, one).map(lambda pair: (pair, pair)))


@st.composite
def paddings(draw: st.DrawFn, limits: tuple[int, int]) -> tuple[Any, tuple[tuple[int, int], tuple[int, int]]]:
    """Padding up to the limits of the two axes, as it is written and as it is meant."""
    form = draw(st.sampled_from(("one", "pair", "pairs")))
    if form == "one":
        p = draw(st.integers(0, min(limits)))
        return p, ((p, p), (p, p))
    ph, pw = (draw(st.integers(0, limit)) for limit in limits)
    if form == "pair":
        return (ph, pw), ((ph, ph), (pw, pw))
    pads = (ph, draw(st.integers(0, limits[0]))), (pw, draw(st.integers(0, limits[1])))
    return pads, pads


@st.composite
def extents(draw: st.DrawFn, windows: Any, pads: Any) -> tuple[int, int]:
    """H and W about a window: sometimes one too few, often some windows and a rest."""
    spans = [window - sum(pad) for window, pad in zip(windows, pads, strict=True)]
    height, width = (draw(st.integers(max(span - 1, 1), max(span, 1) + 4)) for span in spans)
    return height, width


batches = st.sampled_from((1, 2, 3, 0))
items = st.integers(0, 1000)


@st.composite
def convolutions(draw: st.DrawFn, kernels: Any = None) -> tuple[tuple[Array, ...], Geometry]:
    """Inputs of a convolution, and its parameters."""
    stride, _ = draw(spellings(1, 3))
    dilation, dilations = draw(spellings(1, 3))
    KH, KW = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)) if kernels is None else kernels)
    padding, pads = draw(paddings((3, 3)))
    windows = dilations[0] * (KH - 1) + 1, dilations[1] * (KW - 1) + 1
    groups, channels, filters = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    item = draw(items)
    x = grid(draw(batches), groups * channels, *draw(extents(windows, pads)), item=item)
    weight = grid(groups * filters, channels, KH, KW, item=item + 1)
    bias = [grid(groups * filters, item=item + 2)] if draw(st.booleans()) else []
    params = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return (x, weight, *bias), params


# About as many cells as a byte can number.
WIDE = st.sampled_from(((16, (16, 16)), (17, (17, 17)), ((17, 16), (17, 16))))


@st.composite
def poolings(draw: st.DrawFn, channels: int = 3) -> tuple[Array, Geometry]:
    """A picture for windows to slide over, and the parameters; padding is at most half a window."""
    kernel_size, kernels = draw(st.one_of(spellings(1, 5), spellings(1, 5), WIDE))
    wide = kernels[0] > 5
    stride = draw(st.one_of(st.none(), spellings(1, 2 if wide else 4).map(lambda spelling: spelling[0])))
    padding, pads = draw(paddings((kernels[0] // 2, kernels[1] // 2)))
    shape = draw(batches), draw(st.integers(1, 1 if wide else channels)), *draw(extents(kernels, pads))
    # Below zero everywhere, a padding of zeros would win.
    values = draw(st.sampled_from((grid, lambda *shape, item: -positive(*shape, item=item))))
    params = {
        "kernel_size": kernel_size,
        "stride": stride,
        "padding": padding,
        "ceil_mode": draw(st.booleans()),
    }
    return values(*shape, item=draw(items)), params


@st.composite
def norms(draw: st.DrawFn) -> Geometry:
    """The parameters of local response normalisation; alpha is large enough that its window is seen."""
    return {
        "size": draw(st.integers(1, 9)),
        "alpha": draw(st.sampled_from((1.0, 0.3, 2.0))),
        "beta": draw(st.sampled_from((0.75, 0.5, 1.0, 1.3))),
        "k": draw(st.sampled_from((1.0, 2.0, 0.5))),
        "dialect": draw(st.sampled_from(("paper", "torch"))),
    }


# Each of the following draws a row.


@st.composite
def convolution_rows(draw: st.DrawFn) -> Case:
    return Case(Conv2dOp, *draw(convolutions()), references.conv2d)


@st.composite
def convolution_relu_rows(draw: st.DrawFn) -> Case:
    case = Case(Conv2dReluOp, *draw(convolutions()), references.conv2d_relu)
    if windows_fit(case):
        sums = convolution_of(case).expected(*case.inputs)
        assume(np.abs(sums).min(initial=1.0) > CLEAR_OF_KINKS)
    return case


@st.composite
def pooled_convolution_rows(draw: st.DrawFn) -> Case:
    """A convolution whose output is averaged by small windows. Filters five wide go a way of their own."""
    inputs, params = draw(convolutions(st.tuples(st.integers(1, 5), st.sampled_from((5, 3, 1, 2)))))
    kernel_size, kernels = draw(spellings(1, 3))
    pool_padding, _ = draw(paddings((kernels[0] // 2, kernels[1] // 2)))
    pool_stride = draw(st.one_of(st.none(), st.integers(1, 3)))
    flags = {name: draw(st.booleans()) for name in ("ceil_mode", "count_include_pad")}
    window = {"kernel_size": kernel_size, "pool_stride": pool_stride, "pool_padding": pool_padding}
    params = {**params, **window, **flags}
    return Case(Conv2dSigmoidAvgPool2dOp, inputs, params, references.conv2d_sigmoid_avg_pool2d)


@st.composite
def max_pooling_rows(draw: st.DrawFn) -> Case:
    x, params = draw(poolings())
    return Case(MaxPool2dOp, (x,), params, references.max_pool2d)


@st.composite
def relu_max_pooling_rows(draw: st.DrawFn) -> Case:
    x, params = draw(poolings())
    return Case(ReluMaxPool2dOp, (x,), params, references.relu_max_pool2d)


@st.composite
def tied_rows(draw: st.DrawFn) -> Case:
    """Max-pooling of the values -1, 0 and 1: in most windows several are the largest."""
    case = draw(st.one_of(max_pooling_rows(), relu_max_pooling_rows()))
    return dataclasses.replace(case, inputs=(np.rint(case.inputs[0] / 2),))


@st.composite
def average_pooling_rows(draw: st.DrawFn, op: type[Op], reference: references.Reference) -> Case:
    x, params = draw(poolings())
    return Case(op, (x,), {**params, "count_include_pad": draw(st.booleans())}, reference)


@st.composite
def adaptive_pooling_rows(draw: st.DrawFn) -> Case:
    x = grid(draw(batches), *(draw(st.integers(1, 7)) for _ in range(3)), item=draw(items))
    size, _ = draw(spellings(1, 8))
    return Case(AdaptiveAvgPool2dOp, (x,), {"output_size": size}, references.adaptive_avg_pool2d)


@st.composite
def norm_rows(draw: st.DrawFn) -> Case:
    shape = draw(batches), *(draw(st.integers(1, most)) for most in (9, 4, 4))
    return Case(LocalResponseNormOp, (grid(*shape, item=draw(items)),), draw(norms()), references.lrn)


@st.composite
def relu_norm_max_pooling_rows(draw: st.DrawFn) -> Case:
    (x, window), norm = draw(poolings(channels=7)), draw(norms())
    # Two pixels may be normalised to the same value.
    normalized = references.lrn(np.maximum(x, 0), **norm)
    assume(np.diff(np.unique(normalized)).min(initial=1.0) > CLEAR_OF_KINKS)
    return Case(ReluLrnMaxPool2dOp, (x,), {**norm, **window}, references.relu_lrn_max_pool2d)


ROWS: dict[type[Op], st.SearchStrategy[Case]] = {
    Conv2dOp: convolution_rows(),
    Conv2dReluOp: convolution_relu_rows(),
    Conv2dSigmoidAvgPool2dOp: pooled_convolution_rows(),
    MaxPool2dOp: max_pooling_rows(),
    ReluMaxPool2dOp: relu_max_pooling_rows(),
    AvgPool2dOp: average_pooling_rows(AvgPool2dOp, references.avg_pool2d),
    SigmoidAvgPool2dOp: average_pooling_rows(SigmoidAvgPool2dOp, references.sigmoid_avg_pool2d),
    AdaptiveAvgPool2dOp: adaptive_pooling_rows(),
    LocalResponseNormOp: norm_rows(),
    ReluLrnMaxPool2dOp: relu_norm_max_pooling_rows(),
}
