"""Every mistake that the emulator promises to notice is noticed, and the message says which and where."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minialex.emulator import building, use_seed
from minialex.errors import KernelError

Launch = Callable[..., None]

CUDA = r"""
#include "common.cuh"

extern "C" __global__ void copy(In<float> x, Out<float> y, index_t count) {
    FOR_EACH_INDEX(i, count) {
        y[i] = x[i];  // copy
    }
}
extern "C" __global__ void before(In<float> x, Out<float> y) {
    y[0] = *(x - 1);
}
extern "C" __global__ void shared_end(Out<float> y) {
    __shared__ float tile[32];
    tile[threadIdx.x] = 1.0f;  // shared_end
    y[threadIdx.x] = tile[threadIdx.x];
}
extern "C" __global__ void shared_row(Out<float> y) {
    __shared__ float tile[4][8];
    tile[0][threadIdx.x] = 1.0f;  // Inside the array, but of the next row.
    y[threadIdx.x] = tile[0][threadIdx.x];
}
extern "C" __global__ void unwritten(Out<int> y) {
    __shared__ int tile[2][40];
    if (threadIdx.x != 7 || blockIdx.x != 1) tile[1][threadIdx.x] = 1;
    __syncthreads();
    y[blockIdx.x * 32 + threadIdx.x] = tile[1][threadIdx.x];
}
extern "C" __global__ void no_barrier(Out<float> y) {
    __shared__ float tile[64];
    tile[threadIdx.x] = threadIdx.x;
    y[threadIdx.x] = tile[63 - threadIdx.x];
}
extern "C" __global__ void no_second_barrier(Out<float> y) {
    __shared__ float tile[64];
    tile[threadIdx.x] = threadIdx.x;
    __syncthreads();
    y[threadIdx.x] = tile[63 - threadIdx.x];
    tile[threadIdx.x] = 0.0f;
}
extern "C" __global__ void two_writers(Out<float> y) {
    __shared__ float total;
    total = threadIdx.x;
    __syncthreads();
    y[threadIdx.x] = total;
}
extern "C" __global__ void warp_out_of_step(Out<float> y) {
    __shared__ float tile[32];
    tile[threadIdx.x] = threadIdx.x;
    __syncwarp();
    const float next = tile[(threadIdx.x + 1) % 32];
    tile[threadIdx.x] = next;
    y[threadIdx.x] = next;
}
extern "C" __global__ void warps_apart(Out<float> y) {
    __shared__ float tile[64];
    tile[threadIdx.x] = threadIdx.x;
    __syncwarp();  // Orders a warp, and not two.
    y[threadIdx.x] = tile[63 - threadIdx.x];
}
extern "C" __global__ void all_write_one(Out<float> y) {
    y[0] = 1.0f;
}
extern "C" __global__ void blocks_write_one(Out<float> y) {
    if (threadIdx.x == 0) y[0] = 1.0f;
}
extern "C" __global__ void read_of_another_block(Out<float> y) {
    const float next = y[(blockIdx.x + 1) % gridDim.x];
    y[blockIdx.x] = next;
}
extern "C" __global__ void sum_in_place(Out<float> y) {
    // Everybody reads what the first thread changes.
    const float first = y[0];
    if (threadIdx.x == 0) y[0] = first + 1.0f;
}
extern "C" __global__ void early_return(Out<float> y, index_t count) {
    if (threadIdx.x >= count) return;
    y[threadIdx.x] = 1.0f;
    __syncthreads();  // early_return
}
extern "C" __global__ void two_barriers(Out<float> y) {
    if (threadIdx.x < 10)
        __syncthreads();  // first
    else
        __syncthreads();  // second
}
extern "C" __global__ void half_a_shuffle(Out<float> y) {
    float value = 1.0f;
    if (threadIdx.x < 16) value = __shfl_xor_sync(0xffffffffu, value, 1);  // half
    __syncthreads();  // other half
    y[threadIdx.x] = value;
}
extern "C" __global__ void returned_lane(Out<float> y) {
    if (threadIdx.x >= 20) return;
    y[threadIdx.x] = __shfl_down_sync(0xffffffffu, 1.0f, 16);
}
extern "C" __global__ void not_in_mask(Out<float> y) {
    y[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, 1.0f, 1);
}
extern "C" __global__ void from_outside_the_mask(Out<float> y) {
    if (threadIdx.x < 16) y[threadIdx.x] = __shfl_sync(0x0000ffffu, 1.0f, 20);
}
extern "C" __global__ void two_masks(Out<float> y) {
    y[threadIdx.x] = __shfl_xor_sync(threadIdx.x < 16 ? ~0u : 0x0fffffffu | 1u << threadIdx.x, 1.0f, 1);
}
extern "C" __global__ void unaligned(In<float> x, Out<float> y) {
    y[0] = load4(x + 1, 4 * threadIdx.x).a;
}
extern "C" __global__ void fours_end(In<float> x, Out<float> y) {
    y[threadIdx.x] = load4(x, 4 * threadIdx.x).a;
}
extern "C" __global__ void __launch_bounds__(64) bounded(Out<float> y) {}
extern "C" __global__ void half_set(Out<float> y, In<int> chosen) {
    float values[4];
    values[chosen[threadIdx.x]] = 1.0f;
    __syncthreads();
    for (int i = 0; i < 4; i++) y[4 * threadIdx.x + i] = values[i];
}
extern "C" __global__ void index_unset(Out<float> y, In<int> x) {
    int index;
    if (x[0]) index = x[0];
    y[index] = 1.0f;
}
extern "C" __global__ void kinds(In<unsigned char> bytes, Out<double> y, int n, index_t m, float a,
                                 double b, unsigned seed) {}
extern "C" __global__ void three(In<float> a, In<float> b, Out<float> c) {}
extern "C" __global__ void tabled(const Table<Out<float>> ys) {
    if (ys[threadIdx.x] != nullptr) ys[threadIdx.x][4] = 1.0f;
}
"""


def line_with(text: str) -> int:
    (number,) = (i for i, line in enumerate(CUDA.splitlines(), 1) if text in line)
    return number


X, Y, Z = np.zeros(100, np.float32), np.zeros(128, np.float32), np.zeros(128, np.float32)

# Kernel, grid, block, arguments, and what the message must say.
MISTAKES: dict[str, tuple[str, Any, Any, tuple[Any, ...], str]] = {
    "a read behind the end": (
        "copy",
        2,
        64,
        (X, Y, 101),
        r"block \(1, 0, 0\), thread \(36, 0, 0\): x\[100\] is out of range: x has 100 element",
    ),
    "a write behind the end": (
        "copy",
        1,
        32,
        (Y, X[:4].copy(), 5),
        r"y\[4\] is out of range: y has 4 element",
    ),
    "a read before the beginning": ("before", 1, 1, (X, Y), r"x\[-1\] is out of range"),
    "a null pointer": ("copy", 1, 1, (None, Y, 1), r"x is a null pointer \(None was passed\), and element 0"),
    "an empty array": ("copy", 1, 1, (X[:0].copy(), Y, 1), r"x\[0\] is out of range: x has no elements\n"),
    "the end of a shared array": (
        "shared_end",
        1,
        33,
        (Y,),
        r"thread \(32, 0, 0\).*shared tile\[32\] is out of range",
    ),
    "the end of a shared row": (
        "shared_row",
        1,
        9,
        (Y,),
        "shared tile: index 8 of axis 1 is out of range, 0 .. 7",
    ),
    "shared memory that nobody wrote": (
        "unwritten",
        2,
        32,
        (np.zeros(64, np.int32),),
        r"block \(1, 0, 0\), thread \(7, 0, 0\).*shared tile\[1\]\[7\] is read before any thread",
    ),
    "no barrier between write and read": (
        "no_barrier",
        1,
        64,
        (Y,),
        r"race: \w+ shared tile\[\d+\], which thread \(\d+, 0, 0\) \w+ with no|before any",
    ),
    "no barrier between read and write": (
        "no_second_barrier",
        1,
        64,
        (Y,),
        r"race: (writes|reads) shared tile\[\d+\], which thread",
    ),
    "two writers of one shared number": (
        "two_writers",
        1,
        2,
        (Y,),
        "race: writes shared total, which thread .* wrote",
    ),
    "a warp out of step": ("warp_out_of_step", 1, 32, (Y,), r"race: \w+ shared tile\[\d+\]"),
    "two warps that wait apart": ("warps_apart", 1, 64, (Y,), r"race: \w+ shared tile\[\d+\]|before any"),
    "threads that write one element": (
        "all_write_one",
        1,
        2,
        (Y,),
        r"race: writes y\[0\], which thread .* wrote",
    ),
    "blocks that write one element": (
        "blocks_write_one",
        2,
        8,
        (Y,),
        r"race: writes y\[0\], which a thread of another block wrote",
    ),
    "a block that reads another's": (
        "read_of_another_block",
        4,
        1,
        (Y,),
        r"race: \w+ y\[\d\], which a thread of another block",
    ),
    "a sum in place": (
        "sum_in_place",
        1,
        32,
        (Y,),
        r"race: (writes y\[0\], which .* read|reads y\[0\], which .* wrote)",
    ),
    "a barrier after an early return": (
        "early_return",
        1,
        64,
        (Y, 40),
        r"barrier: 40 of 64 threads wait; thread \(0, 0, 0\) waits .*thread \(40, 0, 0\) has returned",
    ),
    "two barriers at once": (
        "two_barriers",
        1,
        32,
        (Y,),
        r"divergent barrier: .*waits at snippet.cu:\d+.*waits at snippet.cu:\d+",
    ),
    "a shuffle without half of its warp": (
        "half_a_shuffle",
        1,
        32,
        (Y,),
        r"a warp cannot go on: thread \(0, 0, 0\) waits .* but thread \(16, 0, 0\) waits",
    ),
    "a value of a lane that returned": (
        "returned_lane",
        1,
        32,
        (Y,),
        "takes the value of lane 2., which has returned",
    ),
    "a lane that is not in its own mask": (
        "not_in_mask",
        1,
        32,
        (Y,),
        "lane (1[6-9]|2.|3.) calls a warp function with mask 0x0000ffff",
    ),
    "a value from outside the mask": (
        "from_outside_the_mask",
        1,
        32,
        (Y,),
        "lane 20, which is not in the mask",
    ),
    "masks that differ": ("two_masks", 1, 32, (Y,), "called with different masks"),
    "four elements at an odd place": (
        "unaligned",
        1,
        1,
        (X, Y),
        r"x\[1\] is misaligned: .* must lie on a multiple of 16",
    ),
    "four elements over the end": ("fours_end", 1, 26, (X, Y), r"x\[100\] is out of range"),
    "a table's array": (
        "tabled",
        1,
        3,
        ((Y, Z, np.zeros(4, np.float32)),),
        r"ys\[2\]\[4\] is out of range: ys\[2\] has 4",
    ),
    "more arrays than a table holds": ("tabled", 1, 1, ((None,) * 33,), "up to 32 values, got 33"),
    "no tuple for a table": ("tabled", 1, 1, (Y,), "must be a tuple of up to 32 values, got ndarray"),
    "a wrong array in a table": (
        "tabled",
        1,
        1,
        ((Y, Y.astype(float)),),
        r"argument 0, ys\[1\], must be an array of float32, got float64",
    ),
    "a block that is too large": ("copy", 1, 1025, (X, Y, 1), "block.x is 1025|1025 threads"),
    "a block that is too large in all": (
        "copy",
        1,
        (32, 32, 2),
        (X, Y, 1),
        "2048 threads; a GPU takes up to 1024",
    ),
    "a block without threads": ("copy", 1, 0, (X, Y, 1), "block.x is 0; a GPU takes 1"),
    "a grid that is too tall": ("copy", (1, 70000), 1, (X, Y, 1), "grid.y is 70000; a GPU takes 0 .. 65535"),
    "a block above the launch bounds": ("bounded", 1, 65, (Y,), "65 threads; __launch_bounds__ promises 64"),
    "a kernel that is not there": (
        "copied",
        1,
        1,
        (X,),
        "there is no such kernel .*; there is: copy, before",
    ),
    "too few arguments": (
        "copy",
        1,
        1,
        (X, Y),
        r"takes 3 arguments \(x: in array of float32, y: out .*, count: int64\), got 2",
    ),
    "memory behind another array that is only read": (
        "three",
        1,
        1,
        (Z, Z[10:20], Z[30:40]),
        "c is written, but shares memory with a, and both are __restrict__",
    ),
    "memory that is written and read as two arguments": (
        "copy",
        1,
        1,
        (Y[1:], Y[:127], 1),
        "y is written, but shares memory with x, and both are __restrict__",
    ),
}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("entry", "grid", "block", "args", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named(
    launch: Launch, entry: str, grid: Any, block: Any, args: tuple[Any, ...], message: str, seed: int
) -> None:
    with use_seed(seed), pytest.raises(KernelError, match=message) as raised:
        launch(entry, grid, block, *args)
    assert str(raised.value).startswith(f"snippet.cu, {entry}: ")
    # The same library goes on as if nothing had happened.
    y = np.full(128, np.nan, np.float32)
    launch("copy", 2, 32, X, y, 100)
    assert (y[:100] == 0).all()
    assert np.isnan(y[100:]).all()


NUMBERS = np.int32(1), np.int64(2), np.float32(3), np.float64(4), np.uint32(5)
KINDS = np.zeros(3, np.uint8), np.zeros(3), *NUMBERS


def test_arguments_of_the_right_kinds(launch: Launch) -> None:
    launch("kinds", 1, 1, *KINDS)
    launch("kinds", 1, 1, None, None, 1, 2, 3.0, 4.0, 5)


def test_arrays_that_are_only_read_may_share_memory(launch: Launch) -> None:
    launch("three", 1, 1, Z, Z[10:20], X)
    launch("three", 1, 1, Z[:10], Z[20:], Z[10:20])


def read_only() -> np.ndarray:
    array = np.zeros(3)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (0, np.zeros(3, np.int8), "argument 0, bytes, must be an array of uint8, got int8"),
        (0, 1, "argument 0, bytes, must be an array of uint8 or None, got int"),
        (0, np.zeros((4, 4), np.uint8)[:, ::2], r"argument 0, bytes, must be C-contiguous; shape \(4, 2\)"),
        (1, np.zeros(3, np.float32), "argument 1, y, must be an array of float64, got float32"),
        (1, read_only(), "argument 1, y, is written by the kernel, and must be a writable array"),
        (2, np.int64(1), "argument 2, n, must be a scalar of int32, got numpy.int64"),
        (2, 2**31, "argument 2, n, is int32, too narrow for 2147483648"),
        (2, np.uint32(1), "argument 2, n, must be a scalar of int32, got numpy.uint32"),
        (3, np.int32(1), "argument 3, m, must be a scalar of int64, got numpy.int32"),
        (3, 1.0, "argument 3, m, must be a scalar of int64, got float"),
        (3, np.zeros(1, np.int64), "argument 3, m, must be a scalar of int64, got ndarray"),
        (4, np.float64(1), "argument 4, a, must be a scalar of float32, got numpy.float64"),
        (5, np.float32(1), "argument 5, b, must be a scalar of float64, got numpy.float32"),
        (5, None, "argument 5, b, must be a scalar of float64, got NoneType"),
        (6, -1, "argument 6, seed, is uint32, too narrow for -1"),
    ],
)
def test_an_argument_of_a_wrong_kind_is_named(
    launch: Launch, position: int, value: Any, message: str
) -> None:
    args: list[Any] = list(KINDS)
    args[position] = value
    with pytest.raises(KernelError, match=message):
        launch("kinds", 1, 1, *args)


def test_the_line_of_the_kernel_is_named(launch: Launch) -> None:
    lines = {
        "copy": "y[i] = x[i];  // copy",
        "shared_end": "tile[threadIdx.x] = 1.0f;  // shared_end",
        "unwritten": "y[blockIdx.x * 32 + threadIdx.x] = tile[1][threadIdx.x];",
    }
    for entry, block, args in (
        ("copy", 1, (X, Y[:0].copy(), 1)),
        ("shared_end", 33, (Y,)),
        ("unwritten", 32, (np.zeros(64, np.int32),)),
    ):
        with pytest.raises(KernelError) as raised:
            launch(entry, 2, block, *args)
        assert str(raised.value).endswith(f"\n    snippet.cu:{line_with(lines[entry])}: {lines[entry]}")
    barriers = f"snippet.cu:{line_with('// first')}, .*snippet.cu:{line_with('// second')};"
    with pytest.raises(KernelError, match=barriers):
        launch("two_barriers", 1, 32, Y)
    barriers = f"snippet.cu:{line_with('// half')} .*snippet.cu:{line_with('// other half')}"
    with pytest.raises(KernelError, match=barriers):
        launch("half_a_shuffle", 1, 32, Y)


COMMON = '#include "common.cuh"\nextern "C" __global__ void '

# A text that must not compile, and the first error, to its end.
REFUSED = {
    "a write through In": (
        COMMON + "f(In<float> x) {\n    x[0] = 1.0f;\n}\n",
        r"snippet.cu:3: error: lvalue required.*\n    x\[0\] = 1.0f;",
    ),
    "an atomic sum": (
        COMMON + "f(Out<float> y) {\n    atomicAdd(&y[0], 1.0f);\n}\n",
        r"snippet.cu:3: error: .*\n    atomicAdd\(&y\[0\], 1.0f\);\n"
        r"snippet.cu:3: error: 'atomicAdd' was not declared",
    ),
    "a place kept as if it were a value": (
        COMMON + "f(Out<float> y) {\n    auto v = y[0];\n    y[1] = v + 1.0f;\n}\n",
        r"snippet.cu:4: error: .*\n    y\[1\] = v \+ 1.0f;",
    ),
    "a plain pointer": (
        COMMON + "g(In<float> x) {}\n" + COMMON.split("\n")[1] + "f(\n    const float* x) {}\n",
        "snippet.cu:3: error: a kernel parameter must be In<T> or Out<T>, which know their bounds, not a "
        r'pointer\n    extern "C" __global__ void f\($',
    ),
    "a struct": (
        "struct S { int a; };\n" + COMMON + "f(S s) {}\n",
        r"snippet.cu:3: error: a kernel parameter must be In<T>, Out<T>, an integer or a real number"
        r'\n    extern "C" __global__ void f\(S s\) {}$',
    ),
    "dynamic shared memory": (
        COMMON + "f() {\n    extern __shared__ float t[];\n}\n",
        r"^snippet.cu:3: `extern __shared__ float t\[\];`: the emulator has no dynamic shared memory",
    ),
    "shared memory in a macro of a header": (
        '#define TWO int a; \\\n    extern __shared__ float t[]\n#line 40 "header.cuh"\n'
        + COMMON
        + "f() {\n    TWO;\n}\n",
        r"^header.cuh:42: `extern __shared__ float t\[\];`: the emulator has no dynamic shared memory",
    ),
    "an error in what a macro gives": (
        "#define BODY(T) \\\n    T a = 1; \\\n    a = nonsense;\n" + COMMON + "f() {\n    BODY(int)\n}\n",
        r"snippet.cu:6: error: 'nonsense' was not declared in this scope\n    BODY\(int\)$",
    ),
    "an error behind a macro": (
        COMMON + "f(index_t n) {\n    FOR_EACH_INDEX(i, n) OFFSET_NCHW(i, i, i, i, 1, 2, nonsense);\n}\n",
        r"snippet.cu:3: error: 'nonsense' was not declared in this scope\n    FOR_EACH_INDEX.*$",
    ),
    "an error in a header, which this file asked for": (
        COMMON + "f(In<float> x, Out<float> y) {\n\n    load4(x, nullptr);\n    warp_reduce(x, Sum());\n}\n",
        r"common.cuh:\d+: error: .*__shfl_xor_sync.* \(asked for at snippet.cu:5\)\n    value = combine",
    ),
    "a brace that is missing": (
        COMMON
        + "f(Out<char> y) {\n    if (true) {\n    y[0] = '}';\n}\n"
        + COMMON.split("\n")[1]
        + "g() {}\n",
        r'snippet.cu:2: error: this { is never closed\n    extern "C" __global__ void f\(Out<char> y\) {$',
    ),
    "a brace too many": (
        COMMON + "f() {\n}\n}\n",
        r"snippet.cu:4: error: expected declaration before '}' token\n    }$",
    ),
    "a parenthesis that is missing": (
        COMMON + "f(Out<float> y {\n}\n",
        r"snippet.cu:2: error: expected '\)' before '{' token\n",
    ),
    "a header that is not there": (
        '#include "uncommon.cuh"\n',
        r"snippet.cu:1: error: .*uncommon.cuh(: No such|. file not).*\n    #include \"uncommon.cuh\"$",
    ),
    "a kernel with a name of C++": (
        '#include "common.cuh"\n\n__device__ int g() { return 0; }\n__global__ void f(Out<float> y) {}\n',
        r'^snippet.cu:4: kernel f needs extern "C" in front of __global__: without it C\+\+ gives',
    ),
    "more errors than one reads": (
        COMMON + "f() {\n" + "".join(f"    a{i};\n" for i in range(20)) + "}\n",
        r"snippet.cu:6: error: 'a3' was not declared in this scope\n    a3;\n\.\.\. and 16 more$",
    ),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_compile_is_shown_with_its_line(
    launch_text: Callable[[str], Launch], text: str, message: str
) -> None:
    with pytest.raises(KernelError) as raised:
        launch_text(text)("f", 1, 1)
    assert re.search(message, str(raised.value)), raised.value
    assert len(str(raised.value).splitlines()) <= 10
    assert "emulator.hpp" not in str(raised.value)


def test_a_compiler_in_another_language_is_understood(
    launch_text: Callable[[str], Launch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("LANGUAGE", "de")
    with pytest.raises(KernelError, match=r"snippet.cu:3: error: 'nonsense' was not"):
        launch_text(COMMON + "f() {\n    nonsense;\n}\n")("f", 1, 1)


def test_a_local_variable_that_nobody_set_does_not_look_like_a_number(launch: Launch) -> None:
    """From g++ 12 on. Threads before it have left other values on the same stack."""
    compiler = building.find_compiler()
    if not building._accepts(compiler, building.PATTERN_FLAG):
        pytest.skip(f"{compiler} does not know {building.PATTERN_FLAG}")
    y, chosen = np.zeros((64, 4), np.float32), np.full(64, 2, np.int32)
    launch("half_set", 1, 64, y, chosen)
    assert (y[:, 2] == 1).all()
    assert (y[:, [0, 1, 3]] < -1e38).all()
    with pytest.raises(KernelError, match=r"y\[-\d{6,}\] is out of range"):
        launch("index_unset", 1, 1, y, np.zeros(1, np.int32))
