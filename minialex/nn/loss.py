"""Losses as layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from minialex import ops
from minialex.nn.module import Module
from minialex.tensor import Tensor

__all__ = ["CrossEntropyLoss"]


class CrossEntropyLoss(Module):
    """-log(softmax(logits)[label]), averaged over the batch.

    Shapes: logits (N, C), labels (N,) -> () for "mean" and "sum", (N,) for "none".
    Args:   label_smoothing: share of the target that is spread evenly over all classes, 0 to 1;
            reduction: "mean", "sum" or "none".
    Raises: ValueError for another reduction or label_smoothing.
    """

    def __init__(self, label_smoothing: float = 0.0, reduction: str = "mean") -> None:
        super().__init__()
        # An op without labels refuses now what it would refuse at the first call.
        op = ops.CrossEntropyOp(np.empty(0, dtype=np.int64), label_smoothing, reduction)
        self.label_smoothing, self.reduction = op.label_smoothing, op.reduction

    def forward(self, logits: Tensor, labels: Any) -> Tensor:
        return ops.cross_entropy(logits, labels, self.label_smoothing, self.reduction)

    def extra_repr(self) -> str:
        parts = [f"label_smoothing={self.label_smoothing}"] if self.label_smoothing else []
        return ", ".join(parts + ([f"reduction={self.reduction!r}"] if self.reduction != "mean" else []))
