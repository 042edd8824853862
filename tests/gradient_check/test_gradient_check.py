"""gradcheck: honest gradients pass, wrong ones are reported, and what cannot be checked is refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minialex as mx
from minialex import ops
from minialex.errors import MinialexError
from minialex.gradient_check import (
    GradcheckError,
    check_model,
    compare_gradients,
    examine,
    gradcheck,
    gradient_accuracy,
)
from minialex.rng import Stream
from minialex.tensor import ExpOp, Tensor
from minialex.testing import grid


def scaled(factor: float) -> Callable[[Tensor], Tensor]:
    """x -> x**2 with a gradient that is wrong by a factor."""

    class SquareOp(mx.tensor.Op):
        def shape(self, x: tuple[int, ...]) -> tuple[int, ...]:
            return x

        def forward(self, x: np.ndarray) -> np.ndarray:
            self.save(x)
            return x * x

        def backward(self, dy: np.ndarray) -> tuple[np.ndarray]:
            return (2 * factor * self.saved[0] * dy,)

    return lambda x: SquareOp()(x)


# ------------------------------------------------------------------------------------------------ it passes


def test_an_honest_gradient_is_true() -> None:
    assert gradcheck(lambda x, w: (x @ w).exp().sum(axis=0), [grid(2, 3), grid(3, 2, item=1)]) is True


@pytest.mark.parametrize("inputs", [grid(3), [grid(3)], (grid(3),), Tensor(grid(3), requires_grad=True)])
def test_one_input_or_a_list(inputs: Any) -> None:
    assert gradcheck(lambda x: x * x, inputs)


def test_float32_inputs_are_checked_in_float64() -> None:
    seen = set()

    def fn(x: Tensor) -> Tensor:
        seen.add(str(x.dtype))
        return x.exp()

    assert gradcheck(fn, [grid(5).astype(np.float32)])
    assert seen == {"float64"}


@pytest.mark.parametrize(
    "array",
    [
        grid(4, 6)[::2, ::-3],
        grid(3, 4).T,
        np.asfortranarray(grid(3, 4)),
        np.broadcast_to(grid(1, 3), (4, 3)),
        grid(1),
        grid(),
        grid(1, 1, 1),
    ],
)
def test_any_memory_layout_and_size(array: np.ndarray) -> None:
    kept = array.copy()
    assert gradcheck(lambda x: (x * x).sum(axis=-1) if x.ndim else x * x, [array])
    np.testing.assert_array_equal(array, kept)


def test_an_empty_input_beside_another() -> None:
    assert gradcheck(lambda x, y: ops.concatenate([x, y]), [np.zeros((0, 2)), grid(3, 2)])


def test_float16_is_checked_and_complex_numbers_are_refused() -> None:
    assert gradcheck(lambda x: x * x, grid(3).astype(np.float16))
    with pytest.raises(GradcheckError, match="input 0 holds complex128"):
        gradcheck(lambda x: x * x, grid(3).astype(complex))


@pytest.mark.parametrize("calls", [0, 1, 2, 3, 5])
def test_what_is_the_users_is_untouched_when_fn_fails(calls: int) -> None:
    weight, x = Tensor(grid(3, item=1), requires_grad=True), grid(3)
    weight.grad, kept, drawn = np.ones(3), x.copy(), dict(mx.rng.current_scope().drawn)
    count = itertools.count()

    def fn(t: Tensor) -> Tensor:
        if next(count) == calls:
            raise RuntimeError("fn fails")
        return ops.dropout(t * weight, 0.5)

    with pytest.raises(RuntimeError, match="fn fails"):
        gradcheck(fn, [x])
    np.testing.assert_array_equal(weight.grad, np.ones(3))
    np.testing.assert_array_equal(x, kept)
    assert mx.rng.current_scope().drawn == drawn
    assert (weight * 2.0).requires_grad  # Gradients are recorded again.


def test_the_users_tensors_are_untouched() -> None:
    x = Tensor(grid(3).astype(np.float32), requires_grad=True)
    x.grad = np.full(3, 7.0, np.float32)
    data, version, gradient = x.data.copy(), x.version.count, x.grad
    assert gradcheck(lambda t: t * t, [x])
    np.testing.assert_array_equal(x.data, data)
    assert x.grad is gradient
    np.testing.assert_array_equal(gradient, [7.0, 7.0, 7.0])
    assert x.version.count == version


def test_tensors_that_fn_brings_along_are_untouched_and_unchecked() -> None:
    weight = Tensor(grid(3, item=1), requires_grad=True)
    weight.grad = np.ones(3)
    outer = weight.exp()  # A graph of the user's own that fn builds upon.
    outer.retain_grad()
    assert gradcheck(lambda x: x * weight + x * outer, [grid(3)])
    np.testing.assert_array_equal(weight.grad, [1.0, 1.0, 1.0])
    assert outer.grad is None
    outer.sum().backward()  # The user's graph was not freed.
    assert (weight.grad != 1.0).all()


def test_integers_are_passed_through_and_not_checked() -> None:
    labels = np.array([1, 0, 2], np.int32)

    def fn(logits: Tensor, labels: Tensor) -> Tensor:
        assert labels.dtype == np.int32
        assert not labels.requires_grad
        return ops.cross_entropy(logits, labels, label_smoothing=0.1)

    assert gradcheck(fn, [grid(3, 4), labels])


def test_tensors_without_requires_grad_are_constants() -> None:
    # The gradient of the constant is wrong, and nobody asks.
    assert gradcheck(lambda x, c: x + scaled(3.0)(c), [grid(2), Tensor(grid(2, item=1))])
    compared = compare_gradients(lambda x, c: x * c, [grid(2), Tensor(grid(2, item=1))], names=["x", "c"])
    assert [c.name for c in compared] == ["x"]


def test_an_input_that_is_not_reached_has_gradient_zero() -> None:
    assert gradcheck(lambda x, unused: x * 2.0, [grid(3), grid(2)])
    assert gradcheck(lambda x: Tensor(np.ones(2)), [grid(3)])
    with pytest.raises(GradcheckError, match="every gradient here is 0: is the input cut off"):
        gradcheck(lambda x: x.detach() * 2.0, [grid(3)])


def test_an_input_may_be_returned_as_it_is() -> None:
    assert gradcheck(lambda x: x, [grid(3)])


def test_dropout_masks_are_fixed() -> None:
    assert gradcheck(lambda x: ops.dropout(ops.dropout(x, 0.3), 0.5), [grid(40)], seed=3)
    # Nothing of the process's own draws was used up.
    before = dict(mx.rng.current_scope().drawn)
    gradcheck(lambda x: ops.dropout(x, 0.5), [grid(4)])
    assert mx.rng.current_scope().drawn == before


@pytest.mark.parametrize("seed", range(20))
def test_no_honest_gradient_is_refused(seed: int) -> None:
    x = Stream(seed, "test").normal(shape=(2, 3))
    assert gradcheck(lambda t: ops.log_softmax(ops.tanh(t) @ t.T), [x], seed=seed)


def test_large_values_take_the_step_that_floats_really_take() -> None:
    assert gradcheck(lambda x: x * x, [np.array([1e5, -3e5])])


def test_a_value_that_swallows_the_step_gets_a_longer_one() -> None:
    assert gradcheck(lambda x: x * x, [np.array([1e12, -3e150, 2.0, 0.0])])
    with pytest.raises(GradcheckError):
        gradcheck(scaled(1.01), [np.array([1e12, -3e150])])


# ------------------------------------------------------------------------------------------------- it fails


def test_a_wrong_gradient_is_an_error_with_exit_code_6() -> None:
    with pytest.raises(GradcheckError) as caught:
        gradcheck(scaled(1.01), [grid(3)])
    assert isinstance(caught.value, MinialexError)
    assert caught.value.exit_code == 6


def test_the_report_tells_everything() -> None:
    x = np.array([[1.0, 2.0], [3.0, 4.0]])

    class HalfOp(ExpOp):
        def backward(self, dy: np.ndarray) -> tuple[np.ndarray]:
            (dx,) = super().backward(dy)
            wrong = dx.copy()
            wrong[1, 0] *= 2
            return (wrong,)

    with pytest.raises(GradcheckError) as caught:
        gradcheck(lambda x, b: HalfOp()(x) + b, [x, grid(2)], names=["x", "bias"], seed=5, eps=1e-5)
    report = str(caught.value)
    cotangent = Stream(5, "gradcheck").normal(shape=(4,)).reshape(2, 2)
    right = float(cotangent[1, 0] * np.exp(3.0))
    lines = report.splitlines()
    assert lines[0] == "gradcheck: 1 of 6 elements have a wrong gradient"
    assert lines[1] == "  op: half, add"
    assert "x, shape (2, 2): 1 of 4 elements wrong, relative error" in lines[2]
    assert lines[3].startswith("    likely fault: ")
    assert "bias, shape (2,): 0 of 2 elements wrong" in lines[4]
    assert lines[5].startswith("  going back from the output, half (op 1 of 2) is the first")
    assert lines[7].split() == ["input", "index", "analytic", "numeric", "error", "tolerance", "verdict"]
    name, row, column, analytic, numeric, error, tolerance, verdict = lines[8].split()
    assert (name, row, column, verdict) == ("x", "[1,", "0]", "wrong")
    assert float(analytic) == pytest.approx(2 * right, rel=1e-8)
    assert float(numeric) == pytest.approx(right, rel=1e-8)
    assert float(error) == pytest.approx(abs(right), rel=1e-2)
    assert float(tolerance) == pytest.approx(1e-5 + 1e-3 * abs(right), rel=1e-2)
    assert lines[11].split() == ["x", "[1,", "0]", *["2e+01"] * 9]  # The curve of a bug is flat.
    assert "gradcheck(fn, inputs, eps=1e-05, atol=1e-05, rtol=0.001, seed=5)" in report


def test_the_ten_worst_are_listed_worst_first() -> None:
    with pytest.raises(GradcheckError) as caught:
        gradcheck(scaled(2.0), [np.linspace(0.1, 5.0, 40)])
    rows = [line.split() for line in str(caught.value).splitlines() if line.endswith("  wrong")]
    assert len(rows) == 10
    excess = [float(row[-3]) / float(row[-2]) for row in rows]
    np.testing.assert_allclose(excess, sorted(excess, reverse=True), rtol=0.02)  # Printed to three digits.
    assert "40 of 40 elements" in str(caught.value)
    assert "... and 30 more" in str(caught.value)


def test_ones_would_not_have_found_it() -> None:
    """Softmax with the gradient of nothing at all: its outputs add up to one."""

    class DeadSoftmaxOp(ops.SoftmaxOp):
        def backward(self, dy: np.ndarray) -> tuple[np.ndarray]:
            return (np.zeros_like(dy),)

    with pytest.raises(GradcheckError):
        gradcheck(lambda x: DeadSoftmaxOp()(x), [grid(2, 3)])


def test_the_tolerance_is_the_users() -> None:
    assert gradcheck(scaled(1.01), [grid(3)], rtol=0.02)
    with pytest.raises(GradcheckError):
        gradcheck(scaled(1.0001), [grid(3)], rtol=1e-6)


def test_a_gradient_that_is_not_finite_is_wrong() -> None:
    with pytest.raises(GradcheckError, match="nan"):
        gradcheck(scaled(float("nan")), [grid(3)], rtol=1e9, atol=1e9)


def test_a_gradient_of_another_shape_is_reported() -> None:
    class FlatOp(ExpOp):
        def backward(self, dy: np.ndarray) -> tuple[np.ndarray]:
            return (super().backward(dy)[0].reshape(-1),)

    with pytest.raises(GradcheckError, match=r"backward does not run: flat: .* shape \(4,\) for input 0"):
        gradcheck(lambda x: FlatOp()(x), [grid(2, 2)])


def test_a_sample_of_a_large_input() -> None:
    calls = []

    def fn(x: Tensor) -> Tensor:
        calls.append(1)
        return x * x

    assert gradcheck(fn, [grid(1000)], max_elements=20)
    # The elements; and four random directions, by at most four steps each.
    assert 2 + 2 * 20 + 2 * 4 <= len(calls) <= 2 + 2 * 20 + 4 * 2 * 4
    (first,) = compare_gradients(fn, [grid(1000)], max_elements=20, seed=1)
    (again,) = compare_gradients(fn, [grid(1000)], max_elements=20, seed=1)
    (other,) = compare_gradients(fn, [grid(1000)], max_elements=20, seed=2)
    assert list(first.elements) == list(again.elements) != list(other.elements)
    assert len(set(first.elements)) == 20


# ------------------------------------------------------------------------------------------------- it refuses


def with_state() -> Callable[[Tensor], Tensor]:
    calls: list[int] = []

    def fn(x: Tensor) -> Tensor:
        calls.append(1)
        return x * float(len(calls))

    return fn


def edits(x: Tensor) -> Tensor:
    y = x * 2.0
    with mx.no_grad():
        x.zero_()
    return y


def grows(x: Tensor) -> Tensor:
    return x * np.ones(2 if float(x.data[0]) > 1.0 else 1)


X = np.array([1.0, 2.0])

REFUSALS: dict[str, tuple[Callable[..., Any], Any, str]] = {
    "no inputs": (lambda: Tensor([1.0]), [], "nothing to check.*no inputs"),
    "integers alone": (lambda x: x, [np.arange(3)], "nothing to check: no input is a floating array"),
    "nothing requires gradients": (lambda x: x, [Tensor(X)], "nothing to check"),
    "no elements": (lambda x: x.sum(), [np.zeros((0, 3))], "have no elements"),
    "a number": (lambda x: x, [1.5], "input 0 must be a Tensor or an array, got float"),
    "nested lists": (lambda x: x, [[1.5, 2.5]], "must be a Tensor or an array, got list"),
    "nan": (lambda x: x, [np.array([1.0, np.nan])], r"input 0 holds nan at \[1\]"),
    "an array back": (lambda x: x.data, [X], "must give one Tensor, got ndarray"),
    "a tuple back": (lambda x: (x, x), [X], "must give one Tensor, got tuple"),
    "None back": (lambda x: None, [X], "must give one Tensor, got NoneType"),
    "float32 back": (lambda x: Tensor(x.data.astype("float32")), [X], "gave dtype float32 from float64"),
    "integers back": (lambda x: Tensor(np.arange(2)), [X], "gave dtype int64"),
    "nothing in the output": (lambda x: x[2:], [X], r"output has no elements, shape \(0,\)"),
    "infinite output": (lambda x: x / (x - 2.0), [X], r"output holds inf at \[1\]"),
    "nan next door": (lambda x: (x - 1.0) ** 0.5, [X], r"a step of 1e-06 at input 0\[0\].*nan at \[0\]"),
    "another output each time": (with_state(), [X], "fn is not deterministic"),
    "an edited input": (edits, [X], "fn edits input 0 in place"),
    "an output that grows": (grows, [X[:1]], r"gave shape \(1,\) and, after a step of eps, shape \(2,\)"),
    "float32 parameters": (lambda x: x * Tensor([1.0, 2.0]), [X], "arrays and parameters.*must be float64"),
}


@pytest.mark.parametrize(("fn", "inputs", "message"), REFUSALS.values(), ids=REFUSALS)
def test_refusals(fn: Callable[..., Any], inputs: Any, message: str) -> None:
    with pytest.raises(GradcheckError, match=rf"(?s)^gradcheck: .*{message}"):
        gradcheck(fn, inputs)


def test_a_backward_that_changes_is_refused() -> None:
    calls: list[int] = []

    class MoodyOp(ExpOp):
        def backward(self, dy: np.ndarray) -> tuple[np.ndarray]:
            calls.append(1)
            return (super().backward(dy)[0] * (1.0 + 1e-15 * len(calls)),)

    with pytest.raises(GradcheckError, match=r"backward is not deterministic: .* gradients of x"):
        gradcheck(lambda x: MoodyOp()(x), [X], names=["x"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eps": 0.0}, "eps must be a positive number"),
        ({"eps": float("inf")}, "eps must be"),
        ({"atol": -1.0}, "atol must be"),
        ({"rtol": float("nan")}, "rtol must be"),
        ({"max_elements": 0}, "max_elements must be at least 1"),
        ({"names": ["a", "b"]}, "2 names for 1 inputs"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(GradcheckError, match=message):
        gradcheck(lambda x: x, [X], **settings)


def test_errors_of_the_function_itself_are_its_own() -> None:
    with pytest.raises(mx.ShapeError, match="reshape"):
        gradcheck(lambda x: x.reshape(3), [X])


def test_the_public_names() -> None:
    assert mx.gradcheck is gradcheck
    assert mx.GradcheckError is GradcheckError


@pytest.mark.parametrize("eps", [1e-300, 1e-17])
def test_a_step_that_moves_nothing_proves_nothing(eps: float) -> None:
    with pytest.raises(GradcheckError, match=r"eps must be at least 1e-15, got 1e-"):
        gradcheck(lambda x: x * x, [np.ones(3)], eps=eps)


@pytest.mark.parametrize("check", [check_model, gradient_accuracy])
def test_labels_are_no_loss(check: Any) -> None:
    with pytest.raises(GradcheckError, match=r"got ndarray; for labels write lambda y: ops\.cross_entropy"):
        check(lambda x: x * x, np.ones((2, 3)), np.array([1, 2]))


def test_a_report_at_the_prompt_is_one_line() -> None:
    report = examine(lambda x: x * x, [np.ones(3)])
    assert repr(report) == "<Report of mul: 1 inputs, right; text() tells more>"
