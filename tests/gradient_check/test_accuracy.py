"""gradient_accuracy: what rounding leaves of a gradient, layer by layer."""

from __future__ import annotations

import json

import numpy as np
import pytest

import minialex as mx
from minialex import models, nn, ops
from minialex.gradient_check import GradcheckError, gradient_accuracy
from minialex.tensor import ExpOp, Tensor
from minialex.testing import grid


def test_a_function_in_both_precisions() -> None:
    accuracy = gradient_accuracy(ops.conv2d, [grid(2, 3, 6, 6), grid(4, 3, 3, 3, item=1)], names=["x", "w"])
    assert [row.name for row in accuracy.rows] == ["x", "w"]
    for row in accuracy.rows:
        assert 1e-9 < row.errors["float32"] < 1e-6
        assert 1e-4 < row.errors["bf16"] < 1e-2
    assert accuracy.worst() == max(row.errors["float32"] for row in accuracy.rows)
    assert accuracy.worst("bf16") > 100 * accuracy.worst()


def test_a_model_layer_by_layer() -> None:
    mx.manual_seed(0)
    net = models.lenet5()
    before = net.state_dict()
    images = grid(2, 1, 28, 28).astype(np.float32)
    accuracy = gradient_accuracy(net, images, lambda y: ops.cross_entropy(y, np.array([3, 1])))
    names = [name for name, _ in net.named_parameters()]
    assert [row.name for row in accuracy.rows] == ["input 0", *names]
    assert [row.shape for row in accuracy.rows[1:]] == [p.shape for p in net.parameters()]
    assert accuracy.worst() < 1e-5
    assert accuracy.worst("bf16") < 0.1
    assert all(parameter.grad is None for parameter in net.parameters())
    for name, values in net.state_dict().items():
        np.testing.assert_array_equal(values, before[name])


def test_a_layer_that_loses_digits_stands_out() -> None:
    class CoarseOp(ExpOp):
        def backward(self, dy: np.ndarray) -> tuple[np.ndarray]:
            (dx,) = super().backward(dy)
            return (dx if dx.dtype == np.float64 else dx.astype(np.float16).astype(np.float32),)

    class Net(nn.Module):
        def __init__(self) -> None:
            self.first, self.second = nn.Linear(6, 5), nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(CoarseOp()(self.first(x)))

    mx.manual_seed(0)
    errors = {row.name: row.errors["float32"] for row in gradient_accuracy(Net(), grid(3, 6)).rows}
    assert errors["second.weight"] < 1e-6
    assert errors["first.weight"] > 1e-4


def test_dropout_draws_the_same_mask_in_all_precisions() -> None:
    assert gradient_accuracy(lambda x: ops.dropout(x, 0.5), grid(200)).worst("bf16") < 1e-2


def test_integers_have_no_gradient() -> None:
    def fn(logits: Tensor, labels: Tensor) -> Tensor:
        return ops.cross_entropy(logits, labels)

    accuracy = gradient_accuracy(fn, [grid(3, 4), np.array([0, 3, 1])], precisions=["float32"])
    assert [row.name for row in accuracy.rows] == ["input 0"]


def test_the_table_and_plain_values() -> None:
    accuracy = gradient_accuracy(ops.tanh, grid(5), names=["x"])
    lines = accuracy.text().splitlines()
    assert lines[0].split() == ["gradient", "of", "shape", "norm", "float32", "bf16"]
    assert lines[1].split()[:2] == ["x", "(5,)"]
    values = json.loads(json.dumps(accuracy.to_json()))
    assert values["rows"][0]["name"] == "x"
    assert set(values["rows"][0]["errors"]) == {"float32", "bf16"}


def test_refusals() -> None:
    with pytest.raises(GradcheckError, match="unknown precision 'fp8': expected some of float32, bf16"):
        gradient_accuracy(ops.tanh, grid(3), precisions=["fp8"])
    with pytest.raises(GradcheckError, match="2 names for 1 inputs"):
        gradient_accuracy(ops.tanh, grid(3), names=["a", "b"])
