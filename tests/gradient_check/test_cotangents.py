"""What a second random v would not show: a backward that edits dy, remembers, or reads memory as it lies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minialex import ops
from minialex.gradient_check import GradcheckError, check_pair, examine, gradcheck
from minialex.rng import Stream
from minialex.tensor import Op, Tensor
from minialex.testing import grid


def square(backward: Callable[[np.ndarray, np.ndarray], np.ndarray], name: str = "square") -> Any:
    """x -> x**2 with this backward, of dy and x."""

    class SquareOp(Op):
        def shape(self, x: tuple[int, ...]) -> tuple[int, ...]:
            return x

        def forward(self, x: np.ndarray) -> np.ndarray:
            self.save(x)
            return x * x

        def backward(self, dy: np.ndarray) -> tuple[np.ndarray]:
            return (backward(dy, self.saved[0]),)

    SquareOp.name = name
    return lambda x: SquareOp()(x)


def doubling(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    dy *= 2  # With this, v itself is twice as large, and 4 * v * x would agree with differences.
    return dy * x


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_a_backward_that_edits_its_dy_is_refused_right_or_wrong(factor: float) -> None:
    fn = square(lambda dy, x: factor * doubling(dy, x), "editing")
    for outer in (fn, lambda x: fn(x).reshape(-1)):  # reshape hands the same memory on.
        with pytest.raises(GradcheckError, match="the backward of editing writes into its dy"):
            gradcheck(outer, [grid(3, 2)])


def test_bare_functions_may_edit_what_they_are_given() -> None:
    assert check_pair(lambda x: x * x, doubling, [grid(3)]).ok
    assert not check_pair(
        lambda x: x * x, lambda dy, x: 2 * doubling(dy, x), grid(3), raise_exception=False
    ).ok


def test_a_gradient_that_is_kept_from_an_earlier_call_is_found() -> None:
    kept: dict[str, np.ndarray] = {}
    fn = square(lambda dy, x: kept.setdefault("gradient", 2 * x * dy))
    report = examine(fn, grid(4))
    assert report.counts["wrong"] == 0
    assert not report.ok
    assert "it is not linear in dy, or keeps something from an earlier call" in report.text()


def test_a_backward_that_is_right_for_this_cotangent_only() -> None:
    v = Stream(0, "gradcheck").normal(shape=(4,))
    report = examine(square(lambda dy, x: 2 * x * (dy + (np.abs(dy) > np.abs(v).max()) * 1.0)), grid(4))
    assert report.counts["wrong"] == 0
    assert not report.ok


def test_a_backward_that_reads_dy_as_if_it_were_contiguous() -> None:
    fn = square(lambda dy, x: 2 * x * (dy if dy.flags.c_contiguous else dy[::-1]))
    report = examine(fn, grid(4, 3))
    assert not report.ok
    assert "for a dy that is not contiguous, backward gives another gradient" in report.text()


@pytest.mark.parametrize("array", [grid(3, 4).T, np.asfortranarray(grid(3, 4))])
def test_inputs_keep_the_order_of_their_axes_in_memory(array: np.ndarray) -> None:
    wrong = square(lambda dy, x: (2.0 if x.flags.c_contiguous else 3.0) * x * dy)
    assert examine(wrong, np.ascontiguousarray(array)).ok
    assert not examine(wrong, array).ok


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_honest_functions_are_linear_at_kinks_and_where_all_cancels(scale: float) -> None:
    x = scale * np.round(2 * grid(2, 3, 5, 5)) / 2  # Full of ties and of zeros.
    assert not any(part.problems for part in examine(lambda t: ops.max_pool2d(ops.relu(t), 3, 2), x).inputs)
    assert gradcheck(lambda t: ops.softmax(t).sum(axis=-1), scale * grid(4, 6))  # Rounding alone.
    assert gradcheck(lambda t, w: (t @ w).exp(), [grid(2, 3).T, grid(4, 2).T])


def test_a_single_number_and_nothing() -> None:
    assert gradcheck(lambda x: x * x, np.array(3.0))
    assert gradcheck(lambda x: Tensor(np.ones(2)), grid(3))
