"""What the machine can do at most, and how near each kernel comes to it.

Times are of the device, between two events. A kernel that keeps the GPU waiting for Python would be timed as
Python: so the GPU is given something else to do first, for as long as it takes to enqueue the work. Inputs
rotate among copies that together are larger than the cache.
"""

from __future__ import annotations

import inspect
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from gpu_check_kernels import IN_PLACE
from gpu_check_steps import batch_of, build
from gpu_check_worker import Context, free_memory, synchronize

from minialex import ops, optim
from minialex.backend import Kernel, device_of, empty, gemm, is_array, to_device, use_precision
from minialex.kernels.updates import UpdateKernel
from minialex.rng import random_scope
from minialex.tensor import Tensor

# Several times the second-level cache of any GPU so far.
BEYOND_CACHE = 256 * 2**20
MOST_COPIES = 64
ROUNDS, REPEATS = 5, 8
SPIN = """extern "C" __global__ void spin(long long cycles) {
    long long start = clock64();
    while (clock64() - start < cycles) {}
}"""
CYCLES_A_SECOND = 2.0e9

# (M, N, K): a large product, and at a batch of 128 those of fc6 (forward, dweight), conv2 and conv3.
SHAPES = {
    "8192": (8192, 8192, 8192),
    "fc6": (128, 4096, 9216),
    "fc6 dweight": (4096, 9216, 128),
    "conv2": (256, 93312, 2400),
    "conv3": (384, 21632, 2304),
}
DRY_SHAPES = {"small": (8, 16, 12)}
PRECISIONS = ("fp32", "tf32", "bf16")
MODELS = {"single": 128, "flowers": 128}
DRY_MODELS = {"lenet5": 2}


class Stopwatch:
    """Seconds that work takes on the device; on the emulated one, seconds of the host."""

    def __init__(self, device: str) -> None:
        self.device, self._spin = device, None

    def measure(
        self, work: Callable[[int], object], repeats: int = REPEATS, rounds: int = ROUNDS
    ) -> list[float]:
        """Seconds of one call of work(i), i counting up, in each of several rounds."""
        for i in range(3 if self._on_gpu else 1):
            work(i)
        synchronize(self.device)
        started = time.perf_counter()
        for i in range(repeats if self._on_gpu else 0):
            work(i)
        enqueued = time.perf_counter() - started
        synchronize(self.device)
        return [self._round(work, repeats, enqueued) for _ in range(rounds)]

    @property
    def _on_gpu(self) -> bool:
        return self.device.startswith("cuda:")

    def _round(self, work: Callable[[int], object], repeats: int, enqueued: float) -> float:
        if not self._on_gpu:
            started = time.perf_counter()
            for i in range(repeats):
                work(i)
            return (time.perf_counter() - started) / repeats
        import cupy

        first, last = cupy.cuda.Event(), cupy.cuda.Event()
        self._keep_busy(min(0.2, 2.0 * enqueued + 2e-4))
        first.record()
        for i in range(repeats):
            work(i)
        last.record()
        last.synchronize()
        return float(cupy.cuda.get_elapsed_time(first, last)) / 1000 / repeats

    def _keep_busy(self, seconds: float) -> None:
        import cupy

        if self._spin is None:
            self._spin = cupy.RawKernel(SPIN, "spin")
        self._spin((1,), (1,), (np.int64(seconds * CYCLES_A_SECOND),))


# ---------------------------------------------------------------------------------------------- ceilings


def measure_ceilings(context: Context) -> None:
    """The section `ceilings`: a large copy, and matrix products of random numbers in three precisions."""
    watch = Stopwatch(context.device)
    size = 2**16 if context.dry else 2**30
    context.run("copy", lambda: copy_result(watch, size))
    for name, shape in (DRY_SHAPES if context.dry else SHAPES).items():
        for precision in PRECISIONS:
            label = f"gemm {name} {precision}"
            context.run(label, partial(gemm_result, watch, shape, precision), needs=2.0)
            if context.on_gpu and has_torch():
                context.run(f"torch {label}", partial(torch_gemm_result, watch, shape, precision), needs=2.0)
    free_memory(context.device)


def copy_result(watch: Stopwatch, size: int) -> dict[str, Any]:
    """Bytes read and written a second, from one array to another."""
    numbers = np.random.default_rng(0).standard_normal(min(size // 4, 2**24)).astype(np.float32)
    source = to_device(np.resize(numbers, size // 4), watch.device)
    target = empty(source.shape, source)

    def copy(i: int) -> None:
        target[...] = source

    rate = 2 * size / statistics.median(watch.measure(copy, repeats=4))
    return {"bytes_per_second": rate, "note": f"{rate / 1e9:.1f} GB/s"}


def gemm_result(watch: Stopwatch, shape: tuple[int, int, int], precision: str) -> dict[str, Any]:
    """Operations a second of minialex's own matrix products, roundings included."""
    M, N, K = shape
    numbers = np.random.default_rng(0)
    a = to_device(numbers.standard_normal((M, K), dtype=np.float32), watch.device)
    b = to_device(numbers.standard_normal((K, N), dtype=np.float32), watch.device)
    y = empty((M, N), a)
    with use_precision(precision):
        seconds = statistics.median(watch.measure(lambda i: gemm(a, b, y), repeats=4))
    return product_text(shape, precision, seconds, "minialex")


def torch_gemm_result(watch: Stopwatch, shape: tuple[int, int, int], precision: str) -> dict[str, Any]:
    """The same by PyTorch, from factors that are bfloat16 already."""
    import torch
    from gpu_check_torch import set_precision

    M, N, K = shape
    set_precision(precision)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(size, device="cuda").to(dtype) for size in ((M, K), (K, N)))
    y = torch.empty((M, N), device="cuda", dtype=dtype)
    seconds = statistics.median(watch.measure(lambda i: torch.matmul(a, b, out=y), repeats=4))
    return product_text(shape, precision, seconds, "torch")


def product_text(shape: tuple[int, int, int], precision: str, seconds: float, by: str) -> dict[str, Any]:
    """The result of a matrix product that took so long."""
    rate = 2.0 * math.prod(shape) / seconds
    note = f"{rate / 1e12:.1f} TFLOP/s"
    return {"precision": precision, "by": by, "flops_per_second": rate, "seconds": seconds, "note": note}


def has_torch() -> bool:
    """Whether PyTorch can be imported, and has a GPU."""
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())


# ------------------------------------------------------------------------------------ every kernel's floor

Call = tuple[Kernel, tuple[Any, ...]]


class StepCalls:
    """The calls of kernels in CUDA C++ that a training step makes: one of each shape, and how often."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.calls: dict[str, Call] = {}
        self.counts: dict[str, int] = {}
        self._depth = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Only the outermost calls: what a kernel calls is part of its own time."""
        call, together, calls = Kernel.__call__, UpdateKernel.together, self

        def seen(kernel: Kernel, *args: Any) -> Any:
            calls._note(kernel, args)
            calls._depth += 1
            try:
                return call(kernel, *args)
            finally:
                calls._depth -= 1

        def seen_together(kernel: UpdateKernel, many: Sequence[tuple[Any, ...]]) -> None:
            calls._note(kernel, (list(many),))
            together(kernel, many)

        Kernel.__call__, UpdateKernel.together = seen, seen_together  # type: ignore[method-assign,assignment]
        try:
            yield
        finally:
            Kernel.__call__, UpdateKernel.together = call, together  # type: ignore[method-assign]

    def _note(self, kernel: Kernel, args: tuple[Any, ...]) -> None:
        arrays = arrays_of(args)
        if self._depth or not arrays or "cuda" not in kernel.variants or device_of(arrays[0]) != self.device:
            return
        shapes = [str(a.shape).replace(" ", "") for a in arrays]
        shapes = shapes if len(shapes) < 9 else [f"{len(shapes)} arrays"]
        label = " ".join([kernel.name, *shapes])
        self.calls.setdefault(label, (kernel, args))
        self.counts[label] = self.counts.get(label, 0) + 1


def arrays_of(args: Any) -> list[Any]:
    """The arrays among arguments, also in lists of calls."""
    if is_array(args):
        return [args]
    return [a for value in args for a in arrays_of(value)] if isinstance(args, tuple | list) else []


def copied(args: Any) -> Any:
    """The same arguments with copies of the arrays."""
    if is_array(args):
        return args.copy(order="K")  # A transposed factor stays one.
    if isinstance(args, tuple | list) and not hasattr(args, "_fields"):
        return type(args)(copied(value) for value in args)
    return args


def time_kernels(context: Context) -> None:
    """The section `kernel-times`: every kernel of a training step, with its floor."""
    for name, count in (DRY_MODELS if context.dry else MODELS).items():
        calls = StepCalls(context.device)
        label = f"a step of {name} x {count}"
        if any(done.startswith(f"{name} x {count}: ") for done in context.skip):
            label += f", again after {len(context.skip)}"  # The process before this one died later on.
        if not context.run(label, partial(record_step, calls, name, count)):
            continue
        watch = Stopwatch(context.device)
        for label, call in calls.calls.items():
            for precision in PRECISIONS if flops_of(*call) else ("fp32",):
                context.run(
                    f"{name} x {count}: {label}, {precision}",
                    partial(kernel_result, watch, call, calls.counts[label], precision, context),
                    needs=1.0,
                )
        calls.calls.clear()
        free_memory(context.device)


def record_step(calls: StepCalls, name: str, count: int) -> dict[str, Any]:
    """Take one step with SGD, and keep the arguments of its kernels."""
    model = build(name).to(calls.device)
    optimizer = optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)
    images, labels = batch_of(model, count)
    x, y = Tensor(images, device=calls.device), to_device(labels, calls.device)
    with random_scope(0), calls.listening():
        ops.cross_entropy(model(x), y).backward()
        optimizer.step()
    synchronize(calls.device)
    return {"note": f"{len(calls.calls)} kernels of different shapes, {sum(calls.counts.values())} calls"}


def kernel_result(
    watch: Stopwatch, call: Call, count: int, precision: str, context: Context
) -> dict[str, Any]:
    """Its time, and the least that its arithmetic or its traffic takes at the ceilings."""
    kernel, args = call
    size, flops = bytes_of(kernel, args), flops_of(kernel, args)
    copies = 1 if context.dry else min(MOST_COPIES, max(2, -(-BEYOND_CACHE // max(size, 1))))
    sets = [copied(args) for _ in range(copies)]
    together = isinstance(kernel, UpdateKernel) and isinstance(args[0], list)
    run = kernel.together if together else kernel.variants["cuda"]  # type: ignore[attr-defined]
    with use_precision(precision):
        times = watch.measure(
            lambda i: run(*sets[i % copies]), 2 if context.dry else REPEATS, 1 if context.dry else ROUNDS
        )
    seconds = statistics.median(times)
    by_bytes = size / context.ceilings["copy"] if "copy" in context.ceilings else math.nan
    by_flops = flops / context.ceilings[precision] if flops and precision in context.ceilings else 0.0
    floor = max(by_bytes, by_flops)
    return {
        "kernel": kernel.name,
        "precision": precision,
        "count": count,
        "seconds": seconds,
        "spread": (max(times) - min(times)) / seconds,
        "bytes": size,
        "flops": flops,
        "floor": floor,
        "bound": "arithmetic" if by_flops > by_bytes else "memory",
        "times_floor": seconds / floor,
        "note": f"{1e3 * seconds:.3f} ms, floor {1e3 * floor:.3f}",
    }


def bytes_of(kernel: Kernel, args: tuple[Any, ...]) -> int:
    """Every input read once, every output written once; what is changed in place counts twice."""
    total = sum(a.nbytes for a in arrays_of(args))
    if kernel.name not in IN_PLACE:
        return total
    calls = args[0] if isinstance(args[0], list) else [args]
    return total + sum(call[i].nbytes for call in calls for i in kernel.outputs)


def flops_of(kernel: Kernel, args: tuple[Any, ...]) -> int:
    """Operations of matrix products and convolutions, two for a multiply-accumulate; 0 for other kernels."""
    if kernel.name not in ("matmul", "conv2d_forward", "conv2d_backward"):
        return 0
    named = dict(zip(inspect.signature(kernel.variants["reference"]).parameters, args, strict=True))
    if kernel.name == "matmul":
        return 2 * int(named["y"].size) * int(named["a"].shape[-1])
    weight = named["weight"] if named["weight"] is not None else named["dweight"]
    output = named["y"] if kernel.name == "conv2d_forward" else named["dy"]
    times = 1 if kernel.name == "conv2d_forward" else sum(named[k] is not None for k in ("dx", "dweight"))
    return 2 * int(output.size) * math.prod(weight.shape[1:]) * times
