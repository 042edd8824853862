"""Kill a training run at random moments, resume it, and compare with a run that was never stopped.

    python benchmarks/kill_and_resume.py 20

Each trial starts a small run (crops, flips and dropout on, a checkpoint every step), kills it with SIGKILL at
a random moment, which may be in the middle of writing a file, resumes it, perhaps kills it again, and lets it
end. The checkpoint must be whole at every kill, and the weights, what the optimiser remembers and the history
must at the end be those of the unbroken run, bit for bit.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import minialex
from minialex import models, nn
from minialex.rng import Stream
from minialex.train import Checkpoint, TrainConfig, load_checkpoint, train

CLASSES = ("stripes", "dots", "plain")


class SmallNet(nn.Module):
    """A convolution, a hidden layer with dropout, and an answer: a fraction of a millisecond a picture."""

    image_size = 16
    channels = 3

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.features = nn.Sequential(nn.Conv2d(3, 6, 5, stride=2), nn.ReLU(), nn.MaxPool2d(2))
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Dropout(0.5), nn.Linear(54, 24), nn.ReLU(), nn.Linear(24, num_classes)
        )

    def forward(self, x: Any) -> Any:
        """Logits. Shapes: x (N, 3, 16, 16) -> (N, classes)."""
        return self.classifier(self.features(x))


def use_small_net() -> None:
    """Let `models.build` make a SmallNet of the name "small", in this process."""
    build = models.build

    def build_small(
        name: str, num_classes: int | None = None, image_size: int | None = None, **options: Any
    ) -> Any:
        small = name == "small"
        return SmallNet(num_classes or 3) if small else build(name, num_classes, image_size, **options)

    models.build = build_small
    models.MODEL_NAMES = (*models.MODEL_NAMES, "small")


def make_pictures(folder: Path, per_class: int = 20, size: int = 24) -> Path:
    """Three classes of small pictures, easy to tell apart, each with noise of its own."""
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for i in range(per_class):
            noise = Stream(0, "test", label, i).uniform(0, 60, (size, size, 3))
            picture = noise + 60
            if name == "stripes":
                picture[:, i % 4 :: 4] += 120
            elif name == "dots":
                for corner in range(9):
                    picture[corner // 3 + i % 4 :: 8, corner % 3 :: 8] += 120
            Image.fromarray(picture.astype(np.uint8)).save(folder / name / f"{i:03d}.png")
    return folder


def small_config(pictures: Path, out: Path | str, **changes: Any) -> TrainConfig:
    """A run of a few seconds."""
    options: dict[str, Any] = {
        "data": str(pictures),
        "model": "small",
        "device": "cpu",
        "epochs": 25,
        "batch_size": 8,
        "lr": 2e-3,
        "schedule": "step:10",
        "workers": 0,
        "save_every": 1,
        "seed": 11,
        "out": str(out),
    }
    return TrainConfig(**{**options, **changes})


def start(pictures: Path, out: Path) -> subprocess.Popen[bytes]:
    """A process that trains, or goes on where there is a checkpoint."""
    command = [sys.executable, os.path.abspath(__file__), "--child", str(pictures), str(out)]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=child_environment()
    )


def child_environment() -> dict[str, str]:
    """Variables with which a process imports the same minialex as this one, installed or not."""
    paths = (str(Path(minialex.__file__).parents[1]), os.environ.get("PYTHONPATH", ""))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def child(pictures: Path, out: Path) -> None:
    """What the process does that is killed."""
    use_small_net()
    if (out / "last.safetensors").exists():
        train(TrainConfig(resume=str(out)))
    else:
        train(small_config(pictures, out))


def finish_run(pictures: Path, out: Path) -> float:
    """Let a run go on to its end, and give the seconds that took. Raises: RuntimeError if it fails."""
    started = time.perf_counter()
    process = start(pictures, out)
    _, errors = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"the run ended with {process.returncode}: {errors.decode()}")
    return time.perf_counter() - started


def kill_after(pictures: Path, out: Path, seconds: float) -> str:
    """Start, or go on, and kill after so many seconds; says where its checkpoint, a whole one, stands."""
    process = start(pictures, out)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
    process.communicate()
    if not (out / "last.safetensors").exists():
        return "before the first checkpoint"
    position = load_checkpoint(out / "last.safetensors").position
    how = "at its end" if process.returncode == 0 else "killed"
    return f"{how}, epoch {position.epoch}, batch {position.batch}"


def fingerprint(out: Path) -> dict[str, Any]:
    """Everything in a finished run that must not depend on whether it was stopped."""
    result: dict[str, Any] = {}
    for name in ("last.safetensors", "best.safetensors"):
        checkpoint: Checkpoint = load_checkpoint(out / name)
        history = [{k: v for k, v in asdict(r).items() if k != "seconds"} for r in checkpoint.history]
        arrays = {**checkpoint.weights, **checkpoint.optimizer_arrays}
        result[name] = ({k: a.tobytes() for k, a in arrays.items()}, history, checkpoint.position)
    lines = (out / "history.csv").read_text().splitlines()
    result["history.csv"] = [line.rpartition(",")[0] for line in lines]
    result["confusion.csv"] = (out / "confusion.csv").read_text()
    return result


def trial(pictures: Path, out: Path, moments: list[float]) -> list[str]:
    """Kill a run at each of the moments (seconds after a start), then let it end."""
    told = [kill_after(pictures, out, moment) for moment in moments]
    finish_run(pictures, out)
    return told


def random_moments(choose: random.Random, seconds: float) -> list[float]:
    """One kill or two, in a run of so many seconds; not while Python starts: there is nothing to break."""
    return [seconds * choose.uniform(0.25, 0.95) for _ in range(choose.choice((1, 1, 2)))]


def main() -> int:
    """Run the trials and say how they went; 1 if any run ended otherwise than the unbroken one."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("trials", type=int, nargs="?", default=20)
    parser.add_argument("--seed", type=int, default=0, help="decides the moments")
    parser.add_argument("--child", nargs=2, metavar=("PICTURES", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*map(Path, options.child))
        return 0
    choose = random.Random(options.seed)
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        pictures = make_pictures(Path(folder) / "pictures")
        finish_run(pictures, Path(folder) / "unbroken")
        expected = fingerprint(Path(folder) / "unbroken")
        # Once more: the first run may have compiled kernels, and a kill must find the run still going.
        seconds = finish_run(pictures, Path(folder) / "timed")
        print(f"the unbroken run: {seconds:.1f} s")
        for number in range(1, options.trials + 1):
            out = Path(folder) / f"run-{number}"
            told = trial(pictures, out, random_moments(choose, seconds))
            while not any(where.startswith("killed") for where in told):
                # Too late or too early, because the machine is busier or idler than it was: not a trial.
                shutil.rmtree(out)
                told = trial(pictures, out, random_moments(choose, seconds))
            same = fingerprint(out) == expected
            failures += not same
            print(f"{number:3d}: {'; '.join(told)}: {'the same bits' if same else 'DIFFERENT'}", flush=True)
    print(f"{options.trials - failures} of {options.trials} runs ended with the bits of the unbroken one")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
