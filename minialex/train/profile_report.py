"""A profile as a table, as JSON, and as a trace for chrome://tracing or ui.perfetto.dev."""

from __future__ import annotations

from typing import Any

from minialex.train.profiling import PHASES, Profile, ProfileRow
from minialex.train.reporter import table

LANES = ("step", "input", *PHASES, "optimiser")

NOTES = """\
GFLOP: as the ops' cost() counts; backward, each gradient of an input or weight like a forward pass. MB: the
least that must be read and written. Of the ceilings: the least time that this arithmetic, or this traffic,
takes at the measured ceiling, as a share of the time that it took. The larger of the two is what bounds the
layer, and how near it is. More than 100 % is possible: Winograd's convolutions multiply less often than is
counted, small arrays never leave the cache, and reading is cheaper than the copy's writing."""


def profile_text(profile: Profile) -> str:
    """The table, its total, and the ceilings that it is compared with."""
    rows: list[tuple[str, ...]] = [
        ("layer", "op", "pass", "ms", "share", "GFLOP", "MB", "GFLOP/s", "of GEMM", "of copies")
    ]
    rows += [_cells(row, profile) for row in profile.rows]
    flops = sum(row.flops for row in profile.rows)
    size = sum(row.bytes for row in profile.rows)
    rows.append(_cells(ProfileRow("step", "", "", profile.seconds, flops, size), profile))
    ceilings = profile.ceilings
    return "\n".join(
        [
            f"{profile.name}, a training step of {profile.batch} pictures: {1000 * profile.seconds:.1f} ms, "
            f"{profile.batch / profile.seconds:.1f} images/s (medians of {profile.steps} steps)",
            f"ceilings on {ceilings.threads} threads, measured now: matrix products (GEMM) "
            f"{ceilings.flops / 1e9:.0f} GFLOP/s, copies {ceilings.bytes / 1e9:.1f} GB/s",
            "",
            table(rows, right=tuple(range(3, 10))),
            "",
            NOTES,
        ]
    )


def _cells(row: ProfileRow, profile: Profile) -> tuple[str, ...]:
    seconds = max(row.seconds, 1e-9)
    by_arithmetic, by_traffic = row.shares_of_ceilings(profile.ceilings)
    return (
        row.layer or "-",
        row.ops,
        row.phase,
        f"{1000 * row.seconds:.2f}",
        f"{row.seconds / profile.seconds:.1%}",
        f"{row.flops / 1e9:.2f}" if row.flops else "",
        f"{row.bytes / 1e6:.1f}" if row.bytes else "",
        f"{row.flops / seconds / 1e9:.1f}" if row.flops else "",
        f"{by_arithmetic:.0%}" if row.flops else "",
        f"{by_traffic:.0%}" if row.bytes else "",
    )


def profile_json(profile: Profile) -> dict[str, Any]:
    """Every figure, for another program. Seconds, operations and bytes; shares are fractions."""
    rows = [
        {
            "layer": row.layer,
            "ops": row.ops,
            "phase": row.phase,
            "seconds": row.seconds,
            "share": row.seconds / profile.seconds,
            "flops": row.flops,
            "bytes": row.bytes,
            "of_gemm": row.shares_of_ceilings(profile.ceilings)[0],
            "of_copies": row.shares_of_ceilings(profile.ceilings)[1],
            "bound": row.bound(profile.ceilings),
            "of_roofline": max(row.shares_of_ceilings(profile.ceilings)),
        }
        for row in profile.rows
    ]
    ceilings = profile.ceilings
    return {
        "model": profile.name,
        "batch": profile.batch,
        "steps": profile.steps,
        "seconds": profile.seconds,
        "ceilings": {"flops": ceilings.flops, "bytes": ceilings.bytes, "threads": ceilings.threads},
        "rows": rows,
    }


def chrome_trace(profile: Profile) -> dict[str, Any]:
    """The measured steps in Chrome's Trace Event Format: complete events ("X"), times in microseconds."""
    lanes = {lane: number for number, lane in enumerate(LANES)}
    names = [
        {"ph": "M", "name": "thread_name", "pid": 1, "tid": number, "args": {"name": lane}}
        for lane, number in lanes.items()
    ]
    order = [
        {"ph": "M", "name": "thread_sort_index", "pid": 1, "tid": number, "args": {"sort_index": number}}
        for number in lanes.values()
    ]
    spans = [
        {
            "ph": "X",
            "name": span.name,
            "cat": span.lane,
            "pid": 1,
            "tid": lanes[span.lane],
            "ts": 1e6 * span.start,
            "dur": 1e6 * span.seconds,
        }
        for span in sorted(profile.spans, key=lambda span: span.start)
    ]
    return {"traceEvents": [*names, *order, *spans], "displayTimeUnit": "ms"}
