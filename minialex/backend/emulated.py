"""EmulatedArray: an array of the device "cuda-emulated", in host memory but with the manners of a GPU's.

It stays of its class through arithmetic, views and NumPy's functions, and refuses to meet a plain array, as a
CuPy array does: code that mixes up devices fails here too, without a GPU. New memory is poisoned, so that
what a kernel forgets to write is seen.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from minialex.errors import DeviceError

__all__ = ["EMULATED", "EmulatedArray", "EmulatedNumPy", "emulated_numpy", "poisoned"]

EMULATED = "cuda-emulated"

# Every byte of a fresh array: an integer is -1 or its largest value, a float a NaN.
POISON = 0xFF


class EmulatedArray(np.ndarray[Any, np.dtype[Any]]):
    """A NumPy array that belongs to the emulated device. `get()` copies it to the host, as CuPy's does."""

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        _refuse_mixture(ufunc.__name__, (inputs, kwargs))
        result = getattr(ufunc, method)(*_plain(inputs), **_plain(kwargs))
        out = kwargs.get("out")
        if out is not None:
            return out[0] if len(out) == 1 else out
        return _emulated(result)

    def __array_function__(self, func: Callable[..., Any], types: Any, args: Any, kwargs: Any) -> Any:
        _refuse_mixture(func.__name__, (args, kwargs))
        return _emulated(func(*_plain(args), **_plain(kwargs)))

    def __getitem__(self, index: Any) -> Any:
        return _emulated(super().__getitem__(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        _refuse_mixture("an assignment to elements", (self, value))
        super().__setitem__(index, value)

    def get(self) -> npt.NDArray[Any]:
        """A copy in host memory."""
        return np.array(self)


def _refuse_mixture(name: str, values: Any) -> None:
    """Raises: DeviceError if a plain array is among the values; numbers and scalars go anywhere."""
    for array in _arrays(values):
        if not isinstance(array, EmulatedArray) and array.ndim > 0:
            raise DeviceError(
                f"{name}: an array of the CPU {array.shape} meets one of device {EMULATED!r}; bring both to "
                "one device, as in minialex.backend.to_device(array, device)"
            )


def _arrays(values: Any) -> list[Any]:
    """The arrays in nested tuples, lists and dictionaries."""
    if isinstance(values, np.ndarray):
        return [values]
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, tuple | list):
        return []
    return [array for value in values for array in _arrays(value)]


def _plain(value: Any) -> Any:
    """The same values with NumPy's own arrays, of the same memory, in place of ours."""
    if isinstance(value, EmulatedArray):
        return value.view(np.ndarray)
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, tuple):
        return tuple(_plain(part) for part in value)
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return value


def _emulated(value: Any) -> Any:
    """What a function gave, with our arrays in place of NumPy's; a scalar is an array too, as in CuPy."""
    if isinstance(value, EmulatedArray):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value).view(EmulatedArray)
    if isinstance(value, list):
        return [_emulated(part) for part in value]
    if isinstance(value, tuple):
        return tuple(_emulated(part) for part in value)
    return value


def poisoned(shape: int | tuple[int, ...], dtype: npt.DTypeLike = float) -> EmulatedArray:
    """A new array full of NaN, or of 0xFF bytes where the type has none."""
    array = np.empty(shape, dtype)
    array.reshape(-1).view(np.uint8)[...] = POISON
    return array.view(EmulatedArray)


class EmulatedNumPy(ModuleType):
    """NumPy as `array_module` gives it for the emulated device: what makes a new array makes one of ours."""

    MAKERS = frozenset(
        (
            "arange",
            "array",
            "asarray",
            "ascontiguousarray",
            "eye",
            "full",
            "identity",
            "linspace",
            "ones",
            "zeros",
        )
    )

    def __getattr__(self, name: str) -> Any:
        function = getattr(np, name)
        if name not in self.MAKERS:
            return function

        def make(*args: Any, **kwargs: Any) -> Any:
            return _emulated(function(*_plain(args), **_plain(kwargs)))

        return make

    @staticmethod
    def empty(shape: int | tuple[int, ...], dtype: npt.DTypeLike = float) -> EmulatedArray:
        """As numpy.empty, poisoned."""
        return poisoned(shape, dtype)

    @staticmethod
    def empty_like(array: Any, dtype: npt.DTypeLike | None = None) -> EmulatedArray:
        """As numpy.empty_like, poisoned."""
        return poisoned(array.shape, array.dtype if dtype is None else dtype)


emulated_numpy = EmulatedNumPy("emulated_numpy")
