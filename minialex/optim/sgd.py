"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable

from minialex.backend import Array, array_module
from minialex.kernels.sgd import sgd_paper, sgd_torch
from minialex.optim.optimizer import Optimizer, Update
from minialex.tensor import Tensor

__all__ = ["SGD"]


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum and weight decay by one of two rules.

        "torch":  g = grad + weight_decay * w;  v = momentum * v + g;  w -= lr * v
                  (nesterov: w -= lr * (g + momentum * v))
        "paper":  v = momentum * v - weight_decay * lr * w - lr * grad;  w += v

    With a constant lr the two take the same steps; after a change of lr they differ, because in "paper"
    the old velocity keeps its length.

    Args:   params, lr, weight_decay: as Optimizer; momentum: share of the velocity that is kept, 0 <= m < 1;
            nesterov: look ahead, for "torch" with momentum only.
    Raises: ValueError as Optimizer, for another rule, and for nesterov where it has no meaning; TypeError if
            nesterov is neither True nor False.
    Source: "paper": Krizhevsky, Sutskever, Hinton 2012, section 5; "torch": torch.optim.SGD.
    """

    settings = ("momentum", "weight_decay", "nesterov", "rule")
    buffers = ("momentum",)

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        rule: str = "torch",
    ) -> None:
        super().__init__(params, lr, weight_decay)
        self.momentum = self._in_range("momentum", momentum, below=1.0)
        if not isinstance(nesterov, bool):
            raise TypeError(f"SGD: nesterov must be True or False, got {nesterov!r}")
        if rule not in ("torch", "paper"):
            raise ValueError(f"SGD: rule must be 'torch' or 'paper', got {rule!r}")
        if nesterov and (momentum == 0 or rule == "paper"):
            raise ValueError(f"SGD: nesterov needs momentum and rule='torch', got {momentum=}, {rule=}")
        self.nesterov = nesterov
        self.rule = rule

    def _update(self, index: int, weight: Array, grad: Array) -> Update:
        scalars = (self.lr, self.momentum, self.weight_decay)
        if self.rule == "torch" and not self.momentum:
            velocity = array_module(weight).empty(0, dtype=weight.dtype)
        else:
            velocity = self._buffer(index, "momentum", weight)
        if self.rule == "paper":
            return Update(sgd_paper, (weight, grad, velocity), scalars)
        return Update(sgd_torch, (weight, grad, velocity), (*scalars, self.nesterov))
