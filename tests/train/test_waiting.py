"""What the host asks a device for in a training step: each question waits for all that was launched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minialex import models, optim
from minialex.backend import EmulatedArray, to_device
from minialex.optim import clip_grad_norm_
from minialex.optim import clipping as clipping_module
from minialex.tensor import Tensor
from minialex.train.evaluation import evaluate
from minialex.train.metrics import RunningMean
from minialex.train.step import Stepper, gradient_norm

pytestmark = pytest.mark.emulator

EMULATED = "cuda-emulated"


class Numbers:
    """A batch that is numbers already."""

    normalize = None

    def __init__(self, count: int, side: int) -> None:
        self.images = np.linspace(-1, 1, count * side * side, dtype=np.float32).reshape(count, 1, side, side)
        self.labels = np.arange(count) % 3
        self.indices = np.arange(count)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of the emulated device, by what name, and when the backward pass and the sums begin."""
    events: list[str] = []

    def note(owner: Any, name: str, said: str, shown: tuple[str, ...] = ()) -> None:
        right = getattr(owner, name)

        def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
            event = said or args[0].__name__
            if not shown or event in shown:
                events.append(event)
            return right(self, *args, **kwargs)

        monkeypatch.setattr(owner, name, noted)

    for name in ("get", "__float__", "__bool__", "__int__"):
        note(EmulatedArray, name, name)
    note(EmulatedArray, "__array_function__", "", ("vdot", "sum"))
    note(Tensor, "backward", "backward")
    return events


def test_a_step_asks_for_the_loss_and_the_answers_and_goes_on(asked: list[str]) -> None:
    model = models.lenet5(3).to(EMULATED)
    stepper = Stepper(model, optim.SGD(model.parameters(), 0.1), EMULATED, seed=0)
    mean = RunningMean()
    asked.clear()
    stepper.add_gradients(Numbers(2, 28), 0, 1.0, mean)
    assert asked == ["get", "get", "backward"]
    assert mean.seen == 2


def test_right_answers_are_counted_on_the_host() -> None:
    model, batch = models.lenet5(3), Numbers(6, 28)
    answers = model(Tensor(batch.images)).data.argmax(axis=1)
    batch.labels = np.where(np.arange(6) < 4, answers, (answers + 1) % 3)
    mean = RunningMean()
    Stepper(model, optim.SGD(model.parameters(), 0.1), "cpu", seed=0).add_gradients(batch, 0, 1.0, mean)
    assert (mean.correct, mean.seen) == (4, 6)


def test_an_evaluation_asks_for_the_loss_and_the_answers(asked: list[str]) -> None:
    model = models.lenet5(3).to(EMULATED)
    asked.clear()
    evaluate(model, [Numbers(2, 28)], EMULATED)
    assert asked == ["get", "get"]


def test_all_squares_are_begun_before_the_first_is_asked_for(asked: list[str]) -> None:
    model = models.lenet5(3).to(EMULATED)
    for parameter in model.parameters():
        parameter.grad = to_device(np.ones(parameter.shape, np.float32), EMULATED)
    count = len(list(model.parameters()))
    asked.clear()
    norm = gradient_norm(model)
    assert norm == pytest.approx(sum(p.size for p in model.parameters()) ** 0.5)
    assert asked == ["vdot"] * count + ["__float__"] * count


def test_clipping_on_a_gpu_makes_few_long_sums(asked: list[str]) -> None:
    size = 3 * clipping_module.CHUNK + 1
    grads = np.random.default_rng(0).standard_normal((2, size)).astype(np.float32)
    norms = {}
    for device in ("cpu", EMULATED):
        tensors = [Tensor(np.zeros(size, np.float32), device=device) for _ in grads]
        for tensor, grad in zip(tensors, grads, strict=True):
            tensor.grad = to_device(grad, device)
        asked.clear()
        norms[device] = clip_grad_norm_(tensors, 1e9)
    assert norms[EMULATED] == pytest.approx(norms["cpu"], rel=1e-14)
    assert asked == ["sum", "sum", "__float__", "__float__"]
