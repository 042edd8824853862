"""Correctness of every kernel: rows of testing/cases.py and larger odd shapes, each call against float64.

Every call of a kernel in CUDA C++ is repeated three times on the same inputs: on the device with outputs full
of NaN, on the device with outputs full of something else (the bits must be the same), and in float64 on the
CPU by the kernel's array variant. What is allowed is what parity allows: 16 times NumPy's error in float32.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
from gpu_check_worker import Context, poisoned_memory

import minialex.kernels
from minialex.backend import Kernel, blas, device_of, is_array, to_device, to_numpy, use_variant
from minialex.kernels.adam import adam
from minialex.kernels.im2col import col2im, im2col
from minialex.kernels.image_normalization import Crops, crop_and_normalize, normalize_images
from minialex.kernels.sgd import sgd_paper, sgd_torch
from minialex.ops import (
    AdaptiveAvgPool2dOp,
    AvgPool2dOp,
    Conv2dOp,
    Conv2dReluOp,
    Conv2dSigmoidAvgPool2dOp,
    CrossEntropyOp,
    DropoutOp,
    LinearOp,
    LocalResponseNormOp,
    LogSoftmaxOp,
    MaxPool2dOp,
    ReluLrnMaxPool2dOp,
    ReluMaxPool2dOp,
    ReluOp,
    SigmoidAvgPool2dOp,
    SigmoidOp,
    SoftmaxOp,
    TanhOp,
)
from minialex.tensor import MatmulOp, Tensor
from minialex.testing import CASES
from minialex.train.parity import FACTOR, allowed, measure

# These read what they write.
IN_PLACE = {"adam", "sgd_torch", "sgd_paper", "col2im"}
# float64 against float64: two ways of adding up, of at most some thousand terms.
FLOAT64 = 1e-12
NORM = {"size": 5, "alpha": 1.0, "beta": 0.75, "k": 2.0, "dialect": "paper"}
ALEXNETS = {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 2.0, "dialect": "paper"}

Row = tuple[str, Callable[[], Any], tuple[tuple[int, ...], ...]]


def kernels() -> dict[str, Kernel]:
    """Every kernel that has a variant in CUDA C++, by name."""
    found = {kernel.name: kernel for kernel in vars(blas).values() if isinstance(kernel, Kernel)}
    for module in pkgutil.iter_modules(minialex.kernels.__path__, minialex.kernels.__name__ + "."):
        for value in vars(import_module(module.name)).values():
            if isinstance(value, Kernel):
                found[value.name] = value
    return {name: kernel for name, kernel in sorted(found.items()) if "cuda" in kernel.variants}


def large_rows() -> list[Row]:
    """Odd extents, tails, groups, images that are not a power of two: (label, op, shapes of the inputs)."""
    pool = {"kernel_size": 3, "stride": 2}
    wide = {"kernel_size": (5, 4), "stride": (2, 3), "padding": ((1, 2), (0, 1)), "ceil_mode": True}
    labels = np.arange(129) * 37 % 1001
    return [
        ("conv2d 11x11", lambda: Conv2dOp(4, 2), ((5, 3, 67, 83), (33, 3, 11, 11), (33,))),
        ("conv2d groups", lambda: Conv2dOp(1, 2, 1, 2), ((3, 34, 27, 29), (66, 17, 5, 5), (66,))),
        ("conv2d odd", lambda: Conv2dOp((2, 1), ((1, 2), (0, 3)), (1, 2)), ((3, 13, 41, 37), (29, 13, 3, 5))),
        ("conv2d_relu", lambda: Conv2dReluOp(1, 1), ((7, 67, 13, 13), (131, 67, 3, 3), (131,))),
        ("conv2d 1x1", lambda: Conv2dReluOp(), ((3, 65, 17, 19), (35, 65, 1, 1), (35,))),
        (
            "conv2d_sigmoid_avg_pool2d",
            lambda: Conv2dSigmoidAvgPool2dOp(1, 2, kernel_size=2),
            ((5, 6, 30, 34), (17, 6, 5, 5), (17,)),
        ),
        ("linear", lambda: LinearOp(), ((77, 2051), (1023, 2051), (1023,))),
        ("matmul", lambda: MatmulOp(), ((3, 129, 257), (3, 257, 65))),
        ("max_pool2d", lambda: MaxPool2dOp(**pool), ((5, 97, 55, 53),)),
        ("max_pool2d wide", lambda: MaxPool2dOp(**wide), ((3, 33, 43, 58),)),
        ("relu_max_pool2d", lambda: ReluMaxPool2dOp(**pool), ((5, 131, 27, 27),)),
        ("relu_lrn_max_pool2d", lambda: ReluLrnMaxPool2dOp(**NORM, **pool), ((3, 96, 55, 53),)),
        (
            "relu_lrn_max_pool2d, alpha 1e-4",
            lambda: ReluLrnMaxPool2dOp(**ALEXNETS, **pool),
            ((3, 67, 27, 31),),
        ),
        ("local_response_norm", lambda: LocalResponseNormOp(**NORM), ((3, 97, 29, 31),)),
        ("avg_pool2d", lambda: AvgPool2dOp(**wide), ((3, 33, 43, 58),)),
        ("sigmoid_avg_pool2d", lambda: SigmoidAvgPool2dOp(kernel_size=2), ((5, 17, 28, 30),)),
        ("adaptive_avg_pool2d", lambda: AdaptiveAvgPool2dOp((6, 6)), ((3, 65, 13, 17),)),
        ("dropout", lambda: DropoutOp(0.5, 2.0, (2**40 + 1, 7, 3)), ((77, 9217),)),
        ("softmax", lambda: SoftmaxOp(), ((131, 1003),)),
        ("log_softmax", lambda: LogSoftmaxOp(), ((131, 1003),)),
        ("cross_entropy", lambda: CrossEntropyOp(labels), ((129, 1001),)),
        ("cross_entropy smoothed", lambda: CrossEntropyOp(labels, label_smoothing=0.1), ((129, 1001),)),
        ("relu", lambda: ReluOp(), ((3, 97, 55, 53),)),
        ("sigmoid", lambda: SigmoidOp(), ((3, 97, 55, 53),)),
        ("tanh", lambda: TanhOp(), ((3, 97, 55, 53),)),
    ]


def case_rows(dry: bool) -> list[Row]:
    """The rows of testing/cases.py of ops that have kernels; for a dry run, the first of each."""
    rows: list[Row] = []
    seen: set[Any] = set()
    for number, case in enumerate(CASES):
        of_ops = case.op.__module__.startswith("minialex.ops") or case.op is MatmulOp
        if not of_ops or (dry and case.op in seen):
            continue
        seen.add(case.op)
        if all(array.dtype.kind == "f" for array in case.inputs):
            rows.append((f"case {number}: {case.label}", case.make, tuple(a.shape for a in case.inputs)))
    return rows


# ----------------------------------------------------------------------------------------- one call, again


class Tap:
    """Inside `with tap.listening():`, every call of a kernel in CUDA C++ is checked, and then made."""

    def __init__(self, device: str) -> None:
        self.device, self.busy = device, False
        self.outcomes: list[dict[str, Any]] = []

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Kernels that a kernel calls in its turn are checked, too, each by itself."""
        right, tap = Kernel.__call__, self

        def call(kernel: Kernel, *args: Any) -> Any:
            arrays = [a for a in args if is_array(a)]
            here = arrays and device_of(arrays[0]) == tap.device and "cuda" in kernel.variants
            if here and not tap.busy:
                tap.busy = True
                try:
                    tap.outcomes.append(check_call(kernel, args))
                finally:
                    tap.busy = False
            return right(kernel, *args)

        Kernel.__call__ = call  # type: ignore[method-assign]
        try:
            yield
        finally:
            Kernel.__call__ = right  # type: ignore[method-assign]


def check_call(kernel: Kernel, args: tuple[Any, ...]) -> dict[str, Any]:
    """How far the kernel's outputs are from float64, over what is allowed; and whether two runs are equal."""
    first, second = (_on_device(kernel, args, poison) for poison in (0xFF, 0x5A))
    dtype = next(a.dtype for a in args if is_array(a) and a.dtype.kind == "f")
    right = _on_host(kernel, args, np.float64)
    rounded = right if dtype == np.float64 else _on_host(kernel, args, np.float32)
    worst, error, equal = 0.0, 0.0, True
    for i in sorted(kernel.outputs):
        if args[i] is None:
            continue
        equal &= first[i].tobytes() == second[i].tobytes()
        own = measure(first[i], right[i])
        if dtype == np.float64 and first[i].dtype.kind == "f":
            ratio = own.relative / FLOAT64
        else:
            limit = allowed(first[i], right[i], rounded[i], 2.0**-24)
            ratio = max(own.relative / limit.relative, own.ulps / limit.ulps)
        ratio = float("inf") if np.isnan(ratio) else float(ratio)
        worst, error = max(worst, ratio), max(error, own.relative)
    shapes = " ".join(str(a.shape).replace(" ", "") for a in args if is_array(a))
    return {"kernel": kernel.name, "shapes": shapes, "ratio": worst, "error": error, "equal": equal}


def _on_device(kernel: Kernel, args: tuple[Any, ...], poison: int) -> dict[int, Any]:
    """The outputs of the variant in CUDA C++, on the host, from memory that was full of `poison`."""
    fresh = list(args)
    for i in kernel.outputs:
        if args[i] is not None:
            fresh[i] = args[i].copy()
            if kernel.name not in IN_PLACE:
                bytes_of = (
                    np.full(args[i].nbytes, poison, np.uint8).view(args[i].dtype).reshape(args[i].shape)
                )
                fresh[i] = to_device(bytes_of, device_of(args[i]))
    kernel.variants["cuda"](*fresh)
    return {i: to_numpy(fresh[i]).view(np.ndarray) for i in kernel.outputs if args[i] is not None}


def _on_host(kernel: Kernel, args: tuple[Any, ...], dtype: Any) -> dict[int, Any]:
    """The outputs of the array variant, from the same inputs in another precision."""
    host = []
    for i, value in enumerate(args):
        if is_array(value):
            value = np.array(to_numpy(value).view(np.ndarray))
            value = value.astype(dtype) if value.dtype.kind == "f" else value
            if i in kernel.outputs and kernel.name not in IN_PLACE:
                value = np.zeros_like(value)
        host.append(value)
    with use_variant("array"), np.errstate(all="ignore"):
        kernel.variants["array"](*host)
    return {i: host[i] for i in kernel.outputs if args[i] is not None}


# ------------------------------------------------------------------------------------------- what is called


def run_row(row: Row, device: str, dtype: Any, seed: int) -> list[dict[str, Any]]:
    """Both passes of an op on fresh random numbers; every kernel call in them checked."""
    _, make, shapes = row
    numbers = np.random.default_rng(seed)
    leaves = [
        Tensor(numbers.standard_normal(shape).astype(dtype), requires_grad=True, device=device)
        for shape in shapes
    ]
    tap = Tap(device)
    with tap.listening(), poisoned_memory(device):
        y = make()(*leaves)
        dy = numbers.standard_normal(y.shape).astype(dtype)
        y.backward(to_device(np.asarray(dy, dtype), device))
    return tap.outcomes


def direct_calls(
    device: str, dtype: Any, seed: int, dry: bool
) -> Iterator[tuple[str, Kernel, tuple[Any, ...]]]:
    """Kernels that no op calls: optimisers, input, and the columns of a convolution."""
    numbers = np.random.default_rng(seed)

    def normal(*shape: int) -> Any:
        return to_device(numbers.standard_normal(shape).astype(dtype), device)

    n = 1003 if dry else 1_000_003
    yield "sgd_torch", sgd_torch, (normal(n), normal(n), normal(n), 0.01, 0.9, 5e-4, False)
    yield "sgd_torch, nesterov", sgd_torch, (normal(n), normal(n), normal(n), 0.01, 0.9, 5e-4, True)
    yield "sgd_paper", sgd_paper, (normal(n), normal(n), normal(n), 0.01, 0.9, 5e-4)
    square = to_device(numbers.random(n).astype(dtype), device)
    yield "adam", adam, (normal(n), normal(n), normal(n), square, 1e-3, 0.5, 0.9, 0.999, 1e-8, 1e-4)
    N, H, W = (2, 9, 7) if dry else (17, 131, 113)
    pixels = to_device(numbers.integers(0, 256, (N, H, W, 3), dtype=np.uint8), device)
    mean, std = (to_device(np.array(v, dtype), device) for v in ((0.5, 0.4, 0.3), (0.2, 0.3, 0.25)))
    yield "normalize_images", normalize_images, (mean, std, pixels, normal(N, 3, H, W))
    crops = Crops(*(numbers.integers(0, high, N) for high in (3, 4)), numbers.integers(0, 2, N).astype(bool))
    shifted = (mean, std, pixels, crops, normal(N, 3), normal(N, 3, H - 2, W - 3))
    yield "crop_and_normalize", crop_and_normalize, shifted
    image = normal(3, H - 2, W - 3)
    yield (
        "crop_and_normalize, mean image",
        crop_and_normalize,
        (image, *shifted[1:5], normal(*shifted[5].shape)),
    )
    C, OH, OW = (2, 4, 3) if dry else (19, 27, 26)
    columns = (N, C, 5, 3, OH, OW)
    where = ((2, 1), ((2, 2), (1, 1)), (1, 1), 0)
    picture = normal(N, C, 2 * OH, OW)
    yield "im2col", im2col, (picture, normal(*columns), *where)
    yield "col2im", col2im, (normal(*columns), picture, *where)


def summary(outcomes: list[dict[str, Any]]) -> dict[str, Any]:
    """One result for the calls of a row."""
    wrong = [o for o in outcomes if not (o["ratio"] <= 1 and o["equal"])]
    told = [
        f"{o['kernel']} {o['shapes']}: off by {o['error']:.1e}, {o['ratio']:.1f} x what is allowed"
        + ("" if o["equal"] else "; two runs differ in their bits")
        for o in wrong
    ]
    return {
        "ok": not wrong,
        "kernels": sorted({o["kernel"] for o in outcomes}),
        "calls": len(outcomes),
        "worst": max((o["ratio"] for o in outcomes), default=0.0),
        "error": max((o["error"] for o in outcomes), default=0.0),
        **({"note": "; ".join(told)} if told else {}),
    }


def check_kernels(context: Context) -> None:
    """The section `kernels`: every row in float32 and float64, what no op calls, and what was missed."""
    device, called = context.device, set()

    def checked(outcomes: list[dict[str, Any]]) -> dict[str, Any]:
        called.update(o["kernel"] for o in outcomes)
        return summary(outcomes)

    large = [] if context.dry else large_rows()
    for dtype in (np.float32, np.float64):
        kind = np.dtype(dtype).name
        for number, row in enumerate([*large, *case_rows(context.dry)]):
            label = f"{kind} {row[0]}"
            context.run(label, lambda row=row, n=number, d=dtype: checked(run_row(row, device, d, n)))
        for label, kernel, args in direct_calls(device, dtype, 7, context.dry):
            context.run(
                f"{kind} {label}", lambda kernel=kernel, args=args: checked([check_direct(kernel, args)])
            )
    # A process that was started again has not seen what the one before it did.
    if not context.skip and context.left() > 0:
        missed = sorted(set(kernels()) - called)
        note = f"not called by any row: {', '.join(missed)}" if missed else "every kernel was called"
        context.run("every kernel", lambda: {"ok": not missed, "note": note, "kernels": sorted(called)})


def check_direct(kernel: Kernel, args: tuple[Any, ...]) -> dict[str, Any]:
    """`check_call` for a call that nobody makes."""
    device = device_of(next(a for a in args if is_array(a)))
    with poisoned_memory(device):
        return check_call(kernel, args)


__all__ = ["FACTOR", "Tap", "check_kernels", "kernels"]
