"""Everything about minialex on a GPU in one run: is it right, is it the same twice, and how fast is it?

    python benchmarks/gpu_check.py --out results.json       # on a machine with a GPU, seven minutes
    python benchmarks/gpu_check.py --only kernels,step      # some sections
    python benchmarks/gpu_check.py --dry                    # without a GPU: tiny shapes, emulated

Sections, in this order, each in a process of its own, so that a kernel that fails hides no other:

    versions      what is installed, and what `minialex doctor` finds
    kernels       every kernel against float64: poisoned outputs, random inputs, the same bits twice
    step          a whole training step against float64 (fp32, TF32, bf16), and the same bits twice
    ceilings      what a large copy and matrix products reach here
    steps         the step beside PyTorch's: eager, torch.compile, a CUDA graph; in turns
    kernel-times  every kernel of a step, beside the least that its bytes or its arithmetic take
    parity        every layer against float64
    sanitizer     compute-sanitizer's memcheck and racecheck on tiny shapes, where it is installed

Every section has a share of --budget, and what one leaves over the next may use. What did not fit is said.
The exit code is 0 if nothing that ran is wrong, else 1.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gpu_check_report import report_text
from gpu_check_worker import FATAL_EXIT, MARK, PLAIN_MEMORY, Context
from measuring import machine, now, usable_cores

CHECKOUT = Path(__file__).resolve().parent.parent
# Shares of the budget; for a dry run they do not matter.
SECTIONS = {
    "versions": 0.04,
    "kernels": 0.20,
    "step": 0.14,
    "ceilings": 0.06,
    "steps": 0.30,
    "kernel-times": 0.12,
    "parity": 0.09,
    "sanitizer": 0.05,
}
BUDGET, DRY_BUDGET = 420.0, 400.0
# How much longer than its time a section may take before it is ended from outside.
GRACE = 20.0
GPU_HINT = "Without a GPU: --dry."
# So often a section that died is started again.
RESTARTS = 6


# --------------------------------------------------------------------------------------- in the child


def child(job: dict[str, Any]) -> None:
    """Run one section; its results are lines on standard output."""
    context = Context(
        job["device"],
        job["dry"],
        job["seconds"],
        frozenset(job["skip"]),
        job["options"],
        job["ceilings"],
    )
    section_of(job["section"])(context)


def section_of(name: str) -> Callable[[Context], None]:
    """What a section does. Imported here: the parent needs none of it."""
    if name == "kernels":
        from gpu_check_kernels import check_kernels

        return check_kernels
    if name in ("step", "parity"):
        from gpu_check_steps import check_parity, check_step

        return check_step if name == "step" else check_parity
    if name in ("ceilings", "kernel-times"):
        from gpu_check_speed import measure_ceilings, time_kernels

        return measure_ceilings if name == "ceilings" else time_kernels
    if name == "steps":
        from gpu_check_torch import time_steps

        return time_steps
    return check_versions


def check_versions(context: Context) -> None:
    """The section `versions`: what is here, and whether kernels run at all."""
    from minialex.train.doctor import diagnosis_json, diagnosis_text, examine

    def doctor() -> dict[str, Any]:
        diagnosis = examine(context.device)
        print(diagnosis_text(diagnosis), flush=True)
        note = "; ".join(finding.problem for finding in diagnosis.findings) or "nothing is wrong"
        return {"ok": diagnosis.exit_code == 0, "note": note, "doctor": diagnosis_json(diagnosis)}

    def torch_version() -> dict[str, Any]:
        try:
            import torch
        except ImportError:
            return {"ok": None, "note": "PyTorch is not installed: nothing to compare with"}
        return {"note": f"PyTorch {torch.__version__}, CUDA {torch.version.cuda}"}

    context.run("minialex doctor", doctor)
    context.run("PyTorch", torch_version)
    context.run("nvidia-smi", nvidia_smi)


def nvidia_smi() -> dict[str, Any]:
    """The GPU's state as it was found."""
    what = "name,driver_version,memory.total,memory.used,clocks.sm,clocks.mem,power.limit,temperature.gpu"
    if shutil.which("nvidia-smi") is None:
        return {"ok": None, "note": "no nvidia-smi"}
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return {"note": done.stdout.strip() or done.stderr.strip()}


# -------------------------------------------------------------------------------------- in the parent


class Section:
    """Runs a section in a process, again if it dies, and keeps its results."""

    def __init__(
        self, name: str, deadline: float, options: argparse.Namespace, ceilings: dict[str, float]
    ) -> None:
        self.name, self.deadline, self.options, self.ceilings = name, deadline, options, ceilings
        self.results: list[dict[str, Any]] = []
        self.flags: dict[str, bool] = {}
        self._done: set[str] = set()
        self._begun: str | None = None

    def run(self) -> list[dict[str, Any]]:
        """All results; one that says so for whatever the process died of."""
        for _ in range(RESTARTS + 1):
            code, said = self._once()
            if code == 0:
                return self.results
            if self._begun is not None:
                self._died(code, said)
            elif code != FATAL_EXIT:
                note = f"the process ended with {code} outside of any check: {said}"
                self.results.append({"label": self.name, "ok": False, "note": note})
                return self.results
            if time.monotonic() > self.deadline:
                break
        self.results.append(
            {"label": self.name, "ok": None, "note": "ended: no time left, or too many deaths"}
        )
        return self.results

    def _died(self, code: int, said: str) -> None:
        why = "took too long and was ended" if code == -9 else f"the process died of it ({code})"
        self.results.append({"label": self._begun, "ok": False, "note": f"{why}: {said}"})
        self._done.add(str(self._begun))
        self._begun = None

    def _once(self) -> tuple[int, str]:
        """(exit code, the last line of standard error)."""
        job = {
            "section": self.name,
            "device": self.options.device,
            "dry": self.options.dry,
            "seconds": max(1.0, self.deadline - time.monotonic()),
            "skip": sorted(self._done),
            "options": self.flags,
            "ceilings": self.ceilings,
        }
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
            subprocess.Popen(
                child_command(job), stdout=subprocess.PIPE, stderr=errors, text=True, env=child_environment()
            ) as process,
        ):
            for line in lines_until(process, self.deadline + GRACE):
                self._heard(line)
            code = process.wait()
            errors.seek(0)
            lines = [line.strip() for line in errors.read().splitlines() if line.strip()]
        return code, lines[-1][:300] if lines else "it said nothing"

    def _heard(self, line: str) -> None:
        if not line.startswith(MARK):
            print(f"    {line.rstrip()}", flush=True)
            return
        message = json.loads(line.removeprefix(MARK))
        if "begin" in message:
            self._begun = message["begin"]
            return
        result, self._begun = message["result"], None
        if "again" in result:
            self.flags[result["again"]] = True
            result["label"] += f" ({result['again']})"
        else:
            self._done.add(result["label"])
        self.results.append(result)
        if result["ok"] is False or self.options.verbose:
            state = {True: "right", False: "FAILED", None: "not run"}[result["ok"]]
            print(f"  {state}: {result['label']}: {result.get('note', '')}", flush=True)


def child_command(job: dict[str, Any]) -> list[str]:
    """This script again, as a child."""
    return [sys.executable, "-u", str(Path(__file__).resolve()), "--child", json.dumps(job)]


def child_environment() -> dict[str, str]:
    """Variables with which a child imports the same minialex."""
    paths = [str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def lines_until(process: subprocess.Popen[str], deadline: float) -> Iterator[str]:
    """What the process prints; at the deadline it is ended."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=max(0.05, deadline - time.monotonic()))
        except queue.Empty:
            process.kill()
            return
        if line is None:
            return
        yield line


def sanitize(deadline: float, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The section `sanitizer`: tiny rows of the kernels under compute-sanitizer, which sees bad accesses."""
    tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if options.dry or not Path(tool).exists():
        why = "a dry run has no GPU" if options.dry else "compute-sanitizer is not installed"
        return [{"label": "compute-sanitizer", "ok": None, "note": why}]
    results = []
    for check in ("memcheck", "racecheck"):
        seconds = (deadline - time.monotonic()) / (2 if check == "memcheck" else 1)
        if seconds < 5:
            results.append({"label": check, "ok": None, "note": "no time left"})
            continue
        job = {"section": "kernels", "device": options.device, "dry": True, "seconds": seconds, "skip": []}
        # CuPy asks the driver for things that it may not have: only what kernels do counts.
        quiet = ["--report-api-errors", "no"] if check == "memcheck" else []
        command = [tool, "--tool", check, *quiet, *child_command({**job, "options": {}, "ceilings": {}})]
        results.append({"label": check, **sanitized(command, seconds + GRACE)})
    return results


def sanitized(command: list[str], seconds: float) -> dict[str, Any]:
    """What compute-sanitizer counted."""
    environment = {**child_environment(), PLAIN_MEMORY: "1"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return {"ok": None, "note": f"not done after {seconds:.0f} s"}
    lines = (done.stdout + done.stderr).splitlines()
    said = [line.strip() for line in lines if line.startswith("=========")]
    summary = next((line for line in reversed(said) if "SUMMARY" in line), "")
    checked = sum('"result"' in line for line in lines)
    if "Device not supported" in done.stderr + done.stdout or not summary:
        return {"ok": None, "note": f"it does not work here: {' '.join(said[-3:])[:300]}"}
    clean = " 0 errors" in summary or " 0 hazards" in summary
    detail = "" if clean else " | " + " ".join(said[:6])[:600]
    return {"ok": clean, "note": f"{summary.strip('= ')} in {checked} rows{detail}"}


def ceilings_of(results: list[dict[str, Any]]) -> dict[str, float]:
    """{"copy": bytes a second, "fp32": operations a second, ...}: the best of each."""
    best: dict[str, float] = {}
    for result in results:
        for key, name in (("bytes_per_second", "copy"), ("flops_per_second", result.get("precision", ""))):
            if result.get(key):
                best[name] = max(best.get(name, 0.0), float(result[key]))
    return best


def run_all(options: argparse.Namespace, report: dict[str, Any]) -> None:
    """Every section that was asked for, one after another; the report is written after each."""
    start, share = time.monotonic(), 0.0
    whole = sum(SECTIONS[name] for name in options.only)
    for name in options.only:
        share += SECTIONS[name] / whole
        deadline, began = start + share * options.budget, time.monotonic()
        print(f"{name} ({deadline - began:.0f} s at most)", flush=True)
        if name == "sanitizer":
            results = sanitize(deadline, options)
        else:
            results = Section(name, deadline, options, report["ceilings"]).run()
        report["sections"][name] = {"seconds": round(time.monotonic() - began, 1), "results": results}
        if name == "ceilings":
            report["ceilings"] = ceilings_of(results)
        write(options.out, report)
        if name == "versions" and not is_there(results):
            print(f"{options.device} cannot be used: nothing else is run. {GPU_HINT}", flush=True)
            return


def is_there(results: list[dict[str, Any]]) -> bool:
    """Whether the doctor found the device at all; if it only found fault with it, the rest is run."""
    doctor = next((result["doctor"] for result in results if "doctor" in result), None)
    return doctor is None or doctor["facts"]["chosen"] != "none"


def write(path: Path | None, report: dict[str, Any]) -> None:
    """The report as JSON."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def parsed() -> argparse.Namespace:
    """The options."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--dry", action="store_true", help="tiny shapes on the emulated device")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, with commas between [all]")
    parser.add_argument("--device", help="cuda:N, or cuda-emulated [cuda:0; for --dry cuda-emulated]")
    parser.add_argument("--budget", type=float, help=f"seconds for everything [{BUDGET:.0f}]")
    parser.add_argument("--out", type=Path, help="a JSON file for every figure")
    parser.add_argument("--verbose", action="store_true", help="a line for each result, not only what failed")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.only = options.only.split(",")
    options.device = options.device or ("cuda-emulated" if options.dry else "cuda:0")
    options.budget = options.budget or (DRY_BUDGET if options.dry else BUDGET)
    if unknown := [name for name in options.only if name not in SECTIONS]:
        parser.error(f"no such section: {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    return options


def main() -> int:
    """Run what the options ask for. Returns: 0 if nothing that ran is wrong, else 1."""
    options = parsed()
    if options.child:
        child(options.child)
        return 0
    sys.path.insert(0, str(CHECKOUT))
    report: dict[str, Any] = {"date": now(), "dry": options.dry, "device": options.device}
    report |= {"machine": machine(usable_cores()), "budget": options.budget, "ceilings": {}, "sections": {}}
    run_all(options, report)
    print(report_text(report))
    if options.out:
        print(f"every figure: {options.out}")
    results = [result for section in report["sections"].values() for result in section["results"]]
    return 1 if any(result["ok"] is False and "again" not in result for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
