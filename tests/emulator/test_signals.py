"""What would end the whole program ends the kernel, with its line; every other signal goes where it went.

Each case runs in a process of its own: where the emulator does not catch it, that process is lost.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from minialex.backend.sources import cuda_source_dir

CHECKOUT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"),
    reason="signals are caught on Linux, on x86-64 and 64-bit ARM",
)

CUDA = r"""
#include "common.cuh"

extern "C" __global__ void count(Out<int> y) {
    __syncthreads();
    y[threadIdx.x] = threadIdx.x;
}
extern "C" __global__ void divide(Out<int> y) {
    const int by = threadIdx.x - 3;
    __syncthreads();
    y[threadIdx.x] = 100 / by;  // divide
}
extern "C" __global__ void remainder_of(Out<int> y) {
    const int by = threadIdx.x - 3;
    y[threadIdx.x] = 100 % by;  // remainder_of
}
__device__ int deeper(int n) {
    return n == -1 ? 0 : 1 + 2 * deeper(n + 1) % 7;  // recurse
}
extern "C" __global__ void recurse(Out<int> y) {
    __syncthreads();
    y[threadIdx.x] = deeper(threadIdx.x);
}
__device__ int telling(int n) {
    printf("%d\n", n);
    return n == -1 ? 0 : 1 + 2 * telling(n + 1) % 7;
}
extern "C" __global__ void recurse_and_tell(Out<int> y) {
    y[threadIdx.x] = telling(threadIdx.x);
}
extern "C" __global__ void large(Out<int> y) {
    int values[1 << 22];  // 16 MiB: further than the guard behind the stack.
    __syncthreads();
    for (int i = 0; i < 1 << 22; i += 1 << 10) values[i] = threadIdx.x;
    y[threadIdx.x] = values[(threadIdx.x + 1) << 10];
}
extern "C" __global__ void wild(Out<int> y) {
    int* nowhere = (int*)(8 * (size_t)blockIdx.x);
    __syncthreads();
    *nowhere = 1;  // wild
    y[threadIdx.x] = *nowhere;
}
extern "C" __global__ void local_end(Out<int> y) {
    int values[2][3] = {};
    __syncthreads();
    values[0][threadIdx.x / 2] = 1;  // local_end
    y[threadIdx.x] = values[0][1] + values[1][2];
}
extern "C" __global__ void spin(Out<int> y) {
    unsigned odd = 2 * y[0] + 1;
    while (odd != 2) odd *= 3;
    y[1] = odd;
}
extern "C" __global__ void slow(Out<unsigned> y) {
    unsigned x = y[0], n = 1u << 29;
    while (n--) x = x * 1664525u + 1013904223u;
    y[0] = x;
}
"""

PREAMBLE = """
import faulthandler, os, signal, sys, threading, time
from pathlib import Path
import numpy as np
from minialex.emulator import run
from minialex.errors import KernelError

def launch(entry, y, threads=8, name="snippet.cu"):
    source = Path(sys.argv[1]) / name
    run(source.stem, source, entry, 1, threads, [y], headers=Path(sys.argv[2]))

def fails(entry):
    try:
        launch(entry, np.ones(8, np.int32))
    except KernelError as error:
        print(error)
    else:
        print("nothing was noticed")

def goes_on(name="snippet.cu"):
    y = np.zeros(8, np.int32)
    launch("count", y, name=name)
    assert y.tolist() == list(range(8)), y

goes_on()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    (folder / "snippet.cu").write_text(CUDA, encoding="utf-8")
    # Two libraries need two texts.
    (folder / "other.cu").write_text(CUDA + "__device__ int other() { return 1; }\n", encoding="utf-8")
    return folder


def python(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PREAMBLE + script, str(folder), str(cuda_source_dir())]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=100)


def output_of(folder: Path, script: str) -> str:
    done = python(folder, script)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr}{done.stdout}"
    return done.stdout


DIVISION = "integer division by zero"
OUTSIDE = "an index outside a local array"
FULL = "the stack of a thread is full, 256 KiB: a recursion that does not end, or local arrays that are too"
# Kernel: what is said, and the thread if only one can be it.
FAULTS = {
    "divide": (DIVISION, "(3, 0, 0)"),
    "remainder_of": (DIVISION, "(3, 0, 0)"),
    "recurse": (FULL, ""),
    "large": (FULL, ""),
    "local_end": (OUTSIDE, ""),
    "wild": ("reads or writes memory that is not the kernel's", ""),
}
ON_X86 = pytest.mark.skipif(
    platform.machine() == "aarch64", reason="64-bit ARM divides by zero without a word"
)

MARKS = {
    DIVISION: ON_X86,
    OUTSIDE: pytest.mark.skipif(
        "clang" in os.environ.get("CXX", ""), reason="g++ sets the traps, Clang does not"
    ),
}


@pytest.mark.parametrize("place", ["main", "thread"])
@pytest.mark.parametrize(
    "entry",
    [pytest.param(name, marks=MARKS.get(said, ())) for name, (said, _) in FAULTS.items()],
)
def test_what_ends_a_program_ends_the_kernel(folder: Path, entry: str, place: str) -> None:
    """Several times, on Python's main thread and on another; what comes after is as if nothing had been."""
    script = f"""
def twice():
    for _ in range(2):
        fails({entry!r})
        goes_on()
if {place!r} == "main":
    twice()
else:
    thread = threading.Thread(target=twice)
    thread.start()
    thread.join()
goes_on()
print("end")
"""
    output = output_of(folder, script)
    said, thread = FAULTS[entry]
    assert output.endswith("end\n")
    assert output.count(said) == 2, output
    assert output.count(f"snippet.cu, {entry}: block (0, 0, 0), thread {thread}") == 2, output
    if f"// {entry}\n" in CUDA:
        line, text = next((i, t) for i, t in enumerate(CUDA.splitlines(), 1) if t.endswith(f"// {entry}"))
        assert output.count(f"\n    snippet.cu:{line}: {text.strip()}\n") == 2, output


def test_a_recursion_that_prints_leaves_no_lock_of_the_c_library_behind(folder: Path) -> None:
    output = output_of(folder, "fails('recurse_and_tell')\ngoes_on()\nb'1' * 10**8\nprint('end')\n")
    assert "the stack of a thread is full" in output
    assert output.endswith("end\n")


def test_libraries_that_run_at_once_end_in_any_order(folder: Path) -> None:
    """One is in the middle of a kernel while the other fails, and the other way round."""
    script = """
def slow():
    launch("slow", np.ones(8, np.uint32), threads=1, name="other.cu")
    goes_on("other.cu")
before = signal.getsignal(signal.SIGINT)
goes_on("other.cu")
for _ in range(2):
    thread = threading.Thread(target=slow)
    thread.start()
    for _ in range(20):
        fails("recurse")
        goes_on()
    thread.join()
    fails("recurse")
"""
    assert output_of(folder, script).count(FULL) == 42


@pytest.mark.parametrize("enabled", [False, True])
def test_a_crash_elsewhere_is_still_one(folder: Path, enabled: bool) -> None:
    """After a kernel has failed, and while one runs on another thread."""
    crash = "import ctypes\nctypes.string_at(8)\n"
    start = f"if {enabled}: faulthandler.enable()\nfails('recurse')\nsys.stdout.flush()\n"
    beside = (
        "threading.Thread(target=lambda: launch('spin', np.ones(8, np.int32))).start()\ntime.sleep(0.5)\n"
    )
    for script in (start + crash, start + beside + crash):
        done = python(folder, script)
        assert done.returncode == -11, done.stderr
        assert FULL in done.stdout
        assert ("Fatal Python error: Segmentation fault" in done.stderr) == enabled
        assert ("in string_at" in done.stderr) == enabled


def test_handlers_are_again_whose_they_were(folder: Path) -> None:
    script = """
def handlers():
    caught = [line for line in Path("/proc/self/status").read_text().splitlines() if "SigCgt" in line]
    return caught[0]
before = handlers()
for entry in ("recurse", "wild"):
    fails(entry)
    assert handlers() == before
goes_on()
assert handlers() == before
assert not int(before.split()[1], 16) & 1 << signal.SIGSEGV - 1
faulthandler.enable()
goes_on()
faulthandler._sigsegv()
"""
    done = python(folder, script)
    assert done.returncode == -11, done.stderr
    assert "Fatal Python error: Segmentation fault" in done.stderr


def test_ctrl_c_ends_a_loop_without_memory(folder: Path) -> None:
    script = """
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
start = time.perf_counter()
try:
    launch("spin", np.ones(8, np.int32))
except KeyboardInterrupt:
    print(time.perf_counter() - start)
goes_on()
fails("recurse")
goes_on()
"""
    seconds, *rest = output_of(folder, script).splitlines()
    assert float(seconds) < 10
    assert FULL in rest[0]


def test_a_handler_of_ctrl_c_that_returns_lets_the_kernel_go_on(folder: Path) -> None:
    """As the one with which a training finishes its step; Python runs it while the kernel waits."""
    script = """
seen = []
def one(threads=1):
    y = np.arange(8, dtype=np.uint32)
    launch("slow", y, threads)
    return y.tolist()
undisturbed = one()
signal.signal(signal.SIGINT, lambda number, frame: seen.append(time.perf_counter()))
def disturb():
    for _ in range(10):
        time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)
thread = threading.Thread(target=disturb)
thread.start()
disturbed = one()
end = time.perf_counter()
thread.join()
assert disturbed == undisturbed
early = [at for at in seen if at < end - 0.05]
print(len(early))
"""
    assert int(output_of(folder, script)) >= 3


def test_who_ignores_ctrl_c_goes_on_doing_so(folder: Path) -> None:
    script = """
signal.signal(signal.SIGINT, signal.SIG_IGN)
threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
launch("slow", np.arange(8, dtype=np.uint32), 1)
print("done")
"""
    assert output_of(folder, script) == "done\n"
