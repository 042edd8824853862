"""Device strings, and the array module (NumPy or CuPy) that belongs to each.

| device | arrays | kernels |
|---|---|---|
| cpu | NumPy | compiled by Numba |
| cuda:N | CuPy | kernels/*.cu, compiled by NVRTC |
| cuda-emulated | EmulatedArray, in host memory | kernels/*.cu, compiled by g++ and run thread by thread |
"""

from __future__ import annotations

import importlib
import importlib.util
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import numpy as np

from minialex.backend.emulated import EMULATED, EmulatedArray, emulated_numpy
from minialex.errors import DeviceError

# CuPy arrays and NumPy arrays share the part of the interface that the engine uses.
Array = Any

DEVICE_FORMS = "'cpu', 'cuda' or 'cuda:N' (or 'cuda-emulated', slow: CUDA's kernels on the CPU)"


def parse_device(device: str) -> tuple[str, int]:
    """(kind, number) of a device string: 'cpu' -> ('cpu', 0), 'cuda:1' -> ('cuda', 1).

    Raises: DeviceError for anything but 'cpu', 'cuda', 'cuda:N' and 'cuda-emulated'.
    """
    if device in ("cpu", "cuda", EMULATED):
        return device, 0
    kind, _, number = str(device).partition(":")
    if kind == "cuda" and number.isdecimal():
        return kind, int(number)
    raise DeviceError(f"unknown device {device!r}: expected {DEVICE_FORMS}")


def canonical_device(device: str) -> str:
    """One spelling a device: 'cuda' is 'cuda:0'."""
    kind, number = parse_device(device)
    return f"cuda:{number}" if kind == "cuda" else kind


def require_device(device: str) -> str:
    """The canonical name of a device that can be used now.

    Raises: DeviceError saying what is missing and how to get it; never another device instead.
    """
    kind, number = parse_device(device)
    if kind == EMULATED:
        from minialex.emulator.building import find_compiler

        find_compiler()
    if kind == "cuda":
        count = _cuda_device_count(device)
        if number >= count:
            raise DeviceError(f"device {device!r}: this machine has {count} CUDA device(s), numbered from 0")
    return canonical_device(device)


def _cuda_device_count(device: str) -> int:
    if importlib.util.find_spec("cupy") is None:
        raise DeviceError(
            f"device {device!r} needs CuPy, which is not installed: pip install 'cupy-cuda13x[ctk]' "
            "(cupy-cuda12x for an older driver; `minialex doctor` says which), or use device cpu"
        )
    try:
        cupy = importlib.import_module("cupy")
        count = int(cupy.cuda.runtime.getDeviceCount())
    except Exception as error:  # CuPy raises its own kinds, which cannot be named without importing it.
        raise DeviceError(
            f"device {device!r}: CuPy is installed but finds no usable GPU or driver "
            f"({type(error).__name__}: {error}); `minialex doctor` says what mends it, or use device cpu"
        ) from error
    if count == 0:
        raise DeviceError(
            f"device {device!r}: the driver reports no CUDA device; `minialex doctor` says what mends it, or "
            "use device cpu"
        )
    return count


def compute_capability(device: str) -> int:
    """The generation of a GPU, as CUDA counts: 75 for Turing, 80 and 86 for Ampere, 90 for Hopper."""
    cupy = importlib.import_module("cupy")
    return int(cupy.cuda.Device(parse_device(device)[1]).compute_capability)


def array_module(array: Array) -> ModuleType:
    """The module whose functions work on this array: numpy, or cupy for an array on a GPU.

    For the emulated device it is NumPy, with arrays of that device from what makes new ones.
    Raises: TypeError for anything else.
    """
    if isinstance(array, (np.ndarray, np.generic)):
        return emulated_numpy if isinstance(array, EmulatedArray) else np
    if not hasattr(array, "__cuda_array_interface__"):
        raise TypeError(
            f"expected a NumPy or CuPy array, got {type(array).__module__}.{type(array).__name__}"
        )
    return importlib.import_module("cupy")


def is_array(value: Any) -> bool:
    """Whether it is an array of one of the devices: NumPy's, CuPy's or the emulator's."""
    return isinstance(value, np.ndarray) or hasattr(value, "__cuda_array_interface__")


def device_of(array: Array) -> str:
    """The canonical name of the device an array lives on."""
    if isinstance(array, (np.ndarray, np.generic)):
        return EMULATED if isinstance(array, EmulatedArray) else "cpu"
    return f"cuda:{array.device.id}"


def on_device_of(array: Array) -> AbstractContextManager[object]:
    """Inside, new arrays are made where this one is: CuPy makes them on its current device."""
    if isinstance(array, (np.ndarray, np.generic)):
        return nullcontext()
    return array.device  # type: ignore[no-any-return]


def on_device(device: str) -> AbstractContextManager[object]:
    """Inside, `device` is where CuPy works: programs hold it around all that they do there.

    The engine's ops go where their arrays are by themselves; expressions on bare CuPy arrays do not.
    """
    kind, number = parse_device(require_device(device))
    if kind != "cuda":
        return nullcontext()
    return importlib.import_module("cupy").cuda.Device(number)  # type: ignore[no-any-return]


def to_device(array: Array, device: str) -> Array:
    """The array on `device`: itself if it is there, else a copy.

    Raises: DeviceError if the device cannot be used.
    """
    target = canonical_device(device)
    if device_of(array) == target:
        return array
    require_device(target)
    if target == "cpu":
        return array.get()
    if target == EMULATED:
        return emulated_numpy.array(to_numpy(array))
    cupy = importlib.import_module("cupy")
    with cupy.cuda.Device(parse_device(target)[1]):
        return cupy.asarray(to_numpy(array) if isinstance(array, np.ndarray) else array)


def to_numpy(array: Array) -> np.ndarray[Any, np.dtype[Any]]:
    """The array in host memory: itself on the CPU, a copy from another device."""
    on_host = isinstance(array, np.ndarray) and not isinstance(array, EmulatedArray)
    return array if on_host else np.asarray(array.get())
