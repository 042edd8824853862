"""Which layers an op is said to do the work of, fused or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minialex as mx
from minialex import models, nn, ops
from minialex.nn.fusion import FUSIBLE
from minialex.train.spans import WORDS, LayerSpans, place_of


def spans_of(model: Any, shape: tuple[int, ...], train: bool = True) -> list[tuple[str, str]]:
    spans, seen = LayerSpans(model), []

    def look(event: mx.tensor.Event) -> None:
        spans.see(event)
        seen.append((event.op.order, event.op.name))

    spans.begin()
    with mx.observe(look):
        model.train(train)(mx.Tensor(np.ones(shape, np.float32)))
    layers = spans.resolve()
    return [(name, layers[order]) for order, name in seen]


Run = Callable[[Any, Any], Any]


def layers() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten()
    )


class Fused(nn.Module):
    """Layers of which `run` calls some, and does the work of others by itself."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.features = layers()
        self.classifier = nn.Linear(4 * 1 * 1, 2)

    def forward(self, x: Any) -> Any:
        return self.classifier(self.run(self.features, x))


def hardly_called(features: Any, x: Any) -> Any:
    x = ops.relu_max_pool2d(ops.conv2d(x, features[0].weight, features[0].bias), 2)
    return features[5](ops.conv2d_relu(x, features[3].weight, features[3].bias))


def mostly_called(features: Any, x: Any) -> Any:
    x = features[2](ops.conv2d_relu(x, features[0].weight, features[0].bias))
    return features[5](features[4](ops.conv2d(x, features[3].weight, features[3].bias)))


SHAPE = (2, 3, 8, 8)


def test_layers_that_are_called_own_their_ops() -> None:
    expected = ["conv2d", "relu", "max_pool2d", "conv2d", "relu", "reshape"]
    assert spans_of(layers(), SHAPE) == [(op, str(i)) for i, op in enumerate(expected)]


def test_a_parameter_tells_the_first_layer_and_the_name_tells_the_others() -> None:
    assert spans_of(Fused(hardly_called), SHAPE) == [
        ("conv2d", "features.0"),
        ("relu_max_pool2d", "features.1-2"),
        ("conv2d_relu", "features.3-4"),
        ("reshape", "features.5"),
        ("linear", "classifier"),
    ]


def test_a_layer_that_is_called_is_never_taken_by_an_op_before_it() -> None:
    assert spans_of(Fused(mostly_called), SHAPE) == [
        ("conv2d_relu", "features.0-1"),
        ("max_pool2d", "features.2"),
        ("conv2d", "features.3"),
        ("relu", "features.4"),
        ("reshape", "features.5"),
        ("linear", "classifier"),
    ]


class Regularized(nn.Module):
    """Layers that make no op in eval mode, Dropout and Identity, among fused ones and at the end."""

    def __init__(self) -> None:
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Dropout(0.5), nn.ReLU(), nn.MaxPool2d(2), nn.Identity()
        )
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(36, 2), nn.ReLU(), nn.Dropout(0.5))

    def forward(self, x: Any) -> Any:
        return self.classifier(nn.run_fused(self.features, x))


@pytest.mark.parametrize("train", [True, False])
def test_a_layer_that_is_called_and_makes_no_op_is_no_part_of_a_fused_one(train: bool) -> None:
    rows = [
        ("conv2d_relu", "features.0-1"),
        ("dropout", "features.2"),
        ("relu_max_pool2d", "features.3-4"),
        ("reshape", "classifier.0"),
        ("linear", "classifier.1"),
        ("relu", "classifier.2"),
        ("dropout", "classifier.3"),
    ]
    expected = rows if train else [row for row in rows if row[0] != "dropout"]
    assert spans_of(Regularized(), SHAPE, train) == expected


def test_a_layer_does_no_work_of_others() -> None:
    """The last ReLU is never used: the Conv2d that is called before it does not do its work."""

    class Unused(nn.Module):
        def __init__(self) -> None:
            self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())

        def forward(self, x: Any) -> Any:
            return self.layers[0](x)

    assert spans_of(Unused(), SHAPE) == [("conv2d", "layers.0")]


def test_what_no_leaf_does_belongs_to_the_container() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            self.scale = nn.Parameter(np.ones(1, np.float32))
            self.conv, self.relu = nn.Conv2d(3, 3, 1), nn.ReLU()

        def forward(self, x: Any) -> Any:
            return self.relu(self.conv(x * self.scale) + x)

    places = [("mul", "0"), ("conv2d", "0.conv"), ("add", "0"), ("relu", "0.relu")]
    assert spans_of(nn.Sequential(Block()), SHAPE) == places


def test_all_that_can_be_fused_has_a_word() -> None:
    assert set(WORDS) == set(FUSIBLE)


def test_the_place_of_an_op_in_words() -> None:
    assert place_of("relu_max_pool2d", "features.1-2") == "relu_max_pool2d in features.1-2"
    assert place_of("cross_entropy", "") == "cross_entropy"


def test_ops_outside_of_all_layers_have_no_name() -> None:
    class Sums(nn.Module):
        def __init__(self) -> None:
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: Any) -> Any:
            return ops.sum(self.conv(x) + x)

    assert [layer for _, layer in spans_of(Sums(), SHAPE)] == ["conv", "", ""]


def test_fused_layers_of_alexnet() -> None:
    places = dict.fromkeys(layer for _, layer in spans_of(models.build("single", 3, 67), (2, 3, 67, 67)))
    expected = ["features.0", "features.1-3", "features.4", "features.5-7", "features.8-9", "features.10-11"]
    expected += ["features.12", "features.13-14", "", "classifier.0"]
    assert list(places)[:10] == expected


def test_every_layer_of_the_models_is_somewhere() -> None:
    for name, side in (("lenet5", 28), ("flowers", 67)):
        model = models.build(name, 3, side)
        places = [layer for _, layer in spans_of(model, (2, model.channels, side, side)) if layer]
        assert len(places) == len(set(places))
        firsts = {place.split("-")[0] for place in places}
        weighted = {
            name.rpartition(".")[0] for name, _ in model.named_parameters() if name.endswith("weight")
        }
        assert weighted <= firsts
