"""The operators that Python spells with symbols: broadcasting, dtypes, and who stands on the left."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minialex as mx
from minialex.backend import DTypeError
from minialex.shapes import ShapeError
from minialex.tensor import Tensor, sum_to_shape

BINARY: list[Callable[[Any, Any], Any]] = [
    operator.add,
    operator.sub,
    operator.mul,
    operator.truediv,
    operator.pow,
]
SHAPES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((2, 3), (3,)),
    ((3,), (2, 3)),
    ((4, 1, 3), (2, 1)),
    ((), (2, 2)),
    ((1, 1), (3, 2)),
    ((0, 3), (1, 3)),
]


def numbers(shape: tuple[int, ...], dtype: str = "float64") -> np.ndarray:
    return (1.0 + np.arange(int(np.prod(shape))).reshape(shape) / 4).astype(dtype)


@pytest.mark.parametrize("function", BINARY, ids=lambda f: f.__name__)
@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_every_operator_broadcasts(function: Any, a: tuple[int, ...], b: tuple[int, ...]) -> None:
    x, y = Tensor(numbers(a), requires_grad=True), Tensor(numbers(b), requires_grad=True)
    z = function(x, y)
    np.testing.assert_array_equal(z.data, function(x.data, y.data))
    z.backward(np.ones(z.shape))
    assert x.grad is not None
    assert y.grad is not None
    assert (x.grad.shape, y.grad.shape) == (a, b)


@pytest.mark.parametrize("function", BINARY, ids=lambda f: f.__name__)
def test_shapes_that_do_not_broadcast_are_named(function: Any) -> None:
    with pytest.raises(ShapeError, match=r"shapes \(2, 3\) and \(2,\) do not broadcast: axis -1 has 3 and 2"):
        function(Tensor(numbers((2, 3))), Tensor(numbers((2,))))


@pytest.mark.parametrize("function", [*BINARY, operator.matmul], ids=lambda f: f.__name__)
def test_an_array_may_stand_on_either_side(function: Any) -> None:
    array, x = numbers((2, 2)), Tensor(numbers((2, 2)) + 1.0, requires_grad=True)
    for left, right in ((array, x), (x, array)):
        z = function(left, right)
        assert isinstance(z, Tensor)
        wanted = function(*(v.data if isinstance(v, Tensor) else v for v in (left, right)))
        np.testing.assert_allclose(z.data, wanted)
        assert z.requires_grad


@pytest.mark.parametrize("function", BINARY, ids=lambda f: f.__name__)
@pytest.mark.parametrize("number", [2, 2.5, np.float64(2.5), np.float32(2.5), np.int64(2), True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scalars_never_promote(function: Any, number: Any, dtype: str) -> None:
    x = Tensor(numbers((3,), dtype), requires_grad=True)
    for z in (function(x, number), function(number, x)):
        assert z.dtype == np.dtype(dtype)
        z.sum().backward()
    assert x.grad.dtype == np.dtype(dtype)


def test_a_list_takes_the_tensors_dtype() -> None:
    x = Tensor(numbers((2,), "float32"))
    assert (x / [1, 2]).dtype == np.float32
    assert ([1.5, 2.0] * x).dtype == np.float32
    np.testing.assert_array_equal((x - [1, 1]).data, [0.0, 0.25])


@pytest.mark.parametrize("function", [*BINARY, operator.matmul], ids=lambda f: f.__name__)
def test_mixed_dtypes_are_refused_with_both_names(function: Any) -> None:
    x, y = Tensor(numbers((2, 2), "float32")), Tensor(numbers((2, 2), "float64"))
    with pytest.raises(DTypeError, match=r"inputs have dtypes float32 and float64, expected one"):
        function(x, y)
    with pytest.raises(DTypeError, match=r"float32 and float64"):
        function(x, y.data)
    with pytest.raises(DTypeError, match=r"int64 and float32"):
        Tensor(np.arange(3)) * 0.5


@pytest.mark.parametrize("nonsense", [None, "text", {}])
def test_nonsense_is_refused(nonsense: Any) -> None:
    with pytest.raises(DTypeError):
        Tensor([1.0]) + nonsense


def test_an_array_operand_is_copied() -> None:
    mask = np.array([1.0, 0.0], dtype=np.float32)
    x = Tensor([2.0, 3.0], requires_grad=True)
    y = x * mask
    mask[:] = 7.0
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, [1.0, 0.0])


# ------------------------------------------------------------------------------- gradients worked out by hand


def test_gradients_by_hand() -> None:
    a, b = Tensor(3.0, requires_grad=True), Tensor(2.0, requires_grad=True)
    y = a * b - a / b + a**b - b
    y.backward()
    assert a.grad == pytest.approx(2 - 1 / 2 + 2 * 3)
    assert b.grad == pytest.approx(3 + 3 / 4 + 9 * np.log(3) - 1)


def test_powers_at_zero() -> None:
    base = Tensor(np.array([0.0, 0.0, 0.0, -2.0]), requires_grad=True)
    (base ** np.array([0.0, 1.0, 2.0, 3.0])).sum().backward()
    np.testing.assert_array_equal(base.grad, [0.0, 1.0, 0.0, 12.0])
    exponent = Tensor(np.array([2.0]), requires_grad=True)
    (np.array([0.0]) ** exponent).sum().backward()
    np.testing.assert_array_equal(exponent.grad, [0.0])


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((3,), (3,)),
        ((2, 3), (3,)),
        ((3,), (3, 2)),
        ((2, 3), (3, 4)),
        ((5, 2, 3), (3, 4)),
        ((2, 1, 2, 3), (4, 3, 2)),
    ],
)
def test_matmul_has_numpys_shapes(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    x, y = Tensor(numbers(a), requires_grad=True), Tensor(numbers(b), requires_grad=True)
    z = x @ y
    np.testing.assert_allclose(z.data, x.data @ y.data)
    z.backward(np.ones(z.shape))
    assert (x.grad.shape, y.grad.shape) == (a, b)


def test_matmul_errors() -> None:
    with pytest.raises(ShapeError, match=r"matmul: a has K=3 but b expects K=2; a \(2, 3\), b \(2, 3\)"):
        Tensor(numbers((2, 3))) @ Tensor(numbers((2, 3)))
    with pytest.raises(ShapeError, match="use \\* for scalars"):
        Tensor(numbers((2, 3))) @ 2.0


def test_sum_to_shape_undoes_broadcasting() -> None:
    d = np.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(sum_to_shape(d, (3, 1)), d.sum(axis=(0, 2))[:, None])
    np.testing.assert_array_equal(sum_to_shape(d, ()), d.sum())
    assert sum_to_shape(d, (2, 3, 4)) is d


# ------------------------------------------------------------------------------------------------ indexing


def test_a_tensor_can_be_walked_and_unpacked() -> None:
    x = Tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    first, second = x
    (first * 2.0 + second).sum().backward()
    np.testing.assert_array_equal(x.grad, [[2.0] * 3, [1.0] * 3])
    assert [float(v) for v in Tensor([1.0, 2.0])] == [1.0, 2.0]


def test_indices_are_copied_and_tensors_may_be_indices() -> None:
    index = np.array([0, 0, 2])
    x = Tensor(np.zeros(3), requires_grad=True)
    for picked in (x[index], x[Tensor(index)]):
        picked.backward(np.array([1.0, 2.0, 4.0]), retain_graph=True)
    y = x[index]
    index[:] = 1
    y.backward(np.array([1.0, 2.0, 4.0]))
    np.testing.assert_array_equal(x.grad, [9.0, 0.0, 12.0])


@pytest.mark.parametrize("index", [5, (0, 0, 0), np.array([3]), np.array([True, False])])
def test_an_index_that_does_not_fit(index: Any) -> None:
    with pytest.raises(ShapeError, match=r"index: .*x has shape \(3, 2\)"):
        Tensor(np.zeros((3, 2)))[index]


@pytest.mark.parametrize(
    "bad",
    [
        lambda x: x.sum(axis=2),
        lambda x: x.sum(axis=(0, 0)),
        lambda x: x.mean(axis=-3),
        lambda x: x.reshape(4),
        lambda x: x.reshape(-1, -1),
        lambda x: x.transpose(0, 0),
        lambda x: x.transpose(0),
        lambda x: Tensor(np.zeros((0, 2))).mean(),
    ],
)
def test_axes_and_extents_that_do_not_fit(bad: Any) -> None:
    with pytest.raises(ShapeError):
        bad(Tensor(np.zeros((2, 3))))


def test_an_op_keeps_the_dtype() -> None:
    x = Tensor(numbers((2, 2), "float32"), requires_grad=True)
    for y in (x.sum(), x.mean(), x.exp(), x.log(), -x, x.T, x[0], x.reshape(4), x @ x):
        assert y.dtype == np.float32
        y.sum().backward()
    assert x.grad.dtype == np.float32
    with mx.no_grad():
        assert not (x + 1.0).requires_grad
