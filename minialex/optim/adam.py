"""Adam."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from minialex.backend import Array
from minialex.kernels.adam import adam
from minialex.optim.optimizer import Optimizer, Update
from minialex.tensor import Tensor

__all__ = ["Adam"]


class Adam(Optimizer):
    """Steps of about the length lr in every coordinate.

    A step goes along the running mean of the gradient, divided by the root of the running mean of its square.

    Each parameter counts its own updates, so that one that gets its first gradient late starts like the
    others.

    Args:   params, lr, weight_decay: as Optimizer; the decay is added to the gradient (L2), as in
            PyTorch's Adam; betas: how much of the two running means a step keeps, 0 <= b < 1; eps: added
            to the divisor.
    Raises: ValueError as Optimizer.
    Source: Kingma, Ba 2015.
    """

    settings = ("beta1", "beta2", "eps", "weight_decay")
    buffers = ("mean", "square")

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, weight_decay)
        self.beta1 = self._in_range("betas[0]", betas[0], below=1.0)
        self.beta2 = self._in_range("betas[1]", betas[1], below=1.0)
        self.eps = self._in_range("eps", eps)

    def _arguments(self, state: Mapping[str, Any]) -> dict[str, Any]:
        betas = (state["beta1"], state["beta2"])
        return {"lr": state["lr"], "betas": betas, "eps": state["eps"], "weight_decay": state["weight_decay"]}

    def _update(self, index: int, weight: Array, grad: Array) -> Update:
        mean = self._buffer(index, "mean", weight)
        square = self._buffer(index, "square", weight)
        step = self._updates[index]
        rate = self.lr / (1.0 - self.beta1**step)
        root = math.sqrt(1.0 - self.beta2**step)
        scalars = (rate, root, self.beta1, self.beta2, self.eps, self.weight_decay)
        return Update(adam, (weight, grad, mean, square), scalars)
