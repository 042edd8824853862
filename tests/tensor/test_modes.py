"""no_grad, observe, anomaly mode, and the tape."""

from __future__ import annotations

import numpy as np
import pytest

import minialex as mx
from minialex.errors import NumericalError
from minialex.tensor import Event, GraphError, MulOp, Tensor, is_recording, recorded_ops


def leaf(values: object) -> Tensor:
    return Tensor(np.asarray(values, dtype=np.float64), requires_grad=True)


# ------------------------------------------------------------------------------------------------ no_grad


def test_no_grad_records_nothing_and_ends() -> None:
    x = leaf([1.0])
    with mx.no_grad():
        assert not is_recording()
        y = x * 2.0
        with mx.no_grad():
            pass
        assert not is_recording()
    assert is_recording()
    assert not y.requires_grad
    assert (x * 2.0).requires_grad


def test_no_grad_ends_after_an_error_too() -> None:
    with pytest.raises(ZeroDivisionError), mx.no_grad():
        _ = 1 / 0
    assert is_recording()


# ------------------------------------------------------------------------------------------------ observe


def test_observe_sees_both_phases() -> None:
    events: list[Event] = []
    x = leaf([2.0, 3.0])
    with mx.observe(events.append):
        y = (x * 5.0).sum()
        y.backward()
    x.exp()
    assert [(e.phase, e.op.name) for e in events] == [
        ("forward", "mul"),
        ("forward", "sum"),
        ("backward", "sum"),
        ("backward", "mul"),
    ]
    product, total, _, back = events
    assert product.inputs[0] is x
    assert product.outputs == (total.inputs[0],)
    assert total.outputs == (y,)
    np.testing.assert_array_equal(back.inputs[0], [1.0, 1.0])
    np.testing.assert_array_equal(back.outputs[0], [5.0, 5.0])
    assert back.outputs[1] is None  # Nobody needs the gradient of 5.
    assert product.op is back.op
    assert all(e.seconds >= 0 for e in events)


def test_observe_sees_calls_that_are_not_recorded() -> None:
    events: list[Event] = []
    with mx.no_grad(), mx.observe(events.append):
        leaf([1.0]).exp()
    assert [e.phase for e in events] == ["forward"]


def test_observers_nest_outermost_first() -> None:
    order: list[str] = []
    with mx.observe(lambda e: order.append("outer")):
        with mx.observe(lambda e: order.append("inner")):
            -leaf([1.0])
        -leaf([1.0])
    assert order == ["outer", "inner", "outer"]


# ------------------------------------------------------------------------------------------- anomaly mode


def test_anomaly_forward_names_the_first_op() -> None:
    x = leaf([1.0, -1.0, 0.0])
    with mx.anomaly_mode(), pytest.raises(NumericalError) as caught:
        (x * 2.0).log().sum()
    assert str(caught.value) == (
        "log: forward made 1 NaN and 1 infinite of 3 values, output shape (3,), from finite inputs"
    )
    assert caught.value.exit_code == 6


def test_anomaly_forward_says_when_an_input_was_bad_already() -> None:
    with mx.anomaly_mode(), pytest.raises(NumericalError, match="from input 0 that already was not finite"):
        leaf([np.nan]) + 1.0


def test_anomaly_backward_names_the_op_and_the_input() -> None:
    x = leaf([0.0])
    with mx.anomaly_mode():
        y = x**0.5
        message = r"pow: backward made .* in the gradient of input 0.*dy is finite"
        with pytest.raises(NumericalError, match=message):
            y.backward()


def test_anomaly_notices_raw_writes() -> None:
    x = leaf([2.0, 3.0])
    with mx.anomaly_mode():
        y = (x * x).sum()
        x.data[0] = 9.0
        with pytest.raises(GraphError, match=r"mul: an array that it saved .* raw `data`"):
            y.backward()


def test_anomaly_mode_lets_honest_runs_pass() -> None:
    x = leaf([2.0, 3.0])
    labels = Tensor(np.array([0, 1]))
    with mx.anomaly_mode():
        (x.exp() / x).sum().backward()
        labels + 1  # Integers are never infinite.
    assert np.isfinite(x.grad).all()


def test_without_anomaly_mode_nan_travels_on_without_a_warning() -> None:
    y = (leaf([-1.0]).log() / leaf([0.0])).sum()
    y.backward()
    assert np.isnan(y.item())


# --------------------------------------------------------------------------------------------------- tape


def test_the_tape_is_a_table() -> None:
    x, w = leaf(np.ones((2, 3))), leaf(np.ones((3, 4)))
    w.name = "weight"
    text = mx.tape(((x @ w) * 2.0).sum())
    assert text.splitlines() == [
        "#  op      inputs       from         output  saved        bytes",
        "1  matmul  (2,3) (3,4)  leaf weight  (2,4)   (2,3) (3,4)    144",
        "2  mul     (2,4) ()     #1 -         (2,4)   ()               8",
        "3  sum     (2,4)        #2           ()      nothing          0",
        "3 ops; 152 bytes kept for backward (what two ops share counts twice)",
    ]


def test_the_tape_lists_each_op_once_oldest_first() -> None:
    x = leaf([1.0])
    y = x.exp()
    z = y * y + y
    assert [op.name for op in recorded_ops(z)] == ["exp", "mul", "add"]
    assert isinstance(recorded_ops(z)[1], MulOp)


def test_the_tape_of_nothing_and_of_a_freed_graph() -> None:
    x = leaf([1.0])
    with pytest.raises(GraphError, match="nothing was recorded"):
        mx.tape(x)
    y = x.exp()
    y.backward()
    with pytest.raises(GraphError, match="freed"):
        mx.tape(y)


def test_a_long_tape_needs_no_recursion() -> None:
    y = leaf([1.0])
    for _ in range(5_000):
        y = -y
    assert mx.tape(y).count("neg") == 5_000
