"""The Report of a check: what was compared and how, what disagrees, and what that means."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from minialex.gradient_check.comparison import Comparison, relative_norm
from minialex.gradient_check.curves import ErrorCurve, error_curves
from minialex.gradient_check.diagnosis import VERDICTS
from minialex.gradient_check.differences import output_rounding
from minialex.gradient_check.experiment import Experiment
from minialex.gradient_check.faults import Fault
from minialex.gradient_check.settings import FAINT, ROUNDING, Settings, index_text
from minialex.gradient_check.tables import curve_line, table

# Failing elements that a report lists, the worst first.
LISTED = 10
# Elements that could not be compared, of all: with more nothing was proved.
MOST_KINKS = 0.5


@dataclass(frozen=True)
class ElementReport:
    """One element whose two gradients disagree.

    Args: name: of the input; index: in it; analytic, numeric, error, allowed: the gradients with the step
          that the check was asked for, and the error that is allowed beside them; verdict, reason: as in
          diagnosis.py; eps: the step by which the verdict was reached; curve: (eps, |analytic - numeric|)
          with steps from 1e-1 to 1e-9, empty where the verdict needed none.
    """

    name: str
    index: tuple[int, ...]
    analytic: float
    numeric: float
    error: float
    allowed: float
    verdict: str
    reason: str
    eps: float
    curve: tuple[tuple[float, float], ...] = ()

    @property
    def excess(self) -> float:
        """The error in units of what is allowed; infinite for NaN."""
        ratio = self.error / self.allowed if self.allowed > 0 else np.inf
        return float(np.nan_to_num(ratio, nan=np.inf))


@dataclass(frozen=True)
class DirectionReport:
    """One random direction u: <gradient, u>, and the slope of <fn, v> along it.

    Args: analytic, numeric: these two; allowed: the error that is allowed; eps: the step; verdict: "ok",
          "wrong", or "kink" where no step was short enough to stay clear of the kinks of fn.
    """

    analytic: float
    numeric: float
    allowed: float
    eps: float
    verdict: str

    @property
    def error(self) -> float:
        """|analytic - numeric|."""
        return abs(self.analytic - self.numeric)


@dataclass(frozen=True)
class InputReport:
    """What was found out about the gradient of one input.

    Args: comparison: both gradients, with the step that the check was asked for; verdicts: one of VERDICTS
          for each element compared; numeric: as the comparison's, but by a better step where one was needed;
          listed: the worst elements; directions: the random directions, where only a sample of the elements
          was compared; fault: what is likely wrong with backward; problems: what else is wrong; remarks: what
          is good to know; source: the experiment, and the input's position in it.
    """

    comparison: Comparison
    verdicts: npt.NDArray[np.str_]
    numeric: npt.NDArray[np.float64]
    listed: tuple[ElementReport, ...] = ()
    directions: tuple[DirectionReport, ...] = ()
    fault: Fault | None = None
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    source: tuple[Experiment, int] | None = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The input's."""
        return self.comparison.name

    @property
    def counts(self) -> dict[str, int]:
        """How many elements have each verdict."""
        found = Counter(str(verdict) for verdict in self.verdicts)
        return {verdict: found[verdict] for verdict in VERDICTS}

    @property
    def is_wrong(self) -> bool:
        """Whether some of it was compared and disagrees."""
        return self.counts["wrong"] > 0 or any(d.verdict == "wrong" for d in self.directions)

    @property
    def is_unproved(self) -> bool:
        """Whether so many elements are at kinks and in ties that the others prove nothing."""
        return int((~self.compared).sum()) > MOST_KINKS * len(self.verdicts)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong with this gradient, and enough of it was compared."""
        return not (self.is_wrong or self.is_unproved or self.problems)

    @property
    def compared(self) -> npt.NDArray[np.bool_]:
        """Which of the elements were compared: all but those at a kink or a tie."""
        return ~np.isin(self.verdicts, ("kink", "tie"))

    @property
    def relative_error(self) -> float:
        """||analytic - numeric|| / ||numeric|| over what was compared: the random directions, which know the
        whole gradient, or the elements where there are none."""
        pairs = np.array([(d.analytic, d.numeric) for d in self.directions if d.verdict != "kink"])
        if len(pairs):
            return relative_norm(pairs[:, 0], pairs[:, 1])
        return relative_norm(
            self.comparison.analytic[self.compared], self.numeric[self.compared], self._rounding()
        )

    def _rounding(self) -> float:
        """Below which a gradient counts as zero: beside one that is wrong only what certainly is."""
        if self.source is None or not self.is_wrong:
            return ROUNDING
        experiment = self.source[0]
        return min(ROUNDING, FAINT * output_rounding(experiment) / experiment.settings.eps)

    def curves(self) -> tuple[ErrorCurve, ...]:
        """The error against eps in float64 and float32, of the worst elements if some are wrong, else of
        those with the largest gradients; some hundred evaluations of the function."""
        if self.source is None or not len(self.numeric):
            return ()
        wrong = self.verdicts == "wrong"
        rows = np.flatnonzero(wrong if wrong.any() else self.compared)
        sizes = self.comparison.error if wrong.any() else np.abs(self.numeric)
        largest = rows[np.argsort(-np.nan_to_num(sizes[rows], nan=np.inf), kind="stable")]
        return error_curves(*self.source, self.comparison.elements[largest])

    def summary(self) -> str:
        """A line: `x, shape (2, 2): 1 of 4 wrong, relative error 4.9e-01`."""
        counts, size = self.counts, int(np.prod(self.comparison.shape, dtype=np.int64))
        total = len(self.verdicts)
        sampled = f"{total} elements" if total == size else f"a sample of {total} of {size:,} elements"
        text = f"{self.name}, shape {self.comparison.shape}: {counts['wrong']} of {sampled} wrong"
        if self.directions:
            bad = sum(direction.verdict == "wrong" for direction in self.directions)
            text += f", {bad} of {len(self.directions)} directions wrong"
        return f"{text}, relative error {self.relative_error:.2e}"

    def notes(self) -> list[str]:
        """Lines about what the numbers alone do not tell."""
        counts = self.counts
        lines = list(self.problems)
        if self.is_unproved:
            lines.append(
                f"nothing is proved: {int((~self.compared).sum())} of {len(self.verdicts)} elements are at a "
                "kink or in a tie; move the input"
            )
        if self.fault is not None:
            lines.append(f"likely fault: {self.fault.text} [{self.fault.kind}]")
        for verdict, what in (("kink", "at a kink"), ("tie", "in a tie of several maxima")):
            if counts[verdict]:
                lines.append(f"{_count(counts[verdict])} {what} not compared: there is no derivative")
        left_out = sum(direction.verdict == "kink" for direction in self.directions)
        if left_out:
            lines.append(
                f"{left_out} of {len(self.directions)} directions were not compared: too near a kink"
            )
        if counts["precision"]:
            lines.append(f"{_count(counts['precision'])} right with another eps only")
        lines += self.remarks
        if counts["wrong"] and not self.comparison.analytic.any():
            lines.append(
                "every gradient here is 0: is the input cut off inside fn (detach, no_grad, NumPy), "
                "or at a kink (relu of 0)?"
            )
        return lines


def _count(count: int) -> str:
    return "1 element was" if count == 1 else f"{count} elements were"


@dataclass(frozen=True)
class Report:
    """What came of one check.

    Args: ops: what fn recorded, in order; inputs: an InputReport for each input that was checked;
          settings: the numbers of the experiment; repeat: the call that repeats it; seconds: how long it
          took; notes: lines about the whole.
    """

    ops: tuple[str, ...]
    inputs: tuple[InputReport, ...]
    settings: Settings
    repeat: str
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        state = "right" if self.ok else "not right"
        return f"<Report of {self.op or 'fn'}: {len(self.inputs)} inputs, {state}; text() tells more>"

    @property
    def ok(self) -> bool:
        """Whether every gradient is right, as far as it was compared."""
        return all(part.ok for part in self.inputs)

    @property
    def counts(self) -> dict[str, int]:
        """How many elements have each verdict, over all inputs."""
        return {verdict: sum(part.counts[verdict] for part in self.inputs) for verdict in VERDICTS}

    @property
    def relative_error(self) -> float:
        """The worst of the inputs'."""
        return max(part.relative_error for part in self.inputs)

    @property
    def listed(self) -> list[ElementReport]:
        """The elements that disagree, wrong ones first, then by how much."""
        rows = [element for part in self.inputs for element in part.listed]
        return sorted(rows, key=lambda row: (row.verdict != "wrong", -row.excess))[:LISTED]

    @property
    def op(self) -> str:
        """`conv2d`, or `conv2d, relu, max_pool2d`: the operations that were checked."""
        names = list(dict.fromkeys(self.ops))
        return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")

    def text(self) -> str:
        """The report to read: what is wrong, where, by how much, why perhaps, and how to see it again."""
        lines = [self._headline()]
        if self.ops:
            lines.append(f"  op: {self.op}")
        for part in self.inputs:
            lines.append(f"  {part.summary()}")
            lines += [f"    {note}" for note in part.notes()]
        lines += [f"  {note}" for note in self.notes]
        if self.listed:
            lines += ["", *self._table()]
        lines += self._directions()
        lines += [
            "",
            "numeric: central differences of <fn(inputs), v> in float64, v normal from the seed",
            f"repeat:  {self.repeat}",
        ]
        return "\n".join(lines)

    def _headline(self) -> str:
        counts = self.counts
        total = sum(counts.values())
        if self.ok:
            return (
                f"gradcheck: the gradients are right; {total} elements, worst error {self.relative_error:.1e}"
            )
        if counts["wrong"]:
            return f"gradcheck: {counts['wrong']} of {total} elements have a wrong gradient"
        if any(d.verdict == "wrong" for part in self.inputs for d in part.directions):
            return "gradcheck: a gradient is wrong along random directions, not in the sampled elements"
        return "gradcheck: the gradients could not be shown to be right"

    def _table(self) -> list[str]:
        header = ("input", "index", "analytic", "numeric", "error", "tolerance", "verdict")
        rows = self.listed
        cells = [
            (
                row.name,
                index_text(row.index),
                f"{row.analytic:.9g}",
                f"{row.numeric:.9g}",
                f"{row.error:.2e}",
                f"{row.allowed:.2e}",
                row.verdict + (f": {row.reason}" if row.reason else ""),
            )
            for row in rows
        ]
        lines = table(header, cells, left=(0, 1, 6))
        failing = sum(count for verdict, count in self.counts.items() if verdict != "ok")
        if failing > len(rows):
            lines.append(f"... and {failing - len(rows)} more")
        curves = [(f"{row.name} {index_text(row.index)}", row.curve) for row in rows if row.curve]
        if curves:
            lines += [
                "",
                "error against eps, from 1e-1 down to 1e-9 (rounding makes a U; a bug is flat)",
            ]
            width = max(len(label) for label, _ in curves)
            lines += [f"{label.ljust(width)}  {curve_line(curve)}" for label, curve in curves]
        return lines

    def _directions(self) -> list[str]:
        cells = [
            (
                part.name,
                f"{d.analytic:.9g}",
                f"{d.numeric:.9g}",
                f"{d.error:.2e}",
                f"{d.allowed:.2e}",
                f"{d.eps:.1e}",
                d.verdict,
            )
            for part in self.inputs
            for d in part.directions
            if d.verdict != "ok"
        ]
        if not cells:
            return []
        header = ("direction in", "slope", "numeric", "error", "tolerance", "eps", "verdict")
        return ["", *table(header, cells[:LISTED], left=(0, 6))]

    def to_json(self) -> dict[str, Any]:
        """The report as plain values, for json.dumps; NaN and infinity as text."""
        values = {
            "ok": self.ok,
            "ops": self.ops,
            "counts": self.counts,
            "relative_error": self.relative_error,
            "seconds": self.seconds,
            "settings": vars(self.settings),
            "repeat": self.repeat,
            "notes": self.notes,
            "inputs": [_input_json(part) for part in self.inputs],
        }
        return {name: _plain(value) for name, value in values.items()}


def _input_json(part: InputReport) -> dict[str, Any]:
    return {
        "name": part.name,
        "shape": list(part.comparison.shape),
        "ok": part.ok,
        "elements": int(np.prod(part.comparison.shape, dtype=np.int64)),
        "compared": int(part.compared.sum()),
        "counts": part.counts,
        "relative_error": part.relative_error,
        "fault": None if part.fault is None else vars(part.fault),
        "problems": list(part.problems),
        "remarks": list(part.remarks),
        "directions": [{**vars(d), "error": d.error} for d in part.directions],
        "worst": [vars(element) for element in part.listed],
    }


def _plain(value: Any) -> Any:
    """Only dicts, lists, text, numbers, booleans and None; JSON has no NaN."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else str(float(value))
    return value if value is None else str(value)
