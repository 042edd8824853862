"""What the rows of cases.py leave out, in every variant: NaN, infinities, ties, threads, chunks, masks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from minialex import rng
from minialex.backend import use_variant
from minialex.kernels.im2col import col2im, im2col
from minialex.ops import (
    AvgPool2dOp,
    Conv2dOp,
    CrossEntropyOp,
    DropoutOp,
    LinearOp,
    LocalResponseNormOp,
    LogSoftmaxOp,
    MaxPool2dOp,
    ReluOp,
    SigmoidOp,
    SoftmaxOp,
    TanhOp,
)
from minialex.shapes import conv_output_size
from minialex.tensor import Op, Tensor
from minialex.testing import grid

VARIANTS = ("reference", "array", "numba", "cuda")
if shutil.which("g++") is None:  # For the emulator. tests/kernels/ says aloud what is left out.
    VARIANTS = VARIANTS[:-1]
NAN, INF = np.nan, np.inf


def run(op: Op, *arrays: np.ndarray) -> list[np.ndarray]:
    """The output and the gradients for a cotangent of 1, 2, 3, ..."""
    leaves = [Tensor(a, requires_grad=True) for a in arrays]
    y = op(*leaves)
    y.backward(1.0 + np.arange(y.size, dtype=y.dtype).reshape(y.shape))
    return [y.numpy(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


SPECIAL: dict[str, tuple[type[Op], dict[str, Any], list[float], tuple[int, ...]]] = {
    "relu": (ReluOp, {}, [NAN, INF, -INF, 0.0, -0.0, 1.0], (6,)),
    "sigmoid": (SigmoidOp, {}, [NAN, INF, -INF, 1e3, -1e3, 0.0], (6,)),
    "tanh": (TanhOp, {}, [NAN, INF, -INF, 1e3, -1e3, 0.0], (6,)),
    "a tie in max_pool2d": (MaxPool2dOp, {"kernel_size": 2, "stride": 1}, [1.0] * 9, (1, 1, 3, 3)),
    "max_pool2d of -inf": (MaxPool2dOp, {"kernel_size": 2, "padding": 1}, [-INF] * 9, (1, 1, 3, 3)),
    "max_pool2d of a NaN": (
        MaxPool2dOp,
        {"kernel_size": 2, "stride": 1},
        [1.0, NAN, 2.0, 3.0, 0.5, 4.0, INF, -1.0, 6.0],
        (1, 1, 3, 3),
    ),
    "softmax of minus infinity": (SoftmaxOp, {}, [0.0, -INF, 1.0, -1e4, 1e4, 0.0], (2, 3)),
    "log_softmax far apart": (LogSoftmaxOp, {}, [0.0, -1e4, 1.0, -1e4, 1e4, 0.0], (2, 3)),
    "softmax of NaN": (SoftmaxOp, {}, [NAN, 1.0, 2.0, 0.0, 1.0, 2.0], (2, 3)),
    "cross_entropy of minus infinity": (
        CrossEntropyOp,
        {"labels": np.array([0, 2])},
        [0.0, -INF, 1.0, -1e4, 1e4, 0.0],
        (2, 3),
    ),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("op", "params", "values", "shape"), SPECIAL.values(), ids=SPECIAL)
def test_variants_agree_on_special_values(
    op: type[Op], params: dict[str, Any], values: list[float], shape: tuple[int, ...], dtype: str
) -> None:
    x = np.array(values, dtype).reshape(shape)
    results = []
    for variant in VARIANTS:
        with use_variant(variant), np.errstate(all="ignore"):
            results.append(run(op(**params), x))
    for other in results[1:]:
        for got, wanted in zip(other, results[0], strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_first_of_equal_pixels_takes_the_gradient(variant: str) -> None:
    with use_variant(variant):
        y, dx = run(MaxPool2dOp(2), np.array([[5.0, 5.0, -1.0, 2.0], [5.0, 5.0, 2.0, 2.0]])[None, None])
    np.testing.assert_array_equal(y, [[[[5.0, 2.0]]]])
    np.testing.assert_array_equal(dx, [[[[1.0, 0.0, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0]]]])


@pytest.mark.parametrize("variant", VARIANTS)
def test_nan_is_never_lost_in_a_window(variant: str) -> None:
    x = np.zeros((1, 1, 4, 4), np.float32)
    x[0, 0, 3, 1] = NAN
    with use_variant(variant):
        y, _ = run(MaxPool2dOp(2), x)
    np.testing.assert_array_equal(np.isnan(y), [[[[False, False], [True, False]]]])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_mask_does_not_depend_on_how_p_is_rounded(variant: str, dtype: str) -> None:
    """p lies just above one element's uniform number: rounded to float32 the two are equal."""
    uniforms = rng.to_uniform(rng.bits(64, seed=1, purpose="dropout")).astype(np.float64)
    element = int(np.flatnonzero(uniforms > 0.5)[0])
    p = float(uniforms[element]) + 2.0**-27
    assert np.float32(p) == np.float32(uniforms[element])
    with use_variant(variant):
        y, dx = run(DropoutOp(p, 1.0, (1, 0, 0)), np.ones(64, dtype))
    np.testing.assert_array_equal(y == 0, uniforms < p)
    np.testing.assert_array_equal(dx == 0, uniforms < p)
    assert y[element] == 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_mask_is_the_same_for_both_dtypes_and_repeats(variant: str) -> None:
    masks = []
    with use_variant(variant):
        for dtype in ("float32", "float64"):
            op = DropoutOp(0.4, 1.0 / 0.6, (2**40 + 3, 9, 2))
            masks += [r != 0 for r in run(op, np.ones((3, 37), dtype))]
    for mask in masks[1:]:
        np.testing.assert_array_equal(mask, masks[0])
    assert 0.4 < masks[0].mean() < 0.8


def threaded_ops() -> Iterator[tuple[Op, list[np.ndarray]]]:
    """Work that is worth threads: what is small stays on one."""
    x = grid(5, 4, 130, 128).astype(np.float32)
    weight, bias = grid(6, 2, 3, 2, item=1).astype(np.float32), grid(6, item=2).astype(np.float32)
    yield Conv2dOp(stride=2, padding=1, groups=2), [x, weight, bias]
    fives = grid(6, 2, 5, 5, item=3).astype(np.float32)  # Done straight from the pixels.
    yield Conv2dOp(padding=2, groups=2), [np.ascontiguousarray(x[..., :40, :44]), fives, bias]
    yield MaxPool2dOp(3, 2, 1), [x]
    yield AvgPool2dOp(3, 2, 1), [x]
    yield LocalResponseNormOp(5, 1.0, dialect="paper"), [x]
    yield SigmoidOp(), [x]
    yield LogSoftmaxOp(1), [x]
    yield DropoutOp(0.5, 2.0, (1, 2, 3)), [x]
    yield CrossEntropyOp(np.arange(5)), [x.reshape(5, -1)]
    # Wide enough that its products are done in slices, in the forward pass and for both gradients.
    arrays = [grid(6, 900), grid(700, 900, item=1), grid(700, item=2)]
    yield LinearOp(), [a.astype(np.float32) for a in arrays]


def test_bits_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("MINIALEX_NUM_THREADS", threads)
        results.append([array.tobytes() for op, arrays in threaded_ops() for array in run(op, *arrays)])
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("budget", [1, 300, 2000, 2**24])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_convolution_in_chunks_of_any_size(budget: int, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strips of rows, single images, several images: the column budget changes no value."""
    from minialex.kernels import column_convolution

    arrays = [a.astype(dtype) for a in (grid(5, 4, 7, 6), grid(6, 2, 3, 2, item=1), grid(6, item=2))]
    geometry = {"stride": (1, 2), "padding": ((1, 0), (2, 1)), "dilation": (2, 1), "groups": 2}
    with use_variant("reference"):
        wanted = run(Conv2dOp(**geometry), *arrays)  # type: ignore[arg-type]
    monkeypatch.setattr(column_convolution, "COLUMN_BUDGET", budget)
    for variant in ("array", "numba"):
        with use_variant(variant):
            results = run(Conv2dOp(**geometry), *arrays)  # type: ignore[arg-type]
        for got, reference in zip(results, wanted, strict=True):
            np.testing.assert_allclose(got, reference, rtol=0, atol=1e-4 * abs(reference).max())


STRIPS: dict[str, tuple[tuple[int, int], dict[str, Any], int]] = {
    # Size of the kernel, geometry, and how many output rows a strip has.
    "plain": ((3, 2), {}, 2),
    "stride": ((3, 3), {"stride": (2, 3)}, 1),
    "a stride longer than the kernel": ((2, 1), {"stride": (3, 2)}, 1),
    "dilation": ((2, 3), {"dilation": (3, 2)}, 2),
    "padding by side": ((3, 4), {"padding": ((2, 1), (0, 3))}, 3),
    "a kernel that reaches across": ((6, 7), {"padding": ((3, 4), (5, 2))}, 2),
    "everything": ((2, 3), {"stride": (2, 1), "padding": ((0, 3), (2, 1)), "dilation": (2, 3)}, 2),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("kernel", "geometry", "height"), STRIPS.values(), ids=STRIPS)
def test_columns_in_strips_agree_in_every_variant(
    kernel: tuple[int, int], geometry: dict[str, Any], height: int, dtype: str
) -> None:
    """im2col and col2im, strip after strip: every variant gives the bits of the plain loops."""
    x = grid(2, 3, 7, 9).astype(dtype)
    stride, dilation = geometry.get("stride", (1, 1)), geometry.get("dilation", (1, 1))
    padding = geometry.get("padding", ((0, 0), (0, 0)))
    OH, OW = (
        conv_output_size(x.shape[2 + i], kernel[i], stride[i], padding[i], dilation[i]) for i in range(2)
    )
    for first in range(0, OH, height):
        shape = (*x.shape[:2], *kernel, min(height, OH - first), OW)
        weights = grid(*shape, item=first).astype(dtype)
        results = []
        for variant in VARIANTS:
            columns, dx = np.full(shape, NAN, dtype), x.copy()  # col2im adds to what is there.
            with use_variant(variant):
                im2col(x, columns, stride, padding, dilation, first)
                col2im(weights, dx, stride, padding, dilation, first)
            results.append((columns, dx))
        for columns, dx in results[1:]:
            np.testing.assert_array_equal(columns, results[0][0])
            np.testing.assert_array_equal(dx, results[0][1])
        # One is the transpose of the other: <im2col(x), w> = <x, col2im(w)>.
        columns, dx = (a.astype(np.float64) for a in results[0])
        assert (columns * weights).sum() == pytest.approx(((dx - x) * x).sum(), rel=1e-3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_empty_batch_goes_through(variant: str) -> None:
    x = np.zeros((0, 4, 9, 8), np.float32)
    weight, bias = grid(6, 2, 3, 2, item=1).astype(np.float32), grid(6, item=2).astype(np.float32)
    for op, arrays in (
        (Conv2dOp(groups=2), [x, weight, bias]),
        (MaxPool2dOp(3, 2), [x]),
        (AvgPool2dOp(3), [x]),
        (LocalResponseNormOp(5, dialect="torch"), [x]),
        (ReluOp(), [x]),
        (SigmoidOp(), [x]),
        (SoftmaxOp(1), [x]),
        (LinearOp(), [x.reshape(0, 288), np.ones((2, 288), np.float32), np.ones(2, np.float32)]),
        (DropoutOp(0.5, 2.0, (0, 0, 0)), [x]),
    ):
        with use_variant(variant):
            y, dx, *others = run(op, *arrays)
        assert len(y) == 0
        assert dx.shape == arrays[0].shape
        assert all(not other.any() for other in others)
