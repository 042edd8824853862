"""Figures against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minialex.train.diagnose import guessing_loss
from minialex.train.metrics import (
    Evaluation,
    RunningMean,
    as_percent,
    class_figures,
    confusion_matrix,
    top_k_correct,
    top_k_error,
    wilson_interval,
)

LABELS = np.array([0, 0, 0, 1, 1, 2])
ANSWERS = np.array([0, 0, 1, 1, 0, 2])


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        # 8 of 10, z = 1.96: centre (0.8 + 0.19207) / 1.38415 = 0.71674, half 0.22655.
        (8, 10, 0.49016, 0.94332),
        # 0 of 10: centre = half = 0.19207 / 1.38415 = 0.13877.
        (0, 10, 0.0, 0.27753),
        (10, 10, 0.72247, 1.0),
        (50, 100, 0.40383, 0.59617),
    ],
)
def test_wilson_interval(correct: int, total: int, low: float, high: float) -> None:
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=2e-5)


@pytest.mark.parametrize(("correct", "total"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_interval_refuses_what_is_no_share(correct: int, total: int) -> None:
    with pytest.raises(ValueError, match="wilson_interval"):
        wilson_interval(correct, total)


def test_confusion_matrix_has_the_true_class_in_the_row() -> None:
    assert confusion_matrix(LABELS, ANSWERS, 3).tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 1]]


def test_class_figures() -> None:
    daisy, rose, tulip, lily = class_figures(
        confusion_matrix(LABELS, ANSWERS, 4), ["daisy", "rose", "tulip", "lily"]
    )
    assert (daisy.count, daisy.recall, daisy.precision) == (3, 2 / 3, 2 / 3)
    assert (rose.recall, rose.precision) == (0.5, 0.5)
    assert (tulip.recall, tulip.precision) == (1, 1)
    assert lily.count == 0
    assert math.isnan(lily.recall)
    assert math.isnan(lily.precision)


def test_running_mean_weighs_batches_by_their_pictures() -> None:
    mean = RunningMean()
    assert math.isnan(mean.loss)
    mean.add(1.0, 2, 3)
    mean.add(2.0, 1, 1)
    assert mean.loss == 5 / 4
    assert mean.accuracy == 3 / 4


def test_evaluation_finds_the_surest_mistakes() -> None:
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.5, 0.5]], dtype=np.float32)
    evaluation = Evaluation(0.5, probabilities, np.array([0, 1, 0, 1]), np.arange(4) + 10)
    assert evaluation.predictions.tolist() == [0, 0, 1, 0]
    assert evaluation.correct == 1
    assert evaluation.accuracy == 0.25
    assert evaluation.worst_mistakes(2) == [2, 1]
    assert evaluation.worst_mistakes(9) == [2, 1, 3]


# The true classes come first, third (by a hair), last, and first of a tie.
SHARES = np.array([[0.6, 0.3, 0.1], [0.4, 0.35, 0.25], [0.5, 0.3, 0.2], [0.4, 0.2, 0.4]], dtype=np.float32)
TRUE = np.array([0, 2, 2, 0])


@pytest.mark.parametrize(("k", "wrong"), [(1, 2), (2, 2), (3, 0), (5, 0)])
def test_top_k_error(k: int, wrong: int) -> None:
    assert top_k_error(SHARES, TRUE, k) == wrong / 4
    evaluation = Evaluation(0.0, SHARES, TRUE, np.arange(4))
    assert evaluation.error(k) == wrong / 4
    low, high = wilson_interval(wrong, 4)
    assert evaluation.error_interval(k) == (low, high)


def test_top_1_is_the_first_most_probable_class() -> None:
    """Also among equals, where both count the same one."""
    numbers = np.random.default_rng(0)
    shares = numbers.integers(0, 4, (200, 6)).astype(np.float32)
    labels = numbers.integers(0, 6, 200)
    assert top_k_correct(shares, labels, 1).tolist() == (shares.argmax(axis=1) == labels).tolist()
    ranks = [
        list(np.argsort(-row, kind="stable")).index(label) for row, label in zip(shares, labels, strict=True)
    ]
    for k in (2, 3, 5):
        assert top_k_correct(shares, labels, k).tolist() == [rank < k for rank in ranks]


def test_no_answer_is_a_wrong_answer() -> None:
    shares = np.full((2, 3), np.nan, dtype=np.float32)
    shares[1] = (0.2, np.nan, 0.1)
    assert top_k_error(shares, np.array([0, 0]), 1) == 1
    assert math.isnan(top_k_error(np.zeros((0, 3)), np.zeros(0, dtype=np.int64), 1))
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        top_k_error(SHARES, TRUE, 0)


def test_guessing_loss_is_the_entropy_of_the_classes() -> None:
    assert guessing_loss(np.array([0, 1, 2, 3, 4])) == pytest.approx(math.log(5))
    # Three of four in one class: -(0.75 ln 0.75 + 0.25 ln 0.25).
    assert guessing_loss(np.array([0, 0, 0, 2])) == pytest.approx(0.562335, abs=1e-6)


def test_percent() -> None:
    assert as_percent(0.8731) == "87.3 %"
    assert as_percent(math.nan) == "-"
