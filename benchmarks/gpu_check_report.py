"""The end of gpu_check.py's output: what failed, what was measured, in few enough lines to be read."""

from __future__ import annotations

from typing import Any

# Lines of each kind, at most: the whole report stays under ten thousand characters.
FAILURES, KERNELS = 16, 24
ENGINES = ("minialex", "torch eager", "torch graph", "torch compile")


def report_text(report: dict[str, Any]) -> str:
    """Sections, ceilings, kernels, steps, failures, and the verdict last."""
    sections = report["sections"]
    parts = [
        ceilings_text(report["ceilings"]),
        accuracy_text(sections),
        kernels_text(results_of(sections, "kernel-times")),
        steps_text(results_of(sections, "steps")),
        failures_text(sections),
        sections_text(sections),
        verdict(report),
    ]
    return "\n" + "\n\n".join(part for part in parts if part)


def results_of(sections: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The results of a section; none if it did not run."""
    return list(sections[name]["results"]) if name in sections else []


def aligned(rows: list[tuple[str, ...]]) -> str:
    """Columns; all but the first end flush."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def sections_text(sections: dict[str, Any]) -> str:
    """How many results each section has, and what it could not do."""
    rows: list[tuple[str, ...]] = [("section", "right", "failed", "not run", "seconds")]
    for name, section in sections.items():
        oks = [result["ok"] for result in section["results"]]
        counts = [sum(ok is value for ok in oks) for value in (True, False, None)]
        rows.append((name, *map(str, counts), f"{section['seconds']:.1f}"))
    text = aligned(rows)
    for name, section in sections.items():
        left = [r for r in section["results"] if r["ok"] is None]
        for note in dict.fromkeys(r.get("note", "") for r in left):
            labels = [r["label"] for r in left if r.get("note", "") == note]
            more = f" and {len(labels) - 3} more" if len(labels) > 3 else ""
            text += f"\n{name}, not run: {note[:160]}: {'; '.join(label[:60] for label in labels[:3])}{more}"
    return text


def failures_text(sections: dict[str, Any]) -> str:
    """What failed, each in a line or two."""
    lines = [
        f"FAILED {name}: {result['label'][:100]}: {result.get('note', '')[:260]}"
        for name, section in sections.items()
        for result in section["results"]
        if result["ok"] is False
    ]
    more = [f"... and {len(lines) - FAILURES} more failures, in the JSON"] if len(lines) > FAILURES else []
    return "\n".join(lines[:FAILURES] + more)


def ceilings_text(ceilings: dict[str, float]) -> str:
    """The best copy and the best products."""
    if not ceilings:
        return ""
    products = [f"{name} {rate / 1e12:.3g}" for name, rate in ceilings.items() if name != "copy"]
    copies = f"copy {ceilings['copy'] / 1e9:.0f} GB/s, " if "copy" in ceilings else ""
    return f"ceilings: {copies}products {', '.join(products)} TFLOP/s"


def accuracy_text(sections: dict[str, Any]) -> str:
    """The worst of the kernels, the whole steps, and parity."""
    lines = []
    kernels = [r for r in results_of(sections, "kernels") if "worst" in r]
    if kernels:
        worst = max(kernels, key=lambda r: float(r["worst"]))
        calls = sum(r["calls"] for r in kernels)
        lines.append(
            f"kernels: {calls} calls against float64; the worst is {float(worst['worst']):.2f} of what is "
            f"allowed ({worst['label'][:70]})"
        )
    for name in ("step", "parity"):
        for result in results_of(sections, name):
            if result["ok"] is not None:
                lines.append(f"{name}: {result['label']}: {result.get('note', '')[:120]}")
    return "\n".join(lines)


def kernels_text(results: list[dict[str, Any]]) -> str:
    """The kernels that lose the most time in a step, and all of them together."""
    timed = [r for r in results if "times_floor" in r]
    if not timed:
        return ""
    rows: list[tuple[str, ...]] = [("kernel", "precision", "n", "ms", "floor", "x floor", "bound")]
    by_loss = sorted(timed, key=lambda r: r["count"] * (r["seconds"] - number(r["floor"])), reverse=True)
    for r in by_loss[:KERNELS]:
        label = r["label"].rpartition(", ")[0]
        times = (
            f"{1e3 * r['seconds']:.3f}",
            f"{1e3 * number(r['floor']):.3f}",
            f"{number(r['times_floor']):.2f}",
        )
        rows.append((label[:72], r["precision"], str(r["count"]), *times, r["bound"]))
    left_out = f"\n... and {len(timed) - KERNELS} more in the JSON" if len(timed) > KERNELS else ""
    return aligned(rows) + left_out


def number(value: Any) -> float:
    """A figure that JSON may hold as a text: nan, inf."""
    return float(value)


def steps_text(results: list[dict[str, Any]]) -> str:
    """A row for each model, batch and precision; the ratio is to the best of PyTorch, above 1 is faster."""
    merged: dict[tuple[str, int, str], dict[str, float]] = {}
    for r in results:
        if "seconds" not in r:
            continue
        figures = merged.setdefault((r["model"], r["batch"], r["precision"]), {})
        # minialex was timed again beside torch.compile: the lower median stands.
        for name, seconds in r["seconds"].items():
            figures[name] = min(seconds, figures.get(name, seconds))
    if not merged:
        return ""
    rows: list[tuple[str, ...]] = [("training step, ms", *ENGINES, "ratio to the best of PyTorch")]
    for (model, batch, precision), figures in merged.items():
        cells = [f"{1e3 * figures[name]:.2f}" if name in figures else "-" for name in ENGINES]
        theirs = [figures[name] for name in ENGINES[1:] if name in figures]
        ratio = f"{min(theirs) / figures['minialex']:.2f} x" if theirs and "minialex" in figures else "-"
        rows.append((f"{model} x {batch}, {precision}", *cells, ratio))
    return aligned(rows)


def verdict(report: dict[str, Any]) -> str:
    """One line."""
    results = [r for section in report["sections"].values() for r in section["results"]]
    failed = sum(r["ok"] is False and "again" not in r for r in results)
    left = sum(r["ok"] is None for r in results)
    what = f"{report['device']}, a dry run" if report["dry"] else report["device"]
    seconds = sum(section["seconds"] for section in report["sections"].values())
    state = f"{failed} FAILED" if failed else "nothing failed"
    return f"gpu_check, {what}: {len(results)} results in {seconds:.0f} s, {state}, {left} not run"
