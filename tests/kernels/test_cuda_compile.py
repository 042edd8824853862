"""Every .cu file compiles for three generations of GPUs, and no kernel of it spills registers.

By nvcc where it is there; else by NVRTC, the compiler in a library that CuPy uses, which needs no driver.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from minialex.backend import cuda_source_dir
from minialex.backend.cuda import inlined_source

# Turing, the oldest that CUDA 13 knows; Ampere; Hopper with its own instructions.
ARCHITECTURES = {"sm_75": "compute_75", "sm_80": "compute_80", "sm_90a": "compute_90a"}
# float64 is never rounded to fewer digits.
WITHOUT_DOUBLE = {"round_to_bfloat16_float"}
SOURCES = sorted(cuda_source_dir().glob("*.cu"))


@dataclass(frozen=True)
class Function:
    """What the assembler says of one function for one architecture. Sizes are bytes a thread."""

    name: str
    architecture: str
    stack: int
    spilled: int

    def __str__(self) -> str:
        return (
            f"{self.name} ({self.architecture}): a stack frame of {self.stack} bytes, {self.spilled} spilled"
        )


def functions_in(log: str) -> list[Function]:
    """Every function in the output of `ptxas -v`."""
    found, name, architecture = [], "", ""
    for line in log.splitlines():
        if match := re.search(r"Compiling entry function '(\S+)' for '(\w+)'", line):
            architecture = match[2]
        elif match := re.search(r"Function properties for (\S+)", line):
            name = match[1]
        elif match := re.search(
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line
        ):
            stack, stores, loads = map(int, match.groups())
            found.append(Function(name, architecture, stack, stores + loads))
    return found


# -------------------------------------------------------------------------------------------- the compilers


def compile_with_nvcc(source: Path, folder: Path) -> str:
    """The assembler's words for every architecture. Raises: AssertionError with the compiler's errors."""
    targets = [f"-gencode=arch={compute},code={sm}" for sm, compute in ARCHITECTURES.items()]
    strict = ["-std=c++17", "-Werror=all-warnings", "-Xptxas=-v"]
    output = ["-fatbin", "-o", str(folder / f"{source.stem}.fatbin")]
    command = ["nvcc", *strict, *targets, *output, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def nvrtc() -> ctypes.CDLL | None:
    """The library, of a wheel or of the system."""
    wheels = importlib.util.find_spec("nvidia")
    folders = [Path(p) for p in (wheels.submodule_search_locations or [])] if wheels else []
    files = sorted(file for folder in folders for file in folder.glob("*/lib/libnvrtc*.so.*"))
    files = [file for file in files if ".alt." not in file.name]
    if toolkit := os.environ.get("CUDA_PATH"):
        files += sorted(Path(toolkit).glob("lib64/libnvrtc.so"))
    elif system := ctypes.util.find_library("nvrtc"):
        files.append(Path(system))
    try:
        # Its second half is looked for by name: what is loaded already is found.
        libraries = [ctypes.CDLL(str(file), ctypes.RTLD_GLOBAL) for file in files]
    except OSError:
        return None
    return next((library for library in libraries if hasattr(library, "nvrtcCompileProgram")), None)


def compile_with_nvrtc(source: Path, folder: Path) -> str:
    """As compile_with_nvcc."""
    library = nvrtc()
    assert library is not None
    text, log = inlined_source(source).encode(), ""
    for sm in ARCHITECTURES:
        program, length = ctypes.c_void_p(), ctypes.c_size_t()
        name = source.name.encode()
        assert library.nvrtcCreateProgram(ctypes.byref(program), text, name, 0, None, None) == 0
        flags = [f"--gpu-architecture={sm}".encode(), b"-std=c++17", b"--ptxas-options=-v"]
        result = library.nvrtcCompileProgram(program, len(flags), (ctypes.c_char_p * len(flags))(*flags))
        library.nvrtcGetProgramLogSize(program, ctypes.byref(length))
        buffer = ctypes.create_string_buffer(length.value)
        library.nvrtcGetProgramLog(program, buffer)
        library.nvrtcDestroyProgram(ctypes.byref(program))
        words = buffer.value.decode()
        assert result == 0, f"{source.name} for {sm}:\n{words}"
        assert "warning" not in words, f"{source.name} for {sm}:\n{words}"
        log += words
    return log


@pytest.fixture(scope="module")
def compile_source() -> Callable[[Path, Path], str]:
    """compile_with_nvcc or compile_with_nvrtc."""
    if shutil.which("nvcc"):
        return compile_with_nvcc
    if nvrtc() is not None:
        return compile_with_nvrtc
    pytest.skip("no CUDA compiler: neither nvcc nor the package nvidia-cuda-nvrtc, which CuPy uses")


# ------------------------------------------------------------------------------------------------- the tests


@pytest.mark.parametrize("source", SOURCES, ids=[source.stem for source in SOURCES])
def test_it_compiles_and_no_kernel_spills(
    source: Path, compile_source: Callable[[Path, Path], str], tmp_path: Path
) -> None:
    functions = functions_in(compile_source(source, tmp_path))
    kernels = {f"{f.name} {f.architecture}" for f in functions}
    for architecture in ARCHITECTURES:
        floats = [f.name for f in functions if f.name.endswith("_float") and f.architecture == architecture]
        assert floats, f"{source.name}: no kernel for float and {architecture}"
        real = set(floats) - WITHOUT_DOUBLE
        twins = {f"{name.removesuffix('float')}double {architecture}" for name in real}
        assert twins <= kernels, f"{source.name}: kernels for float without one for double"
    bad = [str(f) for f in functions if f.stack or f.spilled]
    assert not bad, f"{source.name}:\n" + "\n".join(bad)


def test_there_are_files_to_compile() -> None:
    assert {"im2col", "convolution", "max_pooling"} <= {source.stem for source in SOURCES}


PLANTED = """
extern "C" __global__ void with_a_stack(float* x, int n) {
    float kept[64];
    for (int i = 0; i < 64; ++i) kept[i] = x[i];
    for (int i = 0; i < n; ++i) x[i] = kept[(i * 37) % 64];
}
extern "C" __global__ void without(float* x) { x[threadIdx.x] = 1.0f; }
"""


def test_a_stack_frame_is_found_with_its_kernels_name(
    compile_source: Callable[[Path, Path], str], tmp_path: Path
) -> None:
    source = tmp_path / "planted.cu"
    source.write_text(PLANTED, encoding="utf-8")
    functions = functions_in(compile_source(source, tmp_path))
    assert {f.architecture for f in functions} == set(ARCHITECTURES)
    assert {f.name for f in functions if f.stack} == {"with_a_stack"}


@pytest.mark.parametrize("line", ["int unused = 1;", "undeclared = 1;"])
def test_errors_fail_and_so_do_warnings(
    line: str, compile_source: Callable[[Path, Path], str], tmp_path: Path
) -> None:
    source = tmp_path / "planted.cu"
    source.write_text(f'extern "C" __global__ void kernel(float* x) {{ {line} }}', encoding="utf-8")
    with pytest.raises(AssertionError, match=line.split(" ")[line.startswith("int")]):
        compile_source(source, tmp_path)


def test_spills_are_read_from_the_log() -> None:
    log = """
ptxas info    : Compiling entry function 'a_float' for 'sm_90a'
ptxas info    : Function properties for a_float
    16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers
ptxas info    : Compiling entry function 'b_double' for 'sm_75'
ptxas info    : Function properties for b_double
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
"""
    assert functions_in(log) == [Function("a_float", "sm_90a", 16, 12), Function("b_double", "sm_75", 0, 0)]
