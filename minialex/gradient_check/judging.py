"""From two gradients to verdicts: which elements disagree, why, and what is likely wrong with backward."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import numpy.typing as npt

from minialex.gradient_check.comparison import Comparison
from minialex.gradient_check.diagnosis import Finding, Spot, diagnose
from minialex.gradient_check.differences import output_rounding
from minialex.gradient_check.evidence import gather_hints
from minialex.gradient_check.experiment import Experiment
from minialex.gradient_check.faults import Fault, likely_fault
from minialex.gradient_check.inside import float32_inside, is_rounded
from minialex.gradient_check.report import LISTED, DirectionReport, ElementReport, InputReport
from minialex.gradient_check.settings import FAINT, Float64Array
from minialex.shapes import numel

# Once so many elements are wrong, the others get a shorter look: nothing can make the input right again.
ENOUGH = 2 * LISTED


def judge(
    experiment: Experiment,
    position: int,
    comparison: Comparison,
    directions: tuple[DirectionReport, ...] = (),
) -> InputReport:
    """The verdict on every element of one input, the worst of them in detail, and the likely fault."""
    experiment = _scaled(experiment, comparison, directions)
    report, _ = _judged(experiment, position, comparison, directions)
    largest = float(np.abs(report.numeric[report.compared]).max(initial=0.0))
    # What is smaller than atol cannot fail, unless differences are good enough to hold it against less.
    if not (report.ok and FAINT * _noise(experiment) < largest < experiment.settings.atol):
        return report
    closer = copy.copy(experiment)
    atol = experiment.settings.rtol * largest + FAINT * _noise(experiment)
    closer.settings = dataclasses.replace(experiment.settings, atol=atol)
    found, is_sure = _judged(closer, position, comparison, directions)
    said = f"every gradient here is smaller than atol={experiment.settings.atol:g}"
    if not found.ok and is_sure:
        return dataclasses.replace(found, problems=(*found.problems, f"{said}: held against rtol alone"))
    remark = "held against rtol alone" if found.ok else "can hardly fail: give a smaller atol"
    return dataclasses.replace(report, remarks=(f"{said}, and {remark}",))


def _noise(experiment: Experiment) -> float:
    """What the rounding of the outputs does to a slope."""
    return output_rounding(experiment) / experiment.settings.eps


def _judged(
    experiment: Experiment,
    position: int,
    comparison: Comparison,
    directions: tuple[DirectionReport, ...],
) -> tuple[InputReport, bool]:
    """The report with the experiment's tolerances; and whether a wrong element was held against a slope that
    does not depend on the step."""
    settings = experiment.settings
    verdicts = np.full(len(comparison.analytic), "ok", dtype="U9")
    numeric = comparison.numeric.copy()
    allowed = comparison.tolerance(settings.atol, settings.rtol)
    elements, smooth, is_sure = [], np.ones(len(verdicts), dtype=bool), False
    # A whole model is slow, and where a direction is wrong its elements need no reasons.
    hasty = experiment.is_whole_model and any(d.verdict == "wrong" for d in directions)
    for row, finding in _findings(experiment, position, comparison, ENOUGH if not hasty else 0):
        verdicts[row], numeric[row], smooth[row] = finding.verdict, finding.numeric, not finding.bent
        is_sure |= finding.verdict == "wrong" and finding.settled
        elements.append(_element(comparison, row, float(allowed[row]), finding))
    elements.sort(key=lambda e: (e.verdict != "wrong", -e.excess))
    listed = tuple(elements[:LISTED])
    source = (experiment, position)
    report = InputReport(comparison, verdicts, numeric, listed, directions, source=source)
    report = _with_doubts(experiment, position, report)
    if not report.ok:
        report = dataclasses.replace(report, fault=_fault(experiment, position, report, smooth))
    return report, is_sure


def _scaled(
    experiment: Experiment, comparison: Comparison, directions: tuple[DirectionReport, ...]
) -> Experiment:
    """The experiment with the tolerance of this input, if that goes by the size of its gradient."""
    settings = experiment.settings
    if not settings.scaled:
        return experiment
    values = comparison.numeric
    if directions:  # Along random signs the slope is as large as the norm of the gradient.
        values = np.array([d.numeric for d in directions]) / np.sqrt(numel(comparison.shape))
    size = float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0
    atol = settings.rtol * size + _noise(experiment)
    result = copy.copy(experiment)
    result.settings = dataclasses.replace(settings, atol=atol)
    return result


def _findings(
    experiment: Experiment, position: int, comparison: Comparison, enough: int
) -> list[tuple[int, Finding]]:
    """(row, finding) for the elements that disagree, those that disagree most first, with reasons until there
    are `enough` wrong ones."""
    settings = experiment.settings
    rows = np.flatnonzero(comparison.wrong(settings.atol, settings.rtol))
    error, allowed = comparison.error[rows], comparison.tolerance(settings.atol, settings.rtol)[rows]
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = np.nan_to_num(error / allowed, nan=np.inf)
    found: list[tuple[int, Finding]] = []
    wrong = 0
    for row in rows[np.argsort(-excess, kind="stable")]:
        spot = Spot(experiment, position, int(comparison.elements[row]), float(comparison.analytic[row]))
        finding = diagnose(spot, thorough=wrong < enough)
        wrong += finding.verdict == "wrong"
        found.append((int(row), finding))
    return found


def _element(comparison: Comparison, row: int, allowed: float, finding: Finding) -> ElementReport:
    analytic = float(comparison.analytic[row])
    return ElementReport(
        name=comparison.name,
        index=comparison.index(row),
        analytic=analytic,
        numeric=float(comparison.numeric[row]),
        error=float(comparison.error[row]),
        allowed=allowed,
        verdict=finding.verdict,
        reason=finding.reason,
        eps=finding.eps,
        curve=tuple((slope.eps, abs(analytic - slope.central)) for slope in finding.curve),
    )


def _with_doubts(experiment: Experiment, position: int, report: InputReport) -> InputReport:
    """The report with the problems that no single element shows."""
    problems = []
    if not experiment.is_whole_model and (report.counts["precision"] or report.counts["wrong"]):
        culprit = float32_inside(experiment)
        if culprit:  # Then eps is not at fault, although a longer step would hide it.
            verdicts = np.where(report.verdicts == "precision", "wrong", report.verdicts)
            listed = tuple(
                dataclasses.replace(e, verdict="wrong", reason="rounded to float32")
                if e.verdict == "precision"
                else e
                for e in report.listed
            )
            report = dataclasses.replace(report, verdicts=verdicts, listed=listed)
            problems.append(f"{culprit} computes in float32 what it gives as float64")
    if not report.counts["wrong"] and is_rounded(experiment.gradients[position]):
        problems.append("every gradient here is a float32 number: backward computes in float32")
    if not problems and not report.is_wrong and position in experiment.doubts:
        problems.append(experiment.doubts[position])
    return dataclasses.replace(report, problems=tuple(problems))


def _fault(
    experiment: Experiment, position: int, report: InputReport, smooth: npt.NDArray[np.bool_]
) -> Fault | None:
    """What is likely wrong, by the wrong elements; those at kinks only if there are no others."""
    rounded = next((problem for problem in report.problems if "float32" in problem), None)
    if rounded is not None:
        return Fault("float32", rounded, 0.95)
    wrong = report.verdicts == "wrong"
    if not wrong.any() or experiment.is_whole_model:  # Of a model, the operation at fault tells more.
        return None
    known = report.compared & smooth if (wrong & smooth).any() else report.compared
    numeric = report.comparison.full(np.where(known, report.numeric, np.nan))
    analytic: Float64Array = experiment.gradients[position]
    return likely_fault(analytic, numeric, gather_hints(experiment, position))
