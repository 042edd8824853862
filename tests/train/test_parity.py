"""Parity finds the layer in which a device goes wrong, forward and backward, and passes what is right."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from minialex import nn
from minialex.backend import Kernel, use_winograd
from minialex.cli import app
from minialex.errors import UsageError
from minialex.kernels.convolution import conv2d_backward, conv2d_forward
from minialex.kernels.dropout import dropout_forward
from minialex.kernels.fused_pooling import relu_lrn_max_pool2d_backward, relu_lrn_max_pool2d_forward
from minialex.kernels.max_pooling import max_pool2d_backward
from minialex.nn.fusion import run_fused
from minialex.rng import Stream, random_scope
from minialex.train.parity import Error, Experiment, Parity, allowed, compare, measure
from minialex.train.parity_input import open_experiment
from minialex.train.parity_report import parity_json, parity_text

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")
DEVICES = {"cpu": "numba", "cuda-emulated": "cuda"}
EITHER = [pytest.param("cpu"), pytest.param("cuda-emulated", marks=needs_compiler)]


class Net(nn.Module):
    """An AlexNet for 19 x 17 pixels: two convolutions, a norm, poolings, dropout."""

    def __init__(self) -> None:
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.LocalResponseNorm(5, alpha=0.1, k=2.0, dialect="paper"),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(8, 12, 3, padding=1, groups=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
        )
        self.classifier = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(144, 5))

    def forward(self, x: Any) -> Any:
        return self.classifier(run_fused(self.features, x))


def experiment() -> Experiment:
    with random_scope(3):
        model = Net()
    images = Stream(0, "test").normal(shape=(4, 3, 19, 17)).astype(np.float32)
    return Experiment(model, images, np.array([0, 1, 2, 4]), seed=5)


def parity(device: str, made: Experiment | None = None) -> Parity:
    return compare(made or experiment(), device, "net", "random numbers", lambda text: None)


def first(result: Parity, phase: str) -> tuple[str, str] | None:
    """(layer, op) of the first divergence on the last device."""
    row = result.runs[-1].first(phase)
    return None if row is None else (row.layer, row.op)


@pytest.mark.parametrize("device", EITHER)
def test_a_right_device_passes(device: str) -> None:
    result = parity(device)
    assert result.agrees, parity_text(result)
    assert [run.device for run in result.runs] == list(dict.fromkeys(["cpu", device]))
    rows = result.runs[-1].rows
    assert [row.op for row in rows if row.phase == "forward"] == [
        "conv2d",
        "relu_lrn_max_pool2d",
        "conv2d",
        "relu_max_pool2d",
        "reshape",
        "dropout",
        "linear",
        "cross_entropy",
    ]
    assert [row.op for row in rows if row.phase == "backward"][::-1] == [
        row.op for row in rows if row.phase == "forward"
    ]
    assert result.runs[-1].loss == pytest.approx(result.loss, rel=1e-6)
    # float32 was really used: there is something to measure, in most layers.
    assert sum(row.worst.own.relative > 0 for row in rows) > 6


def test_the_network_is_left_as_it_was() -> None:
    made = experiment()
    before = {name: (p.data, p.data.copy()) for name, p in made.model.named_parameters()}
    made.model.eval()
    parity("cpu", made)
    assert not made.model.training
    for name, parameter in made.model.named_parameters():
        assert parameter.data is before[name][0]
        np.testing.assert_array_equal(parameter.data, before[name][1])
        assert parameter.grad is None


def test_masks_are_the_same_whatever_the_precision() -> None:
    """Were they not, half of what comes after dropout would differ from the network in float64."""
    dropout = next(row for row in parity("cpu").runs[0].rows if row.op == "dropout")
    assert dropout.whole.relative < 1e-5


# -------------------------------------------------------------------------------------------- planted bugs


def scaled_row(right: Any, x: Any, weight: Any, bias: Any, y: Any, *rest: Any) -> None:
    """The last row of pixels is a thousandth too large, in the second convolution alone."""
    right(x, weight, bias, y, *rest)
    if len(weight) == 12:
        y[:, :, -1] *= y.dtype.type(1.001)


def lost_pixel(right: Any, x: Any, weight: Any, bias: Any, y: Any, *rest: Any) -> None:
    """One of 10,336 pixels is not written."""
    right(x, weight, bias, y, *rest)
    if len(weight) == 8:
        y[-1, -1, -1, -1] = 0


def lost_tap(right: Any, dy: Any, x: Any, weight: Any, mask: Any, dx: Any, dweight: Any, *rest: Any) -> None:
    """A filter's last tap gets no gradient, in the first convolution alone."""
    right(dy, x, weight, mask, dx, dweight, *rest)
    if dweight is not None and len(dweight) == 8:
        dweight[:, :, -1, -1] = 0


def lost_bias(right: Any, *args: Any) -> None:
    """The last picture is left out of the bias's gradient, in the second convolution alone."""
    right(*args)
    dy, dbias = args[0], args[6]
    if len(dbias) == 12:
        dbias -= dy[-1].sum(axis=(1, 2))


def lower_winner(right: Any, x: Any, y: Any, argmax: Any, *rest: Any) -> None:
    """The output is right, and what backward is told is one row off."""
    right(x, y, argmax, *rest)
    argmax[...] = np.where(argmax < 6, argmax + 3, argmax)


def missing_tail(right: Any, dy: Any, argmax: Any, dx: Any, *rest: Any) -> None:
    """The last columns of the gradient keep what was in memory."""
    right(dy, argmax, dx, *rest)
    dx[..., -2:] = 0.25


def other_mask(right: Any, x: Any, y: Any, p: Any, scale: Any, seed: Any, step: Any, item: Any) -> None:
    right(x, y, p, scale, seed + 1, step, item)


def not_a_number(right: Any, dy: Any, argmax: Any, x: Any, dx: Any, *rest: Any) -> None:
    right(dy, argmax, x, dx, *rest)
    dx.reshape(-1)[7] = np.nan


# The bug, its kernel, and the first divergence forward and backward.
BUGS: dict[str, tuple[Callable[..., None], Kernel, Any, Any]] = {
    "a row": (scaled_row, conv2d_forward, ("features.4", "conv2d"), None),
    "one pixel": (lost_pixel, conv2d_forward, ("features.0", "conv2d"), None),
    "a tap of dweight": (lost_tap, conv2d_backward, None, ("features.0", "conv2d")),
    "an image of dbias": (lost_bias, conv2d_backward, None, ("features.4", "conv2d")),
    "the winners": (
        lower_winner,
        relu_lrn_max_pool2d_forward,
        ("features.1-3", "relu_lrn_max_pool2d"),
        None,  # Backward does right by what it was told.
    ),
    "a tail": (missing_tail, max_pool2d_backward, None, ("features.5-6", "relu_max_pool2d")),
    "another mask": (
        other_mask,
        dropout_forward,
        ("classifier.1", "dropout"),
        ("classifier.1", "dropout"),
    ),
    "a NaN": (not_a_number, relu_lrn_max_pool2d_backward, None, ("features.1-3", "relu_lrn_max_pool2d")),
}


@pytest.mark.parametrize("device", EITHER)
@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found_in_its_layer(name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong, kernel, forward, backward = BUGS[name]
    variant = DEVICES[device]
    right = kernel.variants[variant]
    monkeypatch.setitem(kernel.variants, variant, lambda *args: wrong(right, *args))
    result = parity(device)
    assert not result.agrees
    assert (first(result, "forward"), first(result, "backward")) == (forward, backward)
    worst = result.runs[-1].worst
    assert (worst.layer, worst.op) in (forward, backward)
    text = parity_text(result)
    assert "DIVERGES" in text
    assert f"{device}, {'forward' if forward else 'backward'}: first divergence: {worst.op} in" in text
    if device != "cpu":
        assert result.runs[0].agrees  # The CPU's kernels are another variant.


def test_winograd_is_allowed_for_and_said() -> None:
    """Sixteen times as many channels, where the algorithm is chosen; its rounding is its own."""
    with random_scope(0):
        model = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.Flatten(), nn.Linear(64 * 13 * 13, 3))
    images = Stream(0, "test").normal(shape=(2, 64, 13, 13)).astype(np.float32)
    made = Experiment(model, images, np.array([0, 2]))
    with use_winograd(True):
        fast = parity("cpu", made)
        assert "Winograd's algorithm is on" in parity_text(fast)
    with use_winograd(False):
        plain = parity("cpu", made)
        assert "Winograd's algorithm is off" in parity_text(plain)
    assert fast.agrees
    assert plain.agrees
    errors = [result.runs[0].rows[0].worst for result in (fast, plain)]
    assert errors[0].own.relative > errors[1].own.relative
    assert errors[0].allowed.relative > errors[1].allowed.relative


# ------------------------------------------------------------------------------------------------ distances


def test_distances_in_units_of_least_precision() -> None:
    right = np.array([1.0, -2.0, 0.5])
    near = right.astype(np.float32)
    near[1] = np.nextafter(near[1], np.float32(-9))
    error = measure(near, right)
    assert error.ulps == pytest.approx(1.0)
    assert error.relative == pytest.approx(2.0**-22 / np.linalg.norm(right))
    assert measure(right, right) == Error(0.0, 0.0)


def test_what_is_not_finite_must_stand_in_the_same_places() -> None:
    right = np.array([1.0, np.nan, np.inf])
    assert measure(right.astype(np.float32), right) == Error(0.0, 0.0)
    assert measure(np.array([1.0, 2.0, np.inf]), right).relative == np.inf
    assert measure(np.array([1.0, np.nan, 3.0]), right).relative == np.inf


def test_what_should_be_zero_and_shapes() -> None:
    assert measure(np.zeros(3), np.zeros(3)) == Error(0.0, 0.0)
    assert measure(np.full(3, 1e-9), np.zeros(3)).relative == np.inf
    assert measure(np.zeros((3, 1)), np.zeros(3)).relative == np.inf
    assert measure(np.zeros((0, 2)), np.zeros((0, 2))) == Error(0.0, 0.0)


def test_of_whole_numbers_none_may_differ_but_in_large_arrays() -> None:
    few, many = np.zeros(10, np.uint8), np.zeros(2000, np.uint8)
    assert allowed(few, few, few, 2.0**-24).ulps < 1
    assert 4 <= allowed(many, many, many, 2.0**-24).ulps < 5
    assert measure(np.array([1, 2, 3]), np.array([1, 5, 3])) == Error(1 / 3, 1.0)


def test_the_tolerance_follows_rounding() -> None:
    right = np.array([1.0, 2.0])
    exact = allowed(right, right, right, 2.0**-24)
    assert (exact.relative, exact.ulps) == (16 * 2.0**-24, 16.0)
    rounded = np.array([1.0, 2.0 + 100 * 2.0**-22])  # 100 units at 2.
    assert allowed(right, right, rounded, 2.0**-24).ulps == pytest.approx(1600)
    assert allowed(right, right, right, 2.0**-11).relative == 16 * 2.0**-11


# -------------------------------------------------------------------------------------------- what users type


def run(*arguments: object) -> Any:
    result = CliRunner().invoke(app, ["parity", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_a_model_on_random_numbers() -> None:
    result = run("small", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "No GPU was compared" in result.stdout
    assert "cpu, backward: nothing diverges" in result.stdout
    assert "allowed: 16 times the error that NumPy makes" in result.stdout


def test_a_checkpoint_on_photographs(finished: Any, pictures: Path) -> None:
    result = run(finished[0].out, "--data", pictures, "--device", "cpu", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["agrees"]
    assert report["shape"] == [4, 3, 16, 16]
    assert report["runs"][0]["first_forward"] is None
    assert report["loss"] < 0.5  # It was trained: these are its weights.


def test_the_exit_code_of_a_divergence(monkeypatch: pytest.MonkeyPatch) -> None:
    right = conv2d_forward.variants["numba"]

    def wrong(x: Any, weight: Any, bias: Any, y: Any, *rest: Any) -> None:
        right(x, weight, bias, y, *rest)
        y *= y.dtype.type(1.01)

    monkeypatch.setitem(conv2d_forward.variants, "numba", wrong)
    result = run("small", "--device", "cpu")
    assert result.exit_code == 6
    assert "first divergence: conv2d in features.0, forward" in result.stdout
    report = json.loads(run("small", "--device", "cpu", "--json").stdout)
    assert report["runs"][0]["first_forward"] == "conv2d in features.0"


@needs_compiler
def test_lenet_on_the_emulated_device() -> None:
    result = run("lenet5", "--device", "cuda-emulated", "--batch-size", 1)
    assert result.exit_code == 0, result.output
    assert "cuda-emulated, forward: nothing diverges" in result.stdout
    assert "cuda-emulated, backward: nothing diverges" in result.stdout


def test_auto_says_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    from minialex.train import device

    def without(name: str) -> str:
        if name == "cuda":
            raise device.DeviceError("not installed")
        return name

    monkeypatch.setattr(device, "require_device", without)
    assert "using the CPU" in run("small").stdout


def test_mistakes(tmp_path: Path) -> None:
    assert "neither a checkpoint nor a model" in run("nowhere").stderr
    assert run("nowhere").exit_code == 2
    assert "--batch-size must be at least 1" in run("small", "--batch-size", 0).stderr
    assert "unknown precision 'fp8'" in run("small", "--device", "cpu", "--precision", "fp8").stderr
    refused = run("small", "--device", "cpu", "--precision", "tf32")
    assert refused.exit_code == 2
    assert "the CPU computes in fp32" in refused.stderr
    with pytest.raises(UsageError, match="the models are"):
        open_experiment(str(tmp_path / "no.safetensors"))


def test_other_classes_are_refused(finished: Any, tmp_path: Path, pictures: Path) -> None:
    for name in ("dots", "plain"):
        shutil.copytree(pictures / name, tmp_path / name)
    result = run(finished[0].out, "--data", tmp_path, "--device", "cpu")
    assert result.exit_code == 3
    assert "the checkpoint knows dots, plain, stripes" in result.stderr


def test_infinities_are_null_in_json(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong, kernel, _, _ = BUGS["a NaN"]
    right = kernel.variants["numba"]
    monkeypatch.setitem(kernel.variants, "numba", lambda *args: wrong(right, *args))
    text = json.dumps(parity_json(parity("cpu")))
    assert "Infinity" not in text
    assert "NaN" not in text
