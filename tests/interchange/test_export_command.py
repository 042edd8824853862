"""`minialex export`: from runs and files of weights to files for other programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner, Result

from minialex import models
from minialex.cli import app
from minialex.nn import Module
from minialex.train.checkpoint import Checkpoint, Position, save_checkpoint

Run = Callable[..., Result]
CLASSES = ("daisy", "rose", "tulipán")


@pytest.fixture
def export() -> Run:
    def run(*arguments: object) -> Result:
        result = CliRunner().invoke(app, ["export", *map(str, arguments)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


def checkpoint_of(model: Any) -> Checkpoint:
    """A checkpoint as a run leaves it, without a run."""
    return Checkpoint(
        model_name=model.name,
        image_size=model.image_size,
        channels=model.channels,
        classes=CLASSES,
        preprocessing={"training": [], "evaluation": [{"kind": "scale"}]},
        config={"activation": "tanh"},
        seed=0,
        split_digest="",
        part_sizes=(1, 1, 1),
        position=Position(),
        running={},
        history=(),
        best=None,
        environment={},
        optimizer={},
        schedule={},
        weights=model.state_dict(),
        optimizer_arrays={"momentum": np.ones(3, np.float32)},
    )


@pytest.fixture
def net() -> Module:
    return models.build("lenet5", len(CLASSES), activation="tanh").eval()


@pytest.fixture
def run_folder(net: Module, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    save_checkpoint(folder / "best.safetensors", checkpoint_of(net))
    return folder


@pytest.mark.parametrize("source", ["", "best.safetensors"])
def test_a_run_as_safetensors(
    source: str, run_folder: Path, net: Module, export: Run, tmp_path: Path
) -> None:
    dest = tmp_path / "net.safetensors"
    result = export(run_folder / source, dest)
    assert result.exit_code == 0, result.output
    assert f"wrote {dest}: lenet5, 3 classes, images of 1 x 28 x 28, 0.2 MB" in result.output
    got = load_file(dest)
    assert set(got) == set(net.state_dict())
    assert all((got[name] == array).all() for name, array in net.state_dict().items())
    with safe_open(dest, framework="numpy") as file:
        metadata = file.metadata()
    assert tuple(json.loads(metadata["classes"])) == CLASSES
    assert json.loads(metadata["preprocessing"]) == [{"kind": "scale"}]


def test_a_run_as_onnx(run_folder: Path, net: Module, export: Run, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[test]'")
    dest = tmp_path / "net.onnx"
    result = export(run_folder, dest, "--batch", 4)
    assert result.exit_code == 0, result.output
    proto = onnx.load(dest)
    assert [node.op_type for node in proto.graph.node].count("Tanh") == 4  # The run's option.
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 4
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    assert (metadata["model"], tuple(json.loads(metadata["classes"]))) == ("lenet5", CLASSES)


@pytest.mark.parametrize("names", ["{}", "module.{}"])  # The latter are DataParallel's.
@pytest.mark.parametrize("classes", [(), ("--classes", 3)])
def test_a_file_of_weights_says_how_many_classes(
    classes: tuple[Any, ...], names: str, net: Module, export: Run, tmp_path: Path
) -> None:
    arrays = {names.format(name): array for name, array in net.state_dict().items()}
    save_file(arrays, tmp_path / "weights.safetensors")
    dest = tmp_path / "net.safetensors"
    result = export(tmp_path / "weights.safetensors", dest, "--model", "lenet5", *classes)
    assert result.exit_code == 0, result.output
    assert "lenet5, 3 classes" in result.output
    got = load_file(dest)
    assert set(got) == set(net.state_dict())
    assert all((got[name] == array).all() for name, array in net.state_dict().items())


def test_a_file_of_pytorchs(export: Run, tmp_path: Path) -> None:
    """Hostile ones too: in the words of the reader, and with its exit code."""
    (tmp_path / "evil.pth").write_bytes(b"\x80\x02cos\nsystem\n.")
    result = export(tmp_path / "evil.pth", tmp_path / "net.onnx", "--model", "lenet5")
    assert result.exit_code == 4
    assert "evil.pth: the pickle asks for os.system" in result.output


def test_what_is_wrong_is_said(run_folder: Path, net: Module, export: Run, tmp_path: Path) -> None:
    best, dest = run_folder / "best.safetensors", tmp_path / "net.safetensors"
    bare = tmp_path / "bare.safetensors"
    save_file(net.state_dict(), bare)
    there = tmp_path / "there.onnx"
    there.write_text("something")
    for arguments, code, words in [
        ((run_folder, tmp_path / "net.pth"), 2, "must end in .safetensors or .onnx"),
        ((run_folder, tmp_path / "none" / "net.onnx"), 7, "there is no folder"),
        ((run_folder, there), 7, "is already there; --overwrite"),
        ((run_folder, best, "--overwrite"), 2, "is the file that is read"),
        ((run_folder, dest, "--batch", 2), 2, "--batch is for .onnx files"),
        ((run_folder, tmp_path / "net.onnx", "--batch", "two"), 2, "expected dynamic, or a number"),
        ((run_folder, dest, "--model", "lenet5"), 2, "leave out --model"),
        ((run_folder, dest, "--classes", 3), 2, "leave out --classes"),
        ((tmp_path, dest), 4, "holds no best.safetensors"),
        ((tmp_path / "none.pth", dest), 4, "there is no checkpoint or file of weights"),
        ((bare, dest), 2, "say whose weights it holds with --model (flowers,"),
        ((bare, dest, "--model", "lenet"), 2, "did you mean 'lenet5'"),
        ((bare, dest, "--model", "lenet5", "--classes", 0), 2, "at least 1"),
        ((bare, dest, "--model", "lenet5", "--classes", 4), 4, "does not fit"),
        ((bare, dest, "--model", "lenet5", "--image-size", 32), 2, "28 x 28 only"),
        ((bare, dest, "--model", "cifar-4"), 4, "does not fit"),
    ]:
        result = export(*arguments)
        assert (result.exit_code, words in result.output.replace("\n", " ")) == (code, True), result.output
    assert not dest.exists()
    assert there.read_text() == "something"


def test_overwrite(run_folder: Path, export: Run, tmp_path: Path) -> None:
    dest = tmp_path / "net.safetensors"
    dest.write_text("something")
    assert export(run_folder, dest, "--overwrite").exit_code == 0
    assert "features.0.weight" in load_file(dest)


def test_without_the_package_onnx(
    run_folder: Path, export: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    result = export(run_folder, tmp_path / "net.onnx")
    assert result.exit_code == 2
    assert "pip install 'minialex[onnx]'" in result.output
