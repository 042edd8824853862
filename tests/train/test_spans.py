"""Which layers an op is said to do the work of, fused or not."""

from __future__ import annotations

from typing import Any

import numpy as np

import minialex as mx
from minialex import models, nn, ops
from minialex.train.spans import LayerSpans


def spans_of(model: Any, shape: tuple[int, ...]) -> list[tuple[str, str]]:
    spans, seen = LayerSpans(model), []

    def look(event: mx.tensor.Event) -> None:
        spans.see(event)
        seen.append((event.op.order, event.op.name))

    spans.begin()
    with mx.observe(look):
        model.train()(mx.Tensor(np.ones(shape, np.float32)))
    layers = spans.resolve()
    return [(name, layers[order]) for order, name in seen]


def layers() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten()
    )


class Fused(nn.Module):
    """Runs some of its layers' work by itself, as one op each: what stands in `calls` is called."""

    def __init__(self, calls: tuple[int, ...]) -> None:
        self.calls = calls
        self.features = layers()
        self.classifier = nn.Linear(4 * 1 * 1, 2)

    def forward(self, x: Any) -> Any:
        x = self.features(x) if not self.calls else Stage.run(self.features, x, self.calls)
        return self.classifier(x)


class Stage:
    """Convolutions by their parameters; one op for ReLU and pooling."""

    @staticmethod
    def run(features: Any, x: Any, calls: tuple[int, ...]) -> Any:
        for index, layer in enumerate(features):
            if index in calls:
                x = layer(x)
            elif isinstance(layer, nn.Conv2d):
                x = ops.conv2d(x, layer.weight, layer.bias)
            elif isinstance(layer, nn.MaxPool2d):
                x = ops.max_pool2d(x, 2)
            elif isinstance(layer, nn.Flatten):
                x = ops.flatten(x, 1)
        return x


SHAPE = (2, 3, 8, 8)


def test_layers_that_are_called_own_their_ops() -> None:
    expected = ["conv2d", "relu", "max_pool2d", "conv2d", "relu", "reshape"]
    assert spans_of(layers(), SHAPE) == [(op, str(i)) for i, op in enumerate(expected)]


def test_a_parameter_tells_the_layer_and_other_ops_share_what_is_left() -> None:
    assert spans_of(Fused(calls=(5,)), SHAPE) == [
        ("conv2d", "features.0"),
        # Without a parameter: from the first layer that nobody did, up to the next that somebody did.
        ("max_pool2d", "features.1-2"),
        ("conv2d", "features.3-4"),
        ("reshape", "features.5"),
        ("linear", "classifier"),
    ]


def test_a_layer_that_is_called_is_never_taken_by_an_op_before_it() -> None:
    assert spans_of(Fused(calls=(2, 4, 5)), SHAPE) == [
        ("conv2d", "features.0-1"),
        ("max_pool2d", "features.2"),
        ("conv2d", "features.3"),
        ("relu", "features.4"),
        ("reshape", "features.5"),
        ("linear", "classifier"),
    ]


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
