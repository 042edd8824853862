"""CudaKernel: a kernel of ours in kernels/*.cu, launched on a GPU, or through the emulator without one.

Python sees arrays and numbers; the kernel sees pointers, 64-bit integers and reals of its own type:

| Python | CUDA C++ |
|---|---|
| an array | In<T> or Out<T>: a pointer to its elements, row by row |
| None | a null pointer |
| int, bool | index_t, a 64-bit integer |
| float | T, the type of the first floating array |
| a NumPy scalar | the type of that width |
| a tuple of up to 32 of one kind of these | Table<...>, by value |
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minialex.backend.compilation import import_emulator
from minialex.backend.device import Array, device_of
from minialex.backend.sources import cuda_source_dir
from minialex.errors import DeviceError, KernelError

__all__ = ["CudaKernel", "contiguous", "inlined_source"]

THREADS = 256
MOST_THREADS = 1024
# From here on a thread does several elements: kernels stride over the grid.
MOST_BLOCKS = 1 << 16

# Entries of a Table, as in kernels/common.cuh.
TABLE_SIZE = 32

OPTIONS = ("-std=c++17",)
_SUFFIXES = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}


def contiguous(array: Any) -> Any:
    """The array with its elements row by row in memory, as kernels take it: itself, or a copy. None stays."""
    if array is None or array.flags.c_contiguous:
        return array
    return array.copy()  # Not ascontiguousarray, which gives an array of no dimensions one.


class CudaKernel:
    """One entry of a .cu file, for float32 and float64.

    Args: stem: the file's name without .cu; entry: the function's name without `_float` or `_double`.

    Nothing is read or compiled before the first launch.
    """

    def __init__(self, stem: str, entry: str) -> None:
        self.stem, self.entry = stem, entry

    def __repr__(self) -> str:
        return f"CudaKernel({self.stem!r}, {self.entry!r})"

    def for_each(self, count: int, *args: Any) -> None:
        """Launch enough threads for `count` elements, in blocks of 256; a very long grid strides."""
        self.launch(min(-(-int(count) // THREADS), MOST_BLOCKS), THREADS, *args)

    def launch(self, grid: int | Sequence[int], block: int | Sequence[int], *args: Any) -> None:
        """Run `grid` blocks of `block` threads, on the device and the current stream of the arrays.

        Args:   grid, block: an int, or up to three along x, y and z; an empty grid does nothing.
        Raises: KernelError if the kernel does not compile, or the emulator finds a mistake in it;
                ValueError for arrays that are not contiguous, TypeError for arguments of other types,
                DeviceError for arrays of several devices, or if CuPy has no CUDA headers.
        """
        blocks, threads = _extents(grid), _extents(block)
        if not 1 <= math.prod(threads) <= MOST_THREADS:
            raise ValueError(f"{self.entry}: a block has 1 to {MOST_THREADS} threads, got {threads}")
        if 0 in blocks:
            return
        arrays = list(_arrays(args))
        floating = next((a.dtype for a in arrays if a.dtype in _SUFFIXES), None)
        if floating is None:
            raise TypeError(f"{self.entry}: at least one argument must be a float32 or float64 array")
        values = [self._argument(i, a, floating) for i, a in enumerate(args)]
        if len({type(array) for array in arrays}) > 1:
            # CuPy would hand over a host array of one element by value, where the kernel takes a pointer.
            self._refuse_mixture(arrays)
        name = f"{self.entry}_{_SUFFIXES[floating]}"
        if isinstance(arrays[0], np.ndarray):
            import_emulator().run(self.stem, self._path(), name, blocks, threads, values)
        else:
            _launch_on_gpu(self.stem, name, blocks, threads, arrays[0], values)

    def _path(self) -> Path:
        return cuda_source_dir() / f"{self.stem}.cu"

    def _refuse_mixture(self, arrays: Sequence[Any]) -> None:
        """As on a GPU, which cannot see the CPU's memory. Raises: DeviceError."""
        places = {device_of(array) for array in arrays}
        if len(places) > 1:
            raise DeviceError(
                f"{self.entry}: arrays on {' and '.join(sorted(places))}; bring all to one device, as in "
                "minialex.backend.to_device(array, device)"
            )

    def _argument(self, position: int, value: Any, floating: np.dtype[Any]) -> Any:
        """What is handed over for one argument: an array, a NumPy scalar, None, or a tuple of them."""
        if type(value) is int:  # First, because most are: a launch of a small kernel is over in microseconds.
            return np.int64(value)
        if value is None or isinstance(value, np.generic):
            return value
        if isinstance(value, tuple):
            if len(value) > TABLE_SIZE:
                raise ValueError(f"{self.entry}: a table has up to {TABLE_SIZE} entries, got {len(value)}")
            return tuple(self._argument(position, entry, floating) for entry in value)
        if isinstance(value, int):  # True and False among them.
            return np.int64(value)
        if isinstance(value, float):
            return floating.type(value)
        if not hasattr(value, "flags"):  # A Tensor has none; its array is `data`.
            raise TypeError(
                f"{self.entry}: argument {position} is a {type(value).__name__}; "
                "kernels take arrays, such as a Tensor's .data, numbers and None"
            )
        if not value.flags.c_contiguous:
            raise ValueError(
                f"{self.entry}: argument {position} {value.shape} is not contiguous; use contiguous(...)"
            )
        return value.view(np.ndarray) if isinstance(value, np.ndarray) else value


_NUMBERS = frozenset((int, float, bool))


def _arrays(args: Sequence[Any]) -> Iterator[Any]:
    for value in args:
        if type(value) in _NUMBERS:
            continue
        if isinstance(value, tuple):
            yield from _arrays(value)
        elif _is_array(value):
            yield value


def _is_array(value: Any) -> bool:
    return hasattr(value, "dtype") and not isinstance(value, np.generic)


# Made once: `int | np.integer` in a launch would be made anew for each.
_INTEGERS = (int, np.integer)


def _extents(extents: int | Sequence[int]) -> tuple[int, int, int]:
    given = (extents,) if isinstance(extents, _INTEGERS) else tuple(extents)
    if not 1 <= len(given) <= 3 or any(n < 0 for n in given):
        raise ValueError(f"a grid or a block has one to three extents of 0 or more, got {extents!r}")
    x, y, z = (*map(int, given), 1, 1)[:3]
    return x, y, z


# ------------------------------------------------------------------------------------------------ on a GPU

# Lines of a compiler's log that a message shows.
FIRST_LINES = 12
# A null pointer. CuPy takes None as well, but as no value at all.
NULL = np.uint64(0)


def inlined_source(path: Path) -> str:
    """The file's text with our own headers in place of their #include lines, each once.

    CuPy keeps compiled kernels on disk under a hash of the source that it is given, and would not see that a
    header has changed. #line tells the compiler where each part is from.
    """
    return "".join(_with_headers(path, set()))


def _with_headers(path: Path, included: set[Path]) -> list[str]:
    parts = [f'#line 1 "{path.name}"\n']
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        found = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
        if found is None:
            parts.append(f"{line}\n")
            continue
        header = path.parent / found[1]
        if header not in included:
            included.add(header)
            parts += [*_with_headers(header, included), f'#line {number + 1} "{path.name}"\n']
        else:
            parts.append("\n")
    return parts


@functools.cache
def _function(stem: str, name: str, device: int) -> Any:
    """CuPy's function for an entry, on the device that is current. It is compiled when it is first called."""
    return _module(stem, device).get_function(name)


@functools.cache
def _module(stem: str, device: int) -> Any:
    import cupy

    return cupy.RawModule(code=inlined_source(cuda_source_dir() / f"{stem}.cu"), options=OPTIONS)


def _by_value(value: Any) -> Any:
    """An argument as CuPy takes it: a table is a structure, and CuPy copies an array of one element."""
    if value is None:
        return NULL
    if not isinstance(value, tuple):
        return value
    if any(entry is None or _is_array(entry) for entry in value):
        kind, entries = np.dtype(np.uint64), [0 if entry is None else entry.data.ptr for entry in value]
    else:
        kind, entries = value[0].dtype, list(value)
    table = np.zeros((), dtype=[("entries", kind, (TABLE_SIZE,))])
    table["entries"][: len(entries)] = entries
    return table


def _launch_on_gpu(
    stem: str,
    name: str,
    grid: tuple[int, int, int],
    block: tuple[int, int, int],
    like: Array,
    args: Sequence[Any],
) -> None:
    with like.device:
        try:
            _function(stem, name, like.device.id)(grid, block, tuple(map(_by_value, args)))
        except Exception as error:
            explained = _explained(error, stem, name)
            if explained is None:
                raise
            raise explained from error


def _explained(error: Exception, stem: str, name: str) -> Exception | None:
    """What to say of a kernel that could not be launched; None if the error itself says it."""
    if isinstance(error, RuntimeError) and "CUDA headers" in str(error):
        return DeviceError(
            "CuPy finds no CUDA headers, and cannot compile kernels without them: "
            "pip install 'cupy-cuda13x[ctk]' (`minialex doctor` says which one belongs to your driver)"
        )
    if type(error).__name__ != "CompileException":  # CuPy's own, which cannot be named without importing it.
        return None
    log = str(error).strip().splitlines()
    shown = [f"  {line}" for line in log[:FIRST_LINES]] + ["  ..."] * (len(log) > FIRST_LINES)
    return KernelError(
        f"kernel {name}: {stem}.cu does not compile on this machine; "
        "`minialex doctor` looks for the cause\n" + "\n".join(shown)
    )
