"""The mutation score: every planted bug must be killed, by one check at least, and its fault be named.

    mutation_score()        # a line for each planted bug, and a Score

A check that never fails proves nothing. So typical mistakes are planted one at a time (mutants/), and every
check runs over the rows of the op that is now wrong. A mutant is killed by a check that fails for one row at
least, and not if it only stumbles over an error of its own, which nobody had to notice. Where the gradient
check fails, the fault that its report names is held against what was planted.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from minialex.backend import DTypeError
from minialex.errors import MinialexError
from minialex.gradient_check import Report
from minialex.gradient_check.faults import Fault
from minialex.optim.optimizer import Optimizer
from minialex.shapes import ShapeError
from minialex.tensor import GraphError
from minialex.testing.cases import CASES
from minialex.testing.check import CHECKS, CheckError, check_op
from minialex.testing.mutants import MUTANTS, Mutant
from minialex.testing.optimizer_checks import OPTIMIZER_CASES, OPTIMIZER_CHECKS

__all__ = ["MutantResult", "Score", "mutation_score", "try_mutant"]

# Failing rows whose reports are asked for the fault: three outvote one that is too small to tell.
DIAGNOSED_ROWS = 3
# How the checks and the engine refuse; whatever else is raised, the bug raised itself.
REFUSALS = (MinialexError, ShapeError, DTypeError, GraphError)


@dataclass(frozen=True)
class MutantResult:
    """What became of one planted bug.

    Args: mutant: it; killed_by: the names of the checks that failed, each with the first row that made it
          fail; crashed: those that the mutant's own error ended, which proves nothing, with what was raised;
          named: the kind of fault that the reports named, None if no gradient was wrong; text: the
          fault in words; each: the kinds that single reports named, one for each input that was wrong;
          precise: whether a report called an element of a wrong gradient a matter of precision; seconds: how
          long it took.
    """

    mutant: Mutant
    killed_by: dict[str, str]
    crashed: dict[str, str]
    named: str | None
    text: str
    each: tuple[str, ...]
    precise: bool
    seconds: float

    @property
    def killed(self) -> bool:
        """Whether any check failed by what it measured, or by a refusal of the engine."""
        return bool(self.killed_by)

    @property
    def recognised(self) -> bool | None:
        """Whether the fault was named as it should be; None where the gradient is not where it shows."""
        return None if self.mutant.fault is None else self.named == self.mutant.fault

    def line(self) -> str:
        """`conv2d  killed by gradients, needs  flipped  conv2d's dx with the kernel flipped`."""
        state = f"killed by {', '.join(self.killed_by)}" if self.killed else "SURVIVED"
        verdict = self.named or "-"
        if self.recognised is False:
            verdict = f"{verdict}, NOT {self.mutant.fault}"
        return f"{self.mutant.label}: {self.mutant.name}\n    {state}; fault: {verdict}"

    def to_json(self) -> dict[str, Any]:
        """Plain values, for json.dumps."""
        return {
            "subject": self.mutant.label,
            "name": self.mutant.name,
            "killed": self.killed,
            "killed_by": dict(self.killed_by),
            "crashed": dict(self.crashed),
            "fault": self.mutant.fault,
            "named": self.named,
            "text": self.text,
            "recognised": self.recognised,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class Score:
    """What became of all of them."""

    results: tuple[MutantResult, ...]
    seconds: float

    @property
    def survivors(self) -> tuple[MutantResult, ...]:
        """Those that no check noticed."""
        return tuple(result for result in self.results if not result.killed)

    @property
    def score(self) -> float:
        """The share that was killed, 0 to 1."""
        return 1 - len(self.survivors) / len(self.results) if self.results else 1.0

    @property
    def hit_rate(self) -> float:
        """The share of faults that were named rightly, of those that show in a gradient, 0 to 1."""
        asked = [result.recognised for result in self.results if result.recognised is not None]
        return sum(asked) / len(asked) if asked else 1.0

    @property
    def ok(self) -> bool:
        """Whether all were killed."""
        return not self.survivors

    def killers(self) -> dict[str, int]:
        """How many each check killed."""
        names = [check.__name__ for check in (*CHECKS, *OPTIMIZER_CHECKS)]
        return {name: sum(name in result.killed_by for result in self.results) for name in names}

    def text(self) -> str:
        """The summary, a few lines."""
        asked = [result for result in self.results if result.recognised is not None]
        hits = sum(bool(result.recognised) for result in asked)
        single = [(kind, r.mutant.fault) for r in asked for kind in r.each]
        right = sum(kind == fault for kind, fault in single)
        total, killed = len(self.results), len(self.results) - len(self.survivors)
        lines = [
            f"mutation score {100 * self.score:.0f} %: {killed} of {total} planted bugs killed, "
            f"in {self.seconds:.0f} s",
            f"fault named rightly: {hits} of {len(asked)} that show in a gradient "
            f"({100 * self.hit_rate:.0f} %); "
            f"naming each input on its own, before all are weighed: {right} of {len(single)}",
            "killed by: " + ", ".join(f"{name} {count}" for name, count in self.killers().items()),
        ]
        lines += [f"SURVIVED: {r.mutant.label}: {r.mutant.name}" for r in self.survivors]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for json.dumps."""
        return {
            "ok": self.ok,
            "score": self.score,
            "hit_rate": self.hit_rate,
            "seconds": self.seconds,
            "killers": self.killers(),
            "mutants": [result.to_json() for result in self.results],
        }


def mutation_score(
    mutants: Iterable[Mutant] | None = None,
    report: Callable[[str], object] = print,
    progress: Callable[[str], object] | None = None,
    every_check: bool = True,
) -> Score:
    """Plant each bug in turn, run the checks, and say which of them noticed.

    Args:   mutants: None for all; report: takes the lines as they come, and the summary at the end;
            progress: called with each one's name before it is planted; every_check: False stops at the
            first check that fails, gradients first, and does not tell what else would have.
    Returns: the Score. A survivor is no error here: see Score.ok.
    """
    started = perf_counter()
    results = []
    for mutant in MUTANTS if mutants is None else mutants:
        if progress is not None:
            progress(mutant.name)
        results.append(try_mutant(mutant, every_check))
        report(results[-1].line())
    score = Score(tuple(results), perf_counter() - started)
    report("")
    report(score.text())
    return score


def try_mutant(mutant: Mutant, every_check: bool = True) -> MutantResult:
    """Plant one bug, and run the checks over the rows of what it is planted in.

    Args: every_check: as mutation_score.
    """
    started = perf_counter()
    attempts, names = _attempts(mutant)
    if not every_check:
        names = sorted(names, key=lambda name: name != "gradients")
    killed_by: dict[str, str] = {}
    crashed: dict[str, str] = {}
    reports: list[Report] = []
    with mutant.planted():
        for name in names:
            if killed_by and not every_check:
                break
            for label, attempt in attempts[name]:
                failure = _failure(attempt)
                if failure is None:
                    continue
                if _is_crash(failure):
                    crashed.setdefault(name, str(failure))
                    continue
                killed_by.setdefault(name, label)
                if failure.report is not None:
                    reports.append(failure.report)
                if failure.report is None or len(reports) == DIAGNOSED_ROWS:
                    break
    fault = _fault(reports)
    return MutantResult(
        mutant,
        killed_by,
        crashed,
        None if fault is None else fault.kind,
        "" if fault is None else fault.text,
        tuple(part.fault.kind for report in reports for part in report.inputs if part.fault is not None),
        any(part.counts["precision"] for report in reports for part in report.inputs),
        perf_counter() - started,
    )


_Attempt = tuple[str, Callable[[], object]]


def _attempts(mutant: Mutant) -> tuple[dict[str, list[_Attempt]], Sequence[str]]:
    """For each check, by its name, a row's label and what to call, for each row."""
    found: dict[str, list[_Attempt]] = {}
    if issubclass(mutant.subject, Optimizer):
        for check in OPTIMIZER_CHECKS:
            found[check.__name__] = [
                (row.label, functools.partial(check, row))
                for row in OPTIMIZER_CASES
                if issubclass(row.optimizer, mutant.subject)
            ]
    else:
        rows = [case for case in CASES if case.op is mutant.subject]
        for check_row in CHECKS:
            found[check_row.__name__] = [
                (row.label, functools.partial(check_op, row, checks=(check_row,))) for row in rows
            ]
    return found, list(found)


def _failure(attempt: Callable[[], object]) -> CheckError | None:
    try:
        attempt()
    except CheckError as error:
        return error
    except Exception as error:  # What a wrong optimiser raises is its failure, too.
        failure = CheckError(f"{type(error).__name__}: {error}")
        failure.__cause__ = error
        return failure
    return None


def _is_crash(failure: CheckError) -> bool:
    """Whether the bug raised something by itself, and nobody refused what it gave."""
    return failure.__cause__ is not None and not isinstance(failure.__cause__, REFUSALS)


def _fault(reports: list[Report]) -> Fault | None:
    """The fault that the inputs' reports name together: the kind with the most confidence in sum."""
    found = [part.fault for report in reports for part in report.inputs if part.fault is not None]
    votes: dict[str, float] = defaultdict(float)
    for fault in found:
        votes[fault.kind] += fault.confidence
    if not found:
        return None
    kind = max(votes, key=lambda name: votes[name])
    return max((fault for fault in found if fault.kind == kind), key=lambda fault: fault.confidence)
