"""Every op against PyTorch on random configurations: forward and backward, float64 and float32."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minialex import ops, use_variant
from minialex.rng import Stream
from minialex.tensor import Tensor

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'minialex[bench]'")
F = torch.nn.functional

TOLERANCE = {"float64": 1e-11, "float32": 2e-4}
CONFIGURATIONS = 12

pytestmark = [
    pytest.mark.parametrize("dtype", ["float64", "float32"]),
    pytest.mark.parametrize("variant", ["array", "numba"]),
    pytest.mark.parametrize("number", range(CONFIGURATIONS)),
]


def compare(
    mine: Callable[..., Tensor], theirs: Callable[..., Any], arrays: list[Any], dtype: str, variant: str
) -> None:
    """The outputs and all gradients agree, relative to the largest entry of each."""
    arrays = [np.asarray(a, dtype=dtype) for a in arrays]
    their_inputs = [torch.tensor(a, requires_grad=True) for a in arrays]
    their_output = theirs(*their_inputs)
    dy = np.asarray(Stream(99, "test").normal(shape=tuple(their_output.shape)), dtype=dtype)
    their_output.backward(torch.tensor(dy))
    my_inputs = [Tensor(a, requires_grad=True) for a in arrays]
    with use_variant(variant):
        my_output = mine(*my_inputs)
        my_output.backward(dy)
    pairs = [(my_output.numpy(), their_output.detach().numpy())]
    pairs += [(m.grad, t.grad.numpy()) for m, t in zip(my_inputs, their_inputs, strict=True)]
    for index, (got, expected) in enumerate(pairs):
        assert got.shape == expected.shape
        assert got.dtype == expected.dtype
        scale = np.abs(expected).max(initial=1e-30)
        worst = np.abs(got - expected).max(initial=0.0) / scale
        what = "output" if index == 0 else f"gradient of input {index - 1}"
        assert worst <= TOLERANCE[dtype], f"{what}: relative error {worst:.2e}"


def picture(stream: Stream, least: int = 5) -> tuple[int, int, int, int]:
    """A random (N, C, H, W)."""
    N, C = stream.integers(1, 4), stream.integers(1, 7)
    return N, C, stream.integers(least, least + 9), stream.integers(least, least + 9)


def pair_below(stream: Stream, low: int, high: int) -> tuple[int, int]:
    """Two numbers in [low, high)."""
    return stream.integers(low, high), stream.integers(low, high)


def test_conv2d(number: int, variant: str, dtype: str) -> None:
    stream = Stream(number, "test", item=1)
    groups = stream.choice([1, 1, 2, 3])
    N, C, H, W = picture(stream)
    C, filters = C * groups, groups * stream.integers(1, 4)
    kernel, stride, padding = pair_below(stream, 1, 4), pair_below(stream, 1, 4), pair_below(stream, 0, 4)
    dilation = pair_below(stream, 1, 3)
    arrays = [
        stream.normal(shape=(N, C, H, W)),
        stream.normal(shape=(filters, C // groups, *kernel)),
        stream.normal(shape=(filters,)),
    ][: stream.integers(2, 4)]
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    compare(
        lambda x, w, b=None: ops.conv2d(x, w, b, **options),
        lambda x, w, b=None: F.conv2d(x, w, b, **options),
        arrays,
        dtype,
        variant,
    )


def test_conv2d_with_a_padding_for_each_side(number: int, variant: str, dtype: str) -> None:
    stream = Stream(number, "test", item=2)
    (top, bottom), (left, right) = pair_below(stream, 0, 4), pair_below(stream, 0, 4)
    arrays = [stream.normal(shape=picture(stream)), None]
    arrays[1] = stream.normal(shape=(4, arrays[0].shape[1], 3, 2))
    compare(
        lambda x, w: ops.conv2d(x, w, stride=2, padding=((top, bottom), (left, right))),
        lambda x, w: F.conv2d(F.pad(x, (left, right, top, bottom)), w, stride=2),
        arrays,
        dtype,
        variant,
    )


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
def test_pooling(number: int, variant: str, dtype: str, name: str) -> None:
    stream = Stream(number, "test", item=3)
    kernel, stride = pair_below(stream, 1, 5), pair_below(stream, 1, 4)
    padding = (stream.integers(0, kernel[0] // 2 + 1), stream.integers(0, kernel[1] // 2 + 1))
    options: dict[str, Any] = {"ceil_mode": stream.choice([False, True])}
    if name == "avg_pool2d":
        options["count_include_pad"] = stream.choice([False, True])
    compare(
        lambda x: getattr(ops, name)(x, kernel, stride, padding, **options),
        lambda x: getattr(F, name)(x, kernel, stride, padding, **options),
        [stream.normal(shape=picture(stream))],
        dtype,
        variant,
    )


def test_adaptive_avg_pool2d(number: int, variant: str, dtype: str) -> None:
    stream = Stream(number, "test", item=4)
    size = pair_below(stream, 1, 9)
    compare(
        lambda x: ops.adaptive_avg_pool2d(x, size),
        lambda x: F.adaptive_avg_pool2d(x, size),
        [stream.normal(shape=picture(stream, least=2))],
        dtype,
        variant,
    )


def test_local_response_norm(number: int, variant: str, dtype: str) -> None:
    stream = Stream(number, "test", item=5)
    size, alpha = stream.integers(1, 7), stream.uniform(0.1, 2.0)
    beta, k = stream.uniform(0.5, 1.5), stream.uniform(0.5, 2.0)
    compare(
        lambda x: ops.local_response_norm(x, size, alpha, beta, k, dialect="torch"),
        lambda x: F.local_response_norm(x, size, alpha, beta, k),
        [stream.normal(shape=picture(stream, least=2))],
        dtype,
        variant,
    )


@pytest.mark.parametrize("normalised", [False, True])
def test_fused_pooling(number: int, variant: str, dtype: str, normalised: bool) -> None:
    """ReLU, perhaps LRN, and max-pooling in one, against PyTorch's one after another."""
    stream = Stream(number, "test", item=13)
    kernel, stride = pair_below(stream, 1, 5), pair_below(stream, 1, 4)
    padding = (stream.integers(0, kernel[0] // 2 + 1), stream.integers(0, kernel[1] // 2 + 1))
    window: dict[str, Any] = {
        "kernel_size": kernel,
        "stride": stride,
        "padding": padding,
        "ceil_mode": stream.choice([False, True]),
    }
    norm = (stream.integers(1, 7), stream.uniform(0.1, 2.0), stream.choice([0.75, 1.1]), 1.5)
    arrays = [stream.normal(shape=picture(stream))]
    if normalised:
        compare(
            lambda x: ops.relu_lrn_max_pool2d(x, *norm, dialect="torch", **window),
            lambda x: F.max_pool2d(F.local_response_norm(F.relu(x), *norm), **window),
            arrays,
            dtype,
            variant,
        )
    else:
        compare(
            lambda x: ops.relu_max_pool2d(x, **window),
            lambda x: F.max_pool2d(F.relu(x), **window),
            arrays,
            dtype,
            variant,
        )


@pytest.mark.parametrize("width", [3, 5])
def test_convolution_sigmoid_and_pooling(number: int, variant: str, dtype: str, width: int) -> None:
    """All in one, against PyTorch's one after another; filters five wide go image by image."""
    stream = Stream(number, "test", item=14)
    C, F_, padding = stream.integers(1, 4), stream.integers(1, 5), stream.integers(0, 3)
    side = stream.integers(8, 13)
    arrays = [
        stream.normal(shape=(stream.integers(1, 4), C, side, side + 1)),
        stream.normal(shape=(F_, C, 5, width)),
        stream.normal(shape=(F_,)),
    ]
    kernel, stride = stream.integers(1, 4), stream.integers(1, 3)
    compare(
        lambda x, w, b: ops.conv2d_sigmoid_avg_pool2d(
            x, w, b, padding=padding, kernel_size=kernel, pool_stride=stride
        ),
        lambda x, w, b: F.avg_pool2d(torch.sigmoid(F.conv2d(x, w, b, padding=padding)), kernel, stride),
        arrays,
        dtype,
        variant,
    )


@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh"])
def test_activations(number: int, variant: str, dtype: str, name: str) -> None:
    x = Stream(number, "test", item=6).normal(std=3.0, shape=(3, 5, 4))
    compare(getattr(ops, name), getattr(torch, name), [x], dtype, variant)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax(number: int, variant: str, dtype: str, name: str) -> None:
    stream = Stream(number, "test", item=7)
    axis = stream.integers(-3, 3)
    x = stream.normal(std=5.0, shape=(3, 5, 4))
    compare(
        lambda x: getattr(ops, name)(x, axis), lambda x: getattr(torch, name)(x, axis), [x], dtype, variant
    )


def test_cross_entropy(number: int, variant: str, dtype: str) -> None:
    stream = Stream(number, "test", item=8)
    N, K = stream.integers(1, 9), stream.integers(2, 9)
    labels = stream.integers(0, K, (N,))
    smoothing, reduction = stream.choice([0.0, 0.1, 0.5]), stream.choice(["mean", "sum", "none"])
    compare(
        lambda x: ops.cross_entropy(x, labels, smoothing, reduction),
        lambda x: F.cross_entropy(x, torch.tensor(labels), label_smoothing=smoothing, reduction=reduction),
        [stream.normal(std=4.0, shape=(N, K))],
        dtype,
        variant,
    )


def test_linear(number: int, variant: str, dtype: str) -> None:
    stream = Stream(number, "test", item=9)
    inputs, outputs = stream.choice([3, 40, 700]), stream.choice([2, 50, 900])
    leading = stream.choice([(5,), (2, 3), ()])
    arrays = [
        stream.normal(shape=(*leading, inputs)),
        stream.normal(shape=(outputs, inputs)),
        stream.normal(shape=(outputs,)),
    ][: stream.integers(2, 4)]
    compare(ops.linear, F.linear, arrays, dtype, variant)


def test_matmul(number: int, variant: str, dtype: str) -> None:
    stream = Stream(number, "test", item=10)
    shapes = [
        ((3, 4), (4, 5)),
        ((4,), (4, 5)),
        ((3, 4), (4,)),
        ((4,), (4,)),
        ((2, 3, 4), (4, 5)),
        ((3, 4), (2, 4, 5)),
    ]
    shapes += [((2, 1, 3, 4), (3, 4, 2)), ((600, 30), (30, 700)), ((2, 3, 4), (4,)), ((4,), (2, 4, 3))]
    a, b = shapes[number % len(shapes)]
    arrays = [stream.normal(shape=a), stream.normal(shape=b)]
    compare(ops.matmul, torch.matmul, arrays, dtype, variant)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "truediv", "pow"])
def test_arithmetic(number: int, variant: str, dtype: str, name: str) -> None:
    stream = Stream(number, "test", item=11)
    shapes = [((3, 4), (3, 4)), ((3, 1), (4,)), ((2, 1, 4), (3, 1)), ((), (3,)), ((5,), ())]
    a, b = shapes[number % len(shapes)]
    arrays = [np.asarray(stream.uniform(0.5, 2.0, shape)) for shape in (a, b)]
    compare(getattr(operator, name), getattr(operator, name), arrays, dtype, variant)


def test_reductions_and_shapes(number: int, variant: str, dtype: str) -> None:
    stream = Stream(number, "test", item=12)
    x = stream.uniform(0.5, 2.0, (3, 4, 5))
    axis, keepdims = stream.choice([0, 1, -1, (0, 2)]), stream.choice([False, True])
    compare(lambda x: ops.sum(x, axis, keepdims), lambda x: x.sum(axis, keepdims), [x], dtype, variant)
    compare(lambda x: ops.mean(x, axis, keepdims), lambda x: x.mean(axis, keepdims), [x], dtype, variant)
    compare(ops.exp, torch.exp, [x], dtype, variant)
    compare(ops.log, torch.log, [x], dtype, variant)
    compare(lambda x: -x.reshape(6, -1), lambda x: -x.reshape(6, -1), [x], dtype, variant)
    compare(lambda x: ops.transpose(x, (2, 0, 1)), lambda x: x.permute(2, 0, 1), [x], dtype, variant)
    compare(lambda x: x[1:, ::2, [0, 0, 3]], lambda x: x[1:, ::2, [0, 0, 3]], [x], dtype, variant)
    compare(
        lambda x, y: ops.concatenate([x, y], 1), lambda x, y: torch.cat([x, y], 1), [x, x * 2], dtype, variant
    )
