"""Device strings and array modules."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from minialex.backend import (
    array_module,
    canonical_device,
    device_of,
    matmul,
    parse_device,
    require_device,
    to_device,
    to_numpy,
)
from minialex.errors import DeviceError


def test_device_strings() -> None:
    assert parse_device("cpu") == ("cpu", 0)
    assert parse_device("cuda") == ("cuda", 0)
    assert parse_device("cuda:3") == ("cuda", 3)
    assert canonical_device("cuda") == canonical_device("cuda:0") == "cuda:0"
    assert canonical_device("cuda-emulated") == "cuda-emulated"


@pytest.mark.parametrize("device", ["gpu", "cuda:-1", "cuda:1.5", "cpu:0", "cuda:", "auto", " cpu"])
def test_unknown_devices(device: str) -> None:
    with pytest.raises(DeviceError, match="expected 'cpu', 'cuda' or 'cuda:N'") as caught:
        parse_device(device)
    assert caught.value.exit_code == 5


def test_the_cpu_is_always_there() -> None:
    assert require_device("cpu") == "cpu"


@pytest.mark.skipif(importlib.util.find_spec("cupy") is not None, reason="CuPy is installed")
def test_without_cupy_the_message_says_how_to_get_it() -> None:
    with pytest.raises(
        DeviceError, match=r"pip install 'cupy-cuda13x\[ctk\]'.*minialex doctor.*or use device cpu"
    ):
        require_device("cuda")
    with pytest.raises(DeviceError, match="needs CuPy"):
        to_device(np.zeros(2), "cuda:0")


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (0, "no CUDA device"),
        (2, r"'cuda:5': this machine has 2 CUDA device\(s\)"),
        (RuntimeError("driver too old"), r"finds no usable GPU or driver \(RuntimeError: driver too old\)"),
    ],
)
def test_a_cupy_without_a_usable_gpu(
    count: int | Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def device_count() -> int:
        if isinstance(count, Exception):
            raise count
        return count

    cupy = ModuleType("cupy")
    cupy.cuda = SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=device_count))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(DeviceError, match=message):
        require_device("cuda:5")


def test_arrays_of_the_host() -> None:
    array = np.zeros(2)
    for value in (array, np.float32(1.0), array[0]):
        assert array_module(value) is np
        assert device_of(value) == "cpu"
    assert to_numpy(array) is array
    assert to_device(array, "cpu") is array


def test_matmul_writes_where_it_is_told() -> None:
    a, b, out = np.ones((2, 3)), np.ones((3, 4)), np.empty((2, 4))
    assert matmul(a, b, out=out) is out
    np.testing.assert_array_equal(out, np.full((2, 4), 3.0))
