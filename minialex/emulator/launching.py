"""Launches a kernel on NumPy arrays: checks arguments against parameters, runs it, says what fails."""

from __future__ import annotations

import ctypes
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minialex.emulator.building import Library, line_of, load
from minialex.emulator.translation import Entry
from minialex.emulator.watching import caught_signals
from minialex.errors import KernelError, UsageError

SEED_VARIABLE = "MINIALEX_EMULATOR_SEED"
LARGEST_GRID = (2**31 - 1, 65535, 65535)
LARGEST_BLOCK = (1024, 1024, 64)
MOST_THREADS = 1024
MOST_VALUES = 512  # As in include/emulator.hpp.
MORE, FAILED, NO_MEMORY = 1, 2, 3  # What minialex_resume returns when it is not done.

Extent = int | Sequence[int]
Value = np.ndarray[Any, Any] | np.generic | int | float | None
Argument = Value | tuple[Value, ...]

_seed: ContextVar[int | None] = ContextVar("minialex_emulator_seed", default=None)


class _Argument(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("size", ctypes.c_int64),
        ("name", ctypes.c_char_p),
        ("scalar", ctypes.c_uint64),
        ("written", ctypes.c_uint8),
    )


class _Report(ctypes.Structure):
    _fields_ = (
        ("message", ctypes.c_char * 2048),
        ("block", ctypes.c_uint * 3),
        ("thread", ctypes.c_int * 3),
        ("address", ctypes.c_uint64),
    )


@dataclass(frozen=True)
class _Value:
    """One array or number, as the kernel gets it."""

    name: str
    written: bool
    data: int | None = None
    size: int = 0
    scalar: int = 0
    array: np.ndarray[Any, Any] | None = None  # Also keeps it alive.


@contextmanager
def use_seed(seed: int) -> Iterator[None]:
    """Inside, `seed` decides in which order blocks and threads run. A right kernel gives the same for all."""
    token = _seed.set(seed)
    try:
        yield
    finally:
        _seed.reset(token)


def run(
    stem: str,
    source: Path,
    entry: str,
    grid: Extent,
    block: Extent,
    args: Sequence[Argument],
    *,
    headers: Path | None = None,
) -> None:
    """Run kernel `entry` of the file `source` on the CPU, until it is done.

    Args:
        stem: what errors call the file.
        grid, block: blocks in the grid and threads in a block, along x, y and z.
        args: arrays, C-contiguous; scalars with the width of the parameter; None for a null pointer. A Python
            int or float has no width, and fits every integer or real parameter.
        headers: the folder of common.cuh, if it is not that of the source.
    Raises: KernelError for arguments that do not fit, and for every mistake that the emulator notices while
        the kernel runs; DeviceError if there is no g++.
    """
    grid_size, block_size = _extent(grid), _extent(block)
    library = load(source, headers or source.parent)
    where = f"{stem}.cu, {entry}"
    found = next((each for each in library.entries if each.name == entry), None)
    if found is None:
        names = ", ".join(each.name for each in library.entries) or "none"
        raise KernelError(f"{where}: there is no such kernel in {library.source}; there is: {names}")
    _check_extents(where, library, found, grid_size, block_size)
    kinds = _kinds(library, found)
    values = _convert(where, found, kinds, args)
    if math.prod(grid_size) == 0:
        return
    with library.lock:
        _launch(where, library, found, (grid_size, block_size), values)


def _extent(extent: Extent) -> tuple[int, int, int]:
    sizes = (extent,) if isinstance(extent, int) else tuple(int(size) for size in extent)
    if not 1 <= len(sizes) <= 3:
        raise KernelError(f"a grid or a block has one to three extents, got {extent!r}")
    x, y, z = (*sizes, 1, 1)[:3]
    return x, y, z


def _check_extents(
    where: str, library: Library, entry: Entry, grid: tuple[int, ...], block: tuple[int, ...]
) -> None:
    """What a GPU refuses, refused here as well."""
    for name, sizes, least, largest in (("grid", grid, 0, LARGEST_GRID), ("block", block, 1, LARGEST_BLOCK)):
        for axis, size, most in zip("xyz", sizes, largest, strict=True):
            if not least <= size <= most:
                raise KernelError(f"{where}: {name}.{axis} is {size}; a GPU takes {least} .. {most}")
    threads = math.prod(block)
    if threads > MOST_THREADS:
        raise KernelError(f"{where}: block {block} has {threads} threads; a GPU takes up to {MOST_THREADS}")
    bound = getattr(library.functions, f"minialex_bound_{entry.name}")()
    if bound and threads > bound:
        raise KernelError(f"{where}: block {block} has {threads} threads; __launch_bounds__ promises {bound}")


@dataclass(frozen=True)
class _Kind:
    """What a parameter is, from its C++ type.

    Args: access: "in" or "out" for an array, "" for a scalar; count: of a table's places, else 1.
    """

    access: str
    dtype: np.dtype[Any]
    count: int

    def __str__(self) -> str:
        what = f"{self.access} array of {self.dtype}" if self.access else str(self.dtype)
        return f"{self.count} x {what}" if self.count > 1 else what


def _kinds(library: Library, entry: Entry) -> list[_Kind]:
    """The parameters of a kernel; C++ spells them "in f4", "i8" or "32 out f8"."""
    signature = getattr(library.functions, f"minialex_signature_{entry.name}")
    signature.restype = ctypes.c_char_p
    kinds = []
    for text in filter(None, signature().decode().split(",")):
        *before, code = text.split()
        count = int(before.pop(0)) if before and before[0].isdecimal() else 1
        kinds.append(_Kind("".join(before), np.dtype(code), count))
    return kinds


def _convert(where: str, entry: Entry, kinds: list[_Kind], args: Sequence[Argument]) -> list[_Value]:
    """Every value that the kernel takes, checked, the places of tables one by one."""
    if len(args) != len(kinds):
        names = ", ".join(f"{name}: {kind}" for name, kind in zip(entry.parameters, kinds, strict=True))
        raise KernelError(f"{where}: takes {len(kinds)} arguments ({names}), got {len(args)}")
    values = []
    for i, (name, kind, arg) in enumerate(zip(entry.parameters, kinds, args, strict=True)):
        place = f"{where}: argument {i}, {name}"
        if kind.count == 1:
            values.append(_value(place, name, kind, arg))
            continue
        if not isinstance(arg, tuple) or len(arg) > kind.count:
            got = f"{len(arg)} of them" if isinstance(arg, tuple) else type(arg).__name__
            raise KernelError(f"{place}, must be a tuple of up to {kind.count} values, got {got}")
        empty = None if kind.access else 0
        for k, each in enumerate((*arg, *(empty,) * (kind.count - len(arg)))):
            values.append(_value(f"{place}[{k}]", f"{name}[{k}]", kind, each))
    if len(values) > MOST_VALUES:
        raise KernelError(f"{where}: takes {len(values)} values; the emulator hands over up to {MOST_VALUES}")
    _check_overlaps(where, values)
    return values


def _value(place: str, name: str, kind: _Kind, arg: Argument) -> _Value:
    if not kind.access:
        return _Value(name, False, scalar=_scalar(f"{place},", kind.dtype, arg))
    data, size = _array(f"{place},", kind.access, kind.dtype, arg)
    return _Value(name, kind.access == "out", data, size, array=arg if isinstance(arg, np.ndarray) else None)


def _array(place: str, access: str, dtype: np.dtype[Any], arg: Argument) -> tuple[int | None, int]:
    if arg is None:
        return None, 0
    if not isinstance(arg, np.ndarray):
        raise KernelError(f"{place} must be an array of {dtype} or None, got {type(arg).__name__}")
    if arg.dtype != dtype:
        raise KernelError(f"{place} must be an array of {dtype}, got {arg.dtype}")
    if not arg.flags.c_contiguous:
        raise KernelError(f"{place} must be C-contiguous; shape {arg.shape}, strides {arg.strides}")
    if access == "out" and not arg.flags.writeable:
        raise KernelError(f"{place} is written by the kernel, and must be a writable array")
    return arg.ctypes.data, arg.size


def _scalar(place: str, dtype: np.dtype[Any], arg: Argument) -> int:
    """The bytes of a scalar, as an integer."""
    if isinstance(arg, np.generic) and arg.dtype == dtype:
        value = arg
    elif type(arg) is bool or type(arg) is int or (type(arg) is float and dtype.kind == "f"):
        try:
            value = dtype.type(arg)
        except OverflowError as error:
            raise KernelError(f"{place} is {dtype}, too narrow for {arg}") from error
    else:
        got = f"numpy.{arg.dtype}" if isinstance(arg, np.generic) else type(arg).__name__
        raise KernelError(f"{place} must be a scalar of {dtype}, got {got}")
    return int.from_bytes(value.tobytes(), sys.byteorder)


def _check_overlaps(where: str, values: list[_Value]) -> None:
    """In<T> and Out<T> promise the compiler (__restrict__) that nothing else leads to what is written."""
    arrays = sorted(
        (value.data, value.data + value.array.nbytes, i)
        for i, value in enumerate(values)
        if value.data is not None and value.array is not None and value.array.size
    )
    # The array that reaches furthest of those that begin earlier, of all and of the written ones.
    far, far_written = (0, -1), (0, -1)
    for start, end, i in arrays:
        before_end, j = far if values[i].written else far_written
        if start < before_end:
            first, second = (values[i], values[j]) if values[i].written else (values[j], values[i])
            raise KernelError(
                f"{where}: {first.name} is written, but shares memory with {second.name}, and both are "
                "__restrict__; pass an array of its own"
            )
        far = max(far, (end, i))
        far_written = max(far_written, (end, i)) if values[i].written else far_written


def _launch(
    where: str,
    library: Library,
    entry: Entry,
    extents: tuple[tuple[int, int, int], tuple[int, int, int]],
    values: list[_Value],
) -> None:
    functions = library.functions
    grid, block = ((ctypes.c_uint * 3)(*extent) for extent in extents)
    passed = (_Argument * (len(values) + 1))()
    for slot, value in zip(passed, values, strict=False):
        slot.data, slot.size, slot.scalar, slot.written = value.data, value.size, value.scalar, value.written
        slot.name = value.name.encode()
    call = getattr(functions, f"minialex_call_{entry.name}")
    seed = ctypes.c_uint64(_current_seed())
    try:
        enough = functions.minialex_begin(call, grid, block, passed, len(values), seed)
        outcome = MORE if enough else NO_MEMORY
        # A slice at a time: between two, Python sees to Ctrl-C.
        while outcome == MORE:
            with caught_signals(functions):
                outcome = functions.minialex_resume()
            _show_printed(functions)
    finally:
        functions.minialex_end()
    if outcome == NO_MEMORY:
        raise MemoryError(f"{where}: no memory for the emulator to keep track of what is written")
    if outcome == FAILED:
        raise KernelError(_explain(where, library, functions.minialex_report))


def _explain(where: str, library: Library, report: Callable[[], Any]) -> str:
    report.restype = ctypes.POINTER(_Report)  # type: ignore[attr-defined]
    found = report().contents
    block = ", ".join(map(str, found.block))
    thread = "" if found.thread[0] < 0 else f", thread ({', '.join(map(str, found.thread))})"
    line = line_of(library, found.address)
    place = f"\n    {line}" if line else ""
    return f"{where}: block ({block}){thread}: {found.message.decode(errors='replace')}{place}"


def _show_printed(functions: ctypes.CDLL) -> None:
    size = ctypes.c_uint64()
    functions.minialex_printed.restype = ctypes.c_void_p
    text = functions.minialex_printed(ctypes.byref(size))
    if size.value:
        sys.stdout.write(ctypes.string_at(text, size.value).decode(errors="replace"))


def _current_seed() -> int:
    chosen = _seed.get()
    if chosen is not None:
        return chosen
    text = os.environ.get(SEED_VARIABLE, "0")
    if not text.isdecimal():
        raise UsageError(f"{SEED_VARIABLE}={text}: expected a number from 0 on")
    return int(text)
