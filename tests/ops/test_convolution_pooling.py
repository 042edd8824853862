"""Convolution, sigmoid and pooling in one: the bits of the three ops, for any gradients and threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minialex import Tensor, observe, ops
from minialex.rng import Stream

# LeNet's two layers; filters that the direct way cannot do; a batch smaller than the parts it is cut into.
LAYERS = {
    "first": ((64, 1, 28, 28), (6, 1, 5, 5), {"padding": 2}),
    "second": ((64, 6, 14, 14), (16, 6, 5, 5), {}),
    "columns": ((8, 3, 12, 12), (4, 3, 3, 3), {"stride": 2}),
    "few": ((3, 2, 11, 10), (3, 2, 5, 5), {"dilation": (2, 1)}),
}


def in_one(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: dict[str, Any]) -> Tensor:
    return ops.conv2d_sigmoid_avg_pool2d(x, weight, bias, **geometry, kernel_size=2)


def one_by_one(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: dict[str, Any]) -> Tensor:
    return ops.avg_pool2d(ops.sigmoid(ops.conv2d(x, weight, bias, **geometry)), 2)


def run(function: Any, layer: str, dtype: str, wanted: str) -> list[np.ndarray | None]:
    """Output and gradients. Args: wanted: the inputs that get one; "-" for no bias at all."""
    x_shape, weight_shape, geometry = LAYERS[layer]
    stream = Stream(0, "test", item=6)
    inputs = {
        name: Tensor(stream.normal(0.0, 0.5, shape).astype(dtype), requires_grad=name in wanted)
        for name, shape in (("x", x_shape), ("w", weight_shape), ("b", weight_shape[:1]))
    }
    y = function(inputs["x"], inputs["w"], None if "-" in wanted else inputs["b"], geometry)
    y.backward(stream.normal(0.0, 1.0, y.shape).astype(dtype))
    return [y.numpy(), *(tensor.grad for tensor in inputs.values())]


@pytest.mark.parametrize("wanted", ["xwb", "wb", "x", "b", "xw-", "w"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layer", LAYERS)
def test_the_bits_are_those_of_the_three_ops(layer: str, dtype: str, wanted: str) -> None:
    for got, right in zip(
        run(in_one, layer, dtype, wanted), run(one_by_one, layer, dtype, wanted), strict=True
    ):
        assert (got is None) == (right is None)
        if got is not None:
            np.testing.assert_array_equal(got, right)


@pytest.mark.parametrize("layer", LAYERS)
def test_the_number_of_threads_changes_no_bit(layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("MINIALEX_NUM_THREADS", threads)
        results.append(run(in_one, layer, "float32", "xwb"))
    for other in results[1:]:
        for got, right in zip(other, results[0], strict=True):
            np.testing.assert_array_equal(got, right)


def test_what_is_kept() -> None:
    """x, the weights and the sigmoids: neither what the convolution gave nor its gradient."""
    kept = {}
    x, weight = Tensor(np.ones((2, 1, 8, 8), np.float32)), Tensor(np.ones((3, 1, 5, 5), np.float32))
    weight.requires_grad = x.requires_grad = True
    with observe(lambda event: kept.update({event.op.name: event.op.saved_bytes})):
        in_one(x, weight, None, {})
    assert kept == {"conv2d_sigmoid_avg_pool2d": 4 * (x.size + weight.size + 2 * 3 * 4 * 4)}
