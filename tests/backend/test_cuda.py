"""CudaKernel: what is handed to CuPy or to the emulator for which arguments. Neither is needed here."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cupy import CompileException, FakeArray, fake_cupy

from minialex.backend import CudaKernel, contiguous, cuda, cuda_source_dir, to_device
from minialex.backend.cuda import inlined_source
from minialex.errors import DeviceError, KernelError
from minialex.tensor import Tensor

Launch = tuple[Any, ...]


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> list[Launch]:
    """The launches that the emulator is asked for."""
    launches: list[Launch] = []
    monkeypatch.setattr("minialex.emulator.run", lambda *args: launches.append(args))
    return launches


class Compiler:
    """Stands for cupy.RawModule: keeps what is compiled and launched."""

    def __init__(self) -> None:
        self.sources: list[tuple[str, tuple[str, ...]]] = []
        self.launches: list[Launch] = []
        self.log = ""

    def __call__(self, code: str, options: tuple[str, ...]) -> Compiler:
        self.sources.append((code, options))
        return self

    def get_function(self, name: str) -> Callable[..., None]:
        def launch(grid: Launch, block: Launch, args: Launch) -> None:
            if self.log:
                raise CompileException(self.log)
            self.launches.append((name, grid, block, args))

        return launch


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Compiler]:
    found = Compiler()
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(found)[0])
    cuda._function.cache_clear()
    cuda._module.cache_clear()
    yield found
    cuda._function.cache_clear()
    cuda._module.cache_clear()


KERNEL = CudaKernel("im2col", "im2col")


def test_arguments_have_the_width_that_the_kernel_expects(emulated: list[Launch]) -> None:
    x, labels = np.zeros((2, 3), np.float32), np.zeros(2, np.int64)
    KERNEL.for_each(600, labels, x, None, 7, True, 0.5, np.uint32(3), np.float64(2))
    ((stem, path, name, grid, block, args),) = emulated
    assert (stem, path.name, name, grid, block) == (
        "im2col",
        "im2col.cu",
        "im2col_float",
        (3, 1, 1),
        (256, 1, 1),
    )
    assert args[0] is not None
    assert args[2] is None
    kinds = [type(a) for a in args[3:]]
    assert kinds == [np.int64, np.int64, np.float32, np.uint32, np.float64]
    KERNEL.launch((2, 3), (8, 8), np.zeros(2), 0.5)
    assert emulated[1][2:5] == ("im2col_double", (2, 3, 1), (8, 8, 1))
    assert type(emulated[1][5][1]) is np.float64


@pytest.mark.emulator
def test_the_emulator_gets_plain_arrays_of_the_same_memory(emulated: list[Launch]) -> None:
    x = to_device(np.zeros(3), "cuda-emulated")
    KERNEL.for_each(3, x, (x, None))
    array, table = emulated[0][5]
    assert type(array) is type(table[0]) is np.ndarray
    assert array.ctypes.data == table[0].ctypes.data == x.ctypes.data


def test_nothing_to_do_launches_nothing(emulated: list[Launch]) -> None:
    KERNEL.for_each(0, np.zeros(0))
    KERNEL.launch((3, 0), 32, np.zeros(0))
    assert emulated == []


def test_a_long_grid_strides(emulated: list[Launch]) -> None:
    KERNEL.for_each(10**12, np.zeros(1))
    assert emulated[0][3] == (cuda.MOST_BLOCKS, 1, 1)


@pytest.mark.emulator
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: KERNEL.launch(1, 0, np.zeros(1)), ValueError, "a block has 1 to 1024 threads"),
        (lambda: KERNEL.launch(1, (64, 32), np.zeros(1)), ValueError, "a block has 1 to 1024 threads"),
        (lambda: KERNEL.launch((1, 1, 1, 1), 1, np.zeros(1)), ValueError, "one to three extents"),
        (lambda: KERNEL.launch(-1, 1, np.zeros(1)), ValueError, "0 or more"),
        (
            lambda: KERNEL.launch(1, 1, np.zeros((2, 3)).T),
            ValueError,
            r"argument 0 \(3, 2\) is not contiguous",
        ),
        (lambda: KERNEL.launch(1, 1, np.zeros(1), "2"), TypeError, "argument 1 is a str"),
        (
            lambda: KERNEL.launch(1, 1, np.zeros(1), Tensor(np.zeros(1))),
            TypeError,
            r"argument 1 is a Tensor; kernels take arrays, such as a Tensor's \.data",
        ),
        (
            lambda: KERNEL.launch(1, 1, np.zeros(1), to_device(np.zeros(1), "cuda-emulated")),
            DeviceError,
            "arrays on cpu and cuda-emulated; bring all to one device",
        ),
        (lambda: KERNEL.launch(1, 1, np.zeros(1, int)), TypeError, "at least one argument must be a float32"),
        (lambda: KERNEL.launch(1, 1, np.zeros(1), (1,) * 33), ValueError, "up to 32 entries, got 33"),
    ],
)
def test_refusals(
    call: Callable[[], None], error: type[Exception], message: str, emulated: list[Launch]
) -> None:
    with pytest.raises(error, match=message):
        call()
    assert emulated == []


@pytest.mark.emulator
def test_contiguous_copies_only_what_is_not() -> None:
    x = np.arange(6.0).reshape(2, 3)
    assert contiguous(x) is x
    assert contiguous(None) is None
    turned = contiguous(x.T)
    assert turned.flags.c_contiguous
    np.testing.assert_array_equal(turned, x.T)
    assert contiguous(np.float64(3).reshape(())).shape == ()
    emulated = to_device(x, "cuda-emulated")
    assert type(contiguous(emulated.T)) is type(emulated)


# -------------------------------------------------------------------------------------------------- on CuPy


def test_compiled_once_a_file_and_device_and_launched_there(compiler: Compiler) -> None:
    x = FakeArray(np.zeros(4, np.float32))
    elsewhere = FakeArray(np.zeros(4, np.float32), device=1)
    for array in (x, x, elsewhere):
        KERNEL.for_each(4, array, None, 4, 1.5)
    assert len(compiler.sources) == 2
    source, options = compiler.sources[0]
    assert options == ("-std=c++17",)
    assert source == inlined_source(cuda_source_dir() / "im2col.cu")
    name, grid, block, (array, null, count, number) = compiler.launches[0]
    assert (name, grid, block, array) == ("im2col_float", (1, 1, 1), (256, 1, 1), x)
    assert (type(null), int(null)) == (np.uint64, 0)
    assert (type(count), type(number)) == (np.int64, np.float32)


def test_tables_are_structures_of_eight_bytes_an_entry(compiler: Compiler) -> None:
    x, y = FakeArray(np.zeros(4)), FakeArray(np.zeros(2))
    KERNEL.launch(1, 32, (x, None, y), (4, 5), (0.5, 0.25))
    pointers, sizes, numbers = compiler.launches[0][3]
    assert [t.size for t in (pointers, sizes, numbers)] == [1, 1, 1]  # What CuPy passes by value.
    assert [t.nbytes for t in (pointers, sizes, numbers)] == [256, 256, 256]
    assert pointers["entries"].tolist() == [x.data.ptr, 0, y.data.ptr] + 29 * [0]
    assert sizes["entries"].dtype == np.int64
    assert sizes["entries"].tolist() == [4, 5] + 30 * [0]
    assert numbers["entries"].dtype == np.float64
    text = (cuda_source_dir() / "common.cuh").read_text()
    assert f"TABLE_SIZE = {cuda.TABLE_SIZE};" in text


def test_a_compile_error_shows_the_kernel_and_the_first_lines(compiler: Compiler) -> None:
    compiler.log = "\n".join(f"im2col.cu({i}): error {i}" for i in range(40))
    with pytest.raises(KernelError, match=r"kernel im2col_float: im2col\.cu does not compile") as caught:
        KERNEL.for_each(1, FakeArray(np.zeros(1, np.float32)))
    lines = str(caught.value).splitlines()
    assert lines[1] == "  im2col.cu(0): error 0"
    assert len(lines) == cuda.FIRST_LINES + 2
    assert lines[-1] == "  ..."


def test_headers_are_part_of_the_source(tmp_path: Path) -> None:
    (tmp_path / "common.cuh").write_text("typedef int index_t;\n")
    (tmp_path / "more.cuh").write_text('#include "common.cuh"\nint more;\n')
    (tmp_path / "kernel.cu").write_text('// A kernel.\n#include "common.cuh"\n#include "more.cuh"\nint x;\n')
    source = inlined_source(tmp_path / "kernel.cu")
    assert source.count("typedef int index_t;") == 1
    assert not re.search(r"#\s*include", source)
    assert [line for line in source.splitlines() if line] == [
        '#line 1 "kernel.cu"',
        "// A kernel.",
        '#line 1 "common.cuh"',
        "typedef int index_t;",
        '#line 3 "kernel.cu"',
        '#line 1 "more.cuh"',
        "int more;",
        '#line 4 "kernel.cu"',
        "int x;",
    ]


def test_every_kernel_file_is_complete_without_its_headers() -> None:
    files = sorted(cuda_source_dir().glob("*.cu"))
    assert len(files) > 5
    for path in files:
        assert not re.search(r"^\s*#\s*include", inlined_source(path), re.M), path.name
