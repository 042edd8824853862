"""How long minialex takes to start: the import, the first step after an installation, and later starts.

    python benchmarks/start.py --rounds 5 --out start.json

Every run is a process of its own. The first step finds an empty folder for compiled kernels, so that all of
them are compiled; later starts find that folder full. A start is a process that imports minialex, builds
LeNet-5 and the flowers network, and trains each for one step. Each step is done twice: the second time says
what the step itself takes, and that is subtracted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import machine, now, usable_cores

CHECKOUT = Path(__file__).resolve().parent.parent
# Seconds.
TARGETS = {"import": 0.3, "first step": 20.0, "later start": 2.0}
BATCH = 4


def child() -> dict[str, Any]:
    """One start: seconds of each part, and how many kernels were compiled."""
    begin = time.perf_counter()
    import numpy as np

    import minialex as mx
    from minialex import models, ops, optim
    from minialex.backend import compilations

    imported = time.perf_counter()
    building, first, again = 0.0, 0.0, 0.0
    for name, classes in (("lenet5", 10), ("flowers", 5)):
        start = time.perf_counter()
        model = models.build(name, classes).train()
        optimizer = optim.Adam(model.parameters(), lr=1e-4)
        x = np.ones((BATCH, model.channels, model.image_size, model.image_size), np.float32)
        labels = np.arange(BATCH) % classes
        times = [time.perf_counter()]
        for _ in range(2):
            optimizer.zero_grad()
            ops.cross_entropy(model(mx.Tensor(x)), labels).backward()
            optimizer.step()
            times.append(time.perf_counter())
        building += times[0] - start
        first += times[1] - times[0]
        again += times[2] - times[1]
    kernels = compilations()
    return {
        "import": imported - begin,
        "building": building,
        "first steps": first,
        "steps alone": again,
        # What all threads of this process were given: more than the clock says, but less prey to neighbours.
        "processor time": time.process_time(),
        "compiled": len(kernels),
        "compiling": sum(kernel.seconds for kernel in kernels),
        "slowest": {k.name: k.seconds for k in sorted(kernels, key=lambda k: -k.seconds)[:5]},
    }


def run(cache: Path, threads: int) -> dict[str, Any]:
    """The answer of a process that runs `child`, and how long it lived."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(CHECKOUT),
        "NUMBA_CACHE_DIR": str(cache),
        "MINIALEX_NUM_THREADS": str(threads),
    }
    start = time.perf_counter()
    command = [sys.executable, str(Path(__file__).resolve()), "--child"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    wall = time.perf_counter() - start
    return {**json.loads(done.stdout.splitlines()[-1]), "process": wall}


def import_seconds() -> float:
    """`import minialex` in a process of its own, as that process sees it."""
    code = "import time; t = time.perf_counter(); import minialex; print(time.perf_counter() - t)"
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return float(done.stdout)


def measure(rounds: int, threads: int) -> dict[str, Any]:
    """All rounds, and their medians."""
    answers: list[dict[str, Any]] = []
    for number in range(1, rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            fresh = run(Path(folder), threads)
            later = run(Path(folder), threads)
        if later["compiled"]:
            print(f"warning: {later['compiled']} kernels were compiled again: they are not kept on disk")
        seconds = import_seconds()
        answers.append({"import": seconds, "fresh": fresh, "later": later})
        print(
            f"round {number}: import {seconds:.2f} s; first steps {fresh['first steps']:.1f} s, of which "
            f"{fresh['compiling']:.1f} s compiling {fresh['compiled']} kernels; later start "
            f"{later['process'] - 2 * later['steps alone']:.2f} s",
            flush=True,
        )

    def median(figure: Any) -> float:
        return statistics.median(figure(answer) for answer in answers)

    medians = {
        "import": median(lambda a: a["import"]),
        "first step": median(lambda a: a["fresh"]["first steps"] - a["fresh"]["steps alone"]),
        "later start": median(lambda a: a["later"]["process"] - 2 * a["later"]["steps alone"]),
        "later start: building": median(lambda a: a["later"]["building"]),
        "later start: loading kernels": median(
            lambda a: a["later"]["first steps"] - a["later"]["steps alone"]
        ),
    }
    met = {name: medians[name] <= target for name, target in TARGETS.items()}
    return {"rounds": answers, "medians": medians, "targets": TARGETS, "met": met}


def main() -> int:
    """Measure, and say what was reached."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--rounds", type=int, default=3, help="[3]")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="[all cores]")
    parser.add_argument("--out", type=Path, help="a JSON file for every figure")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child()))
        return 0
    if min(options.rounds, options.threads) < 1:
        parser.error("rounds and threads must be at least 1")
    sys.path.insert(0, str(CHECKOUT))
    from minialex.train.reporter import table

    result = measure(options.rounds, options.threads)
    rows: list[tuple[str, ...]] = [("what", "seconds", "target", "verdict")]
    for name, seconds in result["medians"].items():
        target = TARGETS.get(name)
        verdict = "" if target is None else "met" if result["met"][name] else "missed"
        rows.append((name, f"{seconds:.2f}", "" if target is None else f"<= {target}", verdict))
    print(f"\n{table(rows, right=(1, 2))}")
    if options.out:
        report = {"date": now(), "machine": machine(options.threads), **result}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        print(f"every figure: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
