"""What is here for CUDA and what is not: facts for `minialex doctor`, gathered so that nothing raises.

The driver is asked through its own library, so that it is known of without CuPy as well. NVRTC and the
headers are tried by compiling, which needs no GPU. Nothing here judges: the findings are made elsewhere, from
these facts alone.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

# Every distribution of this form brings a module called cupy, and two of them overwrite each other's files.
CUPY_DISTRIBUTION = re.compile(r"(amd-)?cupy(-cuda\d+x?|-rocm-[\d-]+)?")
DRIVER_LIBRARIES = ("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so.1", "libcuda.so")

# What CuPy's own element-wise kernels include.
HEADER_PROBE = '#include <cuda_fp16.h>\nextern "C" __global__ void probe(__half* x) { x[0] = __hneg(x[0]); }'
PLAIN_PROBE = 'extern "C" __global__ void probe(float* x) { x[threadIdx.x] = 2.0f * x[threadIdx.x] + 1.0f; }'
# The oldest architecture that every NVRTC from 12 on compiles for.
PROBE_ARCHITECTURE = "-arch=sm_75"


@dataclass(frozen=True)
class GpuFacts:
    """A GPU: its name, compute capability ("9.0"), and memory in bytes, all of it and what is free."""

    name: str
    capability: str
    memory: int
    free: int


@dataclass(frozen=True)
class Trial:
    """Something that was tried; `error` is "" if it went well, else what was raised."""

    name: str
    error: str = ""


@dataclass(frozen=True)
class CudaFacts:
    """What this Python sees of CUDA. Versions are CUDA's numbers, 13020 for 13.2; 0 where there is none.

    Args: packages: "cupy-cuda13x 14.2.0" for each installed distribution of CuPy; cupy: version of the module
          that was imported, "" if none was; import_error: what importing it raised; driver: the newest CUDA
          that the driver serves; runtime: the CUDA that CuPy was built for; nvrtc, nvrtc_error: the run-time
          compiler; headers: CUDA's header folder; headers_version; headers_error: of compiling against them;
          gpus; devices_error: of counting them; visible: CUDA_VISIBLE_DEVICES, None if it is not set;
          trials: what was run on the GPU.
    """

    packages: tuple[str, ...] = ()
    cupy: str = ""
    import_error: str = ""
    driver: int = 0
    runtime: int = 0
    nvrtc: int = 0
    nvrtc_error: str = ""
    headers: str = ""
    headers_version: int = 0
    headers_error: str = ""
    gpus: tuple[GpuFacts, ...] = ()
    devices_error: str = ""
    visible: str | None = None
    trials: tuple[Trial, ...] = ()


def cuda_facts(number: int = 0) -> CudaFacts:
    """Everything that can be found out; GPU `number` is tried if there is one."""
    facts: dict[str, Any] = {
        "packages": cupy_packages(),
        "driver": driver_version(),
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }
    cupy, facts["import_error"] = _attempt(_import_cupy)
    if cupy is None:
        return CudaFacts(**facts)
    facts["cupy"] = str(cupy.__version__)
    facts["runtime"] = _attempt(lambda: int(cupy.cuda.runtime.runtimeGetVersion()))[0] or 0
    facts |= _compiler_facts()
    gpus, facts["devices_error"] = _attempt(lambda: _gpus(cupy))
    facts["gpus"] = gpus or ()
    if number < len(facts["gpus"]):
        facts["trials"] = _trials(cupy, number)
    return CudaFacts(**facts)


def cupy_packages() -> tuple[str, ...]:
    """The installed distributions that bring a module cupy, each with its version."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = re.sub(r"[-_.]+", "-", str(distribution.metadata["Name"] or "")).lower()
        if CUPY_DISTRIBUTION.fullmatch(name):
            found.setdefault(name, f"{name} {distribution.version}")
    return tuple(found[name] for name in sorted(found))


def driver_version() -> int:
    """The newest CUDA that the installed driver serves, such as 13000 for 13.0; 0 without a driver."""
    for name in DRIVER_LIBRARIES:
        try:
            library = ctypes.CDLL(name)
            version = ctypes.c_int(0)
            if library.cuDriverGetVersion(ctypes.byref(version)) == 0:
                return version.value
        except (OSError, AttributeError):  # Not there, or not the driver.
            continue
    return 0


def import_error(module: str) -> str:
    """What importing a module raises; "" if nothing."""
    return _attempt(lambda: importlib.import_module(module))[1]


def _attempt(work: Callable[[], Any]) -> tuple[Any, str]:
    """(result, "") or (None, what was raised). CuPy says much by warnings; they are facts here, too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return work(), ""
        except Exception as error:  # Of any kind: CuPy's, the driver's, a loader's.
            return None, f"{type(error).__name__}: {error}".strip()


def _import_cupy() -> Any:
    return importlib.import_module("cupy")


def _gpus(cupy: Any) -> tuple[GpuFacts, ...]:
    found = []
    for number in range(int(cupy.cuda.runtime.getDeviceCount())):
        properties = cupy.cuda.runtime.getDeviceProperties(number)
        with cupy.cuda.Device(number):
            free, total = cupy.cuda.runtime.memGetInfo()
        capability = f"{properties['major']}.{properties['minor']}"
        found.append(GpuFacts(properties["name"].decode(), capability, int(total), int(free)))
    return tuple(found)


# ----------------------------------------------------------------------------- the run-time compiler


def _compiler_facts() -> dict[str, Any]:
    """NVRTC and CUDA's headers, by compiling: no GPU is needed for that."""
    nvrtc, error = _attempt(lambda: importlib.import_module("cupy_backends.cuda.libs.nvrtc"))
    version, wrong = _attempt(lambda: nvrtc.getVersion()) if nvrtc is not None else (None, error)
    if version is None:
        return {"nvrtc_error": wrong}
    headers = _attempt(_header_folder)[0] or ""
    return {
        "nvrtc": 1000 * version[0] + 10 * version[1],
        "nvrtc_error": _compile(nvrtc, PLAIN_PROBE, ""),
        "headers": headers,
        "headers_version": header_version(Path(headers)) if headers else 0,
        "headers_error": _compile(nvrtc, HEADER_PROBE, headers),
    }


def _header_folder() -> str:
    """Where CuPy looks for CUDA's headers."""
    pathfinder = importlib.import_module("cuda.pathfinder")
    return str(pathfinder.find_nvidia_header_directory("cudart") or "")


def header_version(folder: Path) -> int:
    """CUDART_VERSION of a header folder; 0 if it does not say."""
    try:
        text = (folder / "cuda_runtime_api.h").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    found = re.search(r"^#define\s+CUDART_VERSION\s+(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else 0


def _compile(nvrtc: Any, source: str, headers: str) -> str:
    """What is wrong with compiling `source`; "" if nothing is."""
    options = (PROBE_ARCHITECTURE, *([f"-I{headers}"] if headers else []))

    def work() -> None:
        program = nvrtc.createProgram(source, "probe.cu", (), ())
        try:
            nvrtc.compileProgram(program, options)
        except Exception as error:
            raise RuntimeError(f"{error}: {nvrtc.getProgramLog(program).strip()}") from error
        finally:
            nvrtc.destroyProgram(program)

    return _attempt(work)[1]


# ---------------------------------------------------------------------------------------- on the GPU


def _trials(cupy: Any, number: int) -> tuple[Trial, ...]:
    """What minialex needs of a GPU, from the simplest to the last; nothing is tried after memory failed."""
    values = np.linspace(-1.0, 1.0, 256, dtype=np.float32)

    def memory() -> None:
        _require_equal(cupy.asnumpy(cupy.asarray(values)), values)

    def kernel() -> None:
        x = cupy.asarray(values)
        cupy.RawModule(code=PLAIN_PROBE, options=("-std=c++17",)).get_function("probe")((1,), (256,), (x,))
        _require_equal(cupy.asnumpy(x), 2 * values + 1)

    def elementwise() -> None:
        _require_equal(cupy.asnumpy(cupy.asarray(values) * np.float32(2)), 2 * values)

    def product() -> None:
        matrix = values.reshape(16, 16)
        got = cupy.asnumpy(cupy.asarray(matrix) @ cupy.eye(16, dtype=np.float32))
        if not np.allclose(got, matrix, rtol=1e-2):  # TF32 may be on; a wrong library is wrong by far more.
            raise ArithmeticError("the product with the identity is another matrix")

    trials = []
    with cupy.cuda.Device(number):
        for name, work in (
            ("copy to the GPU and back", memory),
            ("kernel compiled by NVRTC", kernel),
            ("CuPy's element-wise kernel", elementwise),
            ("matrix product by cuBLAS", product),
        ):
            trials.append(Trial(name, _attempt(work)[1]))
            if work is memory and trials[-1].error:
                break
    return tuple(trials)


def _require_equal(got: Any, wanted: Any) -> None:
    if not np.array_equal(got, wanted):
        raise ArithmeticError(f"{int((got != wanted).sum())} of {wanted.size} numbers are wrong")
