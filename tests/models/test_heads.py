"""Another last layer, for another number of classes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from minialex import models, nn, rng
from minialex.errors import UsageError
from minialex.nn import init
from minialex.tensor import Tensor, no_grad


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Narrow hidden layers: the 250 MB of the full ones would show nothing more."""
    for name, row in models.VARIANTS.items():
        monkeypatch.setitem(models.VARIANTS, name, dataclasses.replace(row, hidden=200))


@pytest.mark.parametrize(
    ("name", "head"),
    [(name, "classifier.6") for name in models.VARIANTS]
    + [("lenet5", "classifier.5"), ("lenet5-relu", "classifier.5"), ("cifar-4", "classifier.1")],
)
def test_the_head_is_the_layer_with_the_classes(name: str, head: str) -> None:
    with init.without_init():
        model = models.build(name, 7)
    assert models.head_name(model) == head
    assert model.state_dict()[f"{head}.weight"].shape[0] == 7


def test_a_network_of_somebody_elses() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    assert models.head_name(net) == "2"
    models.replace_head(net, 5)
    assert net(Tensor(np.zeros((1, 4), np.float32))).shape == (1, 5)
    assert [name for name, _ in net.named_children()] == ["0", "1", "2"]
    bound = 1 / np.sqrt(3)
    assert 0 < abs(net.state_dict()["2.weight"]).max() <= bound, "PyTorch's default"


def test_only_the_head_is_new() -> None:
    model = models.build("lenet5", 10)
    before = model.state_dict()
    with rng.random_scope(3):
        models.replace_head(model, 4)
    after = model.state_dict()
    assert list(after) == list(before)
    assert model.num_classes == 4
    for name in before:
        if not name.startswith("classifier.5"):
            np.testing.assert_array_equal(after[name], before[name])
    with no_grad():
        assert model(Tensor(np.zeros((2, 1, 28, 28), np.float32))).shape == (2, 4)


def test_the_same_number_of_classes_is_drawn_anew_too() -> None:
    model = models.build("cifar-4")
    before = model.state_dict()["classifier.1.weight"]
    models.replace_head(model, 10)
    assert not (model.state_dict()["classifier.1.weight"] == before).any()


@pytest.mark.parametrize(
    ("name", "std"),
    [
        ("flowers", 0.01),  # The course's and the paper's: N(0, 0.01).
        ("flowers-tf", np.sqrt(2 / (200 + 50))),  # Glorot's.
        ("cifar-4", np.sqrt(1 / 576)),  # He's, without a ReLU after it.
        ("owt", 1 / np.sqrt(3 * 200)),  # PyTorch's: uniform up to 1 / sqrt(fan_in).
    ],
)
def test_first_values_are_those_of_the_networks_own_head(name: str, std: float) -> None:
    with init.without_init():
        model = models.build(name, 3)
    with rng.random_scope(0):
        models.replace_head(model, 50)
    head = models.head_name(model)
    assert model.state_dict()[f"{head}.weight"].std() == pytest.approx(std, rel=0.03)
    assert not model.state_dict()["features.0.weight"].any(), "nothing else was drawn"
    assert model.state_dict()[f"{head}.bias"].any() == (name == "owt")


def test_a_seed_repeats_the_head() -> None:
    heads = []
    for seed in (1, 1, 2):
        with init.without_init():
            model = models.build("lenet5-relu")
        with rng.random_scope(seed):
            models.replace_head(model, 3)
        heads.append(model.state_dict()["classifier.5.weight"])
    np.testing.assert_array_equal(heads[0], heads[1])
    assert not (heads[0] == heads[2]).any()


def test_a_frozen_network_in_float64_gets_a_head_that_learns() -> None:
    model = models.build("lenet5").astype("float64").requires_grad_(False).eval()
    models.replace_head(model, 3)
    head = dict(model.named_modules())["classifier.5"]
    assert isinstance(head, nn.Linear)
    assert head.weight.dtype == np.float64
    assert not head.training
    learned = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert learned == ["classifier.5.weight", "classifier.5.bias"]


def test_without_init_draws_nothing() -> None:
    with rng.random_scope(0) as scope, init.without_init():
        model = models.build("lenet5")
        models.replace_head(model, 3)
    assert scope.drawn == {}


def test_mistakes() -> None:
    with pytest.raises(UsageError, match="the number of classes must be at least 1, got 0"):
        models.replace_head(models.build("lenet5"), 0)
    with pytest.raises(UsageError, match="Sequential has no fully connected layer"):
        models.replace_head(nn.Sequential(nn.ReLU()), 2)
    with pytest.raises(UsageError, match="Linear has no fully connected layer"):
        models.replace_head(nn.Linear(2, 2), 2)  # There is nothing to put another one into.
