"""Learning-rate schedules: each sets `optimizer.lr` when it is made, and on step() after every epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from minialex.errors import CheckpointError
from minialex.optim.optimizer import Optimizer

__all__ = ["ConstantLR", "CosineWithWarmup", "LRScheduler", "MultiStepLR", "ReduceLROnPlateau", "StepLR"]


class LRScheduler:
    """A schedule that is a formula of the epoch: a subclass gives `lr_at`.

    Args: optimizer: whose lr it sets; the lr it has now is the base of the formula.

    Attributes: base_lr; epoch: how often step() ran.
    """

    # Names of the attributes that a state dict keeps.
    remembered: tuple[str, ...] = ("epoch", "base_lr")

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.base_lr = optimizer.lr
        self.epoch = 0

    def lr_at(self, epoch: int) -> float:
        """The learning rate of the epoch of this number, from 0."""
        raise NotImplementedError(f"{type(self).__name__} must define lr_at")

    def step(self, metric: float | None = None) -> None:
        """An epoch is over: set the rate of the next. Args: metric: only ReduceLROnPlateau looks at it."""
        self.epoch += 1
        self.optimizer.lr = self.lr_at(self.epoch)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs besides the same arguments: numbers that JSON holds."""
        return {"schedule": type(self).__name__} | {name: getattr(self, name) for name in self.remembered}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`, and set the optimiser's lr to what it was.

        Raises: CheckpointError if it is another schedule's, or a name is missing; nothing was loaded then.
        """
        self._check(state)
        for name in self.remembered:
            setattr(self, name, state[name])
        self.optimizer.lr = self.lr_at(self.epoch)

    def _check(self, state: Mapping[str, Any]) -> None:
        own = type(self).__name__
        if state.get("schedule", own) != own:
            raise CheckpointError(
                f"this is the state of {state['schedule']}, not of {own}; nothing was loaded"
            )
        missing = [name for name in self.remembered if name not in state]
        if missing:
            raise CheckpointError(f"the state of {own} lacks {', '.join(missing)}; nothing was loaded")


class ConstantLR(LRScheduler):
    """The same learning rate in every epoch."""

    def lr_at(self, epoch: int) -> float:
        return self.base_lr


class StepLR(LRScheduler):
    """lr = base * gamma ** (epoch // step_size).

    Args: step_size: epochs between two drops; gamma: the factor of a drop.
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        super().__init__(optimizer)
        if step_size < 1:
            raise ValueError(f"StepLR: step_size must be at least 1 epoch, got {step_size}")
        self.step_size, self.gamma = step_size, gamma

    def lr_at(self, epoch: int) -> float:
        return self.base_lr * self.gamma ** (epoch // self.step_size)


class MultiStepLR(LRScheduler):
    """lr = base * gamma ** (milestones passed).

    Args: milestones: epochs at whose beginning the rate drops; gamma: the factor of a drop.
    """

    def __init__(self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1) -> None:
        super().__init__(optimizer)
        self.milestones, self.gamma = sorted(milestones), gamma

    def lr_at(self, epoch: int) -> float:
        return self.base_lr * self.gamma ** sum(1 for milestone in self.milestones if milestone <= epoch)


class CosineWithWarmup(LRScheduler):
    """A linear rise, then half a cosine down.

        epoch < warmup:  base * (epoch + 1) / (warmup + 1)
        else:            min_lr + (base - min_lr) * (1 + cos(pi * (epoch - warmup) / (total - warmup))) / 2

    From epoch `total` on it is min_lr. Without warm-up it is PyTorch's CosineAnnealingLR(T_max=total).

    Args:   total_epochs: the length of the run; warmup_epochs: how many of them rise; min_lr: the lowest
            rate.
    Raises: ValueError if the warm-up is not shorter than the run.
    Source: Loshchilov, Hutter 2017; Goyal et al. 2017 for the warm-up.
    """

    def __init__(
        self, optimizer: Optimizer, total_epochs: int, warmup_epochs: int = 0, min_lr: float = 0.0
    ) -> None:
        super().__init__(optimizer)
        if not 0 <= warmup_epochs < total_epochs:
            raise ValueError(
                f"CosineWithWarmup: warmup_epochs={warmup_epochs} must be at least 0 and below "
                f"total_epochs={total_epochs}"
            )
        self.total_epochs, self.warmup_epochs, self.min_lr = total_epochs, warmup_epochs, min_lr
        optimizer.lr = self.lr_at(0)

    def lr_at(self, epoch: int) -> float:
        if epoch < self.warmup_epochs:
            return self.base_lr * (epoch + 1) / (self.warmup_epochs + 1)
        span = self.total_epochs - self.warmup_epochs
        done = min(epoch - self.warmup_epochs, span) / span
        return self.min_lr + (self.base_lr - self.min_lr) * (1.0 + math.cos(math.pi * done)) / 2.0


class ReduceLROnPlateau(LRScheduler):
    """Divide the rate by ten when the validation figure has stopped improving.

    Args:   mode: "min" for a loss, "max" for an accuracy; factor: of a drop; patience: epochs without
            improvement that are let pass: the next one drops the rate; threshold: the relative improvement
            that counts; min_lr: the lowest rate.
    Raises: ValueError for another mode, a factor outside 0 to 1 or a negative patience.
    Source: Krizhevsky, Sutskever, Hinton 2012, section 5; the arguments are PyTorch's.
    """

    remembered = ("epoch", "base_lr", "lr", "best", "bad_epochs")

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(optimizer)
        if mode not in ("min", "max"):
            raise ValueError(f"ReduceLROnPlateau: mode must be 'min' or 'max', got {mode!r}")
        if not 0.0 < factor < 1.0:
            raise ValueError(f"ReduceLROnPlateau: factor must lie between 0 and 1, got {factor}")
        if patience < 0:
            raise ValueError(f"ReduceLROnPlateau: patience must be at least 0 epochs, got {patience}")
        self.mode, self.factor, self.patience = mode, factor, patience
        self.threshold, self.min_lr = threshold, min_lr
        self.lr = optimizer.lr
        self.best: float | None = None
        self.bad_epochs = 0

    def lr_at(self, epoch: int) -> float:
        """The present rate: it follows from the figures so far, not from the epoch."""
        return self.lr

    def step(self, metric: float | None = None) -> None:
        """An epoch is over. Args: metric: the validation figure; NaN counts as no improvement.

        Raises: ValueError without a metric.
        """
        if metric is None:
            raise ValueError("ReduceLROnPlateau: step(metric) needs the validation figure of the epoch")
        self.lr = self.optimizer.lr
        if self._improved(float(metric)):
            self.best, self.bad_epochs = float(metric), 0
        else:
            self.bad_epochs += 1
        if self.bad_epochs > self.patience:
            self.bad_epochs = 0
            self.lr = min(self.lr, max(self.lr * self.factor, self.min_lr))
        super().step(metric)

    def _improved(self, metric: float) -> bool:
        if self.best is None:
            return math.isfinite(metric)
        if self.mode == "min":
            return metric < self.best * (1.0 - self.threshold)
        return metric > self.best * (1.0 + self.threshold)
