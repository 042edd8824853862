"""Right kernels give the right numbers, whatever the order in which their threads run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from minialex.backend.sources import cuda_source_dir
from minialex.emulator import building, run, use_seed
from minialex.errors import UsageError

SEEDS = (0, 1, 2, 3)
Launch = Callable[..., None]

CUDA = r"""
#include "common.cuh"

extern "C" __global__ void numbers(Out<int> y) {
    const index_t block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const index_t thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    Out<int> mine = y + 6 * (block * (blockDim.x * blockDim.y * blockDim.z) + thread);
    mine[0] = blockIdx.x, mine[1] = blockIdx.y, mine[2] = blockIdx.z;
    mine[3] = threadIdx.x, mine[4] = threadIdx.y, mine[5] = threadIdx.z;
}

// Each block turns its tile around.
template <class T>
__device__ void transpose_body(In<T> x, Out<T> y, index_t H, index_t W) {
    __shared__ T tile[4][8 + 1];
    const index_t h = blockIdx.y * 4 + threadIdx.y, w = blockIdx.x * 8 + threadIdx.x;
    if (h < H && w < W) tile[threadIdx.y][threadIdx.x] = x[h * W + w];
    __syncthreads();
    if (h < H && w < W) y[w * H + h] = tile[threadIdx.y][threadIdx.x];
}
extern "C" __global__ void __launch_bounds__(32) transpose_float(In<float> x, Out<float> y, index_t H,
                                                                 index_t W) {
    transpose_body<float>(x, y, H, W);
}
extern "C" __global__ void transpose_double(In<double> x, Out<double> y, index_t H, index_t W) {
    transpose_body<double>(x, y, H, W);
}

// Everything moves one place to the left, again and again: two barriers a round.
extern "C" __global__ void rotate(Out<int> y, index_t rounds) {
    __shared__ int places[100];
    int value = threadIdx.x;
    for (index_t i = 0; i < rounds; i++) {
        places[threadIdx.x] = value;
        __syncthreads();
        value = places[(threadIdx.x + 1) % blockDim.x];
        __syncthreads();
    }
    y[threadIdx.x] = value;
}

extern "C" __global__ void shuffles(Out<int> y, int width) {
    const int me = threadIdx.x;
    y[me] = __shfl_sync(~0u, me, 3, width);
    y[64 + me] = __shfl_down_sync(~0u, me, 5, width);
    y[128 + me] = __shfl_up_sync(~0u, me, 5, width);
    y[192 + me] = __shfl_xor_sync(~0u, me, 6, width);
}

extern "C" __global__ void halves(Out<double> y) {
    // The two halves of a warp go their own ways, with masks of their own.
    double value = threadIdx.x + 0.5;
    if (threadIdx.x < 16)
        value += __shfl_xor_sync(0x0000ffffu, value, 1);
    else
        value += __shfl_down_sync(0xffff0000u, value, 1);
    __syncwarp();
    y[threadIdx.x] = value;
}

extern "C" __global__ void votes(Out<unsigned> y) {
    const int odd = threadIdx.x % 2, small = threadIdx.x < 5;
    const unsigned ballot = __ballot_sync(~0u, odd);
    const int any = __any_sync(~0u, small), all = __all_sync(~0u, small);
    const int count = __syncthreads_count(small);
    const int either = __syncthreads_or(small), both = __syncthreads_and(small);
    Out<unsigned> mine = y + 6 * threadIdx.x;
    mine[0] = ballot, mine[1] = any, mine[2] = all, mine[3] = count, mine[4] = either, mine[5] = both;
}

template <class T>
__device__ void reduce_body(In<T> x, Out<T> sums, Out<T> maxima, index_t count) {
    T sum = T(0), largest = x[0];
    FOR_EACH_INDEX(i, count) {
        sum += x[i];
        largest = x[i] > largest ? x[i] : largest;
    }
    sum = block_sum(sum);
    largest = block_max(largest);
    sums[THREAD_INDEX] = sum;
    maxima[THREAD_INDEX] = largest;
}
extern "C" __global__ void reduce_float(In<float> x, Out<float> sums, Out<float> maxima, index_t count) {
    reduce_body<float>(x, sums, maxima, count);
}
extern "C" __global__ void reduce_double(In<double> x, Out<double> sums, Out<double> maxima, index_t count) {
    reduce_body<double>(x, sums, maxima, count);
}

// Lanes of one warp hand on values without a barrier of the block: __syncwarp() is enough.
extern "C" __global__ void warp_tree(In<float> x, Out<float> y) {
    __shared__ float tree[64];
    const int lane = threadIdx.x % 32;
    tree[threadIdx.x] = x[threadIdx.x];
    for (int distance = 16; distance > 0; distance /= 2) {
        __syncwarp();
        const float above = lane < distance ? (float)tree[threadIdx.x + distance] : 0.0f;
        __syncwarp();
        tree[threadIdx.x] += above;
    }
    if (lane == 0) y[threadIdx.x / 32] = tree[threadIdx.x];
}

extern "C" __global__ void add_rows(const Table<In<float>> rows, const Table<index_t> sizes, Out<float> y,
                                    float start) {
    float sum = start;
    for (index_t i = 0; i < TABLE_SIZE; i++)
        if (rows[i] != nullptr)
            for (index_t k = 0; k < sizes[i]; k++) sum += rows[i][k];
    y[0] = sum;
}

extern "C" __global__ void scalars(Out<double> y, bool a, unsigned char b, int c, unsigned d, index_t e,
                                   unsigned long long f, float g, double h) {
    y[0] = a, y[1] = b, y[2] = c, y[3] = d, y[4] = e, y[5] = f, y[6] = g, y[7] = h;
}

extern "C" __global__ void fours(In<double> x, Out<double> y) {
    const Four<double> four = load4(x, 4 * threadIdx.x);
    store4(y, 4 * threadIdx.x, Four<double>{four.d, four.c, four.b, four.a});
}

extern "C" __global__ void arithmetic(In<unsigned> x, Out<unsigned> y) {
    const unsigned a = x[0], b = x[1];
    y[0] = __umulhi(a, b), y[1] = __mulhi((int)a, (int)b);
    y[2] = __umul24(a, b), y[3] = __mul24((int)a, (int)b);
    y[4] = __popc(a), y[5] = __clz(b), y[6] = __ffs(b), y[7] = __float_as_uint(__uint_as_float(a));
    y[8] = __umul64hi((unsigned long long)a << 32, (unsigned long long)b << 32) >> 32;
}

// Elements on both sides of every operator that changes one.
extern "C" __global__ void changes(Out<int> y) {
    __shared__ int a[2], total;
    a[0] = 23, a[1] = 5, total = 100;
    y[0] = 23, y[0] += a[1], y[1] = 23, y[1] -= a[1], y[2] = 23, y[2] *= a[1], y[3] = 23, y[3] /= a[1];
    y[4] = 23, y[4] %= a[1], y[5] = 16, y[5] |= a[1], y[6] = 23, y[6] &= a[1], y[7] = 23, y[7] ^= a[1];
    y[8] = a[0] + a[1], y[9] = a[0] > a[1] ? a[0] : a[1], y[10] = -a[0], y[11] = !a[0], y[12] = a[0] = a[1];
    y[13] = y[8]++, y[14] = ++y[9], y[15] = y[1]--, y[16] = --y[2];
    total += a[1], total -= y[0], total *= a[1], y[17] = total;
    y[18] = *(y + 17), *(y + 19) = (int)max(a[0], a[1]);
}

// Shared and written arrays go into helpers that read or write.
template <class T>
__device__ T total(In<T> x, index_t count) {
    T sum = T(0);
    for (index_t i = 0; i < count; i++) sum += x[i];
    return sum;
}
template <class T>
__device__ void fill(Out<T> x, index_t count, T value) {
    for (index_t i = 0; i < count; i++) x[i] = value;
}
extern "C" __global__ void helpers(Out<float> y) {
    __shared__ float line[6], square[2][3];
    fill(line, 6, 2.0f);
    fill(line + 2, 2, 5.0f);
    fill(square[0], 3, 7.0f);
    fill<float>(square[1], 3, 1.0f);
    y[0] = total(line, 6), y[1] = total<float>(square[0], 3), y[2] = total(square[1], 3);
    y[3] = total(y, 3) + __ldg(y + 1);
    Out<float> end = y + 5;
    end -= 1;
    if (end) end[0] = *(end - 1);
}

// Eight barriers, and nothing else.
extern "C" __global__ void barriers(Out<float> y) {
    __syncthreads(), __syncthreads(), __syncthreads(), __syncthreads();
    __syncthreads(), __syncthreads(), __syncthreads(), __syncthreads();
}

extern "C" __global__ void order(Out<int> y, Out<int> next) {
    printf("%d ", (int)threadIdx.x);
    __syncthreads();
    printf("%d ", (int)(1000 + threadIdx.x));
}

extern "C" __global__ void forever(In<float> x, Out<float> y) {
    float sum = 0;
    for (index_t i = 0; x[0] == 0; i++) sum += x[0];
    y[0] = sum;
}
"""


def test_every_thread_of_a_three_dimensional_grid_runs_once(launch: Launch) -> None:
    grid, block = (3, 2, 4), (5, 3, 2)
    y = np.full((24, 30, 6), -1, np.int32)
    launch("numbers", grid, block, y)
    for row, extents in enumerate((grid, block)):
        z, y_, x = np.indices(extents[::-1]).reshape(3, -1)
        wanted = np.stack([x, y_, z], axis=1)
        got = (y[:, 0, :3], y[0, :, 3:])[row]
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("seed", SEEDS)
def test_shared_memory_and_a_barrier(launch: Launch, seed: int, dtype: str) -> None:
    x = np.arange(13 * 19, dtype=dtype).reshape(13, 19)
    y = np.full((19, 13), np.nan, dtype)
    name = {"float32": "transpose_float", "float64": "transpose_double"}[dtype]
    with use_seed(seed):
        launch(name, (3, 4), (8, 4), x, y, 13, 19)
    np.testing.assert_array_equal(y, x.T)


@pytest.mark.parametrize("seed", SEEDS)
def test_many_barriers_and_a_last_warp_that_is_not_full(launch: Launch, seed: int) -> None:
    y = np.full(100, -1, np.int32)
    with use_seed(seed):
        launch("rotate", 1, 100, y, 7)
    np.testing.assert_array_equal(y, (np.arange(100) + 7) % 100)


@pytest.mark.parametrize("width", [32, 16, 8])
def test_shuffles(launch: Launch, width: int) -> None:
    y = np.full((4, 64), -1, np.int32)
    launch("shuffles", 1, 64, y, np.int32(width))
    me = np.arange(64)
    part, inside = me // width * width, me % width
    np.testing.assert_array_equal(y[0], part + 3)
    np.testing.assert_array_equal(y[1], np.where(inside + 5 < width, me + 5, me))
    np.testing.assert_array_equal(y[2], np.where(inside >= 5, me - 5, me))
    np.testing.assert_array_equal(y[3], me ^ 6)


def test_shuffles_of_a_part_of_a_warp(launch: Launch) -> None:
    y, x = np.full(32, np.nan), np.arange(32) + 0.5
    launch("halves", 1, 32, y)
    np.testing.assert_array_equal(y[:16], x[:16] + x[np.arange(16) ^ 1])
    np.testing.assert_array_equal(y[16:31], x[16:31] + x[17:])
    assert y[31] == 2 * x[31]  # There is no lane above the last.


def test_votes(launch: Launch) -> None:
    y = np.zeros((64, 6), np.uint32)
    launch("votes", 1, 64, y)
    np.testing.assert_array_equal(y[:, 0], 0xAAAAAAAA)
    np.testing.assert_array_equal(y[:, 1], np.arange(64) < 32)  # Of each warp.
    np.testing.assert_array_equal(y[:, 2], 0)
    np.testing.assert_array_equal(y[:, 3:], [[5, 1, 0]] * 64)  # Of the block.


@pytest.mark.parametrize(("name", "dtype"), [("reduce_float", "float32"), ("reduce_double", "float64")])
def test_sums_and_maxima_over_a_block_have_the_same_bits_in_any_order(
    launch: Launch, name: str, dtype: str
) -> None:
    x = np.random.default_rng(0).standard_normal(1000).astype(dtype)
    results = []
    for seed in SEEDS:
        sums, maxima = np.full(2 * 96, np.nan, dtype), np.full(2 * 96, np.nan, dtype)
        with use_seed(seed):
            launch(name, 2, 96, x, sums, maxima, x.size)
        results.append((sums, maxima))
    np.testing.assert_array_equal(results, [results[0]] * len(SEEDS))
    (sums, maxima), of_block = results[0], np.arange(1000) // 96 % 2
    for block in (0, 1):
        mine, part = slice(96 * block, 96 * (block + 1)), x[of_block == block]
        np.testing.assert_array_equal(sums[mine], sums[96 * block])  # Every thread has it.
        np.testing.assert_allclose(sums[96 * block], part.sum(), rtol=1e-4)
        np.testing.assert_array_equal(maxima[mine], max(part.max(), x[0]))


def test_a_maximum_over_a_block_keeps_nan(launch: Launch) -> None:
    x = np.arange(64, dtype=np.float32)
    x[40] = np.nan
    sums, maxima = np.zeros(64, np.float32), np.zeros(64, np.float32)
    launch("reduce_float", 1, 64, x[1:].copy(), sums, maxima, 63)
    # Each thread's own comparison drops the NaN of x[40] only if it is not the first.
    assert np.isfinite(maxima).all()
    launch("reduce_float", 1, 64, np.roll(x, -40), sums, maxima, 64)
    assert np.isnan(maxima).all()


def test_a_warp_in_step_needs_no_barrier_of_the_block(launch: Launch) -> None:
    x, y = np.random.default_rng(0).random(64, np.float32), np.full(2, np.nan, np.float32)
    for seed in SEEDS:
        with use_seed(seed):
            launch("warp_tree", 1, 64, x, y)
        np.testing.assert_allclose(y, x.reshape(2, 32).sum(axis=1), rtol=1e-5)


def test_tables_of_pointers_and_numbers(launch: Launch) -> None:
    rows = tuple(np.full(n, 10.0**n, np.float32) for n in (1, 2, 3))
    y = np.zeros(1, np.float32)
    launch("add_rows", 1, 1, rows, (1, 2, 3), y, np.float32(0.5))
    assert y[0] == 10 + 200 + 3000 + 0.5


def test_every_kind_of_scalar_arrives(launch: Launch) -> None:
    y = np.zeros(8)
    values = (True, np.uint8(200), np.int32(-3), np.uint32(2**32 - 1), 2**40 + 1, np.uint64(2**63), 0.5, 0.25)
    launch("scalars", 1, 1, y, *values)
    np.testing.assert_array_equal(y, [float(value) for value in values])


def test_four_elements_at_once(launch: Launch) -> None:
    x, y = np.arange(32.0), np.zeros(32)
    launch("fours", 1, 8, x, y)
    np.testing.assert_array_equal(y.reshape(8, 4), x.reshape(8, 4)[:, ::-1])


def test_integer_arithmetic(launch: Launch) -> None:
    a, b = 0xD2511F53, 0x00FEDCBA
    y = np.zeros(9, np.uint32)
    launch("arithmetic", 1, 1, np.array([a, b], np.uint32), y)
    signed = a - 2**32
    low, high = a & 0xFFFFFF, b - 2**24 if b & 0x800000 else b
    signed_low = low - 2**24 if low & 0x800000 else low
    wanted = [a * b >> 32, signed * b >> 32, low * b, signed_low * high, a.bit_count(), 32 - b.bit_length()]
    np.testing.assert_array_equal(y[:6], [value & 0xFFFFFFFF for value in wanted])
    np.testing.assert_array_equal(y[6:], [2, a, a * b >> 32])


def test_an_element_takes_part_in_expressions(launch: Launch) -> None:
    y = np.full(20, -1, np.int32)
    launch("changes", 1, 1, y)
    after = [28, 17, 114, 4, 3, 21, 5, 18, 29, 24, -23, 0, 5]
    assert y.tolist() == [*after, 28, 24, 18, 114, 385, 385, 5]


def test_arrays_go_into_helpers(launch: Launch) -> None:
    y = np.zeros(5, np.float32)
    launch("helpers", 1, 1, y)
    assert y.tolist() == [18, 21, 3, 42 + 21, 63]


def test_a_block_is_quick(launch: Launch) -> None:
    """256 threads and eight barriers take 0.1 ms: thirty times that would mean system calls."""
    times = []
    for _ in range(3):
        start = time.process_time()
        launch("barriers", 20, 256, np.zeros(1, np.float32))
        times.append((time.process_time() - start) / 20)
    assert min(times) < 2.5e-3


def printed_order(launch: Launch, capsys: pytest.CaptureFixture[str], seed: int) -> list[int]:
    with use_seed(seed):
        launch("order", 1, 40, np.zeros(1, np.int32), np.zeros(1, np.int32))
    return [int(word) for word in capsys.readouterr().out.split()]


def test_the_order_of_threads_is_the_seeds_and_new_after_each_barrier(
    launch: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    orders = [printed_order(launch, capsys, seed) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    before, after = orders[0][:40], [number - 1000 for number in orders[0][40:]]
    assert sorted(before) == sorted(after) == list(range(40))
    assert before != after
    assert list(range(40)) not in (before, after)


def test_the_seed_comes_from_the_environment(
    launch: Launch, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = printed_order(launch, capsys, 12)
    monkeypatch.setenv("MINIALEX_EMULATOR_SEED", "12")
    launch("order", 1, 40, np.zeros(1, np.int32), np.zeros(1, np.int32))
    assert [int(word) for word in capsys.readouterr().out.split()] == wanted
    monkeypatch.setenv("MINIALEX_EMULATOR_SEED", "twelve")
    with pytest.raises(UsageError, match="MINIALEX_EMULATOR_SEED=twelve"):
        launch("order", 1, 40, np.zeros(1, np.int32), np.zeros(1, np.int32))


def test_an_empty_grid_runs_nothing(launch: Launch) -> None:
    y = np.full(4, -1, np.int32)
    launch("numbers", 0, 32, y)
    np.testing.assert_array_equal(y, -1)


def test_threads_of_python_may_launch_at_once(launch: Launch) -> None:
    def one(rounds: int) -> list[int]:
        y = np.full(100, -1, np.int32)
        launch("rotate", 1, 100, y, rounds)
        return y.tolist()

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(one, range(40)))
    for rounds, result in enumerate(results):
        assert result == [(i + rounds) % 100 for i in range(100)]


def test_the_portable_switch_of_fibers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "FLAGS", (*building.FLAGS, "-DMINIALEX_UCONTEXT"))
    source = tmp_path / "portable.cu"
    source.write_text(CUDA, encoding="utf-8")
    y = np.full(100, -1, np.int32)
    run("portable", source, "rotate", 1, 100, [y, 7], headers=cuda_source_dir())
    np.testing.assert_array_equal(y, (np.arange(100) + 7) % 100)


def test_epochs_that_run_out_begin_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number left from the first round must not be taken for a write of this one."""
    monkeypatch.setattr(building, "FLAGS", (*building.FLAGS, "-DMINIALEX_LAST_EPOCH=40"))
    source = tmp_path / "epochs.cu"
    source.write_text(CUDA, encoding="utf-8")
    y = np.zeros(100, np.int32)
    for rounds in range(10):
        run("epochs", source, "rotate", 1, 100, [y, rounds], headers=cuda_source_dir())
        np.testing.assert_array_equal(y, (np.arange(100) + rounds) % 100)


def test_ctrl_c_ends_a_kernel_that_does_not_end(launch: Launch) -> None:
    x, y = np.zeros(1, np.float32), np.full(100, -1, np.int32)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    start = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        launch("forever", 2, 32, x, np.zeros(1, np.float32))
    assert time.perf_counter() - start < 10
    launch("rotate", 1, 100, y, 3)
    np.testing.assert_array_equal(y, (np.arange(100) + 3) % 100)


def test_what_is_compiled_is_found_by_the_next_process(launch: Launch, tmp_path: Path) -> None:
    source = tmp_path / "twice.cu"
    source.write_text('extern "C" __global__ void nothing(int n) {}\n', encoding="utf-8")
    script = (
        "import sys\nfrom pathlib import Path\nfrom minialex.emulator import building, run\n"
        "calls = []\ncompile_ = building._compile\n"
        "building._compile = lambda *args: (calls.append(1), compile_(*args))\n"
        "run('twice', Path(sys.argv[1]), 'nothing', 1, 1, [1])\nprint(len(calls))\n"
    )
    command = [sys.executable, "-c", script, str(source)]
    path = os.pathsep.join([str(Path(building.__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, "MINIALEX_CACHE": str(tmp_path / "cache")}
    for compiled in ("1\n", "0\n"):
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        assert done.stdout == compiled
