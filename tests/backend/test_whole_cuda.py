"""The whole way of the device "cuda", with CuPy's arrays, cuBLAS and kernels played by stand-ins.

It shows that what only runs on a GPU (launches through CuPy, cuBLAS's arguments, moves, pinned memory) is
called as it must be. How CuPy itself behaves, it cannot show.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from fake_cupy import FakeArray, FakeCublas, fake_cupy

import minialex as mx
from minialex import models, nn, ops, optim
from minialex.backend import cuda, device_of, to_device, to_numpy, use_precision, use_variant, use_winograd
from minialex.errors import DeviceError, UsageError
from minialex.models.alexnets import VARIANTS
from minialex.testing import CASES, Case, grid
from minialex.train import Reporter, TrainConfig, load, load_checkpoint, train
from minialex.train.device import check_precision
from minialex.train.machine import differences, environment

pytestmark = pytest.mark.emulator

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "kill_and_resume.py"


@pytest.fixture(autouse=True)
def cublas(monkeypatch: pytest.MonkeyPatch) -> FakeCublas:
    module, calls = fake_cupy()
    monkeypatch.setitem(sys.modules, "cupy", module)
    for cache in (cuda._function, cuda._module):
        cache.cache_clear()
    from minialex.ops import pooling
    from minialex.train import normalization

    pooling.bounds_arrays.cache_clear()
    normalization.constants.cache_clear()
    return calls


# One row of every op, the one with the most parameters.
ROWS = {case.op: case for case in sorted(CASES, key=lambda case: len(case.params))}


@pytest.mark.parametrize("case", ROWS.values(), ids=lambda case: case.label)
def test_a_row_of_every_op(case: Case) -> None:
    def results(device: str) -> list[Any]:
        leaves = [mx.Tensor(a, requires_grad=a.dtype.kind == "f", device=device) for a in case.inputs]
        y = case.make()(*leaves)
        assert y.device == device
        y.backward(to_device(grid(*y.shape, item=9), device))
        assert {device_of(leaf.grad) for leaf in leaves if leaf.grad is not None} == {device}
        return [y.numpy(), *(leaf.grad if leaf.grad is None else to_numpy(leaf.grad) for leaf in leaves)]

    with use_variant("reference"):
        wanted = results("cpu")
    for got, expected in zip(results("cuda:0"), wanted, strict=True):
        if expected is not None:
            np.testing.assert_allclose(
                got, expected, rtol=0, atol=1e-12 * max(1.0, abs(expected).max(initial=0))
            )


def steps(device: str, variant: str, optimiser: str) -> list[np.ndarray]:
    """The losses of three steps, and the weights."""
    narrow = dataclasses.replace(VARIANTS[variant], channels=(6, 8, 10, 10, 24), hidden=48)
    with mx.random_scope(0), use_winograd(False):
        net = models.AlexNet(narrow, variant, num_classes=3, image_size=67)
        nn.init.xavier_(net, gain=1.6)
        net.to(device)
        opt: optim.Optimizer = optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
        if optimiser == "adam":
            opt = optim.Adam(net.parameters(), lr=1e-4)
        found = []
        for step in range(3):
            images = grid(3, 3, 67, 67, item=step, scale=0.5).astype(np.float32)
            with mx.random_scope(0, step):
                loss = ops.cross_entropy(net(mx.Tensor(images, device=device)), np.arange(3))
            loss.backward()
            optim.clip_grad_norm_(net.parameters(), 1.0)
            opt.step()
            opt.zero_grad()
            found.append(loss.numpy())
    state = opt.state_dict()
    opt.load_state_dict(state)
    return [*found, *net.state_dict().values()]


@pytest.mark.parametrize(("variant", "optimiser"), [("grouped", "sgd"), ("owt", "adam")])
def test_training_steps(variant: str, optimiser: str, cublas: FakeCublas) -> None:
    on_cpu, on_gpu = (steps(device, variant, optimiser) for device in ("cpu", "cuda"))
    # Five convolutions and three layers, forward and twice backward, but for the photographs' gradient.
    assert len(cublas.calls) >= 3 * 23
    assert set(cublas.calls) == {"32F"}
    for got, wanted in zip(on_gpu, on_cpu, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(("precision", "name"), [("tf32", "TF32"), ("bf16", "32F")])
def test_every_product_is_as_exact_as_was_asked(precision: str, name: str, cublas: FakeCublas) -> None:
    on_cpu = steps("cpu", "single", "sgd")
    with use_precision(precision):
        on_gpu = steps("cuda", "single", "sgd")
        emulated = steps("cuda-emulated", "single", "sgd")
    assert set(cublas.calls) == {name}
    for step in range(3):
        np.testing.assert_allclose(on_gpu[step], emulated[step], rtol=1e-4)
        np.testing.assert_allclose(on_gpu[step], on_cpu[step], rtol=5e-2)
    assert abs(on_gpu[2] - on_cpu[2]) > 1e-5


class Silent(Reporter):
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str = "") -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/kill_and_resume.py, whose small model exists within a test."""
    spec = importlib.util.spec_from_file_location("kill_and_resume", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "kill_and_resume", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(models, "build", models.build)
    monkeypatch.setattr(models, "MODEL_NAMES", models.MODEL_NAMES)
    module.use_small_net()
    return module


@pytest.mark.parametrize(
    "options", [{"cache": "device", "crops": "fixed", "augment": True}, {"precision": "bf16"}]
)
def test_a_run_and_its_checkpoint(options: dict[str, Any], harness: ModuleType, tmp_path: Path) -> None:
    pictures, reporter, ends = harness.make_pictures(tmp_path / "data"), Silent(), {}
    for device in ("cuda", "cuda-emulated"):
        config = harness.small_config(pictures, tmp_path / device, device=device, epochs=2, **options)
        train(dataclasses.replace(config, epochs=1, given=None), reporter)
        train(TrainConfig(resume=str(tmp_path / device), epochs=2, device=device), reporter)
        ends[device] = load_checkpoint(tmp_path / device / "last.safetensors")
    assert "device: cuda:0 (Stand-in, 8 GiB)" in reporter.lines[0]
    a, b = ends["cuda"], ends["cuda-emulated"]
    assert a.environment["device"] == "cuda:0"
    assert a.history[-1].train_loss == pytest.approx(b.history[-1].train_loss, rel=1e-3)
    for name, value in a.weights.items():
        np.testing.assert_allclose(value, b.weights[name], rtol=1e-2, atol=1e-3)
    (answer,) = load(tmp_path / "cuda", "cuda").predict([np.full((20, 20, 3), 90, np.uint8)])
    (other,) = load(tmp_path / "cuda", "cpu").predict([np.full((20, 20, 3), 90, np.uint8)])
    np.testing.assert_allclose(answer.probabilities, other.probabilities, atol=1e-5)


def test_another_cublas_may_sum_otherwise(cublas: FakeCublas) -> None:
    then = environment("cuda:0")
    assert (then["cublas"], then["nvrtc"]) == ("130100", "13.0")
    cublas.version = 130200
    assert differences(then, environment("cuda:0")) == ["cublas 130100 -> 130200"]


def test_the_stand_in_is_as_strict_as_cupy() -> None:
    x = FakeArray(np.ones((2, 3)))
    for mix in (lambda: x + np.ones((2, 3)), lambda: np.ones(3) * x, lambda: x.__setitem__(0, np.ones(3))):
        with pytest.raises(TypeError):
            mix()
    with pytest.raises(TypeError, match="Implicit conversion"):
        np.asarray(x)
    assert not isinstance(x, np.ndarray)
    assert type(x.sum()) is type(x[0]) is type(x + x) is FakeArray


def test_a_host_array_among_the_devices_is_refused() -> None:
    """CuPy would pass one of a single element by value."""
    kernel = cuda.CudaKernel("activations", "relu_forward")
    x = to_device(np.ones(1), "cuda:0")
    with pytest.raises(DeviceError, match="arrays on cpu and cuda:0; bring all to one device"):
        kernel.for_each(1, x, np.ones(1), 1)


def test_missing_headers_are_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(stem: str, name: str, device: int) -> None:
        raise RuntimeError("Failed to find CUDA headers. Please install CUDA toolkit")

    monkeypatch.setattr(cuda, "_function", missing)
    with pytest.raises(DeviceError, match=r"no CUDA headers.*pip install 'cupy-cuda13x\[ctk\]'"):
        ops.relu(mx.Tensor([1.0], device="cuda"))


@pytest.mark.parametrize(("generation", "fits"), [("75", False), ("80", True)])
def test_bf16_needs_ampere(generation: str, fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["cupy"].cuda.Device, "compute_capability", generation)
    check_precision("tf32", "cuda:0")
    if fits:
        check_precision("bf16", "cuda:0")
        return
    with pytest.raises(UsageError, match=r"compute capability 8\.0 or more \(Ampere\); cuda:0 has 7\.5"):
        check_precision("bf16", "cuda:0")
