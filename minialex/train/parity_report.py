"""What a parity run says: a table of all ops, the first divergences, the worst layer, and the tolerance."""

from __future__ import annotations

import dataclasses
from typing import Any

from minialex.backend import PRECISIONS, winograd_enabled
from minialex.train.parity import FACTOR, WINOGRAD_FACTOR, Error, Parity, Row, Run
from minialex.train.reporter import table
from minialex.train.spans import place_of

MEANING = """\
own error: of the op alone, given the device's own inputs, against the same op in float64: relative, in norm,
and the largest of an element in units of least precision (ulp) of float32 at the array's largest number.
whole: what has added up since the first layer, against the network in float64; where a pixel wins a pooling
window by a hair this may be large, and is not judged. kept: what an op keeps for its backward pass."""


def parity_text(parity: Parity) -> str:
    """The whole report; the verdict stands last."""
    run = parity.runs[-1]
    shape = " x ".join(map(str, parity.shape))
    parts = [
        f"{parity.name}: one batch {shape} of {parity.pictures}, in train mode, through "
        f"{', '.join(['float64 on cpu', *(f'float32 on {r.device}' for r in parity.runs)])}",
        _table(parity),
        MEANING,
        tolerance_text(parity),
    ]
    losses = ", ".join(f"{r.device} {r.loss:.9g}" for r in parity.runs)
    parts.append(f"loss: float64 {parity.loss:.9g}; float32 on {losses}")
    if run.device == "cpu":
        parts.append("No GPU was compared: this is the CPU's float32 against float64.")
    return "\n\n".join([*parts, "\n".join(line for r in parity.runs for line in _verdict(r))])


def tolerance_text(parity: Parity) -> str:
    """What is allowed, and why."""
    lines = [
        f"allowed: {FACTOR} times the error that NumPy makes in float32 in the same op from the same inputs, "
        f"or {FACTOR} roundings",
        f"where that is less. Precision of the device's matrix products: {parity.precision}.",
    ]
    if parity.precision != "fp32":
        lines.append(
            f"In matrix products and convolutions there a rounding is 2^-{PRECISIONS[parity.precision]}; "
            f"elsewhere 2^-{PRECISIONS['fp32']}."
        )
    if winograd_enabled():
        lines.append(
            "Winograd's algorithm is on, as users run it: a convolution on the CPU may round "
            f"{WINOGRAD_FACTOR} times as much again"
        )
        lines.append("(MINIALEX_WINOGRAD=0 turns it off).")
    else:
        lines.append("Winograd's algorithm is off.")
    return "\n".join(lines)


def _table(parity: Parity) -> str:
    run, cpu = parity.runs[-1], parity.runs[0]
    both = run is not cpu
    head = ("pass", "layer", "op", "worst in", "own error", "ulp", "allowed", "ulp", f"whole, {cpu.device}")
    rows: list[tuple[str, ...]] = [(*head, f"whole, {run.device}") if both else head]
    for row, on_cpu in zip(run.rows, cpu.rows, strict=True):
        check = row.worst
        cells = (
            row.phase,
            row.layer or "-",
            row.op,
            check.what,
            *_cells(check.own),
            *_cells(check.allowed),
            f"{on_cpu.whole.relative:.1e}",
        )
        mark = "  DIVERGES" if row.diverges else ""
        rows.append((*cells, f"{row.whole.relative:.1e}{mark}") if both else (*cells[:-1], cells[-1] + mark))
    return table(rows, right=(4, 5, 6, 7))


def _cells(error: Error) -> tuple[str, str]:
    return f"{error.relative:.1e}", f"{error.ulps:.1f}"


def _verdict(run: Run) -> list[str]:
    lines = []
    for phase in ("forward", "backward"):
        row = run.first(phase)
        what = "nothing diverges" if row is None else f"first divergence: {row_text(row)}"
        lines.append(f"{run.device}, {phase}: {what}")
    lines.append(f"{run.device}, worst layer: {row_text(run.worst)}")
    return lines


def row_text(row: Row) -> str:
    """conv2d in features.3, output: off by 1.2e-03 (9000.0 ulp), allowed 4.5e-06 (79.0 ulp)"""
    check = row.worst
    return (
        f"{place_of(row.op, row.layer)}, {row.phase}, {check.what}: off by {check.own.relative:.1e} "
        f"({check.own.ulps:.1f} ulp), allowed {check.allowed.relative:.1e} ({check.allowed.ulps:.1f} ulp)"
    )


def parity_json(parity: Parity) -> dict[str, Any]:
    """Every figure, for another program; infinities are null."""
    answer = dataclasses.asdict(parity) | {"agrees": parity.agrees, "factor": FACTOR}
    for run, figures in zip(parity.runs, answer["runs"], strict=True):
        figures["agrees"] = run.agrees
        for phase in ("forward", "backward"):
            row = run.first(phase)
            figures[f"first_{phase}"] = None if row is None else place_of(row.op, row.layer)
        figures["worst"] = place_of(run.worst.op, run.worst.layer)
    return dict(_finite(answer))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value
