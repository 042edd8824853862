"""Weights from files of every kind, loaded into models."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
from pytorch_writer import old_file, tar_file, zip_file
from safetensors.numpy import save_file

from minialex import models, nn, rng
from minialex.errors import CheckpointError
from minialex.models import ConvNet


def network(classes: int = 3, seed: int = 0) -> ConvNet:
    with rng.random_scope(seed):
        return models.build("flowers", classes, 63)


def write(path: Path, kind: str, arrays: dict[str, np.ndarray]) -> Path:
    if kind == "safetensors":
        save_file(arrays, path)
    else:
        path.write_bytes({"zip": zip_file, "pickles": old_file, "tar": tar_file}[kind](arrays))
    return path


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Narrow hidden layers: the 250 MB of the full ones would show nothing more."""
    for name, row in models.VARIANTS.items():
        monkeypatch.setitem(models.VARIANTS, name, dataclasses.replace(row, hidden=20))


@pytest.fixture
def trained() -> ConvNet:
    return network(seed=1)


@pytest.mark.parametrize("kind", ["safetensors", "zip", "pickles", "tar"])
def test_every_format_by_what_is_in_it(kind: str, trained: ConvNet, tmp_path: Path) -> None:
    path = write(tmp_path / "weights.of_any_name", kind, trained.state_dict())
    net = network()
    assert models.load_weights(net, path) == ()
    assert all((a == net.state_dict()[name]).all() for name, a in trained.state_dict().items())


def test_the_models_own_dtype_is_kept(trained: ConvNet, tmp_path: Path) -> None:
    half = {name: a.astype(np.float16) for name, a in trained.state_dict().items()}
    net = network()
    models.load_weights(net, write(tmp_path / "half.pth", "zip", half))
    got = net.state_dict()["features.0.weight"]
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, half["features.0.weight"])


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
@pytest.mark.parametrize("shape", [[1] * 100, [0, 2**62, 9]])
def test_shapes_that_no_array_can_have(shape: list[int], dtype: str, tmp_path: Path) -> None:
    size = 0 if 0 in shape else 4 if dtype == "F32" else 2
    header = json.dumps({"a": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}).encode()
    path = tmp_path / "net.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))
    with pytest.raises(CheckpointError, match="a has a shape that no array can have"):
        models.read_state_dict(path)


def test_complex_numbers_are_refused(tmp_path: Path) -> None:
    save_file({"a": np.ones(1, np.complex64)}, tmp_path / "net.safetensors")
    with pytest.raises(CheckpointError, match="a holds complex numbers"):
        models.read_state_dict(tmp_path / "net.safetensors")


def test_all_but_the_head(trained: ConvNet, tmp_path: Path) -> None:
    path = write(tmp_path / "three.pth", "zip", trained.state_dict())
    net = network(classes=7)
    before = net.state_dict()
    with pytest.raises(CheckpointError, match=r"three\.pth: .*(?s:.)*classifier\.6\.weight"):
        models.load_weights(net, path)
    assert all((a == before[name]).all() for name, a in net.state_dict().items())
    assert models.load_weights(net, path, skip_head=True) == ("classifier.6.weight", "classifier.6.bias")
    after = net.state_dict()
    for name, array in after.items():
        expected = before if name.startswith("classifier.6") else trained.state_dict()
        np.testing.assert_array_equal(array, expected[name])


@pytest.mark.parametrize("names", ["{}", "module.{}"])
def test_the_head_is_left_if_need_be(names: str, trained: ConvNet, tmp_path: Path) -> None:
    arrays = {names.format(name): array for name, array in trained.state_dict().items()}
    path = write(tmp_path / "three.pth", "zip", arrays)
    assert models.load_weights(network(classes=3), path, skip_head=None) == ()
    left = models.load_weights(network(classes=7), path, skip_head=None)
    assert left == ("classifier.6.weight", "classifier.6.bias")


def test_a_file_without_a_head(trained: ConvNet, tmp_path: Path) -> None:
    body = {name: a for name, a in trained.state_dict().items() if not name.startswith("classifier.6")}
    path = write(tmp_path / "body.pth", "zip", body)
    net = network()
    with pytest.raises(CheckpointError, match="missing"):
        models.load_weights(net, path)
    models.load_weights(net, path, skip_head=True)
    np.testing.assert_array_equal(net.state_dict()["classifier.4.bias"], body["classifier.4.bias"])
    # Anything else that is missing is an error all the same.
    del body["features.0.bias"]
    with pytest.raises(CheckpointError, match=r"missing \(1\): features\.0\.bias"):
        models.load_weights(net, write(tmp_path / "less.pth", "zip", body), skip_head=True)


@pytest.mark.parametrize("longer", ["module.{}", "{0}"])
def test_names_of_data_parallel(longer: str, trained: ConvNet, tmp_path: Path) -> None:
    """The second is PyTorch's example for ImageNet, which makes the features alone parallel."""
    arrays = {
        longer.format(name) if longer != "{0}" else name.replace("features.", "features.module."): array
        for name, array in trained.state_dict().items()
    }
    net = network()
    models.load_weights(net, write(tmp_path / "parallel.pth", "zip", arrays))
    np.testing.assert_array_equal(
        net.state_dict()["features.0.bias"], trained.state_dict()["features.0.bias"]
    )
    np.testing.assert_array_equal(
        net.state_dict()["features.3.weight"], trained.state_dict()["features.3.weight"]
    )


def test_a_model_that_says_module_itself(tmp_path: Path) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(2, 1)

        def forward(self, x):  # type: ignore[no-untyped-def]
            return self.module(x)

    net = Wrapped()
    arrays = {"module.weight": np.float32([[3, 4]]), "module.bias": np.float32([5])}
    models.load_weights(net, write(tmp_path / "w.pth", "zip", arrays))
    assert net.state_dict()["module.weight"].tolist() == [[3, 4]]


def test_bfloat16_in_safetensors(tmp_path: Path) -> None:
    numbers = np.array([[1.0, -2.5], [3.140625, 0]], np.float32)
    halves = (numbers.view(np.uint32) >> 16).astype("<u2")
    header = {
        "first": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        "w": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [4, 12]},
    }
    text = json.dumps(header).encode()
    data = len(text).to_bytes(8, "little") + text + np.float32([7]).tobytes() + halves.tobytes()
    (tmp_path / "w.safetensors").write_bytes(data)
    got = models.read_state_dict(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(got["w"], numbers, strict=True)
    assert got["first"].tolist() == [7]
    header["w"] |= {"dtype": "F8_E5M2", "shape": [8]}
    text = json.dumps(header).encode()
    (tmp_path / "w.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(12))
    with pytest.raises(CheckpointError, match="w holds F8_E5M2 numbers"):
        models.read_state_dict(tmp_path / "w.safetensors")


@pytest.mark.parametrize("length", [0x80, 0x4B50])
def test_a_length_that_begins_like_another_format(length: int, tmp_path: Path) -> None:
    """A header of 128 bytes looks like a pickle at first, one of 19,280 like a zip file."""
    text = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(length)
    data = len(text).to_bytes(8, "little") + text + np.float32([7]).tobytes()
    (tmp_path / "w").write_bytes(data)
    assert data[:1] in (b"\x80", b"P")
    assert models.read_state_dict(tmp_path / "w")["w"].tolist() == [7]


def test_names_that_steer_a_terminal(tmp_path: Path) -> None:
    save_file({"\x1b[2J": np.float32([1])}, tmp_path / "w")
    with pytest.raises(CheckpointError, match=r"an entry is called '\\x1b\[2J'"):
        models.read_state_dict(tmp_path / "w")


def test_an_alexnet_from_a_file_of_pytorchs(tmp_path: Path) -> None:
    """In the format of torchvision's first files."""
    with rng.random_scope(0):
        saved = models.alexnet("owt", 2)
    path = write(tmp_path / "alexnet-owt.pth", "tar", saved.state_dict())
    net = models.alexnet("owt", 2, weights=path)
    assert all((a == net.state_dict()[name]).all() for name, a in saved.state_dict().items())


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read everything"
)
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "secret.pth"
    path.write_bytes(b"")
    path.chmod(0)
    with pytest.raises(CheckpointError, match=r"cannot read .*secret\.pth: Permission denied"):
        models.read_state_dict(path)
