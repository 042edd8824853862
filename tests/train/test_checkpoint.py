"""Checkpoint files: complete, exact, and refused with a reason when anything about them is wrong."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from minialex.errors import CheckpointError, NumericalError, OutputError
from minialex.train import safetensors_file
from minialex.train.checkpoint import (
    Best,
    Checkpoint,
    Position,
    load_checkpoint,
    save_checkpoint,
    split_state,
)
from minialex.train.history import EpochRecord
from minialex.train.safetensors_file import read_arrays, save_safetensors


def example() -> Checkpoint:
    return Checkpoint(
        model_name="lenet5",
        image_size=28,
        channels=1,
        classes=("Gänseblümchen", "rose"),
        preprocessing={
            "evaluation": {"name": "Compose", "transforms": []},
            "training": {"scale": [0.08, 1.0]},
        },
        config={"lr": 2e-4, "limit": None},
        seed=2**63,
        split_digest="ab" * 32,
        part_sizes=(8, 1, 1),
        position=Position(3, 17, 117),
        running={"loss_sum": 0.1 + 0.2, "correct": 3, "seen": 4, "seconds": 1.5},
        history=(EpochRecord(1, 1 / 3, 0.5, 2 / 3, 0.25, 2e-4, 9.5),),
        best=Best(1, 0.25, 2 / 3),
        environment={"numpy": "2"},
        optimizer={"optimizer": "Adam", "step": 117, "lr": 2e-4},
        schedule={"schedule": "ConstantLR", "epoch": 2, "base_lr": 2e-4},
        weights={
            "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
            "b": np.array(3.0, dtype=np.float64),
        },
        optimizer_arrays={"mean.0": np.full((2, 3), 1e-30, np.float32), "updates": np.array([1, 2])},
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, example())
    return path


def assert_same_arrays(got: dict[str, Any], expected: dict[str, Any]) -> None:
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].dtype == array.dtype
        assert got[name].shape == array.shape
        assert got[name].tobytes() == array.tobytes()


def test_everything_comes_back_exactly(saved: Path) -> None:
    loaded, expected = load_checkpoint(saved), example()
    assert_same_arrays(loaded.weights, expected.weights)
    assert_same_arrays(loaded.optimizer_arrays, expected.optimizer_arrays)
    nothing: dict[str, Any] = {"weights": {}, "optimizer_arrays": {}}
    assert replace(loaded, **nothing) == replace(expected, **nothing)


def test_other_programs_can_read_it(saved: Path) -> None:
    with safe_open(saved, framework="numpy") as file:
        assert set(file.keys()) == {"model/a.weight", "model/b", "optimizer/mean.0", "optimizer/updates"}
        metadata = file.metadata()
    assert json.loads(metadata["classes"]) == ["Gänseblümchen", "rose"]
    assert metadata["format_version"] == "1"


def test_the_same_run_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "again", example())
    assert (tmp_path / "again").read_bytes() == saved.read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_short(saved: Path, share: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"last\.safetensors is not a whole safetensors file"):
        load_checkpoint(saved)


def test_any_byte_that_changed_is_noticed(saved: Path) -> None:
    content = saved.read_bytes()
    choose = random.Random(0)
    for _ in range(300):
        damaged = bytearray(content)
        damaged[choose.randrange(len(content))] ^= 1 << choose.randrange(8)
        saved.write_bytes(bytes(damaged))
        try:
            loaded = load_checkpoint(saved)
        except CheckpointError:
            continue
        # Spaces that pad the header, and different spellings of the same JSON, may change without harm.
        assert_same_arrays(loaded.weights, example().weights)
        assert loaded.position == example().position


def test_a_safetensors_file_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": np.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="not a checkpoint of minialex"):
        load_checkpoint(path)


def test_a_checkpoint_of_another_version(tmp_path: Path) -> None:
    path = tmp_path / "later"
    save_safetensors(path, {}, {"format": "minialex-checkpoint", "format_version": "2"})
    with pytest.raises(
        CheckpointError, match=r"format_version 2, and this minialex reads 1; use the version"
    ):
        load_checkpoint(path)


def test_a_checkpoint_with_parts_missing(tmp_path: Path) -> None:
    path = tmp_path / "partial"
    save_safetensors(path, {}, {"format": "minialex-checkpoint", "format_version": "1"})
    with pytest.raises(CheckpointError, match="lacks part of one"):
        load_checkpoint(path)


def test_what_is_no_file_or_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        load_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="is a folder"):
        load_checkpoint(tmp_path)
    (tmp_path / "picture.jpg").write_bytes(b"\xff\xd8\xff" * 100)
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load_checkpoint(tmp_path / "picture.jpg")


def test_weights_that_are_not_finite_never_replace_good_ones(saved: Path) -> None:
    before = saved.read_bytes()
    broken = replace(example(), weights={"a": np.array([1.0, np.nan])})
    with pytest.raises(NumericalError, match="not finite"):
        save_checkpoint(saved, broken)
    assert saved.read_bytes() == before


def test_a_full_disk(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def full(path: Path, write: Any) -> None:
        with open("/dev/full", "wb", buffering=0) as file:
            write(file)

    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    from minialex.train.files import output_errors

    def full_with_message(path: Path, write: Any) -> None:
        with output_errors(path):
            full(path, write)

    monkeypatch.setattr(safetensors_file, "atomic_write", full_with_message)
    with pytest.raises(OutputError, match="the disk is full"):
        save_checkpoint(saved, example())
    assert saved.read_bytes() == before


def test_arrays_by_prefix(saved: Path) -> None:
    assert set(read_arrays(saved, ("model/",))) == {"model/a.weight", "model/b"}


def test_a_dtype_that_the_format_lacks(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="complex128"):
        save_safetensors(tmp_path / "x", {"a": np.zeros(1, complex)}, {})


def test_split_state() -> None:
    plain, arrays = split_state({"step": 3, "mean.0": np.zeros(2)})
    assert plain == {"step": 3}
    assert list(arrays) == ["mean.0"]
