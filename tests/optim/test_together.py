"""On a GPU all parameters are updated in one launch; here in the emulator, against the CPU."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minialex as mx
from minialex import optim, rng
from minialex.backend import CudaKernel, cuda_source_dir, use_variant
from minialex.backend.cuda import TABLE_SIZE
from minialex.kernels import updates
from minialex.kernels.sgd import sgd_torch

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None, reason="no g++, with which the emulator compiles CUDA kernels"
)

# More than one launch takes, of odd sizes; one is empty, one is just a piece, one has a piece and a rest.
SIZES = [1 + 7 * i % 31 for i in range(36)] + [updates.PIECE, 0, updates.PIECE + 3, 300]
MAKE: dict[str, Callable[[list[mx.Tensor]], optim.Optimizer]] = {
    "Adam": lambda params: optim.Adam(params, 1e-2, weight_decay=0.1),
    "SGD": lambda params: optim.SGD(params, 0.1, weight_decay=1e-3),
    "momentum": lambda params: optim.SGD(params, 0.1, momentum=0.9, weight_decay=1e-3),
    "nesterov": lambda params: optim.SGD(params, 0.1, momentum=0.9, weight_decay=1e-3, nesterov=True),
    "paper": lambda params: optim.SGD(params, 0.1, momentum=0.9, weight_decay=1e-3, rule="paper"),
}


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The entries that were launched."""
    entries: list[str] = []
    launch = CudaKernel.launch

    def counted(self: CudaKernel, *args: Any) -> None:
        entries.append(self.entry)
        launch(self, *args)

    monkeypatch.setattr(CudaKernel, "launch", counted)
    return entries


def three_steps(name: str, device: str, dtype: str) -> tuple[list[Any], dict[str, Any]]:
    """The parameters and the optimiser's state; some parameters get their first gradient late."""
    params = [
        mx.Tensor(rng.Stream(2, "test", item=i).normal(shape=(size,)).astype(dtype), requires_grad=True)
        for i, size in enumerate(SIZES)
    ]
    params = [mx.Tensor(param.data, requires_grad=True, device=device) for param in params]
    rule = MAKE[name](params)
    for step in range(3):
        for i, param in enumerate(params):
            if step >= i % 3:
                grad = rng.Stream(2, "test", step=1 + step, item=i).normal(shape=param.shape).astype(dtype)
                param.grad = mx.Tensor(grad, device=device).data
        rule.step()
    return [param.numpy() for param in params], rule.state_dict()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MAKE)
def test_forty_parameters_become_what_they_become_on_the_cpu(
    name: str, dtype: str, launches: list[str]
) -> None:
    wanted, state = three_steps(name, "cpu", dtype)
    assert launches == []
    got, emulated = three_steps(name, "cuda-emulated", dtype)
    # 13 to 14 parameters are new at each step: one launch for them, one more as soon as they are above 32.
    assert len(launches) == 1 + 1 + 2
    tolerance = 1e-6 if dtype == "float32" else 1e-14
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance, strict=True)
    assert set(emulated) == set(state)
    for key, value in state.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_allclose(emulated[key], value, rtol=tolerance, atol=tolerance)


def test_the_variant_can_be_forced_on_the_cpu(launches: list[str]) -> None:
    with use_variant("cuda"):
        three_steps("momentum", "cpu", "float32")
    assert set(launches) == {"sgd_torch"}


def test_sizes_are_those_of_the_kernels() -> None:
    sources = {
        name: (cuda_source_dir() / name).read_text(encoding="utf-8") for name in ("pieces.cuh", "common.cuh")
    }
    assert f"PIECE = {updates.PIECE};" in sources["pieces.cuh"]
    assert f"TABLE_SIZE = {TABLE_SIZE};" in sources["common.cuh"]


def test_types_of_numbers_go_apart(launches: list[str]) -> None:
    calls = []
    for dtype in ("float32", "float64", "float32"):
        weight, grad, velocity = (np.full(5, value, dtype) for value in (1.0, 2.0, 4.0))
        calls.append((weight, grad, velocity, 0.5, 0.25, 0.0, False))
    with use_variant("cuda"):
        sgd_torch.together(calls)
    assert launches == ["sgd_torch"] * 2
    for weight, _, velocity, *_ in calls:
        np.testing.assert_array_equal(velocity, np.full(5, 3.0))
        np.testing.assert_array_equal(weight, np.full(5, -0.5))
