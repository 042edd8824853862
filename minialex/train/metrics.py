"""What is counted while training, and what is said about a trained network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

Z_95 = 1.959963984540054  # 97.5 % of a normal distribution lies below it


@dataclass
class RunningMean:
    """Loss and accuracy over the pictures seen so far, as plain numbers that JSON keeps exactly."""

    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    seconds: float = 0.0

    def add(self, loss: float, correct: int, count: int) -> None:
        """Count a batch: its mean loss, its right answers, its number of pictures."""
        self.loss_sum += loss * count
        self.correct += correct
        self.seen += count

    @property
    def loss(self) -> float:
        """The mean over pictures, NaN before the first."""
        return self.loss_sum / self.seen if self.seen else math.nan

    @property
    def accuracy(self) -> float:
        """Right answers over pictures, NaN before the first."""
        return self.correct / self.seen if self.seen else math.nan


def wilson_interval(correct: int, total: int, z: float = Z_95) -> tuple[float, float]:
    """The interval in which the true accuracy lies 95 times in 100, from `correct` right answers of `total`.

        centre = (p + z**2 / 2n) / (1 + z**2 / n)
        half   = z * sqrt(p (1 - p) / n + z**2 / 4n**2) / (1 + z**2 / n)

    Unlike p +- z * sqrt(p (1 - p) / n) it stays within 0 and 1 and is not empty at p = 1.
    Args:   z: half the interval's width in standard deviations.
    Raises: ValueError unless 0 <= correct <= total and total > 0.
    Source: E. B. Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if not 0 <= correct <= total or total == 0:
        raise ValueError(
            f"wilson_interval: need 0 <= correct <= total and total > 0, got {correct} of {total}"
        )
    p, shrink = correct / total, 1 + z * z / total
    centre = (p + z * z / (2 * total)) / shrink
    half = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total)) / shrink
    return max(0.0, centre - half), min(1.0, centre + half)


def top_k_correct(probabilities: npt.NDArray[Any], labels: IntArray, k: int) -> BoolArray:
    """Whether each picture's true class is among its k most probable; of equal ones the first come first.

    Shapes: probabilities (N, classes), labels (N,) -> (N,). A row with a NaN counts as wrong.
    Raises: ValueError unless 0 < k.
    """
    if k < 1:
        raise ValueError(f"top_k_correct: k must be at least 1, got {k}")
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)
    # "Not at most" instead of "greater": a NaN, which compares with nothing, is before every class.
    before = ~(probabilities <= own)
    before |= (probabilities == own) & (np.arange(probabilities.shape[1]) < labels[:, None])
    return np.asarray(before.sum(axis=1) < k)


def top_k_error(probabilities: npt.NDArray[Any], labels: IntArray, k: int) -> float:
    """The share of pictures whose true class is not among the k most probable; NaN without pictures.

    Shapes: probabilities (N, classes), labels (N,). With k classes or fewer it is 0, whatever was answered.
    Raises: ValueError unless 0 < k.
    """
    correct = top_k_correct(probabilities, labels, k)
    return int((~correct).sum()) / len(correct) if len(correct) else math.nan


def confusion_matrix(labels: IntArray, predictions: IntArray, num_classes: int) -> IntArray:
    """Counts of pictures, row = true class, column = answer.

    Shapes: labels (N,), predictions (N,) -> (num_classes, num_classes).
    """
    flat = np.bincount(labels * num_classes + predictions, minlength=num_classes * num_classes)
    return flat.reshape(num_classes, num_classes).astype(np.int64)


@dataclass(frozen=True)
class ClassFigures:
    """One class: pictures of it, right answers among them, and how often it was the answer at all."""

    name: str
    count: int
    correct: int
    answered: int

    @property
    def recall(self) -> float:
        """Of the pictures of this class, how many were called so; NaN without a picture."""
        return self.correct / self.count if self.count else math.nan

    @property
    def precision(self) -> float:
        """Of the pictures called so, how many were of this class; NaN without an answer."""
        return self.correct / self.answered if self.answered else math.nan


def class_figures(confusion: IntArray, classes: Sequence[str]) -> list[ClassFigures]:
    """The figures of each class from a confusion matrix (row = true class)."""
    return [
        ClassFigures(name, int(confusion[i].sum()), int(confusion[i, i]), int(confusion[:, i].sum()))
        for i, name in enumerate(classes)
    ]


@dataclass(frozen=True)
class Evaluation:
    """A network's answers to one part of the data, in the part's order.

    Shapes: probabilities (N, classes), labels (N,), indices (N,) into the data set.
    """

    loss: float
    probabilities: npt.NDArray[np.float32]
    labels: IntArray
    indices: IntArray

    @property
    def predictions(self) -> IntArray:
        """The most probable class of each picture; the first one on a tie."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @property
    def correct(self) -> int:
        """How many answers are right."""
        return int((self.predictions == self.labels).sum())

    @property
    def accuracy(self) -> float:
        """Right answers over pictures, NaN without pictures."""
        return self.correct / len(self.labels) if len(self.labels) else math.nan

    def error(self, k: int = 1) -> float:
        """The top-k error; see `top_k_error`."""
        return top_k_error(self.probabilities, self.labels, k)

    def error_interval(self, k: int = 1) -> tuple[float, float]:
        """The 95 % interval of the top-k error, by `wilson_interval`."""
        correct = top_k_correct(self.probabilities, self.labels, k)
        return wilson_interval(int((~correct).sum()), len(correct))

    def confusion(self) -> IntArray:
        """The confusion matrix, row = true class."""
        return confusion_matrix(self.labels, self.predictions, self.probabilities.shape[1])

    def worst_mistakes(self, count: int) -> list[int]:
        """Positions of the wrong answers that were given with the most confidence, worst first."""
        wrong = np.flatnonzero(self.predictions != self.labels)
        confidence = self.probabilities[wrong].max(axis=1)
        return [int(i) for i in wrong[np.argsort(-confidence, kind="stable")][:count]]


def as_percent(share: Any) -> str:
    """0.8731 -> '87.3 %'; NaN -> '-'."""
    return "-" if math.isnan(share) else f"{100 * share:.1f} %"
