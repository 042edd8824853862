"""One step of the optimiser, over one batch or several."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from minialex import ops
from minialex.backend import array_module, one_blas_thread, to_numpy
from minialex.errors import NumericalError
from minialex.optim import clip_grad_norm_
from minialex.rng import random_scope
from minialex.train.diagnose import euclidean, explain_breakdown
from minialex.train.input_pipeline import input_tensor
from minialex.train.metrics import RunningMean

# A gradient whose square is beyond float32 cannot be stepped along.
LONGEST = math.sqrt(float(np.finfo(np.float32).max))


@dataclass
class Stepper:
    """What a step needs besides the pictures.

    Args:   device: the canonical name; seed: of the run; clip_norm: the longest gradient allowed, or None.
    """

    model: Any
    optimizer: Any
    device: str
    seed: int
    clip_norm: float | None = None

    def add_gradients(self, batch: Any, number: int, share: float, mean: RunningMean) -> None:
        """Forward and backward of one batch, and its figures into `mean`.

        Args:   number: of the batch, counted from the beginning of the run: the address of its dropout
                masks; share: this batch's part of the pictures in the step.
        Raises: NumericalError if the loss is not finite, saying which op in which layer.
        """
        with random_scope(self.seed, number):
            logits = self.model(input_tensor(batch, self.device))
            # Labels of the host are checked there: on a GPU the check would wait for the forward pass.
            loss = ops.cross_entropy(logits, batch.labels)
            answers = logits.data.argmax(axis=1)
            # The one place where the host waits: what follows runs beside the next launches.
            value, right = loss.item(), int((to_numpy(answers) == batch.labels).sum())
            if not math.isfinite(value):
                self.break_down(f"the loss is {value}", batch, number)
            (loss if share == 1 else loss * share).backward()
        mean.add(value, right, len(batch.labels))

    def update(self, batch: Any, number: int, batches: int = 1) -> None:
        """Shorten the gradient if it is too long, and step. `batch` and `number` are the last of `batches`.

        Raises: NumericalError if the gradient is not finite, or so long that its square is not; no weight has
                changed then.
        """
        if self.clip_norm is not None:
            norm = clip_grad_norm_(self.model.parameters(), self.clip_norm)
        else:
            norm = gradient_norm(self.model)
        if not math.isfinite(norm):
            self.break_down(f"the gradient's length is {norm}", batch, number, batches)
        if self.clip_norm is None and norm > LONGEST:
            # Adam's squares would overflow, and its weights then stand still for good, in silence.
            raise NumericalError(
                f"exploding gradient: its length is {norm:.1e}, though every number in it is finite. "
                f"It is longest in {longest_gradient(self.model)}."
            )
        self.optimizer.step()
        self.optimizer.zero_grad()

    def break_down(self, seen: str, batch: Any, number: int, batches: int = 1) -> None:
        """Raises: NumericalError with what was seen and where it began."""
        where = explain_breakdown(
            self.model, batch.images, batch.labels, seed=self.seed, step=number, batches=batches
        )
        raise NumericalError(f"{seen}. {where}")


def gradient_norm(model: Any) -> float:
    """The Euclidean length of all gradients together; NaN or infinity if any of them is not finite.

    Looked at in every step, and so summed in the gradients' own precision: `clip_grad_norm_`, whose result
    changes the weights, is exact and slower. Only a sum that overflowed is done again in float64: squares
    overflow float32 where the gradients themselves need not.
    """
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    with np.errstate(over="ignore", invalid="ignore"), one_blas_thread():
        # All are begun before the first is waited for, where a GPU works them out.
        squares = [array_module(g).vdot(g, g) for g in grads]
        quick = math.sqrt(sum(map(float, squares)))
    return quick if math.isfinite(quick) else math.hypot(*(euclidean(g) for g in grads))


def longest_gradient(model: Any) -> str:
    """The name of the parameter with the longest gradient."""
    lengths = {name: euclidean(p.grad) for name, p in model.named_parameters() if p.grad is not None}
    return max(lengths, key=lambda name: lengths[name])
