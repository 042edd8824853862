"""A small network and small pictures, the same as in benchmarks/kill_and_resume.py."""

from __future__ import annotations

import dataclasses
import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from minialex import models
from minialex.rng import Stream
from minialex.train import Reporter, TrainConfig, TrainResult, load_checkpoint, save_checkpoint, train
from minialex.train.run_folder import BEST

# For what several files of tests import.
sys.path.insert(0, str(Path(__file__).parent))

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "kill_and_resume.py"


class Collected(Reporter):
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.warnings: list[str] = []

    def say(self, text: str = "") -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@pytest.fixture(scope="session")
def harness() -> ModuleType:
    """The script benchmarks/kill_and_resume.py as a module."""
    spec = importlib.util.spec_from_file_location("kill_and_resume", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kill_and_resume"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def small_net(harness: ModuleType) -> Iterator[None]:
    """The model "small" exists in every test here."""
    build, names = models.build, models.MODEL_NAMES
    harness.use_small_net()
    yield
    models.build, models.MODEL_NAMES = build, names


@pytest.fixture(scope="session")
def pictures(harness: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of twenty small pictures."""
    return harness.make_pictures(tmp_path_factory.mktemp("data") / "pictures")


@pytest.fixture
def config(harness: ModuleType, pictures: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """Options of a run of a second, with changes: config(epochs=1). It writes to tmp_path / "run"."""

    def make(**changes: Any) -> TrainConfig:
        options = {"epochs": 2, "schedule": "step:1", "out": str(tmp_path / "run"), **changes}
        return harness.small_config(pictures, **options)

    return make


@pytest.fixture
def reporter() -> Collected:
    return Collected()


@pytest.fixture(scope="session")
def finished(
    harness: ModuleType, pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainResult, Collected]:
    """A run of twelve epochs that learnt something, and what it said. Not to be written to."""
    collected = Collected()
    out = tmp_path_factory.mktemp("finished") / "run"
    build, names = models.build, models.MODEL_NAMES
    harness.use_small_net()
    try:
        options = harness.small_config(pictures, out, epochs=12, lr=1e-2, schedule="constant", augment=False)
        return train(options, collected), collected
    finally:
        models.build, models.MODEL_NAMES = build, names


@pytest.fixture(scope="session")
def noisy_run(finished: tuple[TrainResult, Collected]) -> Callable[..., Path]:
    """noisy_run(folder, noise, seed): another run of the same split in a moment, `finished` with changed
    weights, the more so the more noise."""

    def make(folder: Path, noise: float, seed: int) -> Path:
        shutil.copytree(finished[0].out, folder)
        checkpoint = load_checkpoint(folder / BEST)
        weights = {
            name: array + noise * Stream(seed, "test", 0, item).normal(shape=array.shape).astype(array.dtype)
            for item, (name, array) in enumerate(checkpoint.weights.items())
        }
        save_checkpoint(folder / BEST, dataclasses.replace(checkpoint, weights=weights, seed=seed))
        return folder

    return make
