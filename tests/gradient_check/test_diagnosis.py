"""Kinks, ties and bad steps are told apart from wrong gradients, and a wrong gradient is never excused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minialex import ops
from minialex.gradient_check import GradcheckError, Report, examine, gradcheck
from minialex.rng import Stream
from minialex.tensor import ExpOp, Op, Tensor
from minialex.testing import CASES, Case, grid


def custom(
    forward: Callable[[np.ndarray], np.ndarray], backward: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> Callable[[Tensor], Tensor]:
    """An operation of one input: y = forward(x), dx = backward(x, dy)."""

    class CustomOp(Op):
        def shape(self, x: tuple[int, ...]) -> tuple[int, ...]:
            return forward(np.ones(x)).shape

        def forward(self, x: np.ndarray) -> np.ndarray:
            self.save(x)
            return forward(x)

        def backward(self, dy: np.ndarray) -> tuple[np.ndarray]:
            return (backward(self.saved[0], dy),)

    return lambda x: CustomOp()(x)


def counts(report: Report) -> dict[str, int]:
    return {verdict: count for verdict, count in report.counts.items() if count}


# ----------------------------------------------------------------------------------------------- kinks


def test_relu_of_zero_is_a_kink_that_is_counted() -> None:
    report = examine(ops.relu, np.array([-1.0, 0.0, 2.0, 0.0, 3.0]))
    assert counts(report) == {"ok": 3, "kink": 2}
    assert report.ok
    assert "2 elements were at a kink not compared" in report.text()
    assert {element.index for element in report.listed} == {(1,), (3,)}
    assert all(element.reason.startswith("in relu: slopes from ") for element in report.listed)


@pytest.mark.parametrize("x", [np.zeros(4), np.array([0.0, 0.0, 0.0, 1.0, 2.0])])
def test_too_many_kinks_prove_nothing(x: np.ndarray) -> None:
    with pytest.raises(GradcheckError, match=r"nothing is proved: \d of \d elements are at a kink"):
        gradcheck(ops.relu, x)


def test_a_gradient_between_the_two_sides_is_fine_and_one_outside_is_wrong() -> None:
    x = np.array([-1.0, 0.0, 2.0, 3.0])
    for slope, verdicts in (
        (0.0, {"ok": 3, "kink": 1}),
        (0.7, {"ok": 3, "kink": 1}),
        (1.2, {"ok": 3, "wrong": 1}),
    ):
        leaky = custom(lambda x: np.maximum(x, 0.0), lambda x, dy, s=slope: dy * np.where(x == 0, s, x > 0))
        assert counts(examine(leaky, x)) == verdicts, slope


@pytest.mark.parametrize("distance", [1e-12, 1e-9, 3e-8, 1e-7, 5e-7, 9e-7])
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_a_kink_within_the_step(distance: float, side: float) -> None:
    """A shorter step finds the derivative, or it is a kink after all; never a wrong gradient."""
    report = examine(ops.relu, np.array([side * distance, 1.0, 2.0]))
    assert report.ok
    assert report.counts["wrong"] == report.counts["precision"] == 0
    wrong = custom(lambda x: np.maximum(x, 0.0), lambda x, dy: -2.0 * dy * (x > 0) - 0.5 * dy * (x <= 0))
    assert examine(wrong, np.array([side * distance, 1.0, 2.0])).counts["wrong"] == 3


def test_kinks_that_cancel_in_the_output() -> None:
    """relu(x) - relu(-x) is x, but each relu's gradient is 0 at 0, and so is what backward makes of them."""
    report = examine(lambda x: ops.relu(x) - ops.relu(-x), np.array([0.0, 1.0, -2.0]))
    assert counts(report) == {"ok": 2, "kink": 1}
    assert report.listed[0].reason == "in relu (op 1 of 4)"


def test_curvature_is_no_kink() -> None:
    x = np.array([0.3, 1.7, -2.0])
    wrong = custom(lambda x: 1e5 * x * x, lambda x, dy: 2.01e5 * x * dy)
    assert counts(examine(wrong, x, rtol=1e-9)) == {"wrong": 3}
    assert counts(examine(lambda x: x * x * 1e5, x, rtol=1e-9, atol=1e-3)) == {"ok": 3}


# ------------------------------------------------------------------------------------------------ ties


def test_equal_pixels_in_a_window_are_a_tie() -> None:
    x = np.array([[1.0, 1.0, 0.0, 5.0], [0.0, -1.0, 4.0, -3.0]]).reshape(1, 1, 2, 4)
    for pool in (ops.max_pool2d, ops.relu_max_pool2d):
        report = examine(lambda x, pool=pool: pool(x, 2), x)
        assert counts(report) == {"ok": 6, "tie": 2}
        assert "2 elements were in a tie of several maxima not compared" in report.text()


def test_a_relu_inside_a_pooling_is_a_kink_and_no_tie() -> None:
    x = np.array([[-1.0, 0.0, 3.0, 5.0], [-2.0, -1.0, 4.0, -3.0]]).reshape(1, 1, 2, 4)
    assert counts(examine(lambda x: ops.relu_max_pool2d(x, 2), x)) == {"ok": 7, "kink": 1}


def test_overlapping_windows_whose_ties_cancel() -> None:
    """With a cotangent of both signs the slopes of the sum can agree on both sides of a tie."""
    x = np.zeros((1, 1, 3, 9))
    x[0, 0, :, ::4] = grid(3, 3)
    x[0, 0, 1, 2] = x[0, 0, 1, 3] = 9.0
    for seed in range(10):
        report = examine(lambda x: ops.max_pool2d(x, 3, 1), x, seed=seed)
        assert report.counts["wrong"] == 0


def test_a_tie_is_found_without_knowing_the_operation() -> None:
    def winner(x: np.ndarray, dy: np.ndarray) -> np.ndarray:
        return np.where(np.arange(x.size) == x.argmax(), dy, 0.0)

    x = np.array([1.0, 3.0, 3.0, 2.0, 0.0])
    highest = custom(lambda x: x.max(keepdims=True), winner)
    assert counts(examine(highest, x)) == {"ok": 3, "tie": 2}
    third = custom(lambda x: x.max(keepdims=True), lambda x, dy: dy * np.array([0, 1, 2, 0, 0]) / 3)
    assert counts(examine(third, x)) == {"ok": 3, "tie": 2}
    half = custom(lambda x: x.max(keepdims=True), lambda x, dy: dy * np.array([0, 1, 1, 0, 0]) / 2)
    assert counts(examine(half, x)) == {"ok": 5}  # The mean of both sides is what central differences give.


def test_a_tie_in_which_each_takes_the_whole_gradient_is_wrong() -> None:
    """Each one's gradient is a slope on one of its sides; together they are twice what they must be."""
    doubled = custom(lambda x: x.max(keepdims=True), lambda x, dy: dy * (x == x.max()))
    report = examine(doubled, np.array([1.0, 3.0, 3.0, 2.0]))
    assert counts(report) == {"ok": 2, "wrong": 2}
    assert "the elements of a tie have" in report.listed[0].reason


# ------------------------------------------------------------------------------------- steps, good and bad


@pytest.mark.parametrize("eps", [0.5, 0.1, 1e-14])
def test_a_bad_step_is_not_the_gradients_fault(eps: float) -> None:
    x = np.array([0.5, 2.0, 3.0])
    report = examine(lambda x: x.exp() * x, x, eps=eps)
    assert report.ok, report.text()
    assert report.counts["precision"] > 0
    assert "right with another eps only" in report.text()
    (part,) = report.inputs  # By the better step.
    better = part.verdicts == "precision"
    np.testing.assert_allclose(part.numeric[better], part.comparison.analytic[better], rtol=1e-7)


def test_cancellation_in_an_honest_function() -> None:
    report = examine(lambda x: (x * x + 1e8) - 1e8, np.array([1.0, 2.0, 3.0]))
    assert report.ok
    assert report.counts["precision"] > 0


@pytest.mark.parametrize("eps", [0.3, 1e-2, 1e-4, 1e-6, 1e-8, 1e-12])
@pytest.mark.parametrize("factor", [0.0, 0.5, 0.98, 1.01, 1.05, -1.0, 30.0])
@pytest.mark.parametrize("offset", [0.0, 1e6, 1e8, 1e10])
def test_a_wrong_gradient_is_never_called_precision(eps: float, factor: float, offset: float) -> None:
    """However bad the step, and however much the function rounds."""
    if factor == 0.0 and eps < 4 * np.spacing(offset):
        return  # Nothing moves at all, and 0 is 0.
    fn = custom(lambda x: (x * x + offset) - offset, lambda x, dy: 2 * factor * x * dy)
    report = examine(fn, np.array([0.7, 1.3, -2.1, 1.0, 2.0]), eps=eps)
    assert counts(report) == {"wrong": 5}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_no_row_of_the_cases_is_refused(case: Case) -> None:
    if not any(array.dtype.kind == "f" for array in case.inputs):
        return
    for seed in (1, 2):
        inputs = [_other_values(array, seed, i) for i, array in enumerate(case.inputs)]
        report = examine(lambda *x: case.make()(*x), inputs, seed=seed, atol=1e-7, rtol=1e-5)
        assert report.ok, report.text()
        assert report.relative_error <= 1e-6


def _other_values(array: np.ndarray, seed: int, item: int) -> np.ndarray:
    """Normal numbers, positive ones where the row's are."""
    values = np.asarray(Stream(seed, "test", item=100 + item).normal(shape=(array.size,)))
    if array.size and (array > 0).all():
        values = np.abs(values) + 0.3
    return values.reshape(array.shape)


# --------------------------------------------------------------------------------------------- float32


def test_a_forward_that_rounds_to_float32_is_wrong_and_named() -> None:
    class NarrowOp(ExpOp):
        def forward(self, x: np.ndarray) -> np.ndarray:
            return super().forward(x.astype(np.float32)).astype(np.float64)

        def backward(self, dy: np.ndarray) -> tuple[np.ndarray]:
            return (self.saved[0].astype(np.float64) * dy,)

    for eps in (1e-6, 1e-3):
        report = examine(lambda x: NarrowOp()(x) * 2.0, np.array([1.0, 2.0, 3.0, 0.1]), eps=eps, rtol=1e-4)
        assert not report.ok
        assert report.counts["precision"] == 0
        assert report.inputs[0].fault is not None
        assert report.inputs[0].fault.kind == "float32"
        assert "narrow computes in float32" in report.text()


def test_a_backward_that_rounds_to_float32_is_found_within_the_tolerance() -> None:
    rounded = custom(np.exp, lambda x, dy: (np.exp(x) * dy).astype(np.float32).astype(np.float64))
    report = examine(rounded, np.array([1.0, 2.0, 3.0]))
    assert report.counts["ok"] == 3
    assert not report.ok
    assert "backward computes in float32" in report.text()


def test_numbers_that_float32_holds_by_nature_are_fine() -> None:
    for fn in (ops.relu, lambda x: x, lambda x: x.sum(), lambda x: ops.max_pool2d(x, 2), lambda x: x * 0.0):
        assert gradcheck(fn, np.arange(1.0, 17.0).reshape(1, 1, 4, 4) / 4)


# ------------------------------------------------------------------------------------------ of the tests


def test_verdicts_are_the_same_every_time() -> None:
    def once() -> Any:
        report = examine(ops.relu, np.array([-1.0, 0.0, 2.0, 0.0, 3.0]), seed=3)
        return {**report.to_json(), "seconds": 0}

    assert once() == once()


def test_strong_curvature_is_a_matter_of_the_step() -> None:
    """Near a pole truncation rules down to the smallest step; the curve falls all the way."""
    x = np.array([2e-4, 1.0, -1e-4])
    report = examine(lambda x: 1.0 / x, x, atol=1e-7, rtol=1e-5)
    assert counts(report) == {"ok": 1, "precision": 2}
    wrong = custom(lambda x: 1.0 / x, lambda x, dy: -1.001 * dy / x**2)
    assert counts(examine(wrong, x, atol=1e-7, rtol=1e-5)) == {"wrong": 3}
