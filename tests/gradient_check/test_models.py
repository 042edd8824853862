"""Large inputs and whole models: random directions, samples, the operation at fault, and nothing touched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minialex as mx
from minialex import models, nn, ops
from minialex.backend import Array
from minialex.gradient_check import GradcheckError, Report, check_model, examine
from minialex.gradient_check.differences import inner, signs
from minialex.rng import Stream
from minialex.tensor import ExpOp, Gradients, MulOp, Tensor
from minialex.testing import grid


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.asarray(Stream(seed, "test").normal(shape=shape))


def small_net(drop: float = 0.3) -> nn.Sequential:
    mx.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.LocalResponseNorm(3, alpha=1.0, beta=0.75, k=2.0, dialect="paper"),
        nn.Flatten(),
        nn.Dropout(drop),
        nn.Linear(96, 24),
        nn.ReLU(),
        nn.Linear(24, 4),
    )


IMAGES, LABELS = normal(3, 2, 8, 8), np.array([0, 3, 1])


def loss(y: Tensor) -> Tensor:
    return ops.cross_entropy(y, LABELS)


# ------------------------------------------------------------------------------------------- directions


def test_directions_are_signs_and_repeat() -> None:
    u = signs((50, 41), 0, 3)
    assert u.dtype == np.int8
    assert set(np.unique(u)) == {-1, 1}
    assert abs(int(u.sum())) < 200
    np.testing.assert_array_equal(u, signs((50, 41), 0, 3))
    assert not np.array_equal(u, signs((50, 41), 0, 4))
    assert not np.array_equal(u, signs((50, 41), 1, 3))
    values = grid(50, 41)
    assert inner(values, u) == pytest.approx(float((values * u).sum()), rel=1e-12)


def test_a_large_input_is_sampled_and_compared_along_directions() -> None:
    x = normal(60, 50)
    report = examine(lambda x: ops.tanh(x) * x, x)
    (part,) = report.inputs
    assert report.ok
    assert len(part.verdicts) == 2000
    assert len(part.directions) == 4
    assert part.relative_error < 1e-6
    assert "0 of a sample of 2000 of 3,000 elements wrong, 0 of 4 directions wrong" in report.text()


def test_one_wrong_element_that_the_sample_missed_is_found_along_directions() -> None:
    class OddOp(MulOp):
        def backward(self, dy: Array) -> tuple[Any, Any]:
            dx, dc = super().backward(dy)
            dx = dx.copy()
            dx[41, 17] += 40.0
            return dx, dc

    x = normal(60, 50)
    report = examine(lambda x: OddOp()(x, Tensor(np.full((60, 50), 1.5))), x, max_elements=10, seed=2)
    (part,) = report.inputs
    assert part.counts["wrong"] == 0
    assert {direction.verdict for direction in part.directions} == {"wrong"}
    assert not report.ok
    assert "wrong along random directions, not in the sampled elements" in report.text()
    assert "direction in" in report.text()


def test_very_large_inputs_are_not_copied_every_time_and_stay_as_they_are() -> None:
    x = normal(1_100_000)
    kept = x.copy()
    report = examine(lambda x: ops.tanh(x) * x, x, max_elements=5, directions=2)
    assert report.ok
    assert report.relative_error < 1e-6
    np.testing.assert_array_equal(x, kept)
    np.testing.assert_array_equal(report.inputs[0].source[0].arguments[0].array, kept)
    np.testing.assert_allclose(report.inputs[0].numeric, report.inputs[0].comparison.analytic, rtol=1e-3)


def test_directions_keep_clear_of_kinks() -> None:
    """Thousands of units, some of them within any step of their kink."""
    x = normal(100, 50)
    report = examine(lambda x: ops.relu(x - 0.1), x, max_elements=5, directions=8)
    assert report.ok
    assert {direction.verdict for direction in report.inputs[0].directions} == {"ok"}
    assert report.relative_error < 1e-6


def test_directions_over_exact_kinks_are_not_compared_and_said() -> None:
    x = np.where(normal(100, 50) > 1.5, 0.0, normal(100, 50, seed=1))
    report = examine(ops.relu, x, max_elements=200)
    assert report.ok
    assert {direction.verdict for direction in report.inputs[0].directions} == {"kink"}
    assert "4 of 4 directions were not compared: too near a kink" in report.text()


# ----------------------------------------------------------------------------------------- whole models


@pytest.mark.parametrize("with_loss", [False, True])
def test_an_honest_model_passes(with_loss: bool) -> None:
    for seed in range(3):
        report = check_model(small_net(), IMAGES, loss if with_loss else None, seed=seed)
        assert report.ok, report.text()
        assert [part.name for part in report.inputs] == ["x", "0.weight", "0.bias", *_linear_names()]
        assert report.relative_error < 1e-5
        assert report.counts["wrong"] == 0


def _linear_names() -> list[str]:
    return ["6.weight", "6.bias", "8.weight", "8.bias"]


def test_the_users_model_is_untouched() -> None:
    net = small_net()
    net(Tensor(IMAGES.astype(np.float32))).sum().backward()
    parameters = list(net.parameters())
    before = [(p, p.data, p.data.copy(), p.grad, p.grad.copy(), p.version.count) for p in parameters]
    drawn = dict(mx.rng.current_scope().drawn)
    images = IMAGES.astype(np.float32)
    kept = images.copy()
    assert check_model(net, images).ok
    for parameter, data, values, grad, grad_values, version in before:
        assert parameter.data is data
        assert parameter.grad is grad
        assert parameter.version.count == version
        np.testing.assert_array_equal(data, values)
        np.testing.assert_array_equal(grad, grad_values)
    np.testing.assert_array_equal(images, kept)
    assert net.training
    assert mx.rng.current_scope().drawn == drawn
    assert {p.dtype for p in net.parameters()} == {np.dtype("float32")}


def test_what_a_model_keeps_beside_parameters_is_copied_and_converted() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            self.linear = nn.Linear(3, 2)
            self.scale = Tensor([2.0, 3.0])
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return self.linear(x) * self.scale

    model = Scaled()
    assert check_model(model, normal(4, 3)).ok
    assert model.calls == 0
    assert model.scale.dtype == np.float32


def test_shared_and_frozen_parameters() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            self.a = nn.Linear(3, 3)
            self.b = nn.Linear(3, 3)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.b(ops.tanh(self.a(x)))

    model = Tied()
    model.a.bias.requires_grad = False
    report = check_model(model, normal(4, 3))
    assert report.ok
    assert [part.name for part in report.inputs] == ["x", "a.weight", "b.bias"]


def test_a_model_on_integers() -> None:
    class Embedding(nn.Module):
        def __init__(self) -> None:
            self.table = nn.Parameter(normal(5, 3))

        def forward(self, index: Tensor) -> Tensor:
            return self.table[index.numpy()]

    report = check_model(Embedding(), np.array([0, 3, 3]))
    assert report.ok
    assert [part.name for part in report.inputs] == ["table"]


def test_refusals() -> None:
    with pytest.raises(GradcheckError, match=r"a model has named_parameters\(\), function has not"):
        check_model(lambda x: x, IMAGES)
    frozen = small_net().requires_grad_(False)
    frozen.eval()
    assert check_model(frozen, IMAGES).inputs[0].name == "x"


def test_a_layer_in_the_place_of_a_function() -> None:
    mx.manual_seed(0)
    layer = nn.Conv2d(2, 3, 3, padding=1)
    weight = layer.weight.data.copy()
    assert mx.gradcheck(layer, normal(2, 2, 5, 5))
    report = examine(layer, [normal(2, 2, 5, 5)], names=["images"], rtol=1e-6)
    assert [part.name for part in report.inputs] == ["images", "weight", "bias"]
    assert [len(part.verdicts) for part in report.inputs] == [100, 54, 3]
    assert layer.weight.dtype == np.float32
    np.testing.assert_array_equal(layer.weight.data, weight)


def test_the_fault_of_a_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = ops.LinearOp.backward

    def without_bias(self: Any, dy: Array) -> tuple[Any, ...]:
        dx, dweight, dbias = honest(self, dy)
        return dx, dweight, dbias / len(dy)

    monkeypatch.setattr(ops.LinearOp, "backward", without_bias)
    with pytest.raises(GradcheckError, match="likely fault: every element is 4 times too small"):
        mx.gradcheck(nn.Linear(3, 5), normal(4, 3))


def test_a_model_of_several_inputs() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            self.linear = nn.Linear(3, 2)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.linear(a) * b

    report = check_model(Both(), [normal(4, 3), normal(4, 2)])
    assert report.ok
    assert [part.name for part in report.inputs] == ["x0", "x1", "linear.weight", "linear.bias"]
    with pytest.raises(GradcheckError, match="1 names for 2 inputs"):
        examine(Both(), [normal(4, 3), normal(4, 2)], names=["a"])


# ----------------------------------------------------------------------------------- the operation at fault


@pytest.mark.parametrize(
    ("op", "number"),
    [
        (ops.Conv2dOp, 1),
        (ops.ReluOp, 2),
        (ops.MaxPool2dOp, 3),
        (ops.LocalResponseNormOp, 4),
        (ops.LinearOp, 7),
    ],
)
def test_the_operation_with_the_wrong_backward_is_named(
    op: type[Any], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = op.backward

    def doubled(self: Any, dy: Array) -> tuple[Any, ...]:
        return tuple(None if d is None else 2 * d for d in honest(self, dy))

    monkeypatch.setattr(op, "backward", doubled)
    report = check_model(small_net(), IMAGES, loss)
    assert not report.ok
    (note,) = report.notes
    # Linear and relu are there twice: the one nearer to the output is named.
    last = {2: 8, 7: 9}.get(number, number)
    assert note.startswith(
        f"going back from the output, {op.name} (op {last} of 10) is the first whose backward is wrong, for "
        "its input 0"
    )
    assert "2 times too large" in note


def test_what_is_cut_off_inside_is_no_operations_fault() -> None:
    report = examine(lambda x: ops.tanh(x.detach() * 1.0) + 0.0 * ops.exp(x), normal(4))
    assert not report.ok
    assert "no recorded operation is found to have a wrong backward" in report.notes[0]


def test_an_operation_that_cannot_be_checked_by_itself_hides_nothing() -> None:
    class TripledOp(ExpOp):
        def backward(self, dy: np.ndarray) -> Gradients:
            return (3 * super().backward(dy)[0],)

    # log is given numbers near 1e-9, beside which no step of its own is short enough.
    report = examine(lambda x: ops.log(TripledOp()(x) * 1e-9), grid(4))
    assert report.counts["wrong"] == 4
    assert "tripled (op 1 of 3) is the first whose backward is wrong" in report.text()


def test_an_honest_report_names_nobody() -> None:
    report = check_model(small_net(), IMAGES)
    assert report.notes == ()


@pytest.mark.parametrize("seed", range(6))
def test_black_and_white_areas_and_biases_of_zero(seed: int) -> None:
    """Every window of a black area ties, and every unit over it is at its kink."""
    net = small_net()
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            parameter.data = np.zeros_like(parameter.data)
    images = np.round(np.abs(IMAGES))
    images[0, :, :4] = 0.0
    images[1] = 1.0
    before = images.copy()
    report = check_model(net, images, loss, seed=seed)
    assert report.ok, report.text()
    assert report.counts["wrong"] == 0
    np.testing.assert_array_equal(images, before)


def test_a_place_with_nothing_but_kinks_is_left_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.Sequential(nn.ReLU(), nn.Linear(6, 2))
    report = check_model(net, np.zeros((3, 6)))
    assert report.ok
    assert report.notes == (
        "as given, too many elements are at kinks or in ties: everything was moved by 1e-3 of its size",
    )
    honest = ops.ReluOp.backward
    monkeypatch.setattr(ops.ReluOp, "backward", lambda self, dy: (2 * honest(self, dy)[0],))
    assert not check_model(net, np.zeros((3, 6))).ok


# -------------------------------------------------------------------------------------- the models we have


def test_lenet() -> None:
    mx.manual_seed(0)
    report = check_model(models.lenet5(), normal(1, 1, 28, 28), lambda y: ops.cross_entropy(y, np.array([3])))
    assert report.ok, report.text()


@pytest.mark.slow
def test_alexnet_for_flowers() -> None:
    mx.manual_seed(0)
    net = models.alexnet("flowers", num_classes=5)
    report: Report = check_model(net, normal(1, 3, 224, 224), lambda y: ops.cross_entropy(y, np.array([3])))
    assert report.ok, report.text()
    assert len(report.inputs) == 17
    assert report.relative_error < 1e-5
