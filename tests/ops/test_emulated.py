"""CUDA's kernels, on the CPU: every row of cases.py, odd shapes, training steps.

Two ways lead to the same kernels. `use_variant("cuda")` runs them on plain arrays, and demands that every
kernel has one. The device "cuda-emulated" goes the whole way that a GPU's arrays go: moves between devices,
poisoned memory, arrays that refuse to meet the CPU's.
"""

from __future__ import annotations

import dataclasses
import pkgutil
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import numpy as np
import pytest

import minialex as mx
import minialex.kernels
from minialex import models, nn, ops, optim
from minialex.backend import Kernel, blas, device_of, to_device, to_numpy, use_variant, use_winograd
from minialex.emulator import use_seed
from minialex.errors import DeviceError
from minialex.models.alexnets import VARIANTS
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
from minialex.tensor import IndexOp, MatmulOp, Op
from minialex.testing import CASES, Case, grid

pytestmark = pytest.mark.emulator

EMULATED = "cuda-emulated"
# Of the largest number of the array. The kernels add up in other orders than the loops.
TOLERANCE = {"float64": 1e-12, "float32": 2e-5}


def run(op: Op, arrays: list[Any], device: str | None = None) -> list[np.ndarray | None]:
    """The output and the gradients, on the host, for a cotangent in which every number differs."""
    leaves = [mx.Tensor(a, requires_grad=a.dtype.kind == "f", device=device) for a in arrays]
    y = op(*leaves)
    if y.requires_grad:
        dy = grid(*y.shape, item=9, scale=1.0).astype(y.dtype)
        y.backward(to_device(dy, y.device))
    if device is not None:
        assert y.device == device
        assert {device_of(leaf.grad) for leaf in leaves if leaf.grad is not None} <= {device}
    return [y.numpy(), *(None if leaf.grad is None else to_numpy(leaf.grad) for leaf in leaves)]


def assert_close(results: list[Any], wanted: list[Any], dtype: str) -> None:
    for got, expected in zip(results, wanted, strict=True):
        if expected is None:
            assert got is None
            continue
        assert got.dtype == expected.dtype
        largest = max(1.0, float(np.abs(expected).max(initial=0)))
        np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE[dtype] * largest)


def reference(case: Case, dtype: str) -> tuple[list[Any], list[Any]]:
    """The row's inputs, and what the plain loops make of them in float64."""
    arrays = [a.astype(dtype) if a.dtype.kind == "f" else a for a in case.inputs]
    wide = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays]
    with use_variant("reference"):
        wanted = run(case.make(), wide)
    return arrays, [None if a is None else a.astype(dtype) if a.dtype.kind == "f" else a for a in wanted]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_every_row(case: Case, dtype: str) -> None:
    arrays, wanted = reference(case, dtype)
    assert_close(run(case.make(), arrays, EMULATED), wanted, dtype)
    with use_variant("cuda"):
        assert_close(run(case.make(), arrays), wanted, dtype)


# ----------------------------------------------------------------------------------- more than one block


def relu_lrn_max_pool(dialect: str, size: int) -> Callable[[], Op]:
    return lambda: ReluLrnMaxPool2dOp(size, 1.0, dialect=dialect, kernel_size=3, stride=2, padding=1)


# Odd heights and widths, channels that 8 does not divide, one image, remainders of every tile; more elements
# than a block has threads, rows longer than a block and than a warp.
ODD: dict[str, tuple[Callable[[], Op], list[tuple[int, ...]]]] = {
    "conv2d, remainders": (lambda: Conv2dOp(2, 1), [(3, 5, 13, 17), (7, 5, 3, 3), (7,)]),
    "conv2d, one image": (lambda: Conv2dOp(1, 2), [(1, 3, 19, 23), (9, 3, 5, 5), (9,)]),
    "conv2d, groups": (lambda: Conv2dReluOp(1, 1, groups=3), [(2, 9, 11, 7), (6, 3, 3, 3), (6,)]),
    "conv2d, conv1 of AlexNet": (lambda: Conv2dOp(4, ((1, 2), (1, 2))), [(1, 3, 35, 39), (5, 3, 11, 11)]),
    "conv2d, 1 x 1": (lambda: Conv2dReluOp(), [(2, 33, 5, 7), (35, 33, 1, 1), (35,)]),
    "conv2d, sigmoid, pool": (
        lambda: Conv2dSigmoidAvgPool2dOp(1, 2, kernel_size=2, pool_stride=2),
        [(2, 3, 15, 13), (5, 3, 5, 5), (5,)],
    ),
    "max_pool2d": (lambda: MaxPool2dOp(3, 2), [(3, 5, 27, 13)]),
    "max_pool2d, padding": (lambda: MaxPool2dOp((2, 3), (3, 1), ((1, 0), (1, 1)), True), [(1, 7, 18, 11)]),
    "relu, max_pool2d": (lambda: ReluMaxPool2dOp(3, 2), [(2, 3, 25, 21)]),
    "avg_pool2d": (lambda: AvgPool2dOp(3, 2, 1), [(3, 5, 17, 13)]),
    "adaptive_avg_pool2d": (lambda: AdaptiveAvgPool2dOp(6), [(2, 7, 13, 11)]),
    "sigmoid, avg_pool2d": (lambda: SigmoidAvgPool2dOp(2, 2), [(2, 7, 13, 12)]),
    "lrn": (lambda: LocalResponseNormOp(5, 1.0, dialect="paper"), [(2, 11, 7, 13)]),
    "lrn, many channels": (lambda: LocalResponseNormOp(4, 1.0, dialect="torch"), [(1, 97, 3, 5)]),
    "relu, lrn, max_pool2d": (relu_lrn_max_pool("paper", 5), [(2, 11, 13, 15)]),
    "relu, lrn, max_pool2d, torch": (relu_lrn_max_pool("torch", 4), [(1, 37, 9, 7)]),
    "relu": (ReluOp, [(3, 347)]),
    "sigmoid": (SigmoidOp, [(1031,)]),
    "tanh": (TanhOp, [(5, 211)]),
    "dropout": (lambda: DropoutOp(0.5, 2.0, (3, 1, 4)), [(7, 593)]),
    "softmax, long rows": (SoftmaxOp, [(3, 1031)]),
    "log_softmax, an axis inside": (lambda: LogSoftmaxOp(1), [(2, 67, 9)]),
    "cross_entropy, 1000 classes": (
        lambda: CrossEntropyOp(np.array([3, 999, 0, 517, 42]), 0.1),
        [(5, 1000)],
    ),
    "cross_entropy, many images": (lambda: CrossEntropyOp(np.arange(301) % 7, reduction="sum"), [(301, 7)]),
    "linear": (LinearOp, [(13, 301), (37, 301), (37,)]),
    "matmul": (MatmulOp, [(3, 1, 17, 9), (2, 9, 33)]),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("op", "shapes"), ODD.values(), ids=ODD)
def test_odd_shapes(op: Callable[[], Op], shapes: list[tuple[int, ...]], dtype: str) -> None:
    arrays = [grid(*shape, item=i, scale=1.0).astype(dtype) for i, shape in enumerate(shapes)]
    with use_variant("array"):
        wide = run(op(), [a.astype(np.float64) for a in arrays])
    wanted = [None if a is None else a.astype(dtype) for a in wide]
    assert_close(run(op(), arrays, EMULATED), wanted, dtype)
    with use_variant("cuda"):
        assert_close(run(op(), arrays), wanted, dtype)


def test_dropout_drops_what_the_cpu_drops() -> None:
    """A bound would let an element fall that should stand."""
    x = np.ones((7, 593), np.float32)
    for p, key in ((0.5, (0, 0, 0)), (0.1, (2**63 + 5, 7, 2)), (1 / 3, (9, 2**33, 1))):
        on_cpu, emulated = (run(DropoutOp(p, 1.5, key), [x], device) for device in ("cpu", EMULATED))
        for a, b in zip(on_cpu, emulated, strict=True):
            assert a is not None
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("case", [c for c in CASES if c.op is IndexOp], ids=lambda case: case.label)
def test_picked_elements_are_added_up_in_the_cpus_order(case: Case) -> None:
    """The gradient of an element picked many times: no atomic additions, and so the same bits."""
    on_cpu, emulated = (run(case.make(), list(case.inputs), device) for device in ("cpu", EMULATED))
    for a, b in zip(on_cpu, emulated, strict=True):
        assert a is not None
        assert b is not None
        assert a.tobytes() == b.tobytes()
    index = np.array([3, 1, 3, 3, 0, 1] * 50)
    x = grid(5, 3, item=1).astype(np.float32)
    a, b = (run(IndexOp(index), [x], device)[1] for device in ("cpu", EMULATED))
    np.testing.assert_array_equal(a, b)


def test_an_empty_batch_goes_through() -> None:
    x = np.zeros((0, 4, 9, 8), np.float32)
    weight, bias = grid(6, 2, 3, 2, item=1).astype(np.float32), grid(6, item=2).astype(np.float32)
    for op, arrays in (
        (Conv2dOp(groups=2), [x, weight, bias]),
        (MaxPool2dOp(3, 2), [x]),
        (AvgPool2dOp(3), [x]),
        (LocalResponseNormOp(5, dialect="torch"), [x]),
        (ReluOp(), [x]),
        (SoftmaxOp(1), [x]),
        (LinearOp(), [x.reshape(0, 288), np.ones((2, 288), np.float32), np.ones(2, np.float32)]),
        (DropoutOp(0.5, 2.0, (0, 0, 0)), [x]),
    ):
        y, dx, *others = run(op, arrays, EMULATED)
        assert y is not None
        assert dx is not None
        assert len(y) == 0
        assert dx.shape == arrays[0].shape
        assert not any(other is None or other.any() for other in others)


# ------------------------------------------------------------------------------------ which kernels there are


# What has no kernel of its own in kernels/*.cu, and would run CuPy's operations on whole arrays: Winograd's
# algorithm, which only convolutions on the CPU use.
WITHOUT_CUDA = {"pictures_from_tiles", "tiles_from_pictures"}


def all_kernels() -> Iterator[Kernel]:
    for module in pkgutil.walk_packages(minialex.kernels.__path__, "minialex.kernels."):
        yield from (value for value in vars(import_module(module.name)).values() if isinstance(value, Kernel))
    yield blas.matrix_product


def test_only_these_kernels_have_no_cuda_variant() -> None:
    names = {kernel.name: "cuda" in kernel.variants for kernel in all_kernels()}
    missing = {name for name, there in names.items() if not there}
    print(f"{len(names)} kernels, without a cuda variant: {', '.join(sorted(missing)) or 'none'}")
    assert missing == WITHOUT_CUDA
    assert len(names) > 20


# --------------------------------------------------------------------------------------------- training


def small_alexnet(variant: str) -> nn.Module:
    """A narrow one on small pictures, with everything in it that the full one has."""
    narrow = dataclasses.replace(VARIANTS[variant], channels=(6, 8, 10, 10, 24), hidden=48)
    net = models.AlexNet(narrow, variant, num_classes=3, image_size=67)
    nn.init.xavier_(net, gain=1.6)  # Larger first values than usual: so narrow a net would not learn.
    return net


MODELS: dict[str, Callable[[], nn.Module]] = {
    "lenet5": lambda: models.lenet5(num_classes=3),
    **{variant: (lambda variant=variant: small_alexnet(variant)) for variant in VARIANTS},
}


def train(name: str, device: str, steps: int, optimiser: str = "sgd", batch: int = 3) -> list[bytes]:
    """The losses and then the weights, as bytes."""
    with mx.random_scope(0), use_winograd(False):
        net = MODELS[name]().to(device)
        if optimiser == "sgd":
            opt: optim.Optimizer = optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        else:
            opt = optim.Adam(net.parameters(), lr=1e-3)
        results = []
        for step in range(steps):
            images = grid(batch, net.channels, net.image_size, net.image_size, item=step % 4, scale=0.5)
            labels = np.arange(batch) % 3
            images += labels[:, None, None, None] - 1.0  # Dark, grey and bright ones can be told apart.
            with mx.random_scope(0, step):
                loss = ops.cross_entropy(net(mx.Tensor(images.astype(np.float32), device=device)), labels)
            loss.backward()
            opt.step()
            opt.zero_grad()
            results.append(loss.numpy().tobytes())
            assert loss.device == device
    return [*results, *(value.tobytes() for value in net.state_dict().values())]


def losses(results: list[bytes], steps: int) -> np.ndarray:
    return np.array([np.frombuffer(item, np.float32)[0] for item in results[:steps]])


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
@pytest.mark.parametrize("name", MODELS)
def test_a_training_step_of_each_model(name: str, optimiser: str) -> None:
    on_cpu, emulated = (train(name, device, 2, optimiser) for device in ("cpu", EMULATED))
    np.testing.assert_allclose(losses(emulated, 2), losses(on_cpu, 2), rtol=1e-5)
    for got, wanted in zip(emulated[2:], on_cpu[2:], strict=True):
        a, b = np.frombuffer(got, np.float32), np.frombuffer(wanted, np.float32)
        # Adam divides by a gradient's own size: where that is all rounding, the step is too.
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6 if optimiser == "sgd" else 2e-4)


def test_twenty_steps_give_the_cpus_losses_and_the_same_bits_twice() -> None:
    """The order in which threads run, which the seed decides, must change nothing."""
    steps = 20
    on_cpu = losses(train("single", "cpu", steps), steps)
    with use_seed(1):
        first = train("single", EMULATED, steps)
    with use_seed(2):
        second = train("single", EMULATED, steps)
    np.testing.assert_allclose(losses(first, steps), on_cpu, rtol=1e-5)
    assert on_cpu[-1] < 0.9 * on_cpu[0]
    assert first == second


# -------------------------------------------------------------------------------------- moving, and mixing


def test_a_model_moves_there_and_back() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    before = net.state_dict()
    opt = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    x = mx.Tensor(grid(2, 2, 4, 4).astype(np.float32))
    for device in ("cpu", EMULATED, "cpu"):
        net.to(device)
        assert {parameter.device for parameter in net.parameters()} == {device}
        ops.cross_entropy(net(x.to(device)), [0, 1]).backward()
        opt.step()  # The momentum follows the weights.
        assert {device_of(p.grad) for p in net.parameters() if p.grad is not None} == {device}
        opt.zero_grad()
    assert all(type(value) is np.ndarray for value in net.state_dict().values())
    net.to(EMULATED).load_state_dict(before)
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda x, w: ops.conv2d(x, w),
            r"conv2d: inputs are on different devices: x on cuda-emulated, weight on cpu; .*x.to\('cuda-emu",
        ),
        (lambda x, w: x + w, "add: .*: a on cuda-emulated, b on cpu"),
        (lambda x, w: w @ x, "matmul: .*: a on cpu, b on cuda-emulated"),
        (lambda x, w: ops.concatenate([x, w]), "concatenate: .*: input 0 on cuda-emulated, input 1 on cpu"),
        (
            lambda x, w: x.copy_(w),
            r"values on cpu meet a Tensor on cuda-emulated; .*values.to\('cuda-emulated'",
        ),
        (lambda x, w: w.copy_(x), r"values on cuda-emulated meet a Tensor on cpu"),
        (lambda x, w: w + x.data, "add: .*: a on cpu, b on cuda-emulated"),
        (
            lambda x, w: ops.cross_entropy(w[0, 0], x.data[0, 0, :, 0].astype(int)),
            "cross_entropy: logits on cpu",
        ),
        (lambda x, w: blas.matrix_product(x.data, w.data, x.data), "matmul: arrays are on different devices"),
        (lambda x, w: setattr(x, "grad", w.data), "on cuda-emulated; got .* on cpu"),
    ],
)
def test_mixed_devices_are_named(call: Callable[[mx.Tensor, mx.Tensor], Any], message: str) -> None:
    x = mx.Tensor(grid(2, 2, 2, 2), device=EMULATED)
    w = mx.Tensor(grid(2, 2, 2, 2))
    with pytest.raises((DeviceError, mx.ShapeError), match=message):
        call(x, w)


def test_numbers_and_plain_arrays_follow_a_tensor_to_its_device() -> None:
    x = mx.Tensor(grid(2, 3), device=EMULATED)
    for y in (x + 1, 2 - x, x * np.float64(3), x + grid(2, 3), x**2, x @ grid(3, 2), x[np.array([1, 0])]):
        assert y.device == EMULATED
    x[0] = np.zeros(3)
    np.testing.assert_array_equal(x.numpy()[0], np.zeros(3))
    np.testing.assert_array_equal(to_numpy(x > grid(2, 3)), x.numpy() > grid(2, 3))
    assert mx.Tensor(x).device == mx.Tensor(x.data).device == EMULATED
    assert x.to("cpu").device == "cpu"
    assert "device='cuda-emulated'" in repr(x)
    assert float(x.sum()) == pytest.approx(float(x.numpy().sum()))
