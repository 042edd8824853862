"""Which machine and which versions a run was made with, because its bits depend on them."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from minialex.backend import num_threads, on_device, to_device
from minialex.version import __version__

# Pillow decodes and resizes the photographs; NumPy brings the matrix products; Numba compiles the kernels.
PACKAGES = ("numpy", "numba", "pillow", "safetensors")
# Recorded, but without a say in the bits: work is cut into the same parts for any number of threads.
WITHOUT_EFFECT = {"threads", "safetensors"}


def environment(device: str) -> dict[str, Any]:
    """A description of this machine that JSON can hold, for config.json and for checkpoints."""
    return {
        "minialex": __version__,
        "python": platform.python_version(),
        **{name: package_version(name) for name in PACKAGES},
        **(_cuda_versions(device) if device.startswith("cuda:") else {}),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "threads": num_threads(),
        "device": device,
        "device_name": device_name(device),
    }


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What changed between two environments, one short text each: 'numpy 2.3.1 -> 2.4.0'."""
    return [
        f"{key} {then.get(key, 'none')} -> {now.get(key, 'none')}"
        for key in sorted({*then, *now} - WITHOUT_EFFECT)
        if then.get(key) != now.get(key)
    ]


def package_version(name: str) -> str:
    """The installed version of a package."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _cuda_versions(device: str) -> dict[str, str]:
    """CuPy, and what it runs here: cuBLAS decides how products are summed, NVRTC how kernels are compiled.

    Both come in packages of their own, or from a toolkit, and change without CuPy.
    """
    with on_device(device):
        # Looked up, not imported: only the backend imports CuPy.
        cuda = sys.modules["cupy"].cuda
        cublas = str(cuda.cublas.getVersion(cuda.device.get_cublas_handle()))
        nvrtc = ".".join(map(str, cuda.nvrtc.getVersion()))
    return {"cupy": _cupy_version(), "cublas": cublas, "nvrtc": nvrtc}


def _cupy_version() -> str:
    names = [d for d in ("cupy-cuda13x", "cupy-cuda12x", "cupy") if package_version(d) != "not installed"]
    return f"{names[0]} {package_version(names[0])}" if names else "not installed"


def processor() -> str:
    """The processor's name: its vector instructions decide how a matrix product is summed."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # Not Linux: platform knows.
    return platform.processor() or platform.machine()


def device_name(device: str) -> str:
    """What a person calls the device: the processor, or the GPU's name and memory."""
    if not device.startswith("cuda:"):
        return processor()
    number = to_device(np.zeros(1, np.float32), device).device.id
    # Looked up, not imported: only the backend imports CuPy.
    properties = sys.modules["cupy"].cuda.runtime.getDeviceProperties(number)
    return f"{properties['name'].decode()}, {properties['totalGlobalMem'] / 2**30:.0f} GiB"
