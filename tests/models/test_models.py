"""The networks: counts, names, sizes, and weights from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from minialex import models, nn, ops, optim, rng
from minialex.errors import CheckpointError, UsageError
from minialex.models.alexnets import VARIANTS, AlexNet, Variant
from minialex.nn import init
from minialex.shapes import ShapeError
from minialex.tensor import Tensor, no_grad

PARAMETERS = {
    ("flowers", 5): 14_591_685,
    ("single", 1000): 62_378_344,
    ("grouped", 1000): 60_965_224,
    ("owt", 1000): 61_100_840,
    ("flowers-tf", 5): 14_591_685,
    ("six-conv", 1000): 62_968_424,
    ("lenet5", 10): 61_706,
    ("lenet5-relu", 10): 61_706,
    ("cifar-4", 10): 71_082,
}


def zeros(*shape: int) -> Tensor:
    return Tensor(np.zeros(shape, np.float32))


def small(variant: str, hidden: int = 8) -> Variant:
    """The variant with narrow fully connected layers: same names, a fraction of the parameters."""
    from dataclasses import replace

    return replace(VARIANTS[variant], hidden=hidden)


@pytest.mark.parametrize(("name", "classes"), PARAMETERS)
def test_parameter_counts(name: str, classes: int) -> None:
    with init.without_init():
        model = models.build(name, None if classes != 5 else 5)
    assert model.num_parameters() == PARAMETERS[name, classes]
    assert (model.name, model.num_classes) == (name, classes)


def test_every_name_builds() -> None:
    assert set(models.MODEL_NAMES) == {name for name, _ in PARAMETERS}


@pytest.mark.parametrize(
    ("variant", "convolutions"),
    [
        ("flowers", [0, 3, 6, 8, 10]),
        ("owt", [0, 3, 6, 8, 10]),
        ("single", [0, 4, 8, 10, 12]),
        ("grouped", [0, 4, 8, 10, 12]),
        ("flowers-tf", [0, 3, 6, 8, 10]),
        ("six-conv", [0, 4, 8, 10, 12, 15]),
    ],
)
def test_names_in_the_state_dict(variant: str, convolutions: list[int]) -> None:
    names = [f"features.{i}" for i in convolutions] + [f"classifier.{i}" for i in (1, 4, 6)]
    net = AlexNet(small(variant), variant, 5, VARIANTS[variant].image_size)
    assert list(net.state_dict()) == [f"{name}.{part}" for name in names for part in ("weight", "bias")]


def test_shapes_of_the_flowers_net() -> None:
    state = AlexNet(small("flowers"), "flowers", 5, 224).state_dict()
    assert state["features.0.weight"].shape == (48, 3, 11, 11)
    assert state["features.10.weight"].shape == (128, 192, 3, 3)
    assert state["classifier.1.weight"].shape == (8, 128 * 6 * 6)
    assert state["classifier.6.bias"].shape == (5,)


def test_groups_are_in_conv2_conv4_and_conv5() -> None:
    features = AlexNet(small("grouped"), "grouped", 5, 227).features
    layers = [layer for layer in features if isinstance(layer, nn.Conv2d)]
    assert [layer.groups for layer in layers] == [1, 2, 1, 2, 2]
    norms = [i for i, layer in enumerate(features) if isinstance(layer, nn.LocalResponseNorm)]
    assert [type(features[i - 1]).__name__ for i in norms] == ["ReLU", "ReLU"]
    assert norms == [2, 6]


@pytest.mark.parametrize(
    ("variant", "side", "padding"),
    [
        ("single", 227, ((0, 0), (0, 0))),
        ("grouped", 224, ((1, 2), (1, 2))),
        ("flowers", 224, ((2, 2), (2, 2))),
        ("owt", 224, ((2, 2), (2, 2))),
        ("flowers-tf", 224, ((1, 2), (1, 2))),
        ("six-conv", 224, ((1, 2), (1, 2))),
    ],
)
def test_conv1_gives_55_by_55(variant: str, side: int, padding: tuple[tuple[int, int], ...]) -> None:
    net = AlexNet(small(variant), variant, 3, side)
    conv1 = net.features[0]
    assert isinstance(conv1, nn.Conv2d)
    assert conv1.padding == padding
    assert conv1.output_size((side, side)) == (55, 55)
    with no_grad():
        assert net.eval()(zeros(1, 3, side, side)).shape == (1, 3)


def test_owt_takes_images_of_other_sizes_and_others_say_what_they_take() -> None:
    owt = AlexNet(small("owt"), "owt", 3, 224).eval()
    with no_grad():
        assert owt(zeros(1, 3, 100, 63)).shape == (1, 3)
    flowers = AlexNet(small("flowers"), "flowers", 3, 224)
    with pytest.raises(ShapeError, match=r"200 x 200 leave 5 x 5 .* expects 6 x 6; resize them to 224 x 224"):
        flowers(zeros(1, 3, 200, 200))
    with pytest.raises(ShapeError, match=r"images must be \(N, 3, H, W\), got shape \(1, 1, 224, 224\)"):
        flowers(zeros(1, 1, 224, 224))
    with pytest.raises(ShapeError, match="30 x 30 are too small"):
        flowers(zeros(1, 3, 30, 30))


def test_another_size_makes_another_classifier() -> None:
    net = AlexNet(small("flowers"), "flowers", 3, 96).eval()
    assert net.image_size == 96
    with no_grad():
        assert net(zeros(2, 3, 96, 96)).shape == (2, 3)


@pytest.mark.parametrize(
    ("side", "words"),
    [
        (32, r"images of 32 x 32 are too small: they are 1 x 1 at features.12, MaxPool2d"),
        (4, "at features.0, Conv2d"),
    ],
)
def test_impossible_sizes_name_the_layer(side: int, words: str) -> None:
    with pytest.raises(ShapeError, match=words):
        models.alexnet("flowers", 5, image_size=side)


def test_first_values_are_the_variants_own() -> None:
    rng.manual_seed(0)
    net = models.alexnet("flowers", num_classes=2, image_size=64)
    state = net.state_dict()
    assert not state["features.3.bias"].any()
    assert state["classifier.4.weight"].std() == pytest.approx(0.01, rel=0.01)
    rng.manual_seed(0)
    again = models.alexnet("flowers", num_classes=2, image_size=64).state_dict()
    assert all((array == again[name]).all() for name, array in state.items())
    single = AlexNet(small("single"), "single", 3, 227)
    VARIANTS["single"].init(single)
    biases = [float(array[0]) for name, array in single.state_dict().items() if name.endswith("bias")]
    assert biases == [0, 1, 0, 1, 1, 1, 1, 0]
    six = AlexNet(small("six-conv"), "six-conv", 3, 227)
    VARIANTS["six-conv"].init(six)
    biases = [float(array[0]) for name, array in six.state_dict().items() if name.endswith("bias")]
    assert biases == [0, 1, 0, 1, 1, 1, 1, 1, 0]


@pytest.mark.slow
def test_a_full_size_net_draws_its_first_values_and_runs() -> None:
    with rng.random_scope(1):
        net = models.alexnet("single").eval()
    with no_grad():
        logits = net(zeros(1, 3, 227, 227))
    assert logits.shape == (1, 1000)
    assert np.isfinite(logits.numpy()).all()


def test_the_flowers_net_learns_four_pictures() -> None:
    with rng.random_scope(0):
        net = AlexNet(small("flowers", hidden=64), "flowers", 2, 63)
        init.course_(net)
        for index in (1, 4):  # N(0, 0.01) is meant for two thousand inputs.
            init.kaiming_normal_(net.classifier[index].weight)  # type: ignore[attr-defined]
    net.eval()  # Dropout rests: with it a loss of four pictures jumps up and down.
    labels = np.array([0, 1, 0, 1])
    noise = rng.Stream(0, "test").normal(shape=(4, 3, 63, 63))
    images = Tensor((noise + labels[:, None, None, None]).astype(np.float32))
    optimizer = optim.Adam(net.parameters(), lr=1e-3)
    losses = []
    for step in range(20):
        with rng.random_scope(0, step):
            loss = ops.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.item()))
    assert losses[-1] < 0.3 * losses[0]


class TestLeNet:
    def test_takes_28_by_28(self) -> None:
        net = models.lenet5()
        assert net(zeros(2, 1, 28, 28)).shape == (2, 10)
        assert (net.channels, net.image_size) == (1, 28)
        with pytest.raises(ShapeError, match=r"\(N, 1, 28, 28\), got shape \(2, 1, 32, 32\)"):
            net(zeros(2, 1, 32, 32))
        for name in models.LENETS:
            with pytest.raises(ShapeError, match=f"{name} takes images of 28 x 28 only"):
                models.build(name, image_size=32)
        with pytest.raises(UsageError, match="unknown LeNet 'lenet': expected one of lenet5, lenet5-relu"):
            models.lenet5(10, "lenet")

    @pytest.mark.parametrize("name", models.LENETS)
    def test_its_layers(self, name: str) -> None:
        kinds = [type(layer) for layer in models.build(name).features]
        sigmoid = [nn.Conv2d, nn.Sigmoid, nn.AvgPool2d]
        assert kinds == 2 * (sigmoid if name == "lenet5" else [nn.Conv2d, nn.ReLU, nn.MaxPool2d])

    @pytest.mark.parametrize(
        ("name", "activation", "lr"),
        [("lenet5", None, 0.5), ("lenet5", "tanh", 0.1), ("lenet5", "relu", 0.1), ("lenet5-relu", None, 0.1)],
    )
    def test_learns_from_its_first_values(self, name: str, activation: str | None, lr: float) -> None:
        with rng.random_scope(0):
            net = models.build(name, 4, activation=activation)
        images = np.zeros((4, 1, 28, 28), np.float32)
        for i in range(4):
            images[i, 0, 14 * (i // 2) : 14 * (i // 2) + 14, 14 * (i % 2) : 14 * (i % 2) + 14] = 1.0
        optimizer = optim.SGD(net.parameters(), lr=lr, momentum=0.9)
        for _ in range(100):
            loss = ops.cross_entropy(net(Tensor(images)), np.arange(4))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert loss.item() < 0.1


class TestBuild:
    def test_unknown_names_are_answered_with_known_ones(self) -> None:
        with pytest.raises(UsageError, match=r"'flower': did you mean 'flowers'\? the models are .*lenet5"):
            models.build("flower")
        with pytest.raises(ValueError, match="expected one of flowers, single, grouped, owt"):
            models.alexnet("big")

    def test_classes(self) -> None:
        with pytest.raises(UsageError, match="got 0"):
            models.build("lenet5", num_classes=0)


class TestWeights:
    @pytest.fixture
    def net(self) -> AlexNet:
        return models.alexnet("flowers", num_classes=2, image_size=63)

    @pytest.mark.parametrize("prefix", ["", "model/"])
    def test_a_bare_state_dict_or_a_checkpoint(self, net: AlexNet, prefix: str, tmp_path: Path) -> None:
        path = tmp_path / "weights.safetensors"
        arrays = {prefix + name: array for name, array in net.state_dict().items()}
        extra = {"optimizer/momentum.0": np.ones(3)} if prefix else {}
        save_file(arrays | extra, path)
        with rng.random_scope(0) as scope:
            loaded = models.alexnet("flowers", num_classes=2, image_size=63, weights=path)
            assert scope.drawn == {}
        for name, array in loaded.state_dict().items():
            np.testing.assert_array_equal(array, net.state_dict()[name])

    def test_weights_of_another_model(self, net: AlexNet, tmp_path: Path) -> None:
        path = tmp_path / "weights.safetensors"
        save_file(net.state_dict(), path)
        with pytest.raises(
            CheckpointError, match=r"weights.safetensors: .*(?s:.)*classifier.6.bias \(state dict \(2,\)"
        ):
            models.alexnet("flowers", num_classes=3, image_size=63, weights=path)

    def test_no_file_or_no_weights(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="there is no weights file at"):
            models.read_state_dict(tmp_path / "none.safetensors")
        (tmp_path / "broken.safetensors").write_bytes(b"no weights at all")
        with pytest.raises(CheckpointError, match="neither a whole safetensors file nor"):
            models.read_state_dict(tmp_path / "broken.safetensors")
