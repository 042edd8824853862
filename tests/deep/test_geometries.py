"""Convolution, pooling and normalisation over geometries that nobody thought of.

Hypothesis draws a row (shapes, parameters, values); everything must hold for it that holds for the rows of
cases.py, but for one thing: the gradients are tried along one random direction, which costs two evaluations
however large the inputs are,

    <backward(v), u>  =  <fn(x + eps*u) - fn(x - eps*u), v> / (2 * eps)  +  O(eps**2).

A wrong gradient passes only if its error is orthogonal to the random u. `make test` draws 50 rows a test, the
same every time; `make test-deep` 1,000, others for every seed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

pytest.importorskip("hypothesis", reason="hypothesis is not installed: pip install -e '.[test]'")

from drawn_rows import ROWS, tied_rows, windows_fit
from holding import agree, hold, slope_along_a_direction
from hypothesis import Phase, find, given, note, settings
from hypothesis.errors import NoSuchExample

from minialex.backend import Array, use_variant
from minialex.ops import (
    AdaptiveAvgPool2dOp,
    AvgPool2dOp,
    Conv2dOp,
    Conv2dReluOp,
    Conv2dSigmoidAvgPool2dOp,
    LocalResponseNormOp,
    MaxPool2dOp,
    ReluLrnMaxPool2dOp,
    ReluMaxPool2dOp,
    SigmoidAvgPool2dOp,
)
from minialex.tensor import Op
from minialex.testing import Case, grid, references
from minialex.testing.check import CheckError
from minialex.testing.mutants import MUTANTS, Mutant

# ---------------------------------------------------------------------------------- the tests


@given(ROWS[Conv2dOp])
def test_convolution(case: Case) -> None:
    hold(case)


@given(ROWS[Conv2dReluOp])
def test_convolution_with_relu(case: Case) -> None:
    hold(case)


@given(ROWS[Conv2dSigmoidAvgPool2dOp])
def test_convolution_sigmoid_and_average_pooling(case: Case) -> None:
    hold(case)


@given(ROWS[MaxPool2dOp])
def test_max_pooling(case: Case) -> None:
    hold(case)


@given(ROWS[ReluMaxPool2dOp])
def test_max_pooling_after_relu(case: Case) -> None:
    hold(case)


@given(tied_rows())
def test_max_pooling_of_equal_pixels(case: Case) -> None:
    """There is no derivative, but one winner a window that all variants agree on."""
    note(case.label)
    if windows_fit(case):
        agree(case)


@given(ROWS[AvgPool2dOp])
def test_average_pooling(case: Case) -> None:
    hold(case)


@given(ROWS[SigmoidAvgPool2dOp])
def test_average_pooling_after_sigmoid(case: Case) -> None:
    hold(case)


@given(ROWS[AdaptiveAvgPool2dOp])
def test_adaptive_average_pooling(case: Case) -> None:
    hold(case)


@given(ROWS[LocalResponseNormOp])
def test_local_response_norm(case: Case) -> None:
    hold(case)


@given(ROWS[ReluLrnMaxPool2dOp])
def test_relu_norm_and_max_pooling(case: Case) -> None:
    hold(case)


# ---------------------------------------------------------------------------------- that the tests can fail

# Without shrinking: what is found need not be small.
QUICK = settings(max_examples=500, phases=[Phase.generate], derandomize=True)


def test_a_gradient_that_is_wrong_in_one_pixel_is_seen() -> None:
    class OnePixelOp(AvgPool2dOp):
        def backward(self, dy: Array) -> Any:
            (dx,) = super().backward(dy)
            dx[0, 0, -1, -1] *= 1.001
            return (dx,)

    case = Case(AvgPool2dOp, (grid(2, 3, 7, 7),), {"kernel_size": 3, "stride": 2}, references.avg_pool2d)
    slope_along_a_direction(case)
    with pytest.raises(CheckError, match="along a direction"):
        slope_along_a_direction(dataclasses.replace(case, op=OnePixelOp))


def uneven(case: Case) -> bool:
    padding = case.params["padding"]
    return not isinstance(padding, int) and not isinstance(padding[0], int) and padding[0][0] != padding[0][1]


def made_room_for(case: Case) -> bool:
    x, weight = case.inputs[:2]
    return case.params["dilation"] == 1 and weight.shape[2] > x.shape[2] and windows_fit(case)


def everything_at_once(case: Case) -> bool:
    plain = case.params["dilation"] in (1, (1, 1)) or case.params["stride"] in (1, (1, 1))
    return case.params["groups"] > 1 and not plain


def one_window_more(case: Case) -> bool:
    down = {**case.params, "ceil_mode": False}
    return case.expected(*case.inputs).shape != references.max_pool2d(*case.inputs, **down).shape


REACHED: dict[str, tuple[type[Op], Callable[[Case], bool]]] = {
    "padding that differs by side": (Conv2dOp, uneven),
    "a kernel larger than the padded picture": (Conv2dOp, lambda case: not windows_fit(case)),
    "a kernel larger than the picture, with padding that makes room": (Conv2dOp, made_room_for),
    "groups, dilation and stride at once": (Conv2dOp, everything_at_once),
    "one channel of one image": (MaxPool2dOp, lambda case: case.inputs[0].shape[:2] == (1, 1)),
    "a window that ceil_mode adds": (MaxPool2dOp, one_window_more),
    "a window larger than the picture": (AvgPool2dOp, lambda case: not windows_fit(case)),
    "odd and even sides": (MaxPool2dOp, lambda case: [n % 2 for n in case.inputs[0].shape[2:]] == [1, 0]),
    "a window beyond both ends": (
        LocalResponseNormOp,
        lambda case: case.params["size"] > 2 * case.inputs[0].shape[1],
    ),
}


@pytest.mark.parametrize("what", REACHED)
def test_what_is_drawn_reaches(what: str) -> None:
    op, condition = REACHED[what]
    find(ROWS[op], condition, settings=QUICK)  # NoSuchExample if there is none among 500.


@pytest.mark.parametrize(
    "mutant", [mutant for mutant in MUTANTS if mutant.subject in ROWS], ids=lambda mutant: mutant.name
)
def test_planted_bugs_are_found_by_what_is_drawn(mutant: Mutant) -> None:
    """First in NumPy, where a gradient that is sent out of its picture is an error; in compiled code it may
    be a crash. What shows in compiled code only is found there."""
    assert not is_found(mutant.subject, "array", examples=5)
    with mutant.planted():
        assert is_found(mutant.subject, "array", examples=300) or is_found(mutant.subject, None, examples=300)


def is_found(op: type[Op], variant: str | None, examples: int) -> bool:
    """Whether one of so many rows does not hold."""

    def fails(case: Case) -> bool:
        try:
            with use_variant(variant) if variant else nullcontext():
                hold(case)
        except (Exception, pytest.fail.Exception):
            return True
        return False

    try:
        find(ROWS[op], fails, settings=settings(QUICK, max_examples=examples))
    except NoSuchExample:
        return False
    return True
