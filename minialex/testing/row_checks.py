"""Every row of cases.py, or those of one op: what `minialex gradcheck` does without further words."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from minialex.backend import VariantError
from minialex.gradient_check import Report
from minialex.testing import check
from minialex.testing.cases import CASES, Case
from minialex.testing.check import CheckError
from minialex.testing.check_settings import CheckSettings, Outcome
from minialex.testing.progress import progress_bar

__all__ = ["check_rows"]


@dataclass(frozen=True)
class Row:
    """What came of one row.

    Args: op, label, relative_error, seconds: as in check.Result; failure: the message, "" if all held;
          skipped: why it was not checked; report: of a wrong gradient.
    """

    op: str
    label: str
    relative_error: float
    seconds: float
    failure: str = ""
    skipped: str = ""
    report: Report | None = None

    def plain(self) -> dict[str, Any]:
        """For JSON, which has no NaN."""
        return {
            **vars(self),
            "relative_error": None if math.isnan(self.relative_error) else self.relative_error,
            "report": None if self.report is None else self.report.to_json(),
        }


def check_rows(
    settings: CheckSettings,
    say: Callable[[str], object] = print,
    cases: Iterable[Case] | None = None,
    op: str = "",
) -> Outcome:
    """check_op for every row, and a line for each op, or for each row of a single op.

    Args:   say: takes the lines as they come; cases: None for CASES; op: only its rows.
    """
    settings.require()
    rows = [case for case in (CASES if cases is None else cases) if op in ("", case.op.name)]
    started = perf_counter()
    results: list[Row] = []
    with progress_bar(len(rows), settings.bar) as advance:
        for name in dict.fromkeys(case.op.name for case in rows):
            mine = []
            for case in rows:
                if case.op.name == name:
                    advance(case.label)
                    mine.append(_attempt(case, settings))
                    if op:
                        say(_row_line(mine[-1]))
            results += mine
            if not op:
                say(_op_line(name, mine))
    return _summed_up(results, perf_counter() - started, settings)


def _attempt(case: Case, settings: CheckSettings) -> Row:
    started = perf_counter()
    try:
        with settings.forced():
            result = check.check_op(case, checks=_checks(settings))
    except CheckError as error:
        seconds = perf_counter() - started
        if _is_caused_by(error, VariantError):
            return Row(case.op.name, case.label, math.nan, seconds, skipped=str(error.__cause__))
        return Row(case.op.name, case.label, math.nan, seconds, failure=str(error), report=error.report)
    return Row(result.op, result.case, result.relative_error, result.seconds)


def _is_caused_by(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None and not isinstance(error, kind):
        error = error.__cause__
    return error is not None


def _checks(settings: CheckSettings) -> list[check.Check]:
    """All checks; with a forced variant not those of the others, on a device only what runs there."""
    numbers = settings.numbers()
    # The bound on the norm is for differences with the usual step.
    norm = check.RELATIVE_NORM if set(numbers) == {"seed"} else math.inf
    gradients = functools.partial(check.gradients, **numbers, norm=norm, device=settings.device)
    functools.update_wrapper(gradients, check.gradients)
    if settings.device != "cpu":
        forward = functools.partial(check.forward, device=settings.device)
        return [functools.update_wrapper(forward, check.forward), gradients]
    left_out = (check.variants, check.ties, check.cost) if settings.variant else ()
    return [gradients if c is check.gradients else c for c in check.CHECKS if c not in left_out]


def _row_line(row: Row) -> str:
    state = "FAILED" if row.failure else "no such variant" if row.skipped else "ok"
    error = "" if math.isnan(row.relative_error) else f"  worst error {row.relative_error:.1e}"
    return f"{state:6}{error}  {row.seconds:6.2f} s  {row.label}"


def _op_line(name: str, rows: Sequence[Row]) -> str:
    wrong, skipped = (sum(bool(getattr(row, kind)) for row in rows) for kind in ("failure", "skipped"))
    state = f"FAILED {wrong}" if wrong else "no such variant" if skipped == len(rows) else "ok"
    errors = [row.relative_error for row in rows if not math.isnan(row.relative_error)]
    worst = f"worst error {max(errors):.1e}" if errors else ""
    noun = "row " if len(rows) == 1 else "rows"
    return f"{name:25}  {len(rows):3} {noun}  {state:9}  {worst:19}  {sum(r.seconds for r in rows):6.2f} s"


def _summed_up(rows: Sequence[Row], seconds: float, settings: CheckSettings) -> Outcome:
    failures = [row.failure for row in rows if row.failure]
    skipped = sum(bool(row.skipped) for row in rows)
    worst = max((row.relative_error for row in rows if not math.isnan(row.relative_error)), default=0.0)
    held = len(rows) - skipped - len(failures)
    if failures:
        text = "\n\n".join([f"{len(failures)} of {len(rows)} rows failed, in {seconds:.1f} s", *failures])
    else:
        text = f"all {held} rows hold: worst error {worst:.1e} in relative norm, in {seconds:.1f} s"
    if skipped:
        text += f"\n{skipped} rows were not checked: their kernels have no variant {settings.variant!r}"
    data = {
        "ok": not failures,
        "rows": [row.plain() for row in rows],
        "worst_relative_error": worst,
        "seconds": seconds,
        "settings": {**settings.numbers(), "variant": settings.variant, "device": settings.device},
    }
    return Outcome(not failures, text, data)
