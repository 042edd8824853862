"""Fused runs of layers: the unfused layers' numbers, tree and names."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import minialex as mx
from minialex import models, nn, ops
from minialex.rng import Stream
from minialex.tensor import Event


def run(net: nn.Module, x: np.ndarray, fused: bool) -> tuple[list[np.ndarray], list[str]]:
    """Output and all gradients, and the names of the ops that ran."""
    net.fused = fused  # type: ignore[assignment]
    names = []

    def note(event: Event) -> None:
        if event.phase == "forward":
            names.append(event.op.name)

    tensor = mx.Tensor(x, requires_grad=True)
    net.zero_grad()
    with mx.random_scope(0, 0), mx.use_winograd(False), mx.observe(note):
        y = net(tensor)
        y.backward(Stream(0, "test").normal(0.0, 1.0, y.shape).astype(x.dtype))
    return [y.numpy(), tensor.grad, *(p.grad for p in net.parameters())], names


@pytest.mark.parametrize("variant", models.VARIANTS)
def test_every_alexnet_gives_the_unfused_numbers_in_fewer_ops(variant: str) -> None:
    narrow = dataclasses.replace(models.VARIANTS[variant], hidden=16)
    net = models.AlexNet(narrow, variant, num_classes=3, image_size=99)
    size = net.image_size
    x = Stream(0, "test").normal(0.0, 1.0, (2, 3, size, size)).astype(np.float32)
    plain, ops_of_plain = run(net, x, fused=False)
    fused, ops_of_fused = run(net, x, fused=True)
    for one, other in zip(fused, plain, strict=True):
        np.testing.assert_array_equal(one, other)
    assert "relu" in ops_of_plain
    assert ops_of_fused.count("conv2d_relu") == (3 if variant == "six-conv" else 2)
    pooled = "relu_lrn_max_pool2d" if net.features[2].__class__ is nn.LocalResponseNorm else "relu_max_pool2d"
    assert ops_of_fused.count(pooled) >= 2
    assert "local_response_norm" not in ops_of_fused
    assert "max_pool2d" not in ops_of_fused


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("name", [*models.LENETS, "cifar-4"])
def test_every_small_net_gives_the_unfused_bits(name: str, activation: str) -> None:
    with mx.random_scope(0):
        net = models.build(name, 3, activation=activation)
    x = Stream(0, "test").normal(0.0, 1.0, (3, net.channels, net.image_size, net.image_size))
    plain, ops_of_plain = run(net, x.astype(np.float32), fused=False)
    fused, ops_of_fused = run(net, x.astype(np.float32), fused=True)
    for one, other in zip(fused, plain, strict=True):
        np.testing.assert_array_equal(one, other)
    by_average = activation == "sigmoid" and name == "lenet5"
    fewer = {"relu": len(net.features) // 3, "tanh": 0, "sigmoid": 4 if by_average else 0}[activation]
    if activation == "relu" and name == "lenet5":  # conv2d_relu before an average.
        fewer = 2
    assert len(ops_of_plain) - len(ops_of_fused) == fewer


@pytest.mark.parametrize(
    "options",
    [{"pooling": "separate"}, {"lrn": True, "pooling": "separate"}, {"activation": "tanh"}, {"lrn": True}],
)
def test_an_alexnet_with_other_options_gives_the_unfused_bits(options: dict[str, Any]) -> None:
    narrow = dataclasses.replace(models.VARIANTS["flowers-tf"], hidden=16, **options)
    net = models.AlexNet(narrow, "flowers-tf", num_classes=3, image_size=99)
    x = Stream(0, "test").normal(0.0, 1.0, (2, 3, 99, 99)).astype(np.float32)
    for one, other in zip(run(net, x, fused=True)[0], run(net, x, fused=False)[0], strict=True):
        np.testing.assert_array_equal(one, other)


class Shifted(nn.ReLU):
    """A ReLU that a user made different."""

    def forward(self, x: mx.Tensor) -> mx.Tensor:
        return ops.relu(x) + 1.0


@pytest.mark.parametrize(
    ("layers", "names"),
    [
        ([nn.Conv2d(2, 3, 3), nn.ReLU()], ["conv2d_relu"]),
        ([nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2)], ["conv2d", "relu_max_pool2d"]),
        ([nn.Conv2d(2, 3, 3), nn.Sigmoid(), nn.MaxPool2d(2)], ["conv2d", "sigmoid", "max_pool2d"]),
        ([nn.Sigmoid(), nn.AvgPool2d(2, count_include_pad=False, padding=1)], ["sigmoid_avg_pool2d"]),
        ([nn.Conv2d(2, 3, 5), nn.Sigmoid(), nn.AvgPool2d(2)], ["conv2d_sigmoid_avg_pool2d"]),
        ([nn.Conv2d(2, 3, 3, stride=2), nn.Sigmoid(), nn.AvgPool2d(3, 1, 1)], ["conv2d_sigmoid_avg_pool2d"]),
        ([nn.Sigmoid(), nn.ReLU(), nn.AvgPool2d(2)], ["sigmoid", "relu", "avg_pool2d"]),
        ([nn.Conv2d(2, 3, 3), Shifted(), nn.MaxPool2d(2)], ["conv2d", "relu", "add", "max_pool2d"]),
        ([nn.ReLU(), nn.Conv2d(2, 3, 3)], ["relu", "conv2d"]),
        ([nn.Conv2d(2, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.ReLU()], ["conv2d_relu", "conv2d_relu"]),
        ([], []),
    ],
)
def test_only_known_runs_are_fused(layers: list[nn.Module], names: list[str]) -> None:
    x = mx.Tensor(Stream(0, "test").normal(0.0, 1.0, (1, 2, 8, 8)).astype(np.float64))
    for layer in layers:
        for parameter in layer.parameters():
            parameter.data = parameter.data.astype(np.float64)
    seen: list[str] = []
    with mx.observe(lambda event: seen.append(event.op.name)), mx.no_grad():
        fused = nn.run_fused(layers, x)
    assert seen == names
    np.testing.assert_allclose(fused.numpy(), nn.Sequential(*layers)(x).numpy(), rtol=1e-12, atol=1e-12)


def test_a_layer_whose_forward_was_replaced_is_called() -> None:
    layers = [nn.ReLU(), nn.MaxPool2d(2)]
    layers[0].forward = lambda x: x + 1.0  # type: ignore[method-assign]
    x = mx.Tensor(-np.ones((1, 1, 2, 2)))
    assert nn.run_fused(layers, x).numpy().tolist() == [[[[0.0]]]]


def test_unfused_reaches_a_model_inside_another() -> None:
    inner = models.lenet5()
    outer = nn.Sequential(inner)
    names: list[str] = []
    x = mx.Tensor(np.zeros((1, 1, 28, 28), np.float32))
    with nn.unfused(outer), mx.no_grad(), mx.observe(lambda event: names.append(event.op.name)):
        outer(x)
    assert names.count("conv2d") == 2
    assert inner.fused
