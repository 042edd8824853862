"""check_pair: a forward and a backward in plain NumPy, as in a homework."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minialex.gradient_check import GradcheckError, check_pair
from minialex.testing import grid

X, W = grid(3, 4), grid(5, 4, item=1)


def affine(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    return x @ w.T


def test_a_backward_of_dy_and_the_inputs() -> None:
    report = check_pair(affine, lambda dy, x, w: (dy @ w, dy.T @ x), [X, W])
    assert report.ok
    assert [part.name for part in report.inputs] == ["x", "w"]
    assert report.ops == ("affine",)
    assert report.relative_error < 1e-8
    assert report.repeat.startswith("check_pair(forward, backward, inputs, eps=1e-06")


def test_a_backward_of_dy_and_a_cache() -> None:
    def forward(x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, Any]:
        return x @ w.T, (x, w)

    def backward(dy: np.ndarray, cache: Any) -> tuple[np.ndarray, np.ndarray]:
        x, w = cache
        return dy @ w, dy.T @ x

    assert check_pair(forward, backward, (X, W)).ok
    assert check_pair(lambda x: (np.tanh(x), np.tanh(x)), lambda dy, y: dy * (1 - y * y), X).ok


def test_a_wrong_backward_is_an_error_with_the_likely_fault() -> None:
    with pytest.raises(GradcheckError, match="every element is 2 times too large") as caught:
        check_pair(affine, lambda dy, x, w: (dy @ w, 2 * dy.T @ x), [X, W])
    assert caught.value.report.inputs[0].ok
    assert not caught.value.report.inputs[1].ok
    report = check_pair(affine, lambda dy, x, w: (dy @ w, -dy.T @ x), [X, W], raise_exception=False)
    assert not report.ok


def test_ones_would_not_tell_but_a_random_cotangent_does() -> None:
    assert not check_pair(np.square, lambda dy, x: 2 * x, X, raise_exception=False).ok


def test_lists_and_integers_are_numbers_too() -> None:
    assert check_pair(lambda x: x * x, lambda dy, x: 2 * x * dy, [[1, 2, 3]]).ok
    assert check_pair(lambda x: (x * x).sum(), lambda dy, x: 2 * x * dy, np.arange(1.0, 4.0)).ok


def test_what_the_functions_write_into_is_their_own() -> None:
    def forward(x: np.ndarray) -> np.ndarray:
        x *= 2.0
        return x

    def backward(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
        dy *= 2.0
        x[...] = 0.0
        return dy

    x = grid(3)
    kept = x.copy()
    assert check_pair(forward, backward, x).ok
    np.testing.assert_array_equal(x, kept)


REFUSALS: dict[str, tuple[Callable[..., Any], str]] = {
    "one gradient of two": (lambda dy, x, w: dy @ w, "a gradient for each of the 2 inputs, got 1"),
    "three of two": (lambda dy, x, w: (dy, dy, dy), "each of the 2 inputs, got 3"),
    "None": (lambda dy, x, w: (dy @ w, None), "backward gave None for input 1"),
    "another shape": (lambda dy, x, w: (dy @ w, x.T @ dy), r"shape \(4, 5\) for input 1 of shape \(5, 4\)"),
    "text": (lambda dy, x, w: (dy @ w, "dw"), "expected numbers, got str"),
}


@pytest.mark.parametrize(("backward", "message"), REFUSALS.values(), ids=REFUSALS)
def test_refusals(backward: Callable[..., Any], message: str) -> None:
    with pytest.raises(GradcheckError, match=message):
        check_pair(affine, backward, [X, W])


def test_a_forward_that_is_not_numbers() -> None:
    with pytest.raises(GradcheckError, match="expected numbers, got NoneType"):
        check_pair(lambda x: None, lambda dy, x: dy, X)


def test_errors_of_the_functions_are_their_own() -> None:
    with pytest.raises(ValueError, match="matmul"):
        check_pair(lambda x, w: x @ w, lambda dy, x, w: (dy, dy), [X, W])
