"""Layers: shapes, settings, and that each calls its op with them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minialex import nn, ops, rng
from minialex.shapes import ShapeError
from minialex.tensor import Tensor


def images(*shape: int) -> Tensor:
    return Tensor(rng.Stream(1, "test").normal(shape=shape).astype(np.float32))


def test_conv2d_by_hand() -> None:
    layer = nn.Conv2d(1, 1, kernel_size=2, stride=1, padding=((0, 1), (1, 0)))
    layer.load_state_dict({"weight": np.array([[[[1.0, 2.0], [3.0, 4.0]]]]), "bias": [0.5]})
    y = layer(Tensor(np.array([[[[1.0, 2.0], [3.0, 4.0]]]], np.float32)))
    # One column of zeros in front, one row of zeros below.
    assert y.numpy().tolist() == [[[[2 + 12 + 0.5, 1 + 4 + 9 + 16 + 0.5], [6 + 0.5, 3 + 8 + 0.5]]]]


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),
        nn.Conv2d(4, 2, (3, 1), stride=(1, 2), padding=((1, 2), (0, 3)), dilation=(2, 1), bias=False),
        nn.MaxPool2d(3, 2),
        nn.MaxPool2d((2, 3), padding=1, ceil_mode=True),
        nn.AvgPool2d(2, ceil_mode=True),
        nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
        nn.AdaptiveAvgPool2d((3, 2)),
    ],
    ids=repr,
)
def test_output_size_is_what_comes_out(layer: nn.Conv2d | nn.MaxPool2d) -> None:
    assert layer(images(2, 4, 11, 10)).shape[2:] == layer.output_size((11, 10))


@pytest.mark.parametrize(
    ("layer", "function"),
    [
        (nn.ReLU(), ops.relu),
        (nn.Sigmoid(), ops.sigmoid),
        (nn.Tanh(), ops.tanh),
        (nn.Softmax(axis=1), lambda x: ops.softmax(x, 1)),
        (nn.LogSoftmax(axis=2), lambda x: ops.log_softmax(x, 2)),
        (nn.Flatten(2), lambda x: ops.flatten(x, 2)),
        (nn.MaxPool2d(3, 2, 1, True), lambda x: ops.max_pool2d(x, 3, 2, 1, True)),
        (nn.AvgPool2d(3, 2, 1, False, False), lambda x: ops.avg_pool2d(x, 3, 2, 1, False, False)),
        (nn.AdaptiveAvgPool2d(2), lambda x: ops.adaptive_avg_pool2d(x, 2)),
        (
            nn.LocalResponseNorm(3, alpha=0.5, beta=0.6, k=2.0, dialect="torch"),
            lambda x: ops.local_response_norm(x, 3, 0.5, 0.6, 2.0, dialect="torch"),
        ),
        (nn.Identity(), lambda x: x),
    ],
    ids=lambda value: repr(value) if isinstance(value, nn.Module) else "",
)
def test_a_layer_is_its_op(layer: nn.Module, function) -> None:  # type: ignore[no-untyped-def]
    x = images(2, 5, 7, 6)
    np.testing.assert_array_equal(layer(x).numpy(), function(x).numpy())


def test_linear_by_hand() -> None:
    layer = nn.Linear(2, 3)
    layer.load_state_dict({"weight": [[1, 2], [3, 4], [5, 6]], "bias": [10, 20, 30]})
    assert layer(Tensor([[1.0, -1.0]])).numpy().tolist() == [[9.0, 19.0, 29.0]]


def test_dropout_drops_while_training_only() -> None:
    x = Tensor(np.ones(1000, np.float32))
    inverted, paper = nn.Dropout(0.25), nn.Dropout(0.25, mode="paper")
    with rng.random_scope(0):
        kept = inverted(x).numpy()
    with rng.random_scope(0):
        np.testing.assert_array_equal(paper(x).numpy(), kept * 0.75)
    assert set(np.unique(kept)) == {np.float32(0), np.float32(1 / 0.75)}
    assert 180 < (kept == 0).sum() < 320
    assert (inverted.eval()(x).numpy() == 1).all()
    assert (paper.eval()(x).numpy() == 0.75).all()


def test_two_dropouts_of_one_step_differ_and_a_step_repeats() -> None:
    layer, x = nn.Dropout(0.5), Tensor(np.ones(100, np.float32))
    with rng.random_scope(3, step=7):
        first, second = layer(x).numpy(), layer(x).numpy()
    with rng.random_scope(3, step=7):
        again = layer(x).numpy()
    assert (first != second).any()
    assert (first == again).all()


def test_cross_entropy_loss_of_equal_logits_is_the_logarithm_of_the_classes() -> None:
    labels = np.array([0, 3])
    logits = Tensor(np.zeros((2, 4), np.float32))
    assert nn.CrossEntropyLoss()(logits, labels).item() == pytest.approx(math.log(4))
    assert nn.CrossEntropyLoss(reduction="sum")(logits, labels).item() == pytest.approx(2 * math.log(4))
    assert nn.CrossEntropyLoss(0.1, "none")(logits, labels).shape == (2,)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: nn.Conv2d(3, 4, 3, groups=2), ShapeError, "conv2d: groups=2 must divide C=3 channels"),
        (lambda: nn.Conv2d(0, 4, 3), ShapeError, "in_channels must be at least 1, got 0"),
        (lambda: nn.Conv2d(3, 4, 0), ShapeError, "kernel_size"),
        (lambda: nn.Conv2d(3, 4, 3, padding=-1), ShapeError, "padding"),
        (lambda: nn.Conv2d(3, 4, 3, stride=1.5), ShapeError, "stride"),
        (lambda: nn.Conv2d(3, 4, 3, groups=0), ShapeError, "groups=0 must divide"),
        (lambda: nn.Conv2d(4, 4, 3, groups=2.0), ShapeError, "groups must be a whole number"),
        (lambda: nn.MaxPool2d(2, padding=2), ShapeError, "max_pool2d: padding must be at most half"),
        (lambda: nn.AvgPool2d(3, padding=((0, 2), 0)), ShapeError, "avg_pool2d: padding"),
        (lambda: nn.AvgPool2d(3, padding=((0, 2), (0, 0))), ShapeError, "avg_pool2d: padding must be at"),
        (lambda: nn.AdaptiveAvgPool2d(0), ShapeError, "adaptive_avg_pool2d: output_size must be at least 1"),
        (lambda: nn.AdaptiveAvgPool2d(2).output_size((0, 3)), ShapeError, "x has no pixels"),
        (lambda: nn.LocalResponseNorm(0, dialect="torch"), ShapeError, "size must be at least 1, got 0"),
        (lambda: nn.Linear(3, -1), ShapeError, "out_features must be at least 1, got -1"),
        (lambda: nn.Dropout(1.5), ValueError, "1.5"),
        (lambda: nn.Dropout(float("nan")), ValueError, "nan"),
        (lambda: nn.Dropout(mode="both"), ValueError, "'both'"),
        (lambda: nn.LocalResponseNorm(5, dialect="caffe"), ValueError, "'caffe'"),
        (lambda: nn.LocalResponseNorm(5), TypeError, "dialect"),
        (lambda: nn.MaxPool2d((1, 2, 3)), ShapeError, "kernel_size"),
        (
            lambda: nn.MaxPool2d(5).output_size((4, 9)),
            ShapeError,
            "max_pool2d: no window fits: H=4",
        ),
        (lambda: nn.Conv2d(1, 1, 5).output_size((9, 4)), ShapeError, "conv2d: no window fits: W=4"),
        (lambda: nn.CrossEntropyLoss(reduction="max"), ValueError, "'max'"),
        (lambda: nn.CrossEntropyLoss(label_smoothing=2.0), ValueError, "2.0"),
    ],
)
def test_impossible_settings(make, error: type[Exception], words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (nn.Conv2d(3, 8, 3), "Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1))"),
        (
            nn.Conv2d(2, 8, 3, 4, ((1, 2), (1, 2)), 2, 2, bias=False),
            "Conv2d(2, 8, kernel_size=(3, 3), stride=(4, 4), padding=((1, 2), (1, 2)), dilation=(2, 2), "
            "groups=2, bias=False)",
        ),
        (nn.MaxPool2d(3, 2, (1, 0)), "MaxPool2d(kernel_size=(3, 3), stride=(2, 2), padding=(1, 0))"),
        (nn.Dropout(0.2, "paper"), "Dropout(p=0.2, mode='paper')"),
        (nn.Flatten(), "Flatten(start_axis=1)"),
        (nn.CrossEntropyLoss(0.1), "CrossEntropyLoss(label_smoothing=0.1)"),
    ],
)
def test_repr(layer: nn.Module, text: str) -> None:
    assert repr(layer) == text
