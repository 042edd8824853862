"""Lessons in finding a wrong backward: a bug is planted, you see the failing report, and say what it is.

first = lesson(1)
print(first.question())             # the report, both gradients, and what it could be
print(first.check("B").text)        # or the name of the kind of fault, in words of your own
print(first.solution())
"""

from __future__ import annotations

import dataclasses
import functools
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minialex.backend import Array
from minialex.errors import UsageError
from minialex.gradient_check import InputReport, Report, examine
from minialex.gradient_check.faults import KINDS
from minialex.rng import Stream
from minialex.testing.cases import grid, positive
from minialex.testing.mutants import MUTANTS, Mutant

__all__ = ["LESSONS", "Feedback", "Lesson", "lesson"]

# Both gradients are printed whole up to so many elements.
PRINTED = 80


@dataclass(frozen=True)
class Feedback:
    """What is said to an answer. Args: right: whether it is; kind: how it was understood; text: to read."""

    right: bool
    kind: str
    text: str


@dataclass(frozen=True, eq=False)
class Lesson:
    """One hidden bug, on inputs that show it.

    Args: number: from 1; title: without giving it away; mutant: the name of the bug; inputs, params: of the
          op; names: of the inputs; hint: where to look; wrong: kinds that it could be mistaken for; seen: how
          one sees it, told afterwards.
    """

    number: int
    title: str
    mutant: str
    inputs: tuple[Array, ...]
    params: dict[str, Any]
    names: tuple[str, ...]
    hint: str
    wrong: tuple[str, ...]
    seen: str

    @property
    def bug(self) -> Mutant:
        """What is planted."""
        return next(mutant for mutant in MUTANTS if mutant.name == self.mutant)

    @property
    def kind(self) -> str:
        """The right answer."""
        kind = self.bug.fault
        assert kind is not None, self.mutant
        return kind

    @property
    def choices(self) -> tuple[str, ...]:
        """The kinds to choose from, in an order that says nothing: A is the first."""
        kinds = (self.kind, *self.wrong)
        return tuple(kinds[i] for i in Stream(self.number, "test").permutation(len(kinds)))

    @functools.cached_property
    def _report(self) -> Report:
        bug = self.bug
        with bug.planted():
            return examine(lambda *x: bug.subject(**self.params)(*x), list(self.inputs), names=self.names)

    def report(self) -> Report:
        """The failing report, without the name of the fault."""
        hidden = [dataclasses.replace(part, fault=None) for part in self._report.inputs]
        return dataclasses.replace(self._report, inputs=tuple(hidden), repeat=self._command())

    def _command(self) -> str:
        return f"minialex gradcheck --lesson {self.number}"

    def question(self) -> str:
        """Everything that there is to see, and the answers to choose from."""
        lines = [f"Lesson {self.number} of {len(LESSONS)}: {self.title}", ""]
        lines += [f"The backward pass of {self.bug.label} is wrong. It was called with"]
        lines += [f"  {name} = {value}" for name, value in self.params.items()]
        for name, array in zip(self.names, self.inputs, strict=True):
            lines += [f"  {name}, shape {array.shape}:", *(f"  {line}" for line in _planes([array]))]
        lines += ["", self.report().text(), ""]
        for part in self._report.inputs:
            if not part.ok and part.comparison.analytic.size <= PRINTED:
                lines += [*_side_by_side(part), ""]
        lines += [f"Where to look: {self.hint}", "", "What is it?"]
        lines += [
            f"  {letter}  {kind}: {KINDS[kind]}"
            for letter, kind in zip("ABCDEFGH", self.choices, strict=False)
        ]
        lines += ["", f"Answer: {self._command()} --answer LETTER"]
        return "\n".join(lines)

    def check(self, answer: str) -> Feedback:
        """Whether the answer is right.

        Args:   answer: a letter, the name of a kind, or words that hold one ("conv2d, kernel flipped").
        Raises: UsageError if no kind, or more than one, can be found in it.
        """
        kind = self._understood(answer)
        if kind == self.kind:
            return Feedback(True, kind, f"Right: {kind}.\n\n{self.solution()}")
        text = f"No, it is not {kind!r}: that would be {KINDS[kind]}.\nWhere to look: {self.hint}"
        return Feedback(False, kind, text)

    def _understood(self, answer: str) -> str:
        words = answer.strip().lower()
        choices = self.choices
        if len(words) == 1 and words in "abcdefgh"[: len(choices)]:
            return choices["abcdefgh".index(words)]
        found = {kind for kind in KINDS if re.search(rf"\b{re.escape(kind.lower())}\b", words)}
        for kind, others in OTHER_WORDS.items():
            if any(re.search(rf"(?<!\w){other}", words) for other in others):
                found.add(kind)
        if len(found) != 1:
            letters = ", ".join("ABCDEFGH"[: len(choices)])
            what = (
                "no kind of fault is named in" if not found else f"{' and '.join(sorted(found))} are both in"
            )
            raise UsageError(
                f"lesson {self.number}: {what} {answer!r}; answer with one of {letters}, "
                f"or {', '.join(choices)}"
            )
        return found.pop()

    def solution(self) -> str:
        """What it was, how one sees it, and what the report would have named."""
        named = [f"{part.name}: {part.fault.text}" for part in self._report.inputs if part.fault is not None]
        lines = [
            f"The bug: {self.mutant}.",
            f"Its kind: {self.kind}: {KINDS[self.kind]}.",
            "",
            "How to see it:",
        ]
        lines += [*textwrap.wrap(self.seen, 100), ""]
        lines += ["The report had named it so:", *(f"  {line}" for line in named)]
        return "\n".join(lines)


# What students write for a kind, as the beginnings of words.
OTHER_WORDS: dict[str, tuple[str, ...]] = {
    "factor": ("scale", "divi[ds]", "times too", "mean", "average", r"1 ?/ ?n\b"),
    "sign": ("minus", "negat"),
    "flipped": ("flip", "revers", "mirror", "rotat"),
    "shifted": ("shift", "off by one", "offset"),
    "missing broadcast sum": ("broadcast", "bias sum", "sum over", "summed"),
    "overlap": ("overlap", r"\+ ?=", "accumulat"),
    "mask": ("mask", "leak"),
    "cross terms": ("cross", "jacobian"),
    "ignores the cotangent": ("cotangent", r"(ignor|forg[eo]t|without)\w* dy", "dy is", "upstream"),
    "swapped axes": ("swap", "transpos"),
}


def _side_by_side(part: InputReport) -> list[str]:
    """Both gradients of one input, a star at what is wrong."""
    comparison = part.comparison
    wrong = (part.verdicts == "wrong").reshape(comparison.shape)
    arrays = [a.reshape(comparison.shape) for a in (comparison.analytic, comparison.numeric)]
    title = f"{part.name}: by backward, and by differences; * is wrong"
    return [title, *_planes(arrays, wrong)]


def _planes(arrays: Sequence[Array], marked: Array | None = None) -> list[str]:
    """Arrays of one shape side by side, plane by plane."""
    lines = []
    shape = arrays[0].shape
    stars = np.zeros(shape, dtype=bool) if marked is None else marked
    for number, plane in enumerate(np.ndindex(shape[:-2])):
        tables = [_plane(np.atleast_2d(a[plane]), np.atleast_2d(stars[plane])) for a in arrays]
        lines += [""] * (number > 0)
        lines += ["    ".join(row).rstrip() for row in zip(*tables, strict=True)]
    return lines


def _plane(values: Array, marked: Array) -> list[str]:
    rows = zip(values, marked, strict=True)
    cells = [[f"{v:.3f}{'*' if star else ' '}" for v, star in zip(*row, strict=True)] for row in rows]
    width = max(len(cell) for row in cells for cell in row)
    return ["  " + " ".join(cell.rjust(width) for cell in row) for row in cells]


_LABELS = np.array([2, 0, 3])

LESSONS: Sequence[Lesson] = (
    Lesson(
        1,
        "a mean over windows",
        "avg_pool2d does not divide the gradient",
        (grid(1, 1, 4, 4),),
        {"kernel_size": 2},
        ("x",),
        "divide one column of numbers by the other.",
        ("sign", "overlap", "shifted"),
        "analytic / numeric is 4 in every row of the report, wherever the pixel lies. One number for all "
        "elements is a scale that one of the two passes has and the other has not. 4 is the number of "
        "pixels in a 2 x 2 window: forward divides by it, backward must do so too.",
    ),
    Lesson(
        2,
        "a quotient",
        "div without the minus sign of the divisor",
        (grid(2, 3), positive(2, 3, item=1)),
        {},
        ("a", "b"),
        "one of two inputs is right. Compare the other's two numbers without regard to their signs.",
        ("factor", "ignores the cotangent", "swapped axes"),
        "a is right, so dy arrives and the quotient rule is there in part. For b both gradients have the "
        "same digits with opposite signs: y = a / b falls when b grows, db = -dy * a / b**2.",
    ),
    Lesson(
        3,
        "an activation",
        "relu lets the gradient of negative inputs pass",
        (grid(3, 5),),
        {},
        ("x",),
        "the elements that are right, and x itself. What have they in common?",
        ("factor", "zero", "channel"),
        "Numeric is 0 for every element that is wrong, and the others are right to the last digit. The "
        "forward pass does not let these elements through (x is negative there), so nothing may come back "
        "to them. Backward must multiply dy by the mask x > 0.",
    ),
    Lesson(
        4,
        "a bias",
        "linear's bias gradient is that of the first row",
        (grid(4, 3), grid(2, 3, item=1), grid(2, item=2)),
        {},
        ("x", "weight", "bias"),
        "how often the forward pass uses one element of the input that is wrong.",
        ("factor", "ignores the cotangent", "shifted"),
        "x and weight are right: only bias is wrong, and by no common factor. One bias is added to all 4 "
        "rows, so its gradient is the sum of dy over the 4 rows. Whatever is broadcast forward is summed "
        "up backward; here the first row alone was taken.",
    ),
    Lesson(
        5,
        "a loss for each row",
        "cross_entropy ignores dy",
        (grid(3, 4),),
        {"labels": _LABELS, "reduction": "none"},
        ("logits",),
        "the ratio of the two within one row, and in another. What does a row of the output get from dy?",
        ("factor", "cross terms", "channel"),
        "In each row analytic / numeric is one number, and every row has another: 1 / dy of that row. So "
        "softmax minus the label is right, and is not multiplied by dy. With dy = 1 (a single loss at the "
        "end of a network) nothing would show: that is why the check draws a random dy.",
    ),
    Lesson(
        6,
        "windows that slide",
        "avg_pool2d assigns where windows overlap",
        (grid(1, 1, 5, 5),),
        {"kernel_size": 3, "stride": 2},
        ("x",),
        "which pixels are right, on a sheet of squared paper with the windows drawn on it.",
        ("border", "shifted", "factor"),
        "The corners are right; the third row and the third column are wrong. With windows of 3 and a "
        "stride of 2 these are the pixels that two windows share, or four. They got the gradient of the "
        "window that came last: the loop says = where += is due.",
    ),
    Lesson(
        7,
        "a convolution",
        "conv2d's dx with the kernel flipped",
        (grid(1, 1, 4, 4), grid(1, 1, 3, 3, item=1)),
        {},
        ("x", "weight"),
        "the corners: pixel [0, 0] is seen by one window, through one cell of the kernel.",
        ("shifted", "overlap", "border"),
        "x[0, 0] is under weight[0, 0] of the first window only, so dx[0, 0] = dy[0, 0] * weight[0, 0], "
        "and numeric says so. Analytic has dy[0, 0] * weight[2, 2]: the kernel was turned round. dx of a "
        "cross-correlation is a true convolution; turned once too often (or not at all), it comes out so.",
    ),
    Lesson(
        8,
        "another convolution",
        "conv2d's gradients with the padding off by one",
        (grid(1, 1, 5, 4), grid(1, 1, 3, 2, item=1)),
        {"padding": 1},
        ("x", "weight"),
        "look for the numbers of one table in the other.",
        ("flipped", "border", "swapped axes"),
        "Both tables hold the same numbers, one row apart. The rows that one table has alone are at the "
        "border, where the window that is off looks at other pixels. Backward places its windows at p * "
        "stride - padding - 1: an index that begins in the wrong row.",
    ),
    Lesson(
        9,
        "probabilities",
        "softmax without cross terms",
        (grid(2, 4),),
        {},
        ("x",),
        "the sum of a row. Adding the same number to all of a row changes no probability.",
        ("factor", "mask", "ignores the cotangent"),
        "Softmax does not change if a whole row grows by the same number, so the gradients of a row must "
        "add up to 0. Those of numeric do, those of analytic do not. Each output depends on every element "
        "of its row, because all are divided by the sum: dx = y * (dy - sum(dy * y)). Only dy * y * (1 - "
        "y), each output's own part, was written down.",
    ),
)


def lesson(number: int) -> Lesson:
    """Lesson number 1, 2, ...

    Raises: UsageError if there is none with this number.
    """
    if not 1 <= number <= len(LESSONS):
        raise UsageError(f"there is no lesson {number}: they are numbered 1 to {len(LESSONS)}")
    return LESSONS[number - 1]
