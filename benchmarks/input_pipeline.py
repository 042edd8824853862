"""What the pictures cost a training epoch: decoding, crops, flips and normalisation beside the steps.

    python benchmarks/input_pipeline.py                                    # the drawn flowers
    python benchmarks/input_pipeline.py --data photographs --out results.json
    python benchmarks/input_pipeline.py --ways none:0 memory:0 disk:0 disk:1 disk:2

A way is CACHE:WORKERS as `minialex train` has them. Two figures for each:
The input alone: batches made and normalised as fast as possible, pictures a second and milliseconds of CPU a
picture (workers included), in the first epoch, which decodes and fills the cache, and in the second.
Its share of an epoch: steps fed by the loader and the same steps on one batch that is in memory already take
turns; a round's share is the difference of their median times by that with the loader, and the figure the
median over the rounds. Beside it the same share of CPU time, workers included, which says more where other
processes take the cores, and how long a step waited for its batch (normalisation comes on top). The pictures
are cached by then, unless the way keeps none.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from measuring import machine, now

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also without an installation

from minialex import models, optim
from minialex.backend import keep_freed_memory, num_threads
from minialex.data import DiskCache, Loader, MemoryCache, open_dataset, subset
from minialex.rng import random_scope
from minialex.train import TrainConfig
from minialex.train.input_pipeline import count_threads, input_tensor, open_cache
from minialex.train.metrics import RunningMean
from minialex.train.preprocessing import training_transform
from minialex.train.step import Stepper

LIMIT = 0.10
SETTLING = 2  # steps that are not counted because workers, if there are any, are ahead at the beginning


def main() -> None:
    """Measure, print a table, and write JSON if asked."""
    options = arguments()
    keep_freed_memory()
    dataset, description = open_dataset(options.data, say=lambda line: print(line, file=sys.stderr))
    chosen = subset(dataset, options.batch_size * (options.steps + SETTLING))
    print(f"{description}; {len(chosen)} of them; {options.model}, batches of {options.batch_size}")
    print(f"{'way':14}{'first epoch':>24}{'second epoch':>24}{'share of an epoch':>27}{'a step':>25}")
    ways = {}
    for way in options.ways:
        with tempfile.TemporaryDirectory(prefix="minialex-input-") as folder:
            os.environ["MINIALEX_CACHE"] = folder
            ways[way] = measure(way, dataset, chosen, options)
        print_way(way, ways[way])
    default = ways[options.ways[0]]["share"]
    verdict = "within" if default <= LIMIT else "beyond"
    print(f"{options.ways[0]}: {default:.1%} of an epoch, {verdict} the limit of {LIMIT:.0%}")
    result = {
        "measured": now(), "machine": machine(num_threads()), "data": description, "pictures": len(chosen),
        "model": options.model, "batch_size": options.batch_size, "steps": options.steps, "ways": ways,
    }  # fmt: skip
    if options.out:
        Path(options.out).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", default="drawn", help="as of `minialex train`")
    parser.add_argument("--model", default="flowers")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=12, help="steps in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ways", nargs="+", default=["memory:0", "none:0"], metavar="CACHE:WORKERS")
    parser.add_argument("--out", help="a file for the figures as JSON")
    return parser.parse_args()


def measure(way: str, dataset: Any, chosen: Any, options: argparse.Namespace) -> dict[str, Any]:
    """The figures of one way of loading."""
    cache_kind, workers = way.split(":")[0], int(way.split(":")[1])
    config = TrainConfig(cache=cache_kind, workers=workers).checked()
    model = models.build(options.model, len(dataset.classes))
    cache = open_cache(config, workers, ())
    transform = training_transform(model.image_size, model.channels)
    with Loader(
        dataset, chosen, transform, options.batch_size, shuffle=True, workers=workers,
        threads=count_threads(), cache=cache, drop_last=True,
    ) as loader:  # fmt: skip
        input_tensor(next(loader.epoch(0)), "cpu")  # workers start, the kernel is compiled
        if isinstance(cache, MemoryCache):
            cache.clear()
        elif isinstance(cache, DiskCache):
            shutil.rmtree(cache.folder, ignore_errors=True)
        first, second = (input_alone(loader, epoch) for epoch in (1, 2))
        share = share_of_training(model, loader, options)
    return {"first": first, "second": second, "cache": repr(cache), **share}


def input_alone(loader: Loader, epoch: int) -> dict[str, float]:
    """An epoch whose pictures nobody trains on."""
    pictures, cpu, start = 0, cpu_seconds(loader), time.perf_counter()
    for batch in loader.epoch(epoch):
        input_tensor(batch, "cpu")
        pictures += len(batch)
    seconds = time.perf_counter() - start
    return {"pictures_a_second": pictures / seconds, "wall_ms": 1e3 * seconds / pictures,
            "cpu_ms": 1e3 * (cpu_seconds(loader) - cpu) / pictures}  # fmt: skip


def cpu_seconds(loader: Loader) -> float:
    """CPU time of this process and of the loader's workers, as far as the system tells."""
    total = time.process_time()
    for process in loader._pool.processes if loader._pool is not None else ():
        try:
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return float("nan")
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def share_of_training(model: Any, loader: Loader, options: argparse.Namespace) -> dict[str, Any]:
    """The input's share in every round, their median, and the median seconds of a step and of a wait."""
    model.train()
    stepper = Stepper(model, optim.Adam(list(model.parameters()), 2e-4), "cpu", seed=0)
    batch = next(loader.epoch(0))
    kept = repeated(SimpleNamespace(images=batch.images, labels=batch.labels))
    timed_steps(stepper, kept, 2)  # compiles
    # Without workers nothing happens beside a step: single steps take turns, the fairest on a busy machine.
    block, settling = (options.steps, SETTLING) if loader.workers else (1, 0)
    rounds: list[dict[str, Any]] = []
    for number in range(options.rounds):
        times: dict[str, list[tuple[float, float]]] = {"loaded": [], "kept": []}
        cpu = {"loaded": 0.0, "kept": 0.0}
        loaded = loader.epoch(number + 3)
        for start in range(0, options.steps, block):
            for what in ("loaded", "kept") if (number + start) % 2 else ("kept", "loaded"):
                batches, before = loaded if what == "loaded" else kept, cpu_seconds(loader)
                times[what] += timed_steps(stepper, batches, block + settling)[settling:]
                cpu[what] += cpu_seconds(loader) - before
        loaded.close()  # type: ignore[attr-defined]  # a generator
        medians = {what: [statistics.median(part) for part in zip(*of, strict=True)]
                   for what, of in times.items()}  # fmt: skip
        rounds.append({**medians, "cpu_share": 1 - cpu["kept"] / cpu["loaded"]})
    shares = [1 - found["kept"][1] / found["loaded"][1] for found in rounds]
    seconds = {what: statistics.median(found[what][1] for found in rounds) for what in ("loaded", "kept")}
    waiting = statistics.median(found["loaded"][0] for found in rounds)
    cpu_share = statistics.median(found["cpu_share"] for found in rounds)
    return {"share": statistics.median(shares), "shares": shares, "cpu_share": cpu_share,
            "step_seconds": seconds, "waiting_seconds": waiting}  # fmt: skip


def repeated(batch: Any) -> Iterator[Any]:
    """One batch, again and again."""
    while True:
        yield batch


def timed_steps(stepper: Stepper, batches: Iterator[Any], count: int) -> list[tuple[float, float]]:
    """(seconds until the batch was there, seconds in all) of `count` steps."""
    seconds = []
    for number in range(count):
        start = time.perf_counter()
        batch = next(batches)
        there = time.perf_counter()
        stepper.add_gradients(batch, number, 1.0, RunningMean())
        stepper.update(batch, number)
        seconds.append((there - start, time.perf_counter() - start))
    return seconds


def print_way(way: str, found: dict[str, Any]) -> None:
    """A line of the table."""
    epochs = [f"{found[name]['pictures_a_second']:.0f}/s {found[name]['cpu_ms']:.2f} ms CPU"
              for name in ("first", "second")]  # fmt: skip
    step = found["step_seconds"]
    share = f"{found['share']:.1%}, of CPU time {found['cpu_share']:.1%}"
    step_text = f"{step['loaded']:.3f} s, {found['waiting_seconds']:.3f} waiting"
    print(f"{way:14}{epochs[0]:>24}{epochs[1]:>24}{share:>27}{step_text:>25}", flush=True)


if __name__ == "__main__":
    with random_scope(0):
        main()
