"""Training that goes wrong is noticed in runs that go wrong, and not in others."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minialex import models, nn, optim
from minialex.errors import NumericalError
from minialex.train import TrainConfig, load_checkpoint, train
from minialex.train.diagnose import Advice, Monitor, explain_breakdown
from minialex.train.step import Stepper, gradient_norm

Make = Callable[..., TrainConfig]
LABELS = np.array([0, 1, 2] * 4)


def images(count: int = 12) -> Any:
    return np.random.default_rng(0).normal(size=(count, 3, 16, 16)).astype(np.float32)


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 5, stride=3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3)
    )


@pytest.fixture
def warnings() -> list[str]:
    return []


def monitor(model: Any, warnings: list[str]) -> Monitor:
    return Monitor(model, LABELS, Advice(1e-2, 1e-3), warnings.append)


def test_a_healthy_network_is_left_in_peace(warnings: list[str]) -> None:
    model = net()
    watcher = monitor(model, warnings)
    for epoch in range(1, 5):
        watcher.epoch_done(epoch, 100 * epoch, 1.0 / epoch, images())
    assert not warnings


def fused_net() -> models.AlexNet:
    variant = dataclasses.replace(models.VARIANTS["flowers"], hidden=8)
    return models.AlexNet(variant, "flowers", num_classes=3, image_size=67)


def test_dead_relus_of_fused_layers(warnings: list[str]) -> None:
    """The models run ReLUs inside other operations; each is looked at all the same."""
    model = fused_net()
    for layer in (model.features[0], model.features[6]):
        layer.bias.data[...] = -100
    pictures = np.random.default_rng(0).normal(size=(12, 3, 67, 67)).astype(np.float32)
    monitor(model, warnings).epoch_done(1, 10, 1.0, pictures)
    assert "relu in features.1 (100 %)" in warnings[0]
    assert "relu in features.7 (100 %)" in warnings[0]
    assert model.fused


def test_dead_relus(warnings: list[str]) -> None:
    model = net()
    model[3].bias.data[...] = -100
    watcher = monitor(model, warnings)
    for epoch in (1, 2):
        watcher.epoch_done(epoch, 10, 1.0, images())
    assert len(warnings) == 1, "said once"
    assert "dead ReLUs" in warnings[0]
    assert "relu in 4 (100 %)" in warnings[0]
    assert "relu in 1" not in warnings[0]
    assert "--lr 0.001" in warnings[0]


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        (
            lambda model, watcher: setattr(watcher, "largest_update", 1e-9),
            "hardly move the weights.*--lr 0.1",
        ),
        (
            lambda model, watcher: setattr(watcher, "largest_update", 0.9),
            "too large for the weights.*--lr 0.001",
        ),
        (lambda model, watcher: model[5].weight.data.fill(0), "gives every picture the same answer"),
        (lambda model, watcher: model[3].bias.data.fill(-100), "dead ReLUs are the likely cause"),
        (lambda model, watcher: None, "Look at the labels first"),
    ],
)
def test_a_loss_that_never_left_guessing(
    warnings: list[str], change: Callable[[Any, Any], object], advice: str
) -> None:
    model = net()
    watcher = monitor(model, warnings)
    watcher.largest_update = 1e-3
    change(model, watcher)
    watcher.epoch_done(1, 1000, math.log(3), images())
    assert not any("nothing is being learnt" in text for text in warnings), "the first epoch may be slow"
    watcher.epoch_done(2, 2000, math.log(3), images())
    assert "after 2 epochs the training loss is 1.099" in warnings[-1]
    assert "gives 1.099" in warnings[-1]
    assert re.search(advice, warnings[-1])


def test_exploding_updates(warnings: list[str]) -> None:
    model = net()
    watcher = monitor(model, warnings)
    for step in range(60):
        before = watcher.weights_before(step)
        assert (before is None) == (step % 20 != 0)
        model[3].weight.data[...] *= 1.5
        watcher.update_done(before)
    assert watcher.largest_update == pytest.approx(0.5, rel=1e-5)
    assert len(warnings) == 1
    assert "one step changed 3.weight by 50 % of its length" in warnings[0]
    assert "--lr 0.001" in warnings[0]


class Broken(nn.Module):
    """The logarithm of a negative number, in a layer with a name."""

    def __init__(self) -> None:
        self.first = nn.Flatten()
        self.middle = Logarithm()
        self.last = nn.Linear(768, 3)

    def forward(self, x: Any) -> Any:
        return self.last(self.middle(self.first(x)))


class Logarithm(nn.Module):
    def forward(self, x: Any) -> Any:
        return x.log()


def test_where_a_nan_comes_from() -> None:
    said = explain_breakdown(Broken(), images(), LABELS, seed=0, step=0)
    assert said == "The first number that is not finite came out of log in middle (forward pass)."


def test_where_a_number_breaks_in_fused_layers() -> None:
    """The layer itself is named, not the operation that does its work and others'."""
    model = fused_net()
    model.features[8].weight.data[...] = 3e38
    pictures = 100 * np.random.default_rng(0).normal(size=(12, 3, 67, 67)).astype(np.float32)
    said = explain_breakdown(model, pictures, LABELS, seed=0, step=0)
    assert said == "The first number that is not finite came out of conv2d in features.8 (forward pass)."
    assert model.fused


def test_where_a_gradient_breaks() -> None:
    class Root(nn.Module):
        def forward(self, x: Any) -> Any:
            return (x * 0.0) ** 0.5

    class Net(nn.Module):
        def __init__(self) -> None:
            self.first = nn.Sequential(nn.Flatten(), nn.Linear(768, 3))
            self.root = Root()

        def forward(self, x: Any) -> Any:
            return self.root(self.first(x))

    said = explain_breakdown(Net(), images(), LABELS, seed=0, step=0)
    assert "pow in root (backward pass)" in said


def test_weights_and_pictures_that_are_not_finite() -> None:
    model = net()
    model[3].weight.data[0, 0] = np.inf
    assert "The weights 3.weight" in explain_breakdown(model, images(), LABELS, seed=0, step=0)
    bad = images()
    bad[0, 0, 0, 0] = np.nan
    assert "pictures themselves" in explain_breakdown(net(), bad, LABELS, seed=0, step=0)


def test_a_run_that_breaks_down_keeps_the_last_good_checkpoint(
    config: Make, reporter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_gradients = Stepper.add_gradients

    def sabotaged(self: Stepper, batch: Any, number: int, share: float, mean: Any) -> None:
        if number == 9:
            next(iter(self.model.parameters())).data[0] = np.nan
        add_gradients(self, batch, number, share, mean)

    monkeypatch.setattr(Stepper, "add_gradients", sabotaged)
    with pytest.raises(NumericalError) as caught:
        train(config(), reporter)
    assert caught.value.exit_code == 6
    said = str(caught.value)
    assert "training broke down at epoch 2, batch 4: the loss is nan" in said
    assert "features.0.weight" in said
    assert "--lr 0.0002" in said
    checkpoint = load_checkpoint(tmp_path / "run" / "last.safetensors")
    assert checkpoint.position.step == 9
    assert all(np.isfinite(array).all() for array in checkpoint.weights.values())


def test_a_learning_rate_that_is_far_too_high(config: Make, reporter: Any) -> None:
    """A real one, without sabotage."""
    with pytest.raises(NumericalError, match=r"a learning rate of 1e\+06 is far too high.*--lr 0.01"):
        train(config(optimizer="sgd", lr=1e6, epochs=6, augment=False), reporter)


def test_a_learning_rate_that_is_far_too_low(config: Make, reporter: Any) -> None:
    train(config(lr=1e-9, epochs=11, schedule="constant", batch_size=8), reporter)
    assert len(reporter.warnings) == 1
    assert "hardly move the weights: start again with --lr 0.0002" in reporter.warnings[0]


class Given(nn.Module):
    """One weight, whose gradient the test decides."""

    def __init__(self) -> None:
        self.weight = nn.Parameter(np.zeros(4, np.float32))


def with_gradient(value: float) -> Given:
    model = Given()
    model.weight.grad = np.full(4, value, np.float32)
    return model


def test_a_long_gradient_is_measured_though_its_square_overflows() -> None:
    assert gradient_norm(with_gradient(1e25)) == pytest.approx(2e25, rel=1e-6)
    assert math.isinf(gradient_norm(with_gradient(np.inf)))
    assert not math.isfinite(gradient_norm(with_gradient(np.nan)))


def test_an_exploding_gradient_is_called_one() -> None:
    model = with_gradient(1e25)
    stepper = Stepper(model, optim.SGD(model.parameters(), lr=0.1), "cpu", seed=0)
    with pytest.raises(NumericalError, match=r"exploding gradient: its length is 2\.0e\+25.* in weight"):
        stepper.update(None, 0)
    assert not model.weight.data.any(), "nothing has changed"
    Stepper(model, stepper.optimizer, "cpu", seed=0, clip_norm=1.0).update(None, 0)
    np.testing.assert_allclose(model.weight.data, -0.05, rtol=1e-5)


def test_several_batches_are_spoken_of_only_where_there_are_several() -> None:
    one = explain_breakdown(net(), images(), LABELS, seed=0, step=0)
    assert one == "Run again, this batch gives finite numbers: what went wrong did not come back."
    many = explain_breakdown(net(), images(), LABELS, seed=0, step=0, batches=4)
    assert "the sum, of 4 batches" in many
