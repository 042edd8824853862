"""What can be chosen for a network: dropout, normalisation, pooling, activation."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from minialex import models, nn, rng
from minialex.errors import UsageError
from minialex.models.parts import ACTIVATIONS
from minialex.nn import init
from minialex.shapes import ShapeError

ALEXNETS = tuple(models.VARIANTS)
OTHERS = tuple(name for name in models.MODEL_NAMES if name not in ALEXNETS)


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Narrow hidden layers: the 250 MB of the full ones would show nothing more."""
    for name, row in models.VARIANTS.items():
        monkeypatch.setitem(models.VARIANTS, name, dataclasses.replace(row, hidden=200))


def built(name: str, **options: Any) -> models.ConvNet:
    """The network without its first values."""
    with init.without_init():
        return models.build(name, 3, **options)


def kinds(net: nn.Module, kind: type[nn.Module]) -> list[Any]:
    return [module for module in net.modules() if isinstance(module, kind)]


@pytest.mark.parametrize("name", ALEXNETS)
class TestAlexNets:
    def test_nothing_chosen_is_the_networks_own(self, name: str) -> None:
        row = models.VARIANTS[name]
        own = built(name, dropout=row.dropout, lrn=row.lrn, pooling="overlapping", activation="relu")
        assert repr(built(name)) == repr(own)

    def test_dropout(self, name: str) -> None:
        assert [layer.p for layer in kinds(built(name, dropout=0.3), nn.Dropout)] == [0.3, 0.3]
        assert [layer.p for layer in kinds(built(name, dropout=0.0), nn.Dropout)] == [0.0, 0.0]

    @pytest.mark.parametrize("lrn", [True, False])
    def test_lrn(self, name: str, lrn: bool) -> None:
        net = built(name, lrn=lrn)
        places = [i for i, layer in enumerate(net.features) if isinstance(layer, nn.LocalResponseNorm)]
        assert places == ([2, 6] if lrn else [])
        assert all(isinstance(net.features[i - 1], nn.ReLU) for i in places)
        assert all(isinstance(net.features[i + 1], nn.MaxPool2d) for i in places)

    def test_pooling_changes_no_size(self, name: str) -> None:
        net, own = built(name, pooling="separate"), built(name)
        assert [(p.kernel_size, p.stride) for p in kinds(net, nn.MaxPool2d)] == [((2, 2), (2, 2))] * 3
        side = own.image_size
        assert net.output_size((side, side)) == own.output_size((side, side)) == (6, 6)
        assert net.num_parameters() == own.num_parameters()

    @pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
    def test_activation(self, name: str, activation: str) -> None:
        net = built(name, activation=activation)
        assert not kinds(net, nn.ReLU)
        assert len(kinds(net, ACTIVATIONS[activation])) == len(kinds(built(name), nn.ReLU))


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation_of_the_others(name: str, activation: str) -> None:
    net = built(name, activation=activation)
    wanted = 3 if name == "cifar-4" else 4
    assert [len(kinds(net, kind)) for kind in ACTIVATIONS.values()] == [
        wanted if key == activation else 0 for key in ACTIVATIONS
    ]


def test_pooling_of_cifar4() -> None:
    overlapping, separate = built("cifar-4"), built("cifar-4", pooling="separate")
    assert overlapping.output_size((32, 32)) == (3, 3)
    assert separate.output_size((32, 32)) == (4, 4)
    assert separate.num_parameters() - overlapping.num_parameters() == 3 * 64 * (4 * 4 - 3 * 3)


# --------------------------------------------------------------------------------------- first values


def deviation(net: nn.Module, name: str) -> float:
    return float(net.state_dict()[name].std())


def test_first_values_follow_the_activation() -> None:
    """Weights of conv2 of cifar-4, 5 x 5 windows: 1 / fan_in for ReLU; Xavier's for tanh; that times 4."""
    inputs, filters = models.cifar.FILTERS[:2]
    wanted = {
        "relu": np.sqrt(1 / (25 * inputs)),
        "tanh": np.sqrt(2 / (25 * inputs + 25 * filters)),
        "sigmoid": 4 * np.sqrt(2 / (25 * inputs + 25 * filters)),
    }
    for activation, std in wanted.items():
        with rng.random_scope(0):
            net = models.cifar4(activation=activation)
        assert deviation(net, "features.3.weight") == pytest.approx(std, rel=0.03), activation


def test_another_activation_of_an_alexnet_has_other_first_values() -> None:
    with rng.random_scope(0):
        own = models.build("flowers", 2, 64, activation="relu")
        tanh = models.build("flowers", 2, 64, activation="tanh")
    assert deviation(own, "classifier.4.weight") == pytest.approx(0.01, rel=0.01)
    assert deviation(tanh, "classifier.4.weight") == pytest.approx(np.sqrt(2 / 400), rel=0.01)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_signals_and_gradients_pass_through_cifar4_at_its_first_values(activation: str) -> None:
    """No layer starts saturated, silent or without a gradient: what the comparison of the three rests on."""
    import minialex as mx

    with rng.random_scope(0):
        net = models.cifar4(activation=activation)
        x = mx.Tensor(rng.Stream(0, "test").normal(shape=(8, 3, 32, 32)).astype(np.float32))
        loss = mx.ops.cross_entropy(net(x), np.arange(8))
        loss.backward()
    assert 2 < loss.item() < 3, "ln(10) is 2.3"
    norms = [float(np.linalg.norm(p.grad)) for p in net.parameters() if p.ndim > 1]
    assert min(norms) > 0.01 * max(norms)


# -------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("lenet5", {"dropout": 0.5}, "lenet5 has no use for dropout; what can be chosen for it: activation"),
        ("lenet5-relu", {"lrn": False}, "lenet5-relu has no use for lrn"),
        ("lenet5", {"pooling": "separate"}, "lenet5 has no use for pooling"),
        ("cifar-4", {"dropout": 0.0}, "cifar-4 has no use for dropout; .*: pooling, activation"),
        ("cifar-4", {"pooling": "mean"}, "pooling must be one of overlapping, separate, got 'mean'"),
        ("single", {"pooling": "max"}, "pooling must be one of overlapping, separate, got 'max'"),
        ("cifar-4", {"activation": "ReLU"}, "activation must be one of relu, tanh, sigmoid, got 'ReLU'"),
        ("owt", {"activation": "gelu"}, "activation must be one of relu, tanh, sigmoid, got 'gelu'"),
        ("lenet5", {"activation": ""}, "activation must be one of relu, tanh, sigmoid, got ''"),
        ("flowers", {"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
        ("flowers-tf", {"dropout": -0.1}, "dropout must be at least 0 and below 1, got -0.1"),
        ("flowers", {"dropout": float("nan")}, "dropout must be at least 0 and below 1, got nan"),
    ],
)
def test_mistakes(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        built(name, **options)


@pytest.mark.parametrize(
    ("channels", "groups", "words"),
    [
        (
            (96, 255, 384, 384, 256),
            2,
            "conv2: groups=2 must divide its 96 input channels and its 255 filters",
        ),
        ((96, 256, 384, 383, 256), 2, "conv4: groups=2 must divide its 384 input .* and its 383 filters"),
        ((96, 256, 383, 384, 256), 2, "conv4: groups=2 must divide its 383 input .* and its 384 filters"),
        ((96, 256, 384, 384, 255), 2, "conv5: groups=2 must divide its 384 input .* and its 255 filters"),
        ((96, 256, 384, 384, 256), 0, "conv2: groups=0 must divide"),
    ],
)
def test_groups_that_do_not_divide_name_the_layer(
    channels: tuple[int, int, int, int, int], groups: int, words: str
) -> None:
    with pytest.raises(ShapeError, match=words):
        dataclasses.replace(models.VARIANTS["grouped"], channels=channels, groups=groups)


@pytest.mark.parametrize(
    ("name", "side", "words"),
    [
        ("six-conv", 66, r"2 x 2 at features.14, MaxPool2d.* = \(2 - 3 \+ 2\*0\)/2 \+ 1 = 0.5 -> 0"),
        (
            "single",
            10,
            r"10 x 10 at features.0, Conv2d.* = \(10 - 11 \+ 2\*0\)/4 \+ 1 = 0.75 -> 0: no window",
        ),
        (
            "flowers-tf",
            7,
            r"at features.0, Conv2d.* = \(7 - 11 \+ 1 \+ 2\)/4 \+ 1 = 0.75 -> 0: no window fits",
        ),
        ("cifar-4", 14, r"they are 2 x 2 at features.8, MaxPool2d.*; the smallest that fit are 15 x 15"),
        ("flowers", 62, "the smallest that fit are 63 x 63"),
        ("owt", 0, "image_size must be at least 1, got 0"),
        ("cifar-4", -3, "image_size must be at least 1, got -3"),
    ],
)
def test_impossible_sizes_say_which_layer_and_why(name: str, side: int, words: str) -> None:
    with pytest.raises(ShapeError, match=rf"^{name}: .*{words}"):
        built(name, image_size=side)


@pytest.mark.parametrize("name", [*ALEXNETS, "cifar-4"])
def test_the_smallest_that_fit_do_fit(name: str) -> None:
    with pytest.raises(ShapeError, match="the smallest that fit are") as caught:
        built(name, image_size=5)
    side = int(str(caught.value).rpartition(" ")[2])
    assert built(name, image_size=side).output_size((side, side)) >= (1, 1)
    with pytest.raises(ShapeError):
        built(name, image_size=side - 1)
