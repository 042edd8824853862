"""State dicts as safetensors files, there and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from minialex import Tensor, models, nn
from minialex.errors import OutputError, UsageError
from minialex.interchange import write_safetensors


def test_a_model_there_and_back(tmp_path: Path) -> None:
    net = models.lenet5()
    path = tmp_path / "lenet.safetensors"
    write_safetensors(net, path, {"classes": "[0, 1]"})
    for read in (load_file(path), models.read_state_dict(path)):
        assert set(read) == set(net.state_dict())
        assert all((read[name] == array).all() for name, array in net.state_dict().items())
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    assert (metadata["format"], metadata["classes"]) == ("pt", "[0, 1]")
    other = models.lenet5()
    models.load_weights(other, path)
    assert all((other.state_dict()[name] == array).all() for name, array in net.state_dict().items())


def test_a_state_dict_of_arrays_and_tensors(tmp_path: Path) -> None:
    matrix = np.arange(6.0).reshape(2, 3)
    write_safetensors({"turned": matrix.T, "tensor": Tensor([1.5]), "scalar": np.int64(3)}, tmp_path / "w")
    got = load_file(tmp_path / "w")
    np.testing.assert_array_equal(got["turned"], matrix.T, strict=True)
    assert (got["tensor"].tolist(), got["scalar"].shape) == ([1.5], ())


def test_a_weight_that_two_layers_share(tmp_path: Path) -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    write_safetensors(nn.Sequential(first, second), tmp_path / "tied")
    got = load_file(tmp_path / "tied")
    np.testing.assert_array_equal(got["0.weight"], got["1.weight"])


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="w: safetensors files hold numbers, not complex128"):
        write_safetensors({"w": np.array([1j])}, tmp_path / "w")
    with pytest.raises(OutputError, match="cannot write"):
        write_safetensors({"w": np.ones(1)}, tmp_path / "none" / "w")
    assert list(tmp_path.iterdir()) == []
