"""What a user of NumPy or PyTorch would try, and must not get a silently wrong answer for."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

import minialex as mx
from minialex import DTypeError, GraphError, ShapeError, Tensor, ops
from minialex.backend import for_ranges
from minialex.tensor import Event

INTEGERS = Tensor(np.array([[2, 3], [4, 5]]))


@pytest.mark.parametrize(
    "function",
    [
        ops.relu,
        ops.sigmoid,
        ops.tanh,
        ops.softmax,
        ops.log_softmax,
        ops.exp,
        ops.log,
        ops.mean,
        lambda x: x / 2,
        lambda x: 1 / x,
        lambda x: ops.dropout(x, 0.5, key=(0, 0, 0)),
        lambda x: ops.linear(x, x),
        lambda x: ops.cross_entropy(x, np.array([0, 1])),
        lambda x: ops.max_pool2d(x.reshape(1, 1, 2, 2), 2),
        lambda x: ops.avg_pool2d(x.reshape(1, 1, 2, 2), 2),
        lambda x: ops.conv2d(x.reshape(1, 1, 2, 2), x.reshape(1, 1, 2, 2)),
        lambda x: ops.local_response_norm(x.reshape(1, 1, 2, 2), 3, dialect="paper"),
    ],
)
def test_fractions_of_integers_are_refused_not_cut_off(function: Any) -> None:
    with pytest.raises(DTypeError, match=r"expected floating values, got int64; convert the data"):
        function(INTEGERS)


def test_integers_can_be_added_picked_and_reshaped() -> None:
    assert (INTEGERS + 1).sum().item() == 18
    assert ops.concatenate([INTEGERS, INTEGERS])[2:].reshape(4).dtype == np.int64


def test_float64_photographs_for_a_float32_net_are_told_how() -> None:
    weight = Tensor(np.ones((1, 1, 1, 1), np.float32))
    with pytest.raises(
        DTypeError, match=r"conv2d: inputs have dtypes float64 and float32.*astype\('float32'\)"
    ):
        ops.conv2d(Tensor(np.ones((1, 1, 2, 2))), weight)
    with pytest.raises(DTypeError, match="concatenate: inputs have dtypes float32 and float64"):
        ops.concatenate([Tensor([1.0]), Tensor(np.ones(1))])


@pytest.mark.parametrize("dtype", [np.float16, np.longdouble])
def test_other_floats_need_a_word(dtype: Any) -> None:
    with pytest.raises(DTypeError, match="give dtype='float32' to convert"):
        Tensor(np.ones(2, dtype))
    assert Tensor(np.ones(2, dtype), dtype="float32").dtype == np.float32


def test_arrays_of_other_libraries_are_read() -> None:
    class Foreign:
        dtype, shape = "their own", (2,)

        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            return np.array([1.0, 2.0])

    np.testing.assert_array_equal(Tensor(Foreign()).numpy(), [1, 2])


def test_comparisons_look_at_values() -> None:
    x = Tensor([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(x == Tensor([1.0, 0.0, 3.0]), [True, False, True])
    np.testing.assert_array_equal(np.array([1, 0, 3], np.float32) == x, [True, False, True])
    np.testing.assert_array_equal(x != 2.0, [True, False, True])
    np.testing.assert_array_equal(
        (x > 2, x >= 2, x < 2, x <= 2), [[0, 0, 1], [0, 1, 1], [1, 0, 0], [1, 1, 0]]
    )
    assert len({x, Tensor([1.0, 2.0, 3.0])}) == 2


def test_the_classic_update_loop_updates() -> None:
    w = Tensor([1.0, 2.0], requires_grad=True)
    memory = w.data
    (w * w).sum().backward()
    with mx.no_grad():
        w -= 0.1 * w.grad
    assert w.data is memory
    np.testing.assert_allclose(w.numpy(), [0.8, 1.6], rtol=1e-6)
    assert w.is_leaf
    assert w.requires_grad


def test_a_leaf_is_not_edited_while_recording() -> None:
    w = Tensor([1.0], requires_grad=True)
    with pytest.raises(GraphError, match="update it under no_grad"):
        w += 1.0
    total = (w * 2.0).sum()
    total += (w * 3.0).sum()
    total *= 2.0
    total.backward()
    np.testing.assert_array_equal(w.grad, [10.0])


def test_in_place_operators_are_noticed_by_ops_that_saved() -> None:
    x, w = Tensor([2.0]), Tensor([3.0], requires_grad=True)
    y = x * w
    x *= 5.0
    assert x.item() == 10
    with pytest.raises(GraphError, match="mul: a value that it saved for backward was edited in place"):
        y.backward()


def test_a_gradient_must_fit() -> None:
    w = Tensor(np.zeros((2, 3), np.float32), requires_grad=True)
    with pytest.raises(
        ShapeError, match=r"grad: expected shape \(2, 3\), float32, on cpu; got shape \(3, 2\)"
    ):
        w.grad = np.zeros((3, 2), np.float32)
    with pytest.raises(ShapeError, match=r"got shape .* float64"):
        w.grad = np.zeros((2, 3))
    with pytest.raises(TypeError, match="grad is an array, not a Tensor"):
        w.grad = Tensor(np.zeros((2, 3), np.float32))
    w.grad = np.ones((2, 3), np.float32)
    w.data = np.zeros((2, 3))
    assert w.grad is None


def test_astype_does_not_cut_a_gradient_in_silence() -> None:
    w = Tensor([1.0], requires_grad=True)
    with pytest.raises(GraphError, match="would not flow back through astype"):
        w.astype("float64")
    assert w.detach().astype("float64").dtype == np.float64
    with mx.no_grad():
        assert not w.astype("float64").requires_grad


def test_what_an_observer_computes_is_not_observed() -> None:
    means = []

    def look(event: Event) -> None:
        means.append(event.outputs[0].mean().item())

    with mx.observe(look):
        ops.relu(Tensor([-1.0, 3.0])).sum()
    assert means == [1.5, 3.0]


def test_all_parts_end_before_an_error_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIALEX_NUM_THREADS", "3")
    ended = []

    def work(start: int, stop: int) -> None:
        if start == 0:
            raise ValueError("the first part fails")
        import time

        time.sleep(0.05)
        ended.append(start)

    with pytest.raises(ValueError, match="the first part fails"):
        for_ranges(3, work)
    assert sorted(ended) == [1, 2]


def test_a_seed_without_effect_is_refused() -> None:
    with mx.random_scope(1), pytest.raises(RuntimeError, match="no effect inside random_scope"):
        mx.manual_seed(2)


def test_the_weights_gradient_needs_no_memory_for_each_image() -> None:
    weight = Tensor(np.ones((64, 64, 3, 3), np.float32), requires_grad=True)
    peaks = []
    for images in (16, 256):
        y = ops.conv2d(Tensor(np.ones((images, 64, 3, 3), np.float32)), weight)
        dy = np.ones(y.shape, np.float32)
        tracemalloc.start()
        y.backward(dy)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 3 * 2**20


def test_none_is_no_value() -> None:
    with pytest.raises(DTypeError, match="a Tensor needs values, got None"):
        ops.relu(None)  # type: ignore[arg-type]


def test_a_backward_that_forgets_the_tuple_is_told() -> None:
    class ForgetfulOp(mx.Op):
        def shape(self, x: Any) -> Any:
            return x

        def forward(self, x: Any) -> Any:
            return x + 1

        def backward(self, dy: Any) -> Any:
            return dy

    y = ForgetfulOp()(Tensor([1.0, 2.0], requires_grad=True))
    with pytest.raises(
        GraphError, match=r"forgetful: backward must give a tuple.*got ndarray.*return \(dx,\)"
    ):
        y.sum().backward()


def test_public_names_are_listed() -> None:
    assert "load" in dir(mx)
    assert set(dir(mx)) == set(mx.__all__)


def test_tape_of_an_array() -> None:
    with pytest.raises(TypeError, match="tape: expected the Tensor that was computed, got ndarray"):
        mx.tape(np.ones(2))  # type: ignore[arg-type]
