"""A stand-in for CuPy that computes with NumPy, for tests of what we hand to the real one.

Its arrays are no NumPy arrays, as CuPy's are not, and refuse to meet one or to become one unasked. Its cuBLAS
does what the documentation of cublasGemmEx says, column by column on bare memory, and refuses leading
dimensions that the real one would refuse and addresses that no array owns. Its kernels run in the emulator.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import re
import weakref
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from minialex.backend.cublas import CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_32F_FAST_TF32, CUBLAS_COMPUTE_64F
from minialex.backend.precision import round_to_precision
from minialex.backend.sources import cuda_source_dir
from minialex.emulator import run

NAMES = {CUBLAS_COMPUTE_32F: "32F", CUBLAS_COMPUTE_64F: "64F", CUBLAS_COMPUTE_32F_FAST_TF32: "TF32"}
DTYPES = {0: np.float32, 1: np.float64, 14: np.uint16}

# Every array's own memory, by its first address, for as long as it lives.
MEMORY: weakref.WeakValueDictionary[int, np.ndarray] = weakref.WeakValueDictionary()


class Device:
    """What `array.device` is: an id, and a context."""

    compute_capability = "90"

    def __init__(self, number: int = 0) -> None:
        self.id = number

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *exception: object) -> None:
        pass


# ---------------------------------------------------------------------------------------------------- arrays


class FakeArray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array of the stand-in: a NumPy array that only shows what CuPy's would."""

    def __init__(self, array: np.ndarray, owner: np.ndarray | None = None, device: int = 0) -> None:
        self.host = array
        self.owner = array if owner is None else owner
        self.device = Device(device)
        self.data = SimpleNamespace(ptr=array.ctypes.data)
        self.__cuda_array_interface__: dict[str, Any] = {}
        MEMORY[self.owner.ctypes.data] = self.owner

    def get(self) -> np.ndarray:
        return self.host.copy()

    def item(self) -> Any:
        return self.host.item()

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        result = self._call(getattr(ufunc, method), inputs, kwargs)
        return kwargs["out"][0] if kwargs.get("out") else result

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return self._call(func, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = getattr(self.host, name)
        if isinstance(value, np.ndarray):
            return self._wrap(value)
        if not callable(value) or isinstance(value, type):
            return value
        return lambda *args, **kwargs: self._call(value, args, kwargs)

    def _call(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        return self._wrap(function(*unwrapped(args), **unwrapped(kwargs)))

    def _wrap(self, value: Any) -> Any:
        if not isinstance(value, np.ndarray | np.generic):
            return value
        array = np.asarray(value)
        return FakeArray(array, self.owner if np.may_share_memory(array, self.owner) else None)

    def __getitem__(self, index: Any) -> Any:
        return self._wrap(self.host[unwrapped(index, indices=True)])

    def __setitem__(self, index: Any, value: Any) -> None:
        self.host[unwrapped(index, indices=True)] = unwrapped(value)

    def __len__(self) -> int:
        return len(self.host)

    def __float__(self) -> float:
        return float(self.host)

    def __int__(self) -> int:
        return int(self.host)

    def __bool__(self) -> bool:
        return bool(self.host)

    def __index__(self) -> int:
        return self.host.__index__()


def unwrapped(value: Any, indices: bool = False) -> Any:
    """The NumPy arrays within; a plain one among them is refused, as CuPy does."""
    if isinstance(value, FakeArray):
        return value.host
    if isinstance(value, np.ndarray) and value.ndim and not indices:
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if isinstance(value, list | tuple):
        return type(value)(unwrapped(part, indices) for part in value)
    if isinstance(value, dict):
        return {name: unwrapped(part) for name, part in value.items()}
    return value


# ---------------------------------------------------------------------------------------------------- cuBLAS


def memory_at(pointer: int, dtype: Any, count: int) -> np.ndarray:
    """So many elements from an address on. Raises: AssertionError if no array owns them all."""
    itemsize = np.dtype(dtype).itemsize
    last = pointer + count * itemsize
    bounds = [np.lib.array_utils.byte_bounds(owner) for owner in MEMORY.values()]
    assert any(low <= pointer and last <= high for low, high in bounds), (
        "the device would read beyond the array"
    )
    kind = {2: ctypes.c_uint16, 4: ctypes.c_float, 8: ctypes.c_double}[itemsize]
    return np.ctypeslib.as_array((kind * count).from_address(pointer))


class FakeCublas:
    """gemmEx and gemmStridedBatchedEx; `calls` keeps the name of the compute type of each call."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.version = 130100

    def getVersion(self, handle: int) -> int:
        assert handle == 4711
        return self.version

    def gemmEx(
        self, handle: int, transa: int, transb: int, m: int, n: int, k: int, alpha: int,
        a: int, a_type: int, lda: int, b: int, b_type: int, ldb: int, beta: int,
        c: int, c_type: int, ldc: int, compute: int, algorithm: int,
    ) -> None:  # fmt: skip
        assert (handle, algorithm) == (4711, -1)
        self.calls.append(NAMES[compute])
        scalar = ctypes.c_double if compute == CUBLAS_COMPUTE_64F else ctypes.c_float
        factor, kept = (scalar.from_address(pointer).value for pointer in (alpha, beta))
        left = _matrix(a, a_type, lda, m, k, transa, compute)
        right = _matrix(b, b_type, ldb, k, n, transb, compute)
        assert ldc >= max(1, m), "cuBLAS would refuse ldc"
        places = np.arange(m)[:, None] + np.arange(n) * ldc
        memory = memory_at(c, DTYPES[c_type], int(places.max()) + 1)
        # A product of BLAS was once seen to warn, of numbers that were right; the tests compare them.
        with np.errstate(all="ignore"):
            result = factor * (left @ right)
        memory[places] = result + kept * memory[places] if kept else result

    def gemmStridedBatchedEx(
        self, handle: int, transa: int, transb: int, m: int, n: int, k: int, alpha: int,
        a: int, a_type: int, lda: int, stride_a: int, b: int, b_type: int, ldb: int, stride_b: int,
        beta: int, c: int, c_type: int, ldc: int, stride_c: int, count: int, compute: int, algorithm: int,
    ) -> None:  # fmt: skip
        assert all(type(number) is int for number in (lda, stride_a, ldb, stride_b, ldc, stride_c, count))
        for i in range(count):
            self.gemmEx(
                handle, transa, transb, m, n, k, alpha,
                a + i * stride_a * np.dtype(DTYPES[a_type]).itemsize, a_type, lda,
                b + i * stride_b * np.dtype(DTYPES[b_type]).itemsize, b_type, ldb,
                beta,
                c + i * stride_c * np.dtype(DTYPES[c_type]).itemsize, c_type, ldc,
                compute, algorithm,
            )  # fmt: skip


def _matrix(pointer: int, kind: int, leading: int, rows: int, cols: int, turned: int, compute: int) -> Any:
    """op(A) (rows, cols), from A in column-major memory."""
    M, N = (cols, rows) if turned else (rows, cols)
    assert leading >= max(1, M), "cuBLAS would refuse the leading dimension"
    places = np.arange(M)[:, None] + np.arange(N) * leading
    values = memory_at(pointer, DTYPES[kind], int(places.max()) + 1)[places]
    if kind == 14:
        values = (values.astype(np.uint32) << 16).view(np.float32)
    if compute == CUBLAS_COMPUTE_32F_FAST_TF32:
        values = round_to_precision(values, "tf32")
    return values.T if turned else values


# --------------------------------------------------------------------------------------------------- kernels


class CompileException(Exception):
    """CuPy's error for source that NVRTC refuses."""


class EmulatedModule:
    """cupy.RawModule for our own files: each launch goes through the emulator."""

    def __init__(self, code: str, options: tuple[str, ...]) -> None:
        found = re.match(r'#line 1 "(\w+)\.cu"', code)
        assert found is not None
        assert options == ("-std=c++17",)
        self.stem = found[1]

    def get_function(self, name: str) -> Callable[..., None]:
        def launch(grid: Any, block: Any, args: Any) -> None:
            path = cuda_source_dir() / f"{self.stem}.cu"
            run(self.stem, path, name, grid, block, [_argument(value) for value in args])

        return launch


def _argument(value: Any) -> Any:
    """What CuPy would copy into the kernel's parameters, as the emulator takes it."""
    if isinstance(value, FakeArray):
        return value.host
    if isinstance(value, np.ndarray):
        assert value.size == 1, "CuPy refuses host arrays, but for one structure"
        entries = value["entries"]
        if entries.dtype == np.uint64:
            return tuple(_owned_from(int(pointer)) for pointer in entries)
        return tuple(entries)
    if isinstance(value, np.uint64):
        assert value == 0, "the kernels have no unsigned 64-bit parameters: this is a null pointer"
        return None
    assert isinstance(value, np.generic), "CuPy would guess the width"
    return value


def _owned_from(pointer: int) -> np.ndarray | None:
    """The rest of the array that an address lies in."""
    if pointer == 0:
        return None
    for owner in MEMORY.values():
        first, end = np.lib.array_utils.byte_bounds(owner)
        if first <= pointer < end:
            return owner.reshape(-1)[(pointer - first) // owner.itemsize :]
    raise AssertionError("a table points to no array")


# ---------------------------------------------------------------------------------------------------- module


class Stream:
    """Everything is done at once."""

    ptr = 1

    def __init__(self, non_blocking: bool = False) -> None:
        pass

    def record(self) -> Stream:
        return self

    def wait_event(self, event: Stream) -> None:
        pass

    def synchronize(self) -> None:
        pass


class FakeCuPy(ModuleType):
    """NumPy's functions, for the arrays of the stand-in."""

    def __getattr__(self, name: str) -> Any:
        function = getattr(np, name)
        if not callable(function) or isinstance(function, type):
            return function

        def call(*args: Any, **kwargs: Any) -> Any:
            uploads = name in ("array", "asarray")  # They take what is on the host.
            result = function(*unwrapped(args, uploads), **unwrapped(kwargs))
            if not isinstance(result, np.ndarray | np.generic):
                return result
            array = np.asarray(result)
            owners = [a.owner for a in args if isinstance(a, FakeArray)]
            shared = [owner for owner in owners if np.may_share_memory(array, owner)]
            plain = [a for a in args if isinstance(a, np.ndarray)]
            return FakeArray(array.copy() if plain else array, shared[0] if shared else None)

        return call

    @staticmethod
    def empty(shape: Any, dtype: Any = float) -> FakeArray:
        array = np.empty(shape, dtype)
        array.reshape(-1).view(np.uint8)[...] = 0xFF
        return FakeArray(array)


def fake_cupy(compiled: Any = EmulatedModule) -> tuple[ModuleType, FakeCublas]:
    """The module, and its cuBLAS. `compiled(code=..., options=...)` is its RawModule."""
    cublas = FakeCublas()
    cupy: Any = FakeCuPy("cupy")
    cupy.__spec__ = importlib.machinery.ModuleSpec("cupy", None)
    pool = SimpleNamespace(free_all_blocks=lambda: None)
    cupy.get_default_memory_pool = cupy.get_default_pinned_memory_pool = lambda: pool
    cupy.cuda = SimpleNamespace(
        cublas=cublas,
        device=SimpleNamespace(get_cublas_handle=lambda: 4711),
        nvrtc=SimpleNamespace(getVersion=lambda: (13, 0)),
        Device=Device,
        Stream=Stream,
        get_current_stream=Stream,
        alloc_pinned_memory=bytearray,
        is_available=lambda: True,
        runtime=SimpleNamespace(
            getDeviceCount=lambda: 1,
            getDeviceProperties=lambda number: {"name": b"Stand-in", "totalGlobalMem": 2**33},
            memcpyAsync=lambda target, source, size, kind, stream: ctypes.memmove(target, source, size),
        ),
    )
    cupy.RawModule = compiled
    return cupy, cublas
