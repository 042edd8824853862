"""Optimisers, schedules, clipping and first values side by side with PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minialex import nn, optim, rng
from minialex.optim import lr_scheduler
from minialex.tensor import Tensor

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[bench]'")

OPTIMIZERS = {
    "SGD": [
        {"lr": 0.1},
        {"lr": 0.1, "weight_decay": 0.01},
        {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
        {"lr": 0.1, "momentum": 0.8, "weight_decay": 5e-4, "nesterov": True},
    ],
    "Adam": [
        {"lr": 0.01},
        {"lr": 2e-4, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.05},
    ],
}
ROWS = [(name, settings) for name, rows in OPTIMIZERS.items() for settings in rows]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "settings"), ROWS)
def test_optimizers(name: str, settings: dict[str, Any], dtype: str) -> None:
    start = [rng.Stream(0, "test", item=i).normal(shape=(4, 5)).astype(dtype) for i in range(2)]
    ours = [Tensor(array, requires_grad=True) for array in start]
    theirs = [torch.tensor(array, requires_grad=True) for array in start]
    pair = getattr(optim, name)(ours, **settings), getattr(torch.optim, name)(theirs, **settings)
    for step in range(20):
        for i, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            # The second parameter gets its first gradient late, and none now and then.
            if i == 1 and (step < 5 or step % 3 == 0):
                mine.grad, other.grad = None, None
                continue
            grad = rng.Stream(step, "test", item=9 + i).normal(shape=(4, 5)).astype(dtype)
            mine.grad, other.grad = grad, torch.tensor(grad)
        for optimizer in pair:
            optimizer.step()
    tolerance = 1e-6 if dtype == "float32" else 1e-14
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine.numpy(), other.detach().numpy(), rtol=tolerance, atol=tolerance)


def warmup(optimizer: Any) -> Any:
    schedules = torch.optim.lr_scheduler
    rise = schedules.LinearLR(optimizer, start_factor=1 / 4, total_iters=3)
    return schedules.SequentialLR(optimizer, [rise, schedules.CosineAnnealingLR(optimizer, 9, 0.01)], [3])


SCHEDULES = {
    "step": (lambda o: lr_scheduler.StepLR(o, 3, 0.5), lambda o: torch.optim.lr_scheduler.StepLR(o, 3, 0.5)),
    "multi-step": (
        lambda o: lr_scheduler.MultiStepLR(o, [2, 5, 6]),
        lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [2, 5, 6]),
    ),
    "cosine": (
        lambda o: lr_scheduler.CosineWithWarmup(o, 12, min_lr=0.01),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 12, 0.01),
    ),
    "warm-up": (lambda o: lr_scheduler.CosineWithWarmup(o, 12, 3, min_lr=0.01), warmup),
    "plateau": (
        lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1, min_lr=1e-3),
        lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=1, min_lr=1e-3),
    ),
    "plateau of an accuracy": (
        lambda o: lr_scheduler.ReduceLROnPlateau(o, "max", 0.3, 0, 0.05),
        lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, "max", 0.3, 0, 0.05),
    ),
}


@pytest.mark.filterwarnings(
    "ignore::UserWarning"
)  # PyTorch's, about steps of the schedule before the optimiser.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name: str) -> None:
    make_ours, make_theirs = SCHEDULES[name]
    ours = optim.SGD([Tensor(np.ones(1), requires_grad=True)], lr=0.4)
    theirs = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.4)
    mine, other = make_ours(ours), make_theirs(theirs)
    metrics = [0.5, 0.4, 0.45, 0.45, 0.3, 0.31, 0.3, 0.29999, float("nan"), 0.6, 0.7, 0.2]
    rates = []
    for metric in metrics:
        rates.append((ours.lr, theirs.param_groups[0]["lr"]))
        mine.step(metric)
        other.step(metric) if name.startswith("plateau") else other.step()
    rates.append((ours.lr, theirs.param_groups[0]["lr"]))
    np.testing.assert_allclose(*zip(*rates, strict=True), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_clipping(max_norm: float) -> None:
    grads = [rng.Stream(0, "test", item=i).normal(shape=(7, i + 1)).astype(np.float32) for i in range(3)]
    ours = [Tensor(np.zeros_like(grad), requires_grad=True) for grad in grads]
    theirs = [torch.zeros(grad.shape, requires_grad=True) for grad in grads]
    for mine, other, grad in zip(ours, theirs, grads, strict=True):
        mine.grad, other.grad = grad.copy(), torch.tensor(grad)
    norm = optim.clip_grad_norm_(ours, max_norm)
    assert norm == pytest.approx(float(torch.nn.utils.clip_grad_norm_(theirs, max_norm)), rel=1e-6)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine.grad, other.grad.numpy(), rtol=1e-6)


@pytest.mark.parametrize("groups", [1, 2])
def test_default_init_has_pytorchs_spread(groups: int) -> None:
    rng.manual_seed(0)
    torch.manual_seed(0)
    pairs = [
        (nn.Conv2d(64, 96, 5, groups=groups), torch.nn.Conv2d(64, 96, 5, groups=groups)),
        (nn.Linear(300, 400), torch.nn.Linear(300, 400)),
    ]
    for ours, theirs in pairs:
        for name, array in ours.state_dict().items():
            expected = theirs.state_dict()[name].numpy()
            assert array.shape == expected.shape
            assert array.std() == pytest.approx(expected.std(), rel=0.15 if array.ndim == 1 else 0.01)
            assert np.abs(array).max() == pytest.approx(np.abs(expected).max(), rel=0.1)


@pytest.mark.parametrize("mode", ["fan_in", "fan_out"])
@pytest.mark.parametrize("nonlinearity", ["relu", "tanh", "sigmoid", "leaky_relu"])
def test_kaiming_scales(mode: str, nonlinearity: str) -> None:
    w = nn.Parameter(np.zeros((128, 32, 3, 3), np.float32))
    expected = torch.empty(w.shape)
    for name in ("kaiming_normal_", "kaiming_uniform_"):
        getattr(nn.init, name)(w, mode=mode, nonlinearity=nonlinearity, a=0.2)
        getattr(torch.nn.init, name)(expected, mode=mode, nonlinearity=nonlinearity, a=0.2)
        assert w.numpy().std() == pytest.approx(float(expected.std()), rel=0.03)
