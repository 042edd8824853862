"""Paired comparisons against answers worked out by hand, and against other ways to the same numbers."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from minialex import rng
from minialex.train import paired
from minialex.train.paired import mcnemar, paired_bootstrap, paired_difference

Answers = npt.NDArray[np.bool_]


def answers(both: int, only_a: int, only_b: int, neither: int = 0) -> tuple[Answers, Answers]:
    """Two networks' right and wrong answers, with so many pictures of each kind."""
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return np.array(a), np.array(b)


@pytest.mark.parametrize(
    ("lost", "gained", "p"),
    [
        (1, 5, 2 * (1 + 6) / 2**6),  # 0.21875
        (5, 1, 2 * (1 + 6) / 2**6),
        (0, 5, 2 * 1 / 2**5),  # 0.0625: five of five are not enough for 0.05
        (0, 6, 2 * 1 / 2**6),
        (2, 10, 2 * (1 + 12 + 66) / 2**12),  # 0.03857
        (3, 4, 1.0),  # 2 * (1 + 7 + 21 + 35) / 128 is 1
        (3, 3, 1.0),
        (0, 0, 1.0),
    ],
)
def test_mcnemar_by_hand(lost: int, gained: int, p: float) -> None:
    for both, neither in ((3, 2), (1000, 0)):  # What both or none have right says nothing.
        test = mcnemar(*answers(both, lost, gained, neither))
        assert (test.lost, test.gained) == (lost, gained)
        assert test.p_value == pytest.approx(p, rel=1e-12)


def test_mcnemar_far_out_and_with_many_pictures() -> None:
    assert mcnemar(*answers(0, 0, 200)).p_value == pytest.approx(2.0**-199, rel=1e-9)
    # With 5,000 the normal distribution is close: z = (100 - 1) / sqrt(5000), with its correction of one.
    p = mcnemar(*answers(0, 2450, 2550)).p_value
    assert p == pytest.approx(math.erfc(99 / math.sqrt(5000) / math.sqrt(2)), rel=1e-3)


def test_several_runs_a_side_give_the_randomisation_test() -> None:
    """Against all 2**N choices of signs."""
    numbers = np.random.default_rng(3)
    for runs_a, runs_b in ((2, 2), (3, 3), (3, 1), (2, 3)):
        a, b = numbers.random((runs_a, 9)) < 0.4, numbers.random((runs_b, 9)) < 0.7
        gains = b.mean(axis=0) - a.mean(axis=0)
        signs = np.array(list(itertools.product((-1, 1), repeat=9)))
        expected = (np.abs(signs @ gains) >= abs(gains.sum()) - 1e-9).mean()
        test = mcnemar(a, b)
        assert test.p_value == pytest.approx(expected, rel=1e-12)
        assert (test.gained, test.lost) == ((gains > 1e-9).sum(), (gains < -1e-9).sum())


def ideal_interval(gains: list[int], unit: int) -> tuple[float, float]:
    """What the bootstrap tends to with ever more resamples: the distribution of its sums, in full."""
    low, count = min(gains), len(gains)
    one = np.bincount([gain - low for gain in gains]) / count
    sums = np.ones(1)
    for _ in range(count):
        sums = np.convolve(sums, one)
    below = np.cumsum(sums)
    ends = [int(np.searchsorted(below, share)) + low * count for share in (0.025, 0.975)]
    return ends[0] / (unit * count), ends[1] / (unit * count)


def test_the_bootstrap_agrees_with_its_limit() -> None:
    a, b = answers(200, 20, 45, 66)
    gains = b.astype(int) - a.astype(int)
    low, high = paired_bootstrap(a, b)
    # The ends are whole pictures; with 10,000 resamples they are found within one.
    assert (low, high) == pytest.approx(ideal_interval(gains.tolist(), 1), abs=1.01 / 331)
    assert low < 25 / 331 < high
    # The normal distribution's: 25 / 331 -+ 1.96 * sqrt(65 - 25**2 / 331) / 331.
    half = 1.96 * math.sqrt(65 - 25**2 / 331) / 331
    assert (low, high) == pytest.approx((25 / 331 - half, 25 / 331 + half), abs=1.5 / 331)


def test_the_bootstrap_is_the_same_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = answers(50, 7, 15, 11)
    pinned = paired_bootstrap(a, b, seed=5)
    assert pinned == (-1 / 83, 17 / 83)
    assert paired_bootstrap(a, b, seed=6, resamples=500) != paired_bootstrap(a, b, seed=5, resamples=500)
    monkeypatch.setattr(paired, "WORDS", 1000)  # However the work is cut up.
    assert paired_bootstrap(a, b, seed=5) == pinned


def test_which_pictures_the_bootstrap_draws() -> None:
    """Word by word: number i of the stream, times N, without its lower 32 bits."""
    a, b = answers(1, 2, 3, 1)
    gains = (b.astype(int) - a.astype(int)).tolist()
    key, sums = rng.split_seed(2**40 + 3), []
    for resample in range(20):
        draws = range(resample * 7, resample * 7 + 7)
        blocks = [rng.philox_scalar((rng.PURPOSES["bootstrap"], 0, 0, draw // 4), key) for draw in draws]
        drawn = [block[draw % 4] * 7 >> 32 for draw, block in zip(draws, blocks, strict=True)]
        sums.append(sum(gains[picture] for picture in drawn))
    # Levels so low and high that the interval's ends are the least and the greatest of the sums.
    found = paired_bootstrap(a, b, seed=2**40 + 3, resamples=20, level=1 - 1e-12)
    assert found == pytest.approx((min(sums) / 7, max(sums) / 7), abs=1e-9)
    middle = paired_bootstrap(a, b, seed=2**40 + 3, resamples=20, level=1e-12)
    assert middle == pytest.approx([np.median(sums) / 7] * 2, abs=1e-9)


def test_the_runs_of_a_picture_stay_together() -> None:
    """Three runs with the same answers know no more than one."""
    a, b = answers(50, 7, 15, 11)
    one = paired_difference(a, b)
    three = paired_difference([a, a, a], [b, b, b])
    assert (three.low, three.high, three.difference) == (one.low, one.high, one.difference)
    assert three.test == one.test
    # Taken for pictures of their own, they would seem to.
    apart = paired_difference(np.tile(a, 3), np.tile(b, 3))
    assert apart.high - apart.low < 0.7 * (one.high - one.low)


def test_the_interval_covers() -> None:
    """In about 95 of 100 draws of pictures the true difference lies in it."""
    numbers = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        a, b = numbers.random(150) < 0.6, numbers.random(150) < 0.7
        low, high = paired_bootstrap(a, b, resamples=400)
        covered += low <= 0.1 <= high
    assert 0.92 <= covered / 400 <= 0.98


def test_a_difference_takes_both_to_be_shown() -> None:
    certain = paired_difference(*answers(200, 20, 60, 51))
    assert certain.is_shown
    assert certain.difference == 40 / 331
    assert paired_difference(*answers(200, 60, 20, 51)).is_shown  # The other way round as well.
    assert not paired_difference(*answers(200, 30, 36, 65)).is_shown
    # Four of four: the bootstrap never draws the other way, the test knows how little that is.
    few = paired_difference(*answers(50, 0, 4, 50))
    assert few.low > 0
    assert few.test.p_value == 0.125
    assert not few.is_shown
    nothing = paired_difference(*answers(50, 0, 0, 50))
    assert (nothing.low, nothing.high, nothing.test.p_value, nothing.is_shown) == (0, 0, 1, False)


def test_a_side_of_one_run_against_several() -> None:
    a = np.array([[True, False, False, True], [False, False, True, True]])
    b = np.array([True, True, False, True])
    found = paired_difference(a, b)
    assert found.difference == 3 / 4 - (2 + 2) / 8
    assert (found.test.gained, found.test.lost) == (2, 1)
    assert found.to_json()["pictures"] == 4


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([True], [True, False], "the same pictures"),
        (np.zeros((2, 3), bool), np.zeros((2, 4), bool), "the same pictures"),
        (np.zeros(0, bool), np.zeros(0, bool), "the same pictures"),
        (np.zeros((1, 2, 3), bool), np.zeros((1, 2, 3), bool), "the same pictures"),
        ([0.3, 0.5], [True, False], "must be bool, got float64"),
    ],
)
def test_what_is_no_comparison(a: Any, b: Any, message: str) -> None:
    for function in (mcnemar, paired_bootstrap, paired_difference):
        with pytest.raises(ValueError, match=message):
            function(a, b)


@pytest.mark.parametrize("wrong", [{"level": 1.0}, {"level": 0.0}, {"resamples": 0}])
def test_what_is_no_interval(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="paired_bootstrap"):
        paired_bootstrap([True], [False], **wrong)


def test_the_example_of_the_page_on_evaluation() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "evaluation.md"
    (block,) = re.findall(
        r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    exec(compile(block, str(page), "exec"), {})
