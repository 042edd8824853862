"""The facts about CUDA are gathered whatever is missing, and never by raising."""

from __future__ import annotations

import ctypes
import sys
import types
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minialex.backend import diagnosis
from minialex.backend.diagnosis import Trial, cuda_facts, cupy_packages, driver_version, header_version


class FakeCupy(types.ModuleType):
    """As much of CuPy as is asked, on the host; `broken` names what raises."""

    def __init__(self, devices: int = 1, broken: dict[str, Exception] | None = None) -> None:
        super().__init__("cupy")
        self.__version__ = "14.2.0"
        self.devices, self.broken = devices, broken or {}
        self.float32 = np.float32
        runtime = types.SimpleNamespace(
            runtimeGetVersion=lambda: 13020,
            getDeviceCount=self._count,
            getDeviceProperties=lambda number: {"name": f"GPU {number}".encode(), "major": 9, "minor": 0},
            memGetInfo=lambda: (1 << 30, 4 << 30),
        )
        self.cuda = types.SimpleNamespace(runtime=runtime, Device=lambda number: nullcontext())

    def _raise(self, what: str) -> None:
        if what in self.broken:
            raise self.broken[what]

    def _count(self) -> int:
        self._raise("count")
        return self.devices

    def asarray(self, array: Any) -> Any:
        self._raise("memory")
        return array.copy()

    def asnumpy(self, array: Any) -> Any:
        return array + 1 if "wrong" in self.broken else array

    def eye(self, side: int, dtype: Any) -> Any:
        self._raise("product")
        return np.eye(side, dtype=dtype)

    def RawModule(self, code: str, options: tuple[str, ...]) -> Any:
        self._raise("kernel")

        def launch(grid: Any, block: Any, args: tuple[Any, ...]) -> None:
            args[0][...] = 2 * args[0] + 1

        return types.SimpleNamespace(get_function=lambda name: launch)


class FakeNvrtc(types.ModuleType):
    """Finds cuda_fp16.h in folders that have it."""

    def __init__(self) -> None:
        super().__init__("cupy_backends.cuda.libs.nvrtc")
        self.destroyed = 0

    def getVersion(self) -> tuple[int, int]:
        return 13, 0

    def createProgram(self, source: str, name: str, headers: Any, names: Any) -> str:
        return source

    def compileProgram(self, program: str, options: tuple[str, ...]) -> None:
        folders = [Path(option[2:]) for option in options if option.startswith("-I")]
        if "cuda_fp16.h" in program and not any((folder / "cuda_fp16.h").exists() for folder in folders):
            raise RuntimeError("NVRTC_ERROR_COMPILATION (6)")

    def getProgramLog(self, program: str) -> str:
        return 'probe.cu(1): catastrophic error: cannot open source file "cuda_fp16.h"'

    def destroyProgram(self, program: str) -> None:
        self.destroyed += 1


@pytest.fixture
def headers(tmp_path: Path) -> Path:
    """A folder with CUDA's headers, as far as they are looked at."""
    (tmp_path / "cuda_fp16.h").touch()
    (tmp_path / "cuda_runtime_api.h").write_text("#ifndef X\n#define CUDART_VERSION  13000\n#endif\n")
    return tmp_path


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, headers: Path) -> Any:
    """install(cupy): from now on these fakes are imported, and the driver serves CUDA 13.0."""

    def put(cupy: FakeCupy | None) -> FakeNvrtc:
        nvrtc = FakeNvrtc()
        pathfinder = types.ModuleType("cuda.pathfinder")
        pathfinder.find_nvidia_header_directory = lambda name: str(headers)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "cupy", cupy)
        monkeypatch.setitem(sys.modules, "cupy_backends.cuda.libs.nvrtc", nvrtc)
        monkeypatch.setitem(sys.modules, "cuda.pathfinder", pathfinder)
        for parent in ("cupy_backends", "cupy_backends.cuda", "cupy_backends.cuda.libs", "cuda"):
            monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
        monkeypatch.setattr(diagnosis, "driver_version", lambda: 13000)
        return nvrtc

    return put


def test_a_gpu_in_order(install: Any, headers: Path) -> None:
    nvrtc = install(FakeCupy(devices=2))
    facts = cuda_facts(1)
    assert (facts.cupy, facts.import_error) == ("14.2.0", "")
    assert (facts.driver, facts.runtime, facts.nvrtc, facts.headers_version) == (13000, 13020, 13000, 13000)
    assert (facts.headers, facts.headers_error, facts.nvrtc_error) == (str(headers), "", "")
    assert [(gpu.name, gpu.capability, gpu.memory, gpu.free) for gpu in facts.gpus] == [
        ("GPU 0", "9.0", 4 << 30, 1 << 30),
        ("GPU 1", "9.0", 4 << 30, 1 << 30),
    ]
    assert len(facts.trials) == 4
    assert all(trial.error == "" for trial in facts.trials)
    assert nvrtc.destroyed == 2


def test_no_cupy(install: Any) -> None:
    install(None)  # Python raises ModuleNotFoundError for it.
    facts = cuda_facts()
    assert facts.cupy == ""
    assert "cupy" in facts.import_error
    assert (facts.driver, facts.gpus, facts.trials) == (13000, (), ())


def test_an_import_that_fails_or_warns(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    install(FakeCupy())

    def warned() -> Any:
        warnings.warn("multiple CuPy packages are installed", UserWarning, stacklevel=1)
        raise ImportError("numpy.dtype size changed, may indicate binary incompatibility")

    monkeypatch.setattr(diagnosis, "_import_cupy", warned)
    facts = cuda_facts()
    assert facts.import_error.startswith("ImportError: numpy.dtype size changed")


def test_what_fails_is_told_and_the_rest_goes_on(install: Any, headers: Path) -> None:
    (headers / "cuda_fp16.h").unlink()
    install(FakeCupy(broken={"product": RuntimeError("libcublas.so.13: cannot open shared object file")}))
    facts = cuda_facts()
    assert 'cannot open source file "cuda_fp16.h"' in facts.headers_error
    assert facts.nvrtc_error == ""  # A kernel without headers compiles all the same.
    assert [bool(trial.error) for trial in facts.trials] == [False, False, False, True]
    assert "libcublas" in facts.trials[-1].error


def test_nothing_is_tried_after_memory_failed(install: Any) -> None:
    install(FakeCupy(broken={"memory": MemoryError("out of memory allocating 512 bytes")}))
    assert cuda_facts().trials == (
        Trial("copy to the GPU and back", "MemoryError: out of memory allocating 512 bytes"),
    )


def test_wrong_numbers_are_an_error(install: Any) -> None:
    install(FakeCupy(broken={"wrong": Exception()}))
    trials = cuda_facts().trials
    assert trials[0].error == "ArithmeticError: 256 of 256 numbers are wrong"


def test_no_device(install: Any) -> None:
    install(FakeCupy(broken={"count": RuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")}))
    facts = cuda_facts()
    assert "cudaErrorNoDevice" in facts.devices_error
    assert (facts.gpus, facts.trials) == ((), ())


def test_the_installed_cupys_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, version in (("cupy_cuda12x", "13.6.0"), ("cupy-cuda13x", "14.2.0"), ("cupyx_tools", "1.0")):
        folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert cupy_packages() == ("cupy-cuda12x 13.6.0", "cupy-cuda13x 14.2.0")


def test_the_driver_is_asked_through_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(name: str) -> Any:
        def ask(pointer: Any) -> int:
            pointer._obj.value = 12040
            return 0

        return types.SimpleNamespace(cuDriverGetVersion=ask)

    def missing(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", found)
    assert driver_version() == 12040
    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert driver_version() == 0


def test_the_version_of_a_header_folder(headers: Path, tmp_path: Path) -> None:
    assert header_version(headers) == 13000
    (headers / "cuda_runtime_api.h").write_text("nothing\n")
    assert header_version(headers) == 0
    assert header_version(tmp_path / "nowhere") == 0
