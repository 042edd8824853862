"""Time and memory of a training step, minialex beside PyTorch.

    python benchmarks/train_step.py                                   # flowers, single and LeNet-5
    python benchmarks/train_step.py --models flowers --rounds 5 --out results.json
    python benchmarks/train_step.py --scaling                         # step time at batches of 8 to 128

Every run is a process of its own; a round runs minialex, PyTorch with NCHW tensors and PyTorch with
channels_last tensors one after the other, so that a machine that is busy for a while is busy for all three. A
step is zero_grad, forward, cross-entropy, backward and Adam, in train mode with dropout, on one batch that is
in memory already. Steps at the beginning are not counted. Step time: the median (and the minimum) of a
process's steps, and of these the median over the rounds. Memory: the largest resident set of the process, and
by how much it was above what was resident after the imports.

minialex asks the C library to keep freed memory, as `minialex train` does. PyTorch runs as it comes;
--torch-keeps-memory runs it with the same request as well.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from measuring import keep_freed_memory, machine, now, peak_memory, resident_memory, usable_cores

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent

# Batch and classes that a model is measured with; what a step must reach against the better layout of
# PyTorch: times as fast, and the share of its memory.
MODELS = {
    "flowers": {"batch": 32, "classes": 5, "speed": 1.2, "memory": 0.8},
    "single": {"batch": 32, "classes": 1000, "speed": 2.0, "memory": 0.8},
    "lenet5": {"batch": 64, "classes": 10, "speed": 2.0, "memory": 1.0},
}
SCALING_BATCHES = (8, 16, 32, 64, 128)
SCALING_LIMIT = 0.10
ENGINES = ("minialex", "torch nchw", "torch channels_last")
KEEPING = ("torch nchw keeping", "torch channels_last keeping")


# ---------------------------------------------------------------------------- one run, its own process


def child(job: dict[str, Any]) -> dict[str, Any]:
    """One run: the seconds of each counted step, and the memory of this process in bytes."""
    kind = job["engine"].split()[0]
    step, after_import, details = (minialex_step if kind == "minialex" else torch_step)(job)
    for _ in range(job["warmup"]):
        step()
    seconds = []
    for _ in range(job["steps"]):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    memory = {"peak": peak_memory(), "after_import": after_import}
    return {"seconds": seconds, "memory": memory, "load": os.getloadavg()[0], **details}


def minialex_step(job: dict[str, Any]) -> tuple[Any, int, dict[str, Any]]:
    """(a step to call, resident bytes after the imports, details)."""
    # A first step would import Numba; PyTorch's compiled code, too, comes with its import.
    import numba  # noqa: F401

    import minialex as mx
    from minialex import models, ops, optim
    from minialex.backend import one_blas_thread

    after_import = resident_memory()
    keep_freed_memory()
    mx.manual_seed(0)
    model = models.build(job["model"], job["classes"]).train()
    optimizer = optim.Adam(model.parameters(), lr=1e-4)
    pictures, labels = batch_of(job)
    x = mx.Tensor(pictures)
    del pictures

    def step() -> float:
        with one_blas_thread():  # As in `minialex train`.
            optimizer.zero_grad()
            loss = ops.cross_entropy(model(x), labels)
            loss.backward()
            optimizer.step()
        return loss.item()

    return step, after_import, {"optimizer": "Adam"}


def torch_step(job: dict[str, Any]) -> tuple[Any, int, dict[str, Any]]:
    """(a step to call, resident bytes after the imports, details)."""
    import numpy as np  # noqa: F401
    import torch
    from torch_models import build

    after_import = resident_memory()
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    if "keeping" in job["engine"]:
        keep_freed_memory()
    layout = torch.channels_last if "channels_last" in job["engine"] else torch.contiguous_format
    model = build(job["description"]).to(memory_format=layout).train()
    try:
        optimizer, setting = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True), "Adam(fused=True)"
    except (RuntimeError, TypeError):  # Versions whose fused optimisers are for GPUs alone.
        optimizer, setting = torch.optim.Adam(model.parameters(), lr=1e-4, foreach=True), "Adam(foreach=True)"
    pictures, numbers = batch_of(job)
    x, labels = torch.from_numpy(pictures).to(memory_format=layout), torch.from_numpy(numbers)

    def step() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step, after_import, {"optimizer": setting}


def batch_of(job: dict[str, Any]) -> tuple[Any, Any]:
    """(pictures, classes), the same for every engine."""
    import numpy as np

    numbers = np.random.default_rng(0)
    pictures = numbers.standard_normal(job["shape"], dtype=np.float32)
    return pictures, numbers.integers(0, job["classes"], job["shape"][0])


# -------------------------------------------------------------------------------------- rounds of runs


def run(job: dict[str, Any]) -> dict[str, Any]:
    """The answer of a process that runs `child`."""
    paths = [str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]
    threads = str(job["threads"])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "MINIALEX_NUM_THREADS": threads,
        "OMP_NUM_THREADS": threads,
    }
    command = [sys.executable, str(Path(__file__).resolve()), "--child", json.dumps(job)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"the run of {job['engine']} failed: see above")
    return json.loads(done.stdout.splitlines()[-1])


def job_of(model: str, batch: int, engine: str, options: argparse.Namespace) -> dict[str, Any]:
    """What a child has to know."""
    from torch_models import describe

    from minialex import models
    from minialex.nn import init

    classes = MODELS[model]["classes"]
    with init.without_init():
        net = models.build(model, classes)
    return {
        "engine": engine,
        "model": model,
        "classes": classes,
        "shape": [batch, net.channels, net.image_size, net.image_size],
        "description": describe(net),
        "steps": options.steps,
        "warmup": options.warmup,
        "threads": options.threads,
    }


def compare(model: str, batch: int, options: argparse.Namespace) -> dict[str, Any]:
    """All rounds of one model, and what they come to."""
    engines = [*ENGINES, *(KEEPING if options.torch_keeps_memory else ())]
    jobs = {engine: job_of(model, batch, engine, options) for engine in engines}
    # Kernels that were compiled must be on disk: compiling costs memory, too.
    run({**jobs["minialex"], "steps": 1, "warmup": 0})
    rounds = []
    for number in range(1, options.rounds + 1):
        answers = {engine: run(job) for engine, job in jobs.items()}
        rounds.append(answers)
        texts = [f"{name} {1000 * statistics.median(a['seconds']):.1f} ms" for name, a in answers.items()]
        print(f"{model}, batch {batch}, round {number}: {', '.join(texts)}", flush=True)
    return {"model": model, "batch": batch, "rounds": rounds, **conclusions(model, engines, rounds)}


def conclusions(model: str, engines: list[str], rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds, and the ratios to the layout of PyTorch that is better in each respect."""

    def over_rounds(engine: str, figure: Any) -> float:
        return statistics.median(figure(answers[engine]) for answers in rounds)

    figures = {
        engine: {
            "median_s": over_rounds(engine, lambda a: statistics.median(a["seconds"])),
            "minimum_s": over_rounds(engine, lambda a: min(a["seconds"])),
            "peak": over_rounds(engine, lambda a: a["memory"]["peak"]),
            "above_import": over_rounds(engine, lambda a: a["memory"]["peak"] - a["memory"]["after_import"]),
        }
        for engine in engines
    }
    mine, layouts = figures["minialex"], ENGINES[1:]
    best = {key: min(figures[layout][key] for layout in layouts) for key in mine}
    speed, memory = best["median_s"] / mine["median_s"], mine["peak"] / best["peak"]
    target = MODELS[model]
    return {
        "figures": figures,
        "speed": speed,
        "speed_by_minimum": best["minimum_s"] / mine["minimum_s"],
        "memory": memory,
        "memory_above_import": mine["above_import"] / best["above_import"],
        "targets": {"speed": target["speed"], "memory": target["memory"]},
        "met": {"speed": speed >= target["speed"], "memory": memory <= target["memory"]},
    }


def scaling(model: str, options: argparse.Namespace) -> dict[str, Any]:
    """minialex's step at several batches, and how well a + b * batch describes it."""
    seconds: dict[int, list[float]] = {batch: [] for batch in options.batches}
    jobs = {batch: job_of(model, batch, "minialex", options) for batch in options.batches}
    run({**jobs[min(jobs)], "steps": 1, "warmup": 0})
    for number in range(1, options.rounds + 1):
        for batch, job in jobs.items():
            seconds[batch].append(statistics.median(run(job)["seconds"]))
        texts = [f"{batch}: {1000 * values[-1]:.1f} ms" for batch, values in seconds.items()]
        print(f"{model}, round {number}: {', '.join(texts)}", flush=True)
    return {"model": model, "rounds": seconds, **line_through(seconds)}


def line_through(seconds: dict[int, list[float]]) -> dict[str, Any]:
    """a and b that make the squares of (a + b * batch) / seconds - 1 least, and the largest of these."""
    import numpy as np

    batches = np.array(sorted(seconds), dtype=float)
    medians = np.array([statistics.median(seconds[int(batch)]) for batch in batches])
    columns = np.stack([1 / medians, batches / medians], axis=1)
    (a, b), *_ = np.linalg.lstsq(columns, np.ones(len(batches)), rcond=None)
    deviations = (a + b * batches) / medians - 1
    return {
        "median_s": {int(n): float(t) for n, t in zip(batches, medians, strict=True)},
        "a": float(a),
        "b": float(b),
        "deviations": {int(n): float(d) for n, d in zip(batches, deviations, strict=True)},
        "worst": float(np.abs(deviations).max()),
        "met": bool(np.abs(deviations).max() <= SCALING_LIMIT),
    }


# ---------------------------------------------------------------------------------------- what is said


def comparison_text(results: list[dict[str, Any]]) -> str:
    """One table of the figures, one of the targets."""
    from minialex.train.reporter import table

    rows: list[tuple[str, ...]] = [
        ("model", "batch", "engine", "step ms", "minimum ms", "peak MiB", "above imports")
    ]
    verdicts: list[tuple[str, ...]] = [("model", "what", "target", "measured", "by minimum", "verdict")]
    for result in results:
        for engine, figure in result["figures"].items():
            times = [f"{1000 * figure[key]:.1f}" for key in ("median_s", "minimum_s")]
            sizes = [f"{figure[key] / 2**20:.0f}" for key in ("peak", "above_import")]
            rows.append((result["model"], str(result["batch"]), engine, *times, *sizes))
        targets, met = result["targets"], {True: "met", False: "missed"}
        speed = (
            f"{result['speed']:.2f} x",
            f"{result['speed_by_minimum']:.2f} x",
            met[result["met"]["speed"]],
        )
        memory = (f"{result['memory']:.2f}", "", met[result["met"]["memory"]])
        above = (f"{result['memory_above_import']:.2f}", "", "")
        verdicts.append((result["model"], "step, times as fast", f">= {targets['speed']} x", *speed))
        verdicts.append((result["model"], "peak memory, share", f"<= {targets['memory']}", *memory))
        verdicts.append((result["model"], "memory above imports", "", *above))
    note = "Against the layout of PyTorch that is better in each respect, by medians."
    figures = table(rows, right=(1, 3, 4, 5, 6))
    return f"\n{figures}\n\n{table(verdicts, right=(2, 3, 4))}\n{note}"


def scaling_text(results: list[dict[str, Any]]) -> str:
    """One row a model and batch, and how far the line is off."""
    from minialex.train.reporter import table

    rows: list[tuple[str, ...]] = [("model", "batch", "step ms", "a + b n, ms", "off by")]
    lines = []
    for result in results:
        for batch, seconds in result["median_s"].items():
            fitted, off = result["a"] + result["b"] * batch, result["deviations"][batch]
            rows.append(
                (result["model"], str(batch), f"{1000 * seconds:.1f}", f"{1000 * fitted:.1f}", f"{off:+.1%}")
            )
        verdict = "met" if result["met"] else "missed"
        lines.append(
            f"{result['model']}: {1000 * result['a']:.2f} ms + {1000 * result['b']:.3f} ms x batch; "
            f"off by at most {result['worst']:.1%} (target {SCALING_LIMIT:.0%}: {verdict})"
        )
    return "\n".join(["", table(rows, right=(1, 2, 3, 4)), "", *lines])


def parsed() -> argparse.Namespace:
    """The options."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--models", default=",".join(MODELS), help="some of flowers,single,lenet5")
    parser.add_argument("--batch", type=int, help="pictures in a batch [each model's own: 32, 32, 64]")
    parser.add_argument("--rounds", type=int, default=3, help="how often each engine runs [3]")
    parser.add_argument("--steps", type=int, default=8, help="steps that count in each run [8]")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them [2]")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="for every engine [all cores]")
    parser.add_argument("--scaling", action="store_true", help="minialex alone, at several batches")
    parser.add_argument("--batches", default=",".join(map(str, SCALING_BATCHES)), help="for --scaling")
    parser.add_argument(
        "--torch-keeps-memory",
        action="store_true",
        help="PyTorch also with freed memory kept by the C library",
    )
    parser.add_argument("--out", type=Path, help="a JSON file for every figure of every round")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.models = options.models.split(",")
    options.batches = [int(batch) for batch in options.batches.split(",")]
    if unknown := [name for name in options.models if name not in MODELS]:
        parser.error(f"no such model: {', '.join(unknown)}; there are {', '.join(MODELS)}")
    if min(options.rounds, options.steps, options.threads, options.batch or 1, *options.batches) < 1:
        parser.error("rounds, steps, threads and batches must be at least 1")
    return options


def main() -> int:
    """Run what the options ask for; the exit code is 0 whether targets are met or not."""
    options = parsed()
    if options.child:
        print(json.dumps(child(options.child)))
        return 0
    sys.path.insert(0, str(CHECKOUT))
    if not options.scaling and importlib.util.find_spec("torch") is None:
        sys.exit("PyTorch is not installed, and there is nothing to compare with: pip install -e '.[bench]'")
    report = {"date": now()}
    report |= {"machine": machine(options.threads), "steps": options.steps, "warmup": options.warmup}
    if options.scaling:
        report["scaling"] = [scaling(model, options) for model in options.models]
        print(scaling_text(report["scaling"]))
    else:
        batches = {model: options.batch or MODELS[model]["batch"] for model in options.models}
        report["comparisons"] = [compare(model, batch, options) for model, batch in batches.items()]
        print(comparison_text(report["comparisons"]))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        print(f"every figure: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
