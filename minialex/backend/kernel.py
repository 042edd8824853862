"""Kernel: one computation on arrays, with a variant for each way to run it."""

from __future__ import annotations

import functools
import inspect
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from minialex.backend.compilation import import_numba
from minialex.backend.device import Array, device_of, parse_device
from minialex.backend.threads import for_ranges
from minialex.errors import DeviceError

VARIANTS = ("reference", "array", "numba", "cuda")

# The first that a kernel has is taken. Scalar loops cannot reach into the memory of a GPU; kernels written
# for one run on the CPU too, in the emulator, but only for who asks.
PREFERENCE = {
    "cpu": ("numba", "array", "reference", "cuda"),
    "cuda": ("cuda", "array"),
    "cuda-emulated": ("cuda", "array"),
}

FLOAT_DTYPES = ("float32", "float64")
_FLOATING = tuple(np.dtype(name) for name in FLOAT_DTYPES)

_forced: ContextVar[str | None] = ContextVar("minialex_forced_variant", default=None)


class DTypeError(TypeError):
    """Element types that an operation does not take, or that differ where they must agree."""


class VariantError(LookupError):
    """A variant was forced that a kernel does not have, or that cannot run on the array's device."""


@contextmanager
def use_variant(name: str) -> Iterator[None]:
    """Inside, every kernel runs its variant `name` ("reference", "array", "numba" or "cuda").

    Ops without a kernel run NumPy or CuPy all the same: element-wise arithmetic, exp, log, sums and means,
    indexing, reshape, transpose and concatenate.
    Raises: VariantError at once for an unknown name, and when a kernel without that variant is called.
    """
    if name not in VARIANTS:
        raise VariantError(f"unknown kernel variant {name!r}: expected one of {', '.join(VARIANTS)}")
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def forced_variant() -> str | None:
    """The variant that the innermost `use_variant` asks for, or None."""
    return _forced.get()


class Compiled:
    """A plain function of scalars and loops that Numba compiles at its first call, without the GIL.

    It may call other functions that are marked in the same way, also another module's: they are compiled
    with it, and if their source changes, it is compiled anew.
    """

    def __init__(self, function: types.FunctionType, fastmath: Iterable[str] = ()) -> None:
        functools.update_wrapper(self, function)
        self.function, self.fastmath = function, frozenset(fastmath)
        self._dispatcher: Callable[..., Any] | None = None
        self._lock = threading.Lock()

    def __call__(self, *args: Any) -> Any:
        return (self._dispatcher or self.dispatcher())(*args)

    def dispatcher(self) -> Callable[..., Any]:
        """Numba's own object for the function. Imports Numba; compiles nothing yet."""
        with self._lock:
            if self._dispatcher is None:
                self._dispatcher = self._compile()
            return self._dispatcher

    def _compile(self) -> Callable[..., Any]:
        numba = import_numba()
        # error_model="numpy": a division by zero gives an infinity, as in every other variant.
        options = {"nogil": True, "error_model": "numpy", "fastmath": set(self.fastmath) or False}
        helpers = self._helpers()
        function = self._resolved(helpers)
        try:
            dispatcher = numba.njit(cache=True, **options)(function)
        except RuntimeError:  # No folder to keep compiled code in: compile anew in every process.
            return numba.njit(**options)(function)  # type: ignore[no-any-return]
        _follow_sources(dispatcher, helpers.values())
        return dispatcher  # type: ignore[no-any-return]

    def _helpers(self) -> dict[str, Any]:
        """What Numba can call for each Compiled that the function names."""
        found = {name: self.function.__globals__.get(name) for name in self.function.__code__.co_names}
        if self in found.values():
            raise TypeError(f"{self.function.__name__} calls itself: a kernel is a loop")
        return {name: value.dispatcher() for name, value in found.items() if isinstance(value, Compiled)}

    def _resolved(self, helpers: dict[str, Any]) -> types.FunctionType:
        """The function, with the helpers in place of the Compileds."""
        function = self.function
        if not helpers:
            return function
        resolved = types.FunctionType(
            function.__code__, {**function.__globals__, **helpers}, function.__name__, function.__defaults__
        )
        functools.update_wrapper(resolved, function)
        return resolved


def _follow_sources(dispatcher: Any, helpers: Iterable[Any]) -> None:
    """Compiled code on disk counts as old when a helper's file has changed; Numba asks the caller's alone."""
    files = [getattr(d._cache, "_cache_file", None) for d in (dispatcher, *helpers)]
    stamps = [getattr(file, "_source_stamp", None) for file in files]
    if files[0] is not None and len(stamps) > 1:
        files[0]._source_stamp = tuple(stamps)


def jit(function: Any, fastmath: Iterable[str] = ()) -> Compiled:
    """Mark a function for compilation at its first call. Numba is not imported before that.

    Args: fastmath: liberties with rounding, of "contract" (a * b + c rounded once) and "reassoc" (a sum in
          the order that suits the processor); never one that breaks NaN or infinity.
    """
    return Compiled(function, fastmath)


# Elements of the largest array that are worth a thread, for a kernel that does little with each.
WORTH_A_THREAD = 1 << 14


def per_image(compiled: Callable[..., Any], arrays: int, worth: int = WORTH_A_THREAD) -> Callable[..., Any]:
    """A function that runs without the GIL, on threads with a share of the images each, if it pays.

    Args: arrays: how many leading arguments are arrays with the images along their first axis;
          worth: how many elements of the largest of them are worth a thread.
    """

    @functools.wraps(compiled)
    def run(*args: Any) -> None:
        batched, rest = args[:arrays], args[arrays:]
        count, largest = len(batched[0]), max(a.size for a in batched)
        if largest < 2 * worth:
            compiled(*args)
            return
        smallest = -(-count * worth // largest)
        for_ranges(count, lambda i, j: compiled(*(a[i:j] for a in batched), *rest), smallest)

    return run


class Kernel:
    """One computation under one signature, in up to four variants that agree.

    Args: name: for messages; outputs: the names of the arguments that are written, C-contiguous arrays;
          reference: plain loops over scalars, the specification; array: vectorised, for NumPy and CuPy;
          numba: for the CPU, compiled at first use; cuda: for a GPU, through kernels/*.cu.

    Every variant takes the same arguments in the same order and writes into the arrays that the caller
    gives as outputs. Floating arrays must share one dtype, float32 or float64; the first argument is one.
    """

    def __init__(
        self,
        name: str,
        *,
        outputs: Sequence[str],
        reference: Callable[..., Any],
        array: Callable[..., Any],
        numba: Callable[..., Any] | None = None,
        cuda: Callable[..., Any] | None = None,
    ) -> None:
        self.name = name
        parameters = list(inspect.signature(reference).parameters)
        self.outputs = frozenset(parameters.index(output) for output in outputs)
        given = {"reference": reference, "array": array, "numba": numba, "cuda": cuda}
        self.variants = {key: function for key, function in given.items() if function is not None}
        self._preferred = {
            kind: next(name for name in names if name in self.variants) for kind, names in PREFERENCE.items()
        }
        # Matrix products and the like need no copies of strided inputs: they have no compiled loops.
        self._compiled = numba is not None and numba is not array

    def __repr__(self) -> str:
        return f"Kernel({self.name!r}, variants={list(self.variants)})"

    def __call__(self, *args: Any) -> Any:
        # NumPy's scalars have a dtype and a shape as well, but they are parameters.
        arrays = [a for a in args if hasattr(a, "dtype") and not isinstance(a, np.generic)]
        kind = "cpu"
        if any(type(a) is not np.ndarray for a in arrays):
            kind = self._common_device(arrays)
        self._check_dtypes(arrays)
        for i in self.outputs:
            if args[i] is not None and not args[i].flags.c_contiguous:
                raise ValueError(f"{self.name}: argument {i} is written, and must be a C-contiguous array")
        name = self.select(kind)
        if name == "numba" and self._compiled:
            args = tuple(
                [
                    _plain(a) if isinstance(a, np.ndarray) and i not in self.outputs else a
                    for i, a in enumerate(args)
                ]
            )
        return self.variants[name](*args)

    def select(self, kind: str) -> str:
        """The name of the variant that runs on device kind "cpu", "cuda" or "cuda-emulated".

        Raises: VariantError if a forced variant is missing or cannot run there.
        """
        forced = _forced.get()
        if forced is None:
            return self._preferred[kind]
        if forced not in self.variants:
            raise VariantError(f"{self.name} has no variant {forced!r}; it has {', '.join(self.variants)}")
        if forced not in PREFERENCE[kind]:
            there = ", ".join(variant for variant in PREFERENCE[kind] if variant in self.variants)
            raise VariantError(
                f"{self.name}: variant {forced!r} does not run on arrays of device {kind!r}; "
                f"force one of {there}, or move the arrays with .to(device)"
            )
        return forced

    def _common_device(self, arrays: list[Array]) -> str:
        """The kind of the device that all arrays are on. Raises: DeviceError if they are on several."""
        devices = [device_of(a) for a in arrays]
        if len(set(devices)) > 1:
            places = ", ".join(f"{a.shape} on {d}" for a, d in zip(arrays, devices, strict=True))
            raise DeviceError(
                f"{self.name}: arrays are on different devices ({places}); move them with .to(device)"
            )
        return parse_device(devices[0])[0]

    def _check_dtypes(self, arrays: list[Array]) -> None:
        first = arrays[0].dtype
        for array in arrays:
            if array.dtype != first and array.dtype.kind not in "iub":
                raise DTypeError(f"{self.name}: arrays must share one dtype, got {first} and {array.dtype}")
        if first not in _FLOATING:
            expected = " or ".join(FLOAT_DTYPES)
            raise DTypeError(f"{self.name}: dtype {first} is not supported; expected {expected}")


def _plain(array: Array) -> Array:
    """A contiguous, writable array: each further memory layout would be compiled anew."""
    return array if array.flags.carray else np.array(array, order="C")
