"""The fused poolings are the ops they stand for, one after another: the same bits, NaN and infinity too."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest

from minialex import Tensor, no_grad, ops, use_variant
from minialex.kernels.local_response_norm import lrn_backward, lrn_forward
from minialex.rng import Stream
from minialex.tensor import observe

VARIANTS = ("reference", "array", "numba")
NORM: dict[str, Any] = {"size": 5, "alpha": 0.3, "beta": 0.75, "k": 2.0, "dialect": "paper"}
WINDOWS: dict[str, dict[str, Any]] = {
    "of the paper": {"kernel_size": 3, "stride": 2},
    "padded": {"kernel_size": (3, 4), "stride": (1, 2), "padding": ((1, 0), (2, 1))},
    "rounded up": {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    "large": {"kernel_size": (5, 6), "stride": (3, 1), "padding": 2},
    "one pixel": {"kernel_size": 1, "stride": 2},
}


def values_and_gradient(fn: Callable[[Tensor], Tensor], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    leaf = Tensor(x, requires_grad=True)
    y = fn(leaf)
    y.backward(Stream(3, "test").normal(shape=y.shape).astype(x.dtype))
    assert leaf.grad is not None
    return y.numpy(), leaf.grad


def picture(dtype: str, kind: str) -> np.ndarray:
    """Every second pixel is below zero; ties come from rounding; special values are strewn in."""
    x = Stream(4, "test").normal(shape=(3, 7, 11, 13)).astype(dtype)
    if kind == "ties":
        x = np.round(x)
    if kind == "special":
        for item, value in enumerate((np.nan, np.inf, -np.inf, 0.0, -0.0)):
            places = Stream(5, "test", item=item).integers(0, x.size, (20,))
            x.reshape(-1)[np.asarray(places)] = value
    return x


def assert_same_bits(got: np.ndarray, wanted: np.ndarray) -> None:
    assert got.dtype == wanted.dtype
    np.testing.assert_array_equal(got, wanted)
    np.testing.assert_array_equal(np.signbit(got[got == 0]), np.signbit(wanted[wanted == 0]))


@pytest.mark.parametrize("kind", ["plain", "ties", "special"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["max_pool2d", "relu_max_pool2d"])
@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_every_variant_of_pooling_gives_the_same_bits(
    window: dict[str, Any], name: str, dtype: str, kind: str
) -> None:
    x, results = picture(dtype, kind), []
    for variant in VARIANTS:
        with use_variant(variant), np.errstate(all="ignore"):
            results.append(values_and_gradient(lambda x: getattr(ops, name)(x, **window), x))
    for y, dx in results[1:]:
        np.testing.assert_array_equal(y, results[0][0])
        # The array variant adds the gradients of windows that share a winner in another order.
        np.testing.assert_allclose(dx, results[0][1], rtol=0, atol=1e-5 if dtype == "float32" else 1e-14)


@pytest.mark.parametrize("kind", ["plain", "ties", "special"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_relu_and_pooling(window: dict[str, Any], variant: str, dtype: str, kind: str) -> None:
    x = picture(dtype, kind)
    with use_variant(variant), np.errstate(all="ignore"):
        wanted = values_and_gradient(lambda x: ops.max_pool2d(ops.relu(x), **window), x)
        got = values_and_gradient(lambda x: ops.relu_max_pool2d(x, **window), x)
    for one, other in zip(got, wanted, strict=True):
        assert_same_bits(one, other)


@pytest.mark.parametrize("kind", ["plain", "ties", "special"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dialect", ["paper", "torch"])
@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_relu_normalisation_and_pooling(
    window: dict[str, Any], dialect: str, variant: str, dtype: str, kind: str
) -> None:
    x, norm = picture(dtype, kind), {**NORM, "size": 4, "dialect": dialect}
    if variant == "reference":
        x = x[:1, :, :7, :6]

    def one_after_another(x: Tensor) -> Tensor:
        return ops.max_pool2d(ops.local_response_norm(ops.relu(x), **norm), **window)

    with use_variant(variant), np.errstate(all="ignore"):
        wanted = values_and_gradient(one_after_another, x)
        got = values_and_gradient(lambda x: ops.relu_lrn_max_pool2d(x, **norm, **window), x)
    for one, other in zip(got, wanted, strict=True):
        assert_same_bits(one, other)


@pytest.mark.parametrize("variant", VARIANTS)
def test_by_hand(variant: str) -> None:
    """The left window has 3 twice, and the first takes it; the right one has nothing above zero."""
    x = np.array([[1.0, 3.0, -1.0, -2.0], [3.0, -5.0, 0.0, -4.0]])[None, None]
    with use_variant(variant):
        y, dx = values_and_gradient(lambda x: ops.relu_max_pool2d(x, 2), x)
        dy = Stream(3, "test").normal(shape=(1, 1, 1, 2))[0, 0, 0, 0]
        np.testing.assert_array_equal(y, [[[[3.0, 0.0]]]])
        np.testing.assert_array_equal(dx, [[[[0, dy, 0, 0], [0, 0, 0, 0]]]])
        # Alone in its window of channels, with alpha, beta and k of 1, each x above 0 becomes x / (1 + x**2).
        alone = {"size": 1, "alpha": 1.0, "beta": 1.0, "k": 1.0, "dialect": "paper"}
        y, _ = values_and_gradient(lambda x: ops.relu_lrn_max_pool2d(x, **alone, kernel_size=2), x)
        np.testing.assert_allclose(y, [[[[1 / 2, 0.0]]]], rtol=1e-15)  # 1/(1+1) is above 3/(1+9).


def test_what_is_kept() -> None:
    """relu_max_pool2d keeps a byte for each window; the other x and a byte for each window."""
    kept: dict[str, int] = {}
    x = Tensor(picture("float32", "plain"), requires_grad=True)
    with observe(lambda event: kept.setdefault(event.op.name, event.op.saved_bytes)):
        y = ops.relu_max_pool2d(x, 3, 2)
        ops.relu_lrn_max_pool2d(x, **NORM, kernel_size=3, stride=2)
    assert kept == {"relu_max_pool2d": y.size, "relu_lrn_max_pool2d": x.size * 4 + y.size}


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_empty_batch_goes_through(variant: str) -> None:
    x = np.zeros((0, 3, 9, 9), np.float32)
    with use_variant(variant):
        for fn in (
            lambda x: ops.relu_max_pool2d(x, 3, 2),
            lambda x: ops.relu_lrn_max_pool2d(x, **NORM, kernel_size=3, stride=2),
        ):
            y, dx = values_and_gradient(fn, x)
            assert (y.shape, dx.shape) == ((0, 3, 4, 4), x.shape)


def test_bits_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    x, results = Stream(6, "test").normal(shape=(5, 8, 33, 31)).astype(np.float32), []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("MINIALEX_NUM_THREADS", threads)
        arrays = [
            *values_and_gradient(lambda x: ops.relu_max_pool2d(x, 3, 2, 1), x),
            *values_and_gradient(lambda x: ops.relu_lrn_max_pool2d(x, **NORM, kernel_size=3), x),
        ]
        results.append([array.tobytes() for array in arrays])
    assert results[0] == results[1] == results[2]


def test_nothing_is_kept_without_gradients() -> None:
    kept: list[int] = []
    with no_grad(), observe(lambda event: kept.append(event.op.saved_bytes)):
        ops.relu_lrn_max_pool2d(Tensor(picture("float32", "plain")), **NORM, kernel_size=3)
    assert kept == [0]


# ------------------------------------------------------------- the root in place of a power, for beta = 3/4


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_three_quarters_by_square_roots_is_within_its_bound(dtype: str) -> None:
    """With x = 1 and alpha = 0 what comes out is k**-0.75 alone, here against forty digits."""
    one, y = np.ones((1, 1, 1, 1), dtype), np.empty((1, 1, 1, 1), dtype)
    unit = float(np.finfo(dtype).eps) / 2
    worst = 0.0
    for k in np.geomspace(1e-30, 1e30, 997):
        with use_variant("numba"):
            lrn_forward(one, y, 0, 0, 0.0, 0.75, float(k))
        with localcontext(prec=40):
            exact = Decimal(float(np.dtype(dtype).type(k))) ** Decimal("-0.75")
            worst = max(worst, float(abs(Decimal(y.item()) / exact - 1)))
    assert worst <= 4.5 * unit * 1.001


@pytest.mark.parametrize("beta", [0.75, 0.5])
def test_float32_is_as_close_to_float64_as_the_plain_loops(beta: float) -> None:
    x, dy = (Stream(7, "test", item=i).normal(std=3.0, shape=(2, 9, 5, 6)) for i in range(2))
    parameters = (2, 2, 0.5, beta, 2.0)
    errors = {}
    for variant in ("reference", "numba"):
        with use_variant("reference"):
            exact = np.empty_like(x), np.empty_like(x)
            lrn_forward(x, exact[0], *parameters)
            lrn_backward(dy, x, exact[1], *parameters)
        narrow = x.astype(np.float32), dy.astype(np.float32)
        got = np.empty_like(narrow[0]), np.empty_like(narrow[0])
        with use_variant(variant):
            lrn_forward(narrow[0], got[0], *parameters)
            lrn_backward(narrow[1], narrow[0], got[1], *parameters)
        errors[variant] = max(float(np.abs(g - e).max()) for g, e in zip(got, exact, strict=True))
    assert errors["numba"] <= 2 * errors["reference"] + 1e-7
