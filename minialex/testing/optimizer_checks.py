"""What must hold for a rule of learning: some steps of it are those of plain loops over single numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from minialex.optim import SGD, Adam
from minialex.optim.optimizer import Optimizer
from minialex.rng import Stream
from minialex.tensor import Tensor
from minialex.testing.check import CheckError

__all__ = ["OPTIMIZER_CASES", "OPTIMIZER_CHECKS", "OptimizerCase"]

# One number through all steps: reference(weight, gradients, rates, **params) -> the weight after them.
Loops: TypeAlias = Callable[..., float]


@dataclass(frozen=True)
class OptimizerCase:
    """One row: an optimiser with its settings, and the loops that say where it must go.

    Args: optimizer: the class; params: for its __init__, and by the same names for the loops; reference:
          loops(weight, gradients, rates, **params): where one number ends that had these gradients and
          learning rates, step by step. A gradient of None is a step that the parameter takes no part in.
    """

    optimizer: type[Optimizer]
    params: dict[str, Any]
    reference: Loops

    @property
    def label(self) -> str:
        """`SGD momentum=0.9`."""
        params = [f"{name}={value}" for name, value in self.params.items()]
        return " ".join([self.optimizer.__name__, *params])


def sgd_loops(
    weight: float,
    gradients: list[float | None],
    rates: list[float],
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    rule: str = "torch",
) -> float:
    """SGD, as its docstring says."""
    v = 0.0
    for grad, lr in zip(gradients, rates, strict=True):
        if grad is None:
            continue
        if rule == "paper":
            v = momentum * v - weight_decay * lr * weight - lr * grad
            weight = weight + v
        else:
            g = grad + weight_decay * weight
            v = momentum * v + g
            weight = weight - lr * (g + momentum * v if nesterov else v)
    return weight


def adam_loops(
    weight: float,
    gradients: list[float | None],
    rates: list[float],
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> float:
    """Adam, as the paper's Algorithm 1 has it."""
    mean = square = 0.0
    step = 0
    for grad, lr in zip(gradients, rates, strict=True):
        if grad is None:
            continue
        step += 1
        g = grad + weight_decay * weight
        mean = betas[0] * mean + (1 - betas[0]) * g
        square = betas[1] * square + (1 - betas[1]) * g * g
        unbiased, spread = mean / (1 - betas[0] ** step), square / (1 - betas[1] ** step)
        weight = weight - lr * unbiased / (math.sqrt(spread) + eps)
    return weight


OPTIMIZER_CASES: tuple[OptimizerCase, ...] = (
    OptimizerCase(SGD, {}, sgd_loops),
    OptimizerCase(SGD, {"momentum": 0.9, "weight_decay": 0.1}, sgd_loops),
    OptimizerCase(SGD, {"momentum": 0.9, "weight_decay": 0.1, "nesterov": True}, sgd_loops),
    OptimizerCase(SGD, {"momentum": 0.9, "weight_decay": 0.1, "rule": "paper"}, sgd_loops),
    OptimizerCase(Adam, {}, adam_loops),
    OptimizerCase(Adam, {"betas": (0.7, 0.95), "eps": 1e-2, "weight_decay": 0.1}, adam_loops),
)


def steps(case: OptimizerCase) -> None:
    """Five steps, with a rate that falls and a parameter that joins late, end where the loops end."""
    starts = [Stream(2, "test").normal(shape=(2, 3)), Stream(2, "test", item=1).normal(shape=(4,))]
    tensors = [Tensor(start, requires_grad=True) for start in starts]
    rates = [0.1, 0.1, 0.03, 0.03, 0.2]
    optimizer = case.optimizer(tensors, lr=rates[0], **case.params)
    gradients = [
        [Stream(2, "test", item=2 + number, step=k).normal(shape=start.shape) for k in range(len(rates))]
        for number, start in enumerate(starts)
    ]
    late = [[True] * len(rates), [False, True, True, True, True]]
    for k, rate in enumerate(rates):
        optimizer.lr = rate
        for tensor, rows, joins in zip(tensors, gradients, late, strict=True):
            tensor.grad = rows[k].copy() if joins[k] else None
        optimizer.step()
    for number, (tensor, start) in enumerate(zip(tensors, starts, strict=True)):
        for place in np.ndindex(start.shape):
            history = [
                float(g[place]) if joined else None
                for g, joined in zip(gradients[number], late[number], strict=True)
            ]
            wanted = case.reference(float(start[place]), history, rates, **case.params)
            got = float(tensor.numpy()[place])
            if not abs(got - wanted) <= 1e-12 * max(1.0, abs(wanted)):
                index = [int(i) for i in place]
                raise CheckError(
                    f"{case.label}: after {len(rates)} steps parameter {number} at {index} is {got!r}, "
                    f"expected {wanted!r}"
                )


OPTIMIZER_CHECKS: tuple[Callable[[OptimizerCase], None], ...] = (steps,)
