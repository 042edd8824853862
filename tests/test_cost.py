"""The counting convention, and the numbers that count by it."""

from __future__ import annotations

import numpy as np
import pytest

from minialex.cost import Cost
from minialex.ops import Conv2dOp, LinearOp
from minialex.testing.counting import Counted, Tally, count_flops


def test_costs_add_up() -> None:
    assert Cost(1, 2) + Cost(10, 20) == Cost(11, 22)
    assert Cost.of(7, (2, 3), (), (0, 5), itemsize=8) == Cost(7, 56)


def test_the_first_layer_of_alexnet_by_hand() -> None:
    # 55 * 55 positions, 96 filters, 11 * 11 * 3 multiplications and as many additions.
    cost = Conv2dOp(stride=4).cost((1, 3, 227, 227), (96, 3, 11, 11), (96,))
    assert cost.flops == 2 * 55 * 55 * 96 * 363 == 210_830_400
    assert cost.bytes == 4 * (3 * 227 * 227 + 96 * 363 + 96 + 96 * 55 * 55)
    assert LinearOp().cost((128, 9216), (4096, 9216), (4096,)).flops == 2 * 128 * 9216 * 4096


@pytest.mark.parametrize(
    ("loops", "flops"),
    [
        (lambda x: x[0] + x[1] * 2.0, 2),
        (lambda x: 1.0 - x[0] / 3.0, 2),
        (lambda x: 2.0 ** x[0] + x[1] ** 2.0, 3),
        (lambda x: -x[0] > x[1], 2),
        (lambda x: max(x[0], x[1], x[2]), 2),
        (lambda x: np.exp(x[0]) + np.log(x[1]) * np.sqrt(x[2]) - np.tanh(x[0]), 7),
        (lambda x: x[0] == x[1], 0),
        (lambda x: x[2] != x[2], 0),
        (lambda x: x.reshape(3, 1).transpose(), 0),
        (lambda x: sum(x), 3),
    ],
)
def test_numbers_that_count(loops: object, flops: int) -> None:
    assert count_flops(loops, np.array([1.0, 2.0, 3.0])) == flops  # type: ignore[arg-type]


def test_they_compute_as_they_count() -> None:
    tally = Tally()
    two = Counted(2.0, tally)
    assert (3.0 - two * two / 4.0).value == 2.0
    assert np.exp(two).value == np.exp(2.0)
    assert (two < 3.0, two >= 3.0, two <= 1.0) == (True, False, False)
    assert tally.flops == 3 + 1 + 3


def test_a_loop_that_stops_counting_says_so() -> None:
    def rounds(x: np.ndarray) -> None:
        np.empty(1)[0] = x[0]

    with pytest.raises((TypeError, ValueError)):
        count_flops(rounds, np.ones(1))


def test_integers_do_not_count() -> None:
    assert count_flops(lambda x, labels: x[labels[0] + 1], np.ones(3), np.array([1])) == 0
