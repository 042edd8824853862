"""backward: a loop over recorded ops, newest first."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import minialex as mx
from minialex.backend import DTypeError
from minialex.shapes import ShapeError
from minialex.tensor import AddOp, Gradients, GraphError, NegOp, Op, Tensor


def leaf(values: object) -> Tensor:
    return Tensor(np.asarray(values, dtype=np.float64), requires_grad=True)


# --------------------------------------------------------------------------------- the shape of the graph


def test_twenty_thousand_chained_ops() -> None:
    x = leaf([1.0, -2.0])
    y = x
    for _ in range(20_000):
        y = y + 1.0
    np.testing.assert_array_equal(y.data, [20_001.0, 19_998.0])
    y.backward(np.array([3.0, 5.0]))
    np.testing.assert_array_equal(x.grad, [3.0, 5.0])


def test_a_long_graph_that_is_never_walked_is_dropped_without_recursion() -> None:
    y = leaf([1.0])
    for _ in range(50_000):
        y = -y
    del y
    gc.collect()


def test_a_diamond() -> None:
    x = leaf([2.0, 3.0])
    left, right = x * x, x.exp()
    (left * right).sum().backward()
    # d/dx of x**2 * e**x
    np.testing.assert_allclose(x.grad, (2 * x.data + x.data**2) * np.exp(x.data), rtol=1e-14)


def test_a_tower_of_diamonds_takes_each_op_once() -> None:
    x = leaf([1.0])
    y = x
    for _ in range(60):  # 2**60 paths.
        y = y + y
    events = []
    with mx.observe(events.append):
        y.backward()
    assert len(events) == 60
    np.testing.assert_array_equal(x.grad, [2.0**60])


def test_one_tensor_used_many_times() -> None:
    x = leaf([1.5])
    total = x * 0.0
    for i in range(1, 101):
        total = total + x * float(i)
    total.backward()
    np.testing.assert_allclose(x.grad, [5050.0])


def test_a_consumer_newer_than_its_neighbours_is_waited_for() -> None:
    x = leaf([3.0])
    early = x * 2.0
    late = early.exp()
    other = x + 1.0
    (early + other + late).backward()
    np.testing.assert_allclose(x.grad, [2.0 + 1.0 + 2.0 * np.exp(6.0)], rtol=1e-14)


def test_one_operand_twice() -> None:
    x = leaf([3.0, -1.0])
    (x * x).backward(np.array([1.0, 10.0]))
    np.testing.assert_array_equal(x.grad, [6.0, -20.0])
    y = leaf([3.0])
    (y - y).backward()
    np.testing.assert_array_equal(y.grad, [0.0])


def test_gradients_add_up_over_backward_calls_until_zero_grad() -> None:
    x = leaf([2.0])
    (x * 3.0).backward()
    (x * 4.0).backward()
    np.testing.assert_array_equal(x.grad, [7.0])
    x.zero_grad()
    assert x.grad is None
    x.mean().backward()
    x.mean().backward()  # The first gradient was a broadcast view: it must have become an array of its own.
    np.testing.assert_array_equal(x.grad, [2.0])


@pytest.mark.parametrize("reduce", ["sum", "mean"])
@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
def test_reductions_can_be_accumulated(reduce: str, shape: tuple[int, ...]) -> None:
    x = leaf(np.ones(shape))
    for _ in range(3):
        getattr(x, reduce)().backward()
    each = 3.0 if reduce == "sum" else 3.0 / max(x.size, 1)
    np.testing.assert_allclose(x.grad, np.full(shape, each))
    assert x.grad.flags.writeable


def test_a_leaf_is_its_own_gradient() -> None:
    x = leaf([1.0, 2.0])
    x.backward(np.array([5.0, 6.0]))
    np.testing.assert_array_equal(x.grad, [5.0, 6.0])


def test_only_what_asks_gets_a_gradient() -> None:
    x, constant = leaf([2.0]), Tensor(np.array([3.0]))
    y = x * constant
    y.backward()
    assert constant.grad is None
    assert y.grad is None  # Not a leaf, and nobody asked to retain it.
    np.testing.assert_array_equal(x.grad, [3.0])


def test_retain_grad_keeps_the_gradient_of_an_inner_tensor() -> None:
    x = leaf([2.0])
    inner = x * 3.0
    inner.retain_grad()
    (inner * inner).backward()
    np.testing.assert_array_equal(inner.grad, [12.0])
    np.testing.assert_array_equal(x.grad, [36.0])
    with pytest.raises(GraphError, match="requires no gradient"):
        Tensor([1.0]).retain_grad()


# ------------------------------------------------------------------------------------------- no aliasing


def test_gradients_share_memory_with_nothing() -> None:
    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    cotangent = np.array([1.0, 1.0])
    z = x + y
    z.retain_grad()
    z.backward(cotangent)
    arrays = [x.grad, y.grad, z.grad, cotangent, x.data, y.data, z.data]
    for i, first in enumerate(arrays):
        for second in arrays[i + 1 :]:
            assert not np.shares_memory(first, second)
    x.grad += 100.0
    np.testing.assert_array_equal(y.grad, [1.0, 1.0])


@pytest.mark.parametrize("shape", [(6,), (3, 2)])
def test_views_of_the_cotangent_are_copied(shape: tuple[int, ...]) -> None:
    x = leaf(np.arange(6.0).reshape(2, 3))
    y = x.reshape(shape)
    dy = np.arange(6.0).reshape(shape)
    y.backward(dy)
    assert not np.shares_memory(x.grad, dy)


def test_a_saved_value_never_becomes_a_gradient() -> None:
    x, factor = leaf([2.0]), leaf([5.0])
    (x * factor).backward(np.array([1.0]))
    assert not np.shares_memory(x.grad, factor.data)
    x.grad *= 0.0
    np.testing.assert_array_equal(factor.data, [5.0])


# -------------------------------------------------------------------------------------- freeing, and twice


def test_a_second_backward_names_the_op() -> None:
    x = leaf([1.0])
    y = (x * 2.0).exp()
    y.backward()
    with pytest.raises(GraphError, match=r"exp: backward was already run.*retain_graph=True"):
        y.backward()


def test_retain_graph_allows_a_second_backward() -> None:
    x = leaf([1.0])
    y = (x * 2.0).exp()
    y.backward(retain_graph=True)
    y.backward()
    np.testing.assert_allclose(x.grad, [4.0 * np.exp(2.0)])


def test_a_shared_trunk_that_is_freed_is_named() -> None:
    x = leaf([1.0])
    trunk = x.exp()
    first, second = trunk * 2.0, trunk * 3.0
    first.backward()
    with pytest.raises(GraphError, match="exp"):
        second.backward()


class WatchedOp(Op):
    """Multiplies by two, saves a copy, and lets a test see when that copy is gone."""

    alive: list[weakref.ref[np.ndarray]]

    def shape(self, x: tuple[int, ...]) -> tuple[int, ...]:
        return x

    def forward(self, x: np.ndarray) -> np.ndarray:
        copy = x.copy()
        WatchedOp.alive.append(weakref.ref(copy))
        self.save(copy)
        return 2 * x

    def backward(self, dy: np.ndarray) -> Gradients:
        return (2 * dy,)


def test_memory_is_freed_as_backward_passes() -> None:
    WatchedOp.alive = []
    y = leaf([1.0])
    for _ in range(5):
        y = WatchedOp()(y)
    counts = []

    def count(event: mx.tensor.Event) -> None:
        counts.append(sum(1 for reference in WatchedOp.alive if reference() is not None))

    with mx.observe(count):
        y.backward()
    # Each event comes before its own op is freed.
    assert counts == [5, 4, 3, 2, 1]
    assert all(reference() is None for reference in WatchedOp.alive)


def test_what_is_not_saved_is_freed_at_once() -> None:
    x = leaf(np.ones(1000))
    inner = x + 1.0
    inner_data = weakref.ref(inner.data)
    y = inner + 1.0  # Addition saves nothing.
    del inner
    assert inner_data() is None
    y.sum().backward()


def test_nothing_is_saved_without_recording() -> None:
    WatchedOp.alive = []
    with mx.no_grad():
        y = WatchedOp()(leaf([1.0]))
    assert y.op is None
    assert WatchedOp.alive[0]() is None


# ------------------------------------------------------------------------------------------------- errors


def test_nothing_to_differentiate() -> None:
    with pytest.raises(GraphError, match="nothing to differentiate"):
        (Tensor([1.0]) * 2.0).backward()


def test_many_elements_need_a_cotangent() -> None:
    y = leaf([1.0, 2.0]) * 2.0
    with pytest.raises(ShapeError, match=r"shape \(2,\) needs a cotangent"):
        y.backward()
    with pytest.raises(ShapeError, match=r"grad has shape \(3,\), expected this Tensor's \(2,\)"):
        y.backward(np.ones(3))


def test_one_element_of_any_shape_needs_none() -> None:
    x = leaf([[2.0]])
    (x * x).backward()
    np.testing.assert_array_equal(x.grad, [[4.0]])


def test_a_cotangent_takes_the_tensors_dtype() -> None:
    x = Tensor(np.ones(2, np.float32), requires_grad=True)
    (x * 2.0).backward([1, 2])
    assert x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.grad, [2.0, 4.0])


def test_an_op_is_one_call() -> None:
    op = NegOp()
    op(leaf([1.0]))
    with pytest.raises(GraphError, match="neg: an Op is one call"):
        op(leaf([1.0]))


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda dy: (dy,), GraphError, "add: backward gave 1 gradients for 2 inputs"),
        (lambda dy: (dy, None), GraphError, "add: backward gave None for input 1, which needs a gradient"),
        (lambda dy: (dy, dy[:1]), ShapeError, r"add: backward gave a gradient of shape \(1,\) for input 1"),
        (lambda dy: (dy, dy.astype("f4")), DTypeError, "add: backward gave float32 for input 1"),
    ],
)
def test_a_backward_that_breaks_its_promises(
    wrong: object, error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    y = leaf([1.0, 2.0]) + leaf([3.0, 4.0])
    monkeypatch.setattr(AddOp, "backward", lambda self, dy: wrong(dy))  # type: ignore[operator]
    with pytest.raises(error, match=message):
        y.backward(np.ones(2))


def test_a_forward_that_breaks_its_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NegOp, "forward", lambda self, x: x[:1])
    with pytest.raises(ShapeError, match=r"neg: forward gave shape \(1,\), but shape\(\) says \(2,\)"):
        -leaf([1.0, 2.0])


def test_an_op_without_its_methods_says_which() -> None:
    class HollowOp(Op):
        pass

    with pytest.raises(NotImplementedError, match="HollowOp must define shape"):
        HollowOp()(Tensor([1.0]))


def test_names_come_from_the_class() -> None:
    class MaxPool2dOp(Op):
        pass

    assert (NegOp.name, MaxPool2dOp.name) == ("neg", "max_pool2d")
