"""How much memory a step needs, foretold from small batches, against what a process really took."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minialex import models, nn
from minialex.errors import UsageError
from minialex.train.footprint import _steps, footprint_of

CHECKOUT = Path(__file__).resolve().parents[2]

PREDICT = """
import sys
from minialex import models
from minialex.train.footprint import footprint_of
need = footprint_of(models.build(sys.argv[1], int(sys.argv[2])), int(sys.argv[3]))
print(need.total, need.arrays)
"""

MEASURE = """
import sys
import numpy as np
import minialex as mx
import minialex.train
from minialex import models, ops, optim
from minialex.backend import keep_freed_memory
from pathlib import Path

keep_freed_memory()
model = models.build(sys.argv[1], int(sys.argv[2])).train()
optimizer = optim.Adam(model.parameters(), lr=1e-4)
x = np.ones((int(sys.argv[3]), model.channels, model.image_size, model.image_size), np.float32)
labels = np.zeros(len(x), np.int64)
for _ in range(int(sys.argv[4])):
    optimizer.zero_grad()
    ops.cross_entropy(model(mx.Tensor(x)), labels).backward()
    optimizer.step()
lines = Path("/proc/self/status").read_text().splitlines()
print(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")))
"""


def numbers_of(script: str, *arguments: object) -> list[int]:
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not say what is resident")
@pytest.mark.parametrize(
    ("model", "classes", "batch"),
    [("lenet5", 10, 64), ("flowers", 5, 8), ("flowers", 5, 32), ("single", 1000, 8)],
)
def test_the_peak_is_within_fifteen_per_cent(model: str, classes: int, batch: int) -> None:
    numbers_of(MEASURE, model, classes, 2, 1)  # Kernels are on disk from here on: compiling takes memory.
    (measured,) = numbers_of(MEASURE, model, classes, batch, 3)
    foretold, _ = numbers_of(PREDICT, model, classes, batch)
    print(f"{model}, batch {batch}: foretold {foretold / 1e6:.0f} MB, measured {measured / 1e6:.0f} MB")
    assert foretold == pytest.approx(measured, rel=0.15)


def test_the_parts() -> None:
    need = footprint_of(models.build("lenet5"), 16)
    weights = 4 * 61_706
    assert (need.parameters, need.gradients) == (weights, weights)
    assert need.optimizer == pytest.approx(2 * weights, abs=200)
    assert need.total == need.runtime + need.arrays
    assert need.arrays > 3 * weights
    assert footprint_of(models.build("lenet5"), 16, "sgd").optimizer == pytest.approx(weights, abs=200)


class Small(nn.Module):
    channels, image_size = 3, 8

    def __init__(self) -> None:
        self.features = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))

    def forward(self, x: Any) -> Any:
        return self.classifier(nn.run_fused(self.features, x))


def test_a_moment_names_all_layers_of_a_fused_operation() -> None:
    (marks,) = _steps(Small(), "adam", 2, 1).marks
    moments = [mark.moment for mark in marks]
    assert "relu_max_pool2d in features.0-1, forward" in moments
    assert moments.count("linear in classifier.1, backward") == 1
    assert moments.count("cross_entropy, backward") == 1


def test_scratch_memory_has_a_row() -> None:
    (row,) = [line for line in str(footprint_of(models.build("lenet5"), 4)).splitlines() if "Numba" in line]
    assert "scratch memory" in row


def test_activations_grow_with_the_batch_and_parameters_do_not() -> None:
    model = models.build("lenet5")
    small, large = footprint_of(model, 50), footprint_of(model, 100)
    assert large.activations == pytest.approx(2 * small.activations, rel=0.1)
    again = footprint_of(model, 50)
    assert again.activations == pytest.approx(small.activations, rel=0.02), "scratch memory is none of them"
    assert small.activations > 50 * 4 * (28 * 28 + 6 * 14 * 14 + 16 * 5 * 5)
    assert large.parameters == small.parameters


def test_the_model_is_left_as_it_was() -> None:
    model = models.build("lenet5").eval()
    before = model.state_dict()
    footprint_of(model, 4)
    assert not model.training
    assert all(p.grad is None for p in model.parameters())
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_the_text_names_the_batch() -> None:
    lines = str(footprint_of(models.build("lenet5"), 12)).splitlines()
    assert "batch 12" in lines[-1]
    assert len({len(line) for line in lines}) == 1
    assert max(map(len, lines)) <= 80


def test_an_unknown_optimiser_is_said() -> None:
    with pytest.raises(UsageError, match="adam or sgd"):
        footprint_of(models.build("lenet5"), 4, "rprop")
