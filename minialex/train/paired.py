"""Whether one network is better than another, when both answered about the same pictures.

Two accuracies whose 95 % intervals overlap may well differ for certain: most pictures are easy or hard for
both networks and say nothing about the difference. What counts are the pictures that one has right and the
other wrong. Several runs a side (seeds of one recipe) are rows of one array; a picture is then one
observation however many runs answered about it, because their answers about it go together.

What is said here is about other pictures of the same kind, for these very networks. How much other seeds
would change is seen in the runs themselves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minialex.rng import Stream

__all__ = ["McNemar", "PairedDifference", "mcnemar", "paired_bootstrap", "paired_difference"]

RESAMPLES = 10_000
LEVEL = 0.95
# Random words made at a time: 16 MB of them.
WORDS = 1 << 22


@dataclass(frozen=True)
class McNemar:
    """The exact test of whether two networks are equally often right.

    Attributes: gained: pictures that b has right more often than a; lost: the other way round;
                p_value: how probable so large a difference, or a larger one, is if neither is better.
    """

    gained: int
    lost: int
    p_value: float


def mcnemar(correct_a: npt.ArrayLike, correct_b: npt.ArrayLike) -> McNemar:
    """McNemar's exact two-sided test.

    If neither network is better, each picture that only one has right is as likely b's as a's:

        p = min(1, 2 * sum(C(n, i) for i <= min(gained, lost)) / 2**n),   n = gained + lost

    With several runs a side the difference at a picture is a number of runs instead of one, and the same
    argument gives the randomisation test: p is the share of all 2**n choices of signs whose sum is at least
    as far from zero as that of the differences found. It is computed in full, no signs are drawn. That
    argument, exchanging the sides at a picture, needs as many runs a side; with other numbers, such as three
    networks and their average, the test asks whether differences up and down are alike in size and number.

    Shapes: correct_a, correct_b (N,) or (runs, N) of bool; N must agree, the number of runs need not.
    Raises: ValueError for other shapes, or without pictures.
    Source: Q. McNemar 1947, "Note on the sampling error of the difference between correlated proportions";
            for several runs R. A. Fisher 1935, "The Design of Experiments", section 21.
    """
    gains, _ = _gains(correct_a, correct_b)
    return McNemar(int((gains > 0).sum()), int((gains < 0).sum()), _sign_flip_p(gains))


def paired_bootstrap(
    correct_a: npt.ArrayLike,
    correct_b: npt.ArrayLike,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> tuple[float, float]:
    """The interval of accuracy(b) - accuracy(a) by resampling pictures (the percentile method).

    N pictures are drawn with replacement out of the N, each with all runs' answers about it, and the
    difference is taken anew; the interval leaves out (1 - level) / 2 of such differences at either end.

    Shapes: correct_a, correct_b (N,) or (runs, N) of bool; N must agree, the number of runs need not.
    Args:   seed: of the draws; the same seed gives the same interval on every machine.
    Raises: ValueError for other shapes, without pictures, or for a level that is none.
    Source: B. Efron 1979, "Bootstrap methods: another look at the jackknife".
    """
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"paired_bootstrap: need 0 < level < 1 and a resample, got {level} and {resamples}")
    gains, unit = _gains(correct_a, correct_b)
    count = len(gains)
    stream, sums = Stream(seed, "bootstrap"), np.empty(resamples, dtype=np.int64)
    # In fours, because a stream gives blocks of four words: the numbers do not depend on WORDS.
    step = 4 * max(1, WORDS // (4 * count))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        # The upper bits of word * N, uniform to within N / 2**32.
        drawn = (stream.bits(rows * count).astype(np.uint64) * np.uint64(count)) >> np.uint64(32)
        sums[start : start + rows] = gains[drawn.astype(np.int64)].reshape(rows, count).sum(axis=1)
    low, high = np.quantile(sums, [(1 - level) / 2, (1 + level) / 2])
    return float(low) / (unit * count), float(high) / (unit * count)


@dataclass(frozen=True)
class PairedDifference:
    """How much more accurate b is than a, on the same pictures.

    Attributes: difference: accuracy(b) - accuracy(a), a share of 1; low, high: its 95 % interval;
                test: McNemar's; pictures: how many.
    """

    difference: float
    low: float
    high: float
    test: McNemar
    pictures: int

    @property
    def is_shown(self) -> bool:
        """Whether these pictures show a difference: both the interval and the test say so.

        The bootstrap alone would be too sure where only a handful of pictures differ, the test alone says
        nothing about how much.
        """
        return (self.low > 0 or self.high < 0) and self.test.p_value < 1 - LEVEL

    def to_json(self) -> dict[str, Any]:
        """The figures for another program."""
        return {
            "difference": self.difference,
            "interval": [self.low, self.high],
            "p_value": self.test.p_value,
            "gained": self.test.gained,
            "lost": self.test.lost,
            "pictures": self.pictures,
            "shown": self.is_shown,
        }


def paired_difference(
    correct_a: npt.ArrayLike, correct_b: npt.ArrayLike, *, seed: int = 0
) -> PairedDifference:
    """accuracy(b) - accuracy(a) with its interval and test. Shapes, errors: as `paired_bootstrap`."""
    gains, unit = _gains(correct_a, correct_b)
    low, high = paired_bootstrap(correct_a, correct_b, seed=seed)
    difference = int(gains.sum()) / (unit * len(gains))
    return PairedDifference(difference, low, high, mcnemar(correct_a, correct_b), len(gains))


def _gains(correct_a: npt.ArrayLike, correct_b: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], int]:
    """For each picture, b's right answers less a's, as whole numbers of 1 / unit of a picture."""
    a, b = (np.atleast_2d(np.asarray(correct)) for correct in (correct_a, correct_b))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or 0 in (a.size, b.size):
        raise ValueError(
            "a comparison needs answers about the same pictures, (N,) or (runs, N), got "
            f"{np.shape(correct_a)} and {np.shape(correct_b)}"
        )
    if a.dtype != np.bool_ or b.dtype != np.bool_:
        raise ValueError(f"right or wrong must be bool, got {a.dtype} and {b.dtype}")
    unit = math.lcm(len(a), len(b))
    gains = b.sum(axis=0, dtype=np.int64) * (unit // len(b)) - a.sum(axis=0, dtype=np.int64) * (
        unit // len(a)
    )
    return gains, unit


def _sign_flip_p(gains: npt.NDArray[np.int64]) -> float:
    """The share of all choices of signs for which |sum| is at least |sum(gains)|."""
    sizes, counts = np.unique(np.abs(gains[gains != 0]), return_counts=True)
    # chance[t]: of all signs, how probable it is that the gains with a plus add up to t.
    chance = np.ones(1)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        spread = np.zeros(size * count + 1)
        spread[::size] = _fair_coins(count)
        chance = np.convolve(chance, spread)
    total = len(chance) - 1  # All signs plus.
    extreme = np.abs(2 * np.arange(total + 1) - total) >= abs(int(gains.sum()))
    return min(1.0, float(chance[extreme].sum()))


def _fair_coins(count: int) -> npt.NDArray[np.float64]:
    """How probable 0 .. count heads of `count` coins are, exactly rounded."""
    ways, all_ways, chances = 1, 2**count, []
    for heads in range(count + 1):
        chances.append(ways / all_ways)
        ways = ways * (count - heads) // (heads + 1)
    return np.array(chances)
