"""Each layer's forward and backward pass as a share of the ceilings of matrix products and of copies.

    python benchmarks/roofline.py                                     # flowers, single and LeNet-5
    python benchmarks/roofline.py --models flowers --batch 32 --out roofline.json

The same table as `minialex profile MODEL`. The ceilings are measured anew for each model, right before its
steps: on a shared machine they change from minute to minute.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from measuring import machine, now

CHECKOUT = Path(__file__).resolve().parent.parent
# Batch and number of classes.
MODELS = {"flowers": (32, 5), "single": (32, 1000), "lenet5": (64, 10)}


def measure(model: str, batch: int, steps: int) -> dict[str, Any]:
    """Print a model's table; its figures."""
    import minialex as mx
    from minialex import models
    from minialex.backend import keep_freed_memory
    from minialex.train.profile_report import profile_json, profile_text
    from minialex.train.profiling import profile_step

    keep_freed_memory()  # As training does.
    mx.manual_seed(0)
    profile = profile_step(models.build(model, MODELS[model][1]), model, batch, steps)
    print(profile_text(profile), end="\n\n", flush=True)
    return profile_json(profile)


def main() -> int:
    """Measure what the options ask for."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--models", default=",".join(MODELS), help="some of flowers,single,lenet5")
    parser.add_argument("--batch", type=int, help="pictures in a batch [each model's own: 32, 32, 64]")
    parser.add_argument("--steps", type=int, default=7, help="steps that count [7]")
    parser.add_argument("--out", type=Path, help="a JSON file for every figure")
    options = parser.parse_args()
    names = options.models.split(",")
    if unknown := [name for name in names if name not in MODELS]:
        parser.error(f"no such model: {', '.join(unknown)}; there are {', '.join(MODELS)}")
    if min(options.steps, options.batch or 1) < 1:
        parser.error("steps and batch must be at least 1")
    sys.path.insert(0, str(CHECKOUT))
    from minialex.backend import num_threads

    report: dict[str, Any] = {"date": now(), "machine": machine(num_threads())}
    report["profiles"] = [measure(name, options.batch or MODELS[name][0], options.steps) for name in names]
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        print(f"every figure: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
