"""Training on other devices: precision, moves between them, input, and what is said without a GPU."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from minialex import cli
from minialex.data import Batch, Loader, Normalize, RandomCrop, open_dataset
from minialex.data.transforms import (
    Compose,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    Transform,
    transform_from_config,
)
from minialex.errors import DeviceError, UsageError
from minialex.train import TrainConfig, load, train
from minialex.train.checkpoint import Checkpoint, load_checkpoint
from minialex.train.device import choose_device
from minialex.train.device_pictures import DevicePictures
from minialex.train.input_pipeline import ahead, input_tensor
from minialex.train.preprocessing import training_transform

EMULATED = "cuda-emulated"
Make = Callable[..., TrainConfig]

without_cupy = pytest.mark.skipif(importlib.util.find_spec("cupy") is not None, reason="CuPy is installed")


def end_of(config: TrainConfig, reporter: Any) -> Checkpoint:
    train(config, reporter)
    return load_checkpoint(f"{config.out}/last.safetensors")


def bits(checkpoint: Checkpoint) -> dict[str, bytes]:
    return {name: value.tobytes() for name, value in checkpoint.weights.items()}


# ------------------------------------------------------------------------------------------- without a GPU


def minialex(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, list(arguments))


@without_cupy
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_cuda_never_falls_back(device: str, config: Make) -> None:
    options = config()
    result = minialex("train", "--data", str(options.data), "--device", device, "--out", str(options.out))
    assert result.exit_code == 5
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith(f"error: device '{device}' needs CuPy, which is not installed: pip install")
    assert result.stdout == ""
    assert not importlib.util.find_spec("cupy")


@pytest.mark.emulator
@without_cupy
def test_auto_uses_the_cpu_and_says_so(reporter: Any, config: Make) -> None:
    assert choose_device("auto", reporter.say) == "cpu"
    assert reporter.lines == ["no GPU can be used (CuPy is not installed): using the CPU"]
    train(config(device="auto", epochs=1), reporter)
    assert reporter.lines.count("no GPU can be used (CuPy is not installed): using the CPU") == 2
    assert any(line.startswith("device: cpu (") for line in reporter.lines)


def test_the_emulator_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(DeviceError, match=r"g\+\+.*install"):
        choose_device(EMULATED)


# ----------------------------------------------------------------------------------- on the emulated device


@pytest.mark.emulator
def test_a_run_there_gives_the_cpus_numbers(config: Make, reporter: Any, tmp_path: Any) -> None:
    on_cpu = end_of(config(out=str(tmp_path / "cpu")), reporter)
    emulated = end_of(config(out=str(tmp_path / "emulated"), device=EMULATED), reporter)
    for mine, theirs in zip(emulated.history, on_cpu.history, strict=True):
        assert mine.train_loss == pytest.approx(theirs.train_loss, rel=1e-5)
        assert mine.val_loss == pytest.approx(theirs.val_loss, rel=1e-5)
    assert emulated.environment["device"] == EMULATED
    assert "cupy" not in emulated.environment


@pytest.mark.emulator
def test_a_run_moves_between_devices(config: Make, reporter: Any, tmp_path: Any) -> None:
    """Begun in one place, gone on with in another, and used in a third: a checkpoint is of no device."""
    whole = end_of(config(out=str(tmp_path / "whole")), reporter)
    for first, then in (("cpu", EMULATED), (EMULATED, "cpu")):
        out = str(tmp_path / first)
        end_of(config(out=out, device=first, epochs=1), reporter)
        rest = end_of(TrainConfig(resume=out, out=out, device=then, epochs=2), reporter)
        assert rest.history[-1].train_loss == pytest.approx(whole.history[-1].train_loss, rel=1e-4)
        assert any("device " in text for text in reporter.warnings)
        picture = np.full((20, 20, 3), 90, np.uint8)
        here, there = (load(out, device).predict(picture) for device in (first, then))
        assert here.classes == there.classes
        np.testing.assert_allclose(here.probabilities, there.probabilities, rtol=1e-5)


# ------------------------------------------------------------------------------------------------- precision


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_the_cpu_computes_in_fp32(precision: str, config: Make, reporter: Any) -> None:
    with pytest.raises(UsageError, match=f"--precision {precision} is for a GPU: the CPU computes in fp32"):
        train(config(precision=precision), reporter)
    with pytest.raises(UsageError, match="--precision must be one of fp32, tf32, bf16, got 'fp16'"):
        train(config(precision="fp16"), reporter)


@pytest.mark.emulator
def test_a_precision_is_kept_and_goes_on(config: Make, reporter: Any, tmp_path: Any) -> None:
    ends = {}
    for precision in ("fp32", "bf16"):
        out = str(tmp_path / precision)
        ends[precision] = end_of(config(out=out, device=EMULATED, precision=precision), reporter)
        assert ends[precision].config["precision"] == precision
    assert any(line.endswith("), bf16") for line in reporter.lines)
    assert bits(ends["fp32"]) != bits(ends["bf16"])
    a, b = (ends[precision].history[-1].train_loss for precision in ("fp32", "bf16"))
    assert a == pytest.approx(b, rel=0.02)
    out = str(tmp_path / "half")
    end_of(config(out=out, device=EMULATED, precision="bf16", epochs=1), reporter)
    with pytest.raises(UsageError, match="--precision tf32: the run was begun with bf16"):
        train(TrainConfig(resume=out, precision="tf32"), reporter)
    with pytest.raises(UsageError, match="--precision bf16 is for a GPU"):
        train(TrainConfig(resume=out, device="cpu"), reporter)
    again = end_of(TrainConfig(resume=out, out=out, epochs=2), reporter)
    assert bits(again) == bits(ends["bf16"])


def test_runs_from_before_there_was_a_choice_can_be_resumed() -> None:
    values = TrainConfig().to_dict()
    older = {name: value for name, value in values.items() if name not in ("precision", "crops")}
    assert TrainConfig.from_dict(older) == TrainConfig.from_dict(values)


# ----------------------------------------------------------------------------------------------------- input


@pytest.mark.emulator
def test_pixels_travel_one_batch_ahead() -> None:
    asked: list[int] = []

    def batches(bytes_first: bool) -> Any:
        for number in range(5):
            asked.append(number)
            labels = np.full(2, number)
            if number == 3 and not bytes_first:
                yield Batch(np.full((2, 3, 4, 4), 0.5, np.float32), labels, labels)
            else:
                yield Batch(np.full((2, 4, 4, 3), 10 * number, np.uint8), labels, labels, Normalize())

    for bytes_first in (True, False):
        asked.clear()
        for number, batch in enumerate(ahead(batches(bytes_first), EMULATED)):
            assert asked[-1] == min(number + 1, 4)
            assert len(batch) == 2
            assert batch.labels[0] == number
            tensor = input_tensor(batch, EMULATED)
            assert tensor.device == EMULATED
            np.testing.assert_array_equal(tensor.numpy(), batch.images)
    asked.clear()
    for number, batch in enumerate(ahead(batches(True), "cpu")):
        assert asked[-1] == number
        assert type(batch) is Batch


def fixed_crops(size: int) -> Transform:
    return training_transform(size, 3, crops="fixed")


def test_fixed_crops_are_the_papers() -> None:
    transform = training_transform(224, 3, crops="fixed")
    assert isinstance(transform, Compose)
    resize, crop, flip, _ = transform.transforms
    assert (resize, crop, flip) == (Resize((256, 256)), RandomCrop(224), RandomHorizontalFlip())
    assert transform_from_config(transform.to_config()) == transform


@pytest.mark.emulator
@pytest.mark.parametrize(
    "transform",
    [
        fixed_crops(14),
        Compose([Resize((12, 17)), RandomHorizontalFlip(), Normalize((0.4, 0.5, 0.6), 0.2)]),
        Compose([Resize((17, 20)), RandomCrop((16, 9)), Normalize()]),
        Compose([Resize((9, 11)), Normalize()]),
    ],
    ids=["crop and flip", "flip", "crop", "neither"],
)
@pytest.mark.parametrize("device", ["cpu", EMULATED])
def test_pictures_kept_on_a_device_have_the_hosts_bits(
    transform: Transform, device: str, pictures: Any
) -> None:
    dataset, _ = open_dataset(str(pictures))
    indices = np.arange(3, 50)

    def loader() -> Loader:
        return Loader(dataset, indices, transform, 8, shuffle=True, seed=5)

    kept = DevicePictures(loader(), device, 10**6)
    host = loader()
    assert len(kept) == len(host) == 6
    for epoch, start in ((1, 0), (2, 4)):
        pairs = list(zip(kept.epoch(epoch, start), host.epoch(epoch, start), strict=True))
        assert len(pairs) == 6 - start
        for mine, theirs in pairs:
            np.testing.assert_array_equal(mine.labels, theirs.labels)
            np.testing.assert_array_equal(mine.indices, theirs.indices)
            tensor = input_tensor(mine, device)
            assert tensor.device == device
            np.testing.assert_array_equal(tensor.numpy(), theirs.images)
            np.testing.assert_array_equal(mine.images, theirs.images)
            assert len(mine) == len(theirs)
    kept.close()


def test_what_cannot_be_kept_is_refused(pictures: Any) -> None:
    dataset, _ = open_dataset(str(pictures))
    for transform in (
        Compose([RandomResizedCrop(8), RandomHorizontalFlip(), Normalize()]),
        Compose([Resize((9, 9)), RandomCrop(8, padding=1), Normalize()]),
        Compose([Resize((9, 9)), RandomHorizontalFlip(), RandomCrop(8), Normalize()]),
    ):
        with pytest.raises(UsageError, match=r"--cache device .* --crops fixed or --no-augment"):
            DevicePictures(Loader(dataset, [0, 1], transform, 2), EMULATED, 10**6)
    fitting = Loader(dataset, np.arange(20), fixed_crops(14), 4)
    message = r"20 pictures of 16 x 16 take 15\.4 KB, and --cache-budget allows 10\.0 KB"
    with pytest.raises(UsageError, match=message):
        next(DevicePictures(fitting, EMULATED, 10_000).epoch(1))


@pytest.mark.emulator
def test_a_run_from_pictures_on_the_device(config: Make, reporter: Any, tmp_path: Any) -> None:
    """The same bits as from the host's memory, also when it is broken off and goes on."""
    ends = {}
    for cache in ("memory", "device"):
        out = str(tmp_path / cache)
        options = config(out=out, device=EMULATED, crops="fixed", augment=True, cache=cache)
        ends[cache] = end_of(options, reporter)
    assert bits(ends["memory"]) == bits(ends["device"])
    out = str(tmp_path / "half")
    end_of(dataclasses.replace(options, out=out, epochs=1, given=None), reporter)
    again = end_of(TrainConfig(resume=out, out=out, epochs=2, cache="device"), reporter)
    assert bits(again) == bits(ends["memory"])


@pytest.mark.emulator
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cache": "device", "device": "cpu", "augment": False}, "--cache device is for a GPU"),
        ({"cache": "device", "device": EMULATED}, "add --crops fixed or --no-augment"),
        (
            {"cache": "device", "device": EMULATED, "augment": False, "cache_budget": "1KB"},
            r"--cache-budget allows 1\.0 KB",
        ),
        ({"precision": "half"}, "--precision must be one of fp32, tf32, bf16"),
        ({"cache": "device", "crops": "fixed", "workers": 2}, "--cache device is the trainer's own"),
        ({"cache": "gpu"}, "--cache must be none, memory, disk or device, got 'gpu'"),
        ({"crops": "random"}, "--crops must be scaled, fixed, paper or whole, got 'random'"),
    ],
)
def test_options_that_make_no_sense(
    options: dict[str, Any], message: str, config: Make, reporter: Any, harness: ModuleType
) -> None:
    asked = config(**{"augment": True, **options})
    with pytest.raises(UsageError, match=message):
        train(asked, reporter)
    assert not Path(asked.out).exists()  # The same command, mended, must find its folder free.
