"""How wrong networks are, as tables and sentences: top-1 and top-5 errors, and whether a technique helps."""

from __future__ import annotations

from minialex.train.ensembles import Comparison, Effect, Row
from minialex.train.judging import TOP
from minialex.train.metrics import Evaluation, as_percent
from minialex.train.paired import PairedDifference
from minialex.train.reporter import table

__all__ = ["comparison_lines", "difference_text", "effect_line", "error_lines", "probability_text"]


def error_lines(evaluation: Evaluation, part: str) -> list[str]:
    """Both errors of one evaluation of a part of the pictures."""
    lines = []
    for k in (1, TOP) if _top5_says_something(evaluation) else (1,):
        what = f"top-{k} error on all pictures" if part == "all" else f"{part} top-{k} error"
        error = as_percent(evaluation.error(k))
        lines.append(f"{what}: {error}, 95 % interval {_interval(evaluation, k)}")
    return lines if len(lines) > 1 else [*lines, _top5_says_nothing(evaluation)]


def _interval(evaluation: Evaluation, k: int) -> str:
    low, high = evaluation.error_interval(k)
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def _top5_says_something(evaluation: Evaluation) -> bool:
    return evaluation.probabilities.shape[1] > TOP


def _top5_says_nothing(evaluation: Evaluation) -> str:
    classes = evaluation.probabilities.shape[1]
    return f"top-5 error says nothing with {classes} classes: the right one is always among five"


def comparison_lines(comparison: Comparison) -> list[str]:
    """The table, as the 2012 paper's table 2, and what ten crops and averaging changed."""
    first = comparison.rows[0].evaluation
    top5 = _top5_says_something(first)
    errors = ("top-1 error", "95 % interval", *(("top-5 error", "95 % interval") if top5 else ()))
    rows = [("networks", "crops", *errors), *(_cells(row, top5) for row in comparison.rows)]
    lines = [
        f"{len(first.labels):,} {_part_words(comparison.part)}",
        "",
        table(rows, right=tuple(range(1, len(rows[0])))),
    ]
    if not top5:
        lines.append(_top5_says_nothing(first))
    if effects := comparison.effects():
        lines += ["", *map(effect_line, effects)]
    return lines


def _part_words(part: str) -> str:
    return "pictures, all of the folder" if part == "all" else f"{part} pictures"


def _cells(row: Row, top5: bool) -> tuple[str, ...]:
    count = len(row.names)
    name = f"1 CNN, {row.names[0]}" if count == 1 else f"{count} CNNs, averaged"
    cells = [name, str(row.crops)]
    for k in (1, TOP) if top5 else (1,):
        cells += [as_percent(row.evaluation.error(k)), _interval(row.evaluation, k)]
    return tuple(cells)


def effect_line(effect: Effect) -> str:
    """Whether a technique helps, in words, with what says so."""
    difference = effect.difference
    verdict = "no help shown"
    if difference.is_shown:
        verdict = "helps" if difference.difference > 0 else "does harm"
    return f"{effect.change} ({effect.of}): {verdict}, {difference_text(difference)}"


def difference_text(difference: PairedDifference) -> str:
    """How many points more accurate: "+2.1 points of accuracy (95 % interval +0.9 to +3.3, p = 0.0012)"."""
    low, high = 100 * difference.low, 100 * difference.high
    points, p = f"{100 * difference.difference:+.1f}", probability_text(difference.test.p_value)
    return f"{points} points of accuracy (95 % interval {low:+.1f} to {high:+.1f}, {p})"


def probability_text(p: float) -> str:
    """0.012345 -> "p = 0.012"; what is tiny as "p < 0.0001"."""
    if p < 1e-4:
        return "p < 0.0001"
    return f"p = {p:.2g}" if p < 0.995 else "p = 1"
