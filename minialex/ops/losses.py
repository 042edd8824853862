"""Cross-entropy loss from logits."""

from __future__ import annotations

from typing import Any

import numpy as np

from minialex.backend import Array, DTypeError, array_module, device_of, to_device, to_numpy
from minialex.cost import Cost
from minialex.errors import DeviceError
from minialex.kernels.cross_entropy import cross_entropy_backward, cross_entropy_forward
from minialex.shapes import Shape, ShapeError, require_ndim
from minialex.tensor import Gradients, Op, Tensor, as_tensor

REDUCTIONS = ("mean", "sum", "none")


class CrossEntropyOp(Op):
    """How unlikely the logits make the labels, in nats.

        loss[n] = -sum over k of target[n, k] * log_softmax(logits[n])[k]
        target  = 1 - label_smoothing at the label, plus label_smoothing / K at every class
        dlogits = dloss * (softmax(logits) - target)

    Shapes: logits (N, K) -> () for "mean" over the images and for "sum", (N,) for "none".
    Args:   labels: (N,) class numbers 0 .. K-1, an integer array on the logits' device or the CPU;
            label_smoothing: in [0, 1]; reduction: "mean", "sum" or "none".
    Raises: ShapeError if N differs or is 0; DTypeError if labels are not integers; ValueError for a label
            outside 0 .. K-1, naming it, and for another reduction.
    Source: label smoothing: Szegedy et al. 2016, section 7.
    """

    def __init__(self, labels: Array, label_smoothing: float = 0.0, reduction: str = "mean") -> None:
        if reduction not in REDUCTIONS:
            raise ValueError(
                f"cross_entropy: reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}"
            )
        if not 0.0 <= label_smoothing <= 1.0:
            raise ValueError(
                f"cross_entropy: label_smoothing must lie between 0 and 1, got {label_smoothing}"
            )
        self.labels, self.label_smoothing, self.reduction = labels, float(label_smoothing), reduction

    def shape(self, logits: Shape) -> Shape:
        require_ndim("cross_entropy", "logits", logits, 2, "(N, K)")
        if self.labels.shape != logits[:1]:
            raise ShapeError(
                f"cross_entropy: logits have N={logits[0]} rows but labels have shape {self.labels.shape}, "
                f"expected ({logits[0]},); logits {logits}"
            )
        if min(logits) == 0:
            raise ShapeError(f"cross_entropy: there is nothing to average in logits of shape {logits}")
        return logits[:1] if self.reduction == "none" else ()

    def cost(self, logits: Shape, itemsize: int = 4) -> Cost:
        N, K = logits
        # Largest, subtract, exponential, add; the targets that are not zero; logarithm and difference.
        row = (K - 1) + 3 * K + 2 * (K if self.label_smoothing else 1) + 2
        reduce = {"none": 0, "sum": N, "mean": N + 1}[self.reduction]
        return Cost.of(N * row + reduce, logits, self.shape(logits), itemsize=itemsize)

    def forward(self, logits: Array) -> Array:
        _check_labels(self.labels, logits)
        # Class numbers in host memory are checked there, without waiting for the device, and follow.
        self.labels = to_device(self.labels, device_of(logits))
        losses = array_module(logits).empty(len(logits), dtype=logits.dtype)
        cross_entropy_forward(logits, self.labels, losses, self.label_smoothing)
        self.save(logits, self.labels)
        if self.reduction == "none":
            return losses
        return losses.sum() / logits.dtype.type(len(logits) if self.reduction == "mean" else 1)

    def backward(self, dy: Array) -> Gradients:
        logits, labels = self.saved
        xp = array_module(dy)
        dlosses = dy / dy.dtype.type(len(logits)) if self.reduction == "mean" else dy
        dlosses = xp.ascontiguousarray(xp.broadcast_to(dlosses, (len(logits),)))
        dlogits = xp.empty(logits.shape, dtype=dy.dtype)
        cross_entropy_backward(dlosses, logits, labels, dlogits, self.label_smoothing)
        return (dlogits,)


def _check_labels(labels: Array, logits: Array) -> None:
    if device_of(labels) not in (device_of(logits), "cpu"):
        raise DeviceError(
            f"cross_entropy: logits on {device_of(logits)}, labels on {device_of(labels)}; bring both to one "
            f"device, as in logits.to({device_of(labels)!r})"
        )
    K = logits.shape[1]
    outside = (labels < 0) | (labels >= K)
    if bool(outside.any()):
        position = int(to_numpy(outside).argmax())
        raise ValueError(
            f"cross_entropy: label {int(labels[position])} at position {position} is outside 0 .. {K - 1} "
            f"(logits have K={K} classes)"
        )


def cross_entropy(
    logits: Tensor, labels: Any, label_smoothing: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """The loss of logits (N, K) against integer labels (N,), an array or Tensor; see CrossEntropyOp."""
    logits = as_tensor(logits)
    array = labels.data if isinstance(labels, Tensor) else labels
    if not hasattr(array, "dtype"):
        array = np.asarray(array)
    if array.dtype.kind not in "iu":
        raise DTypeError(
            f"cross_entropy: labels must be integers, got dtype {array.dtype}; use .astype('int64')"
        )
    # A copy: backward needs the labels of this batch after a loader has reused the memory.
    return CrossEntropyOp(array.astype(np.int64), label_smoothing, reduction)(logits)
