"""Softmax and log-softmax along one axis."""

from __future__ import annotations

from typing import ClassVar

from minialex.backend import Array, Kernel, array_module
from minialex.cost import Cost
from minialex.kernels.softmax import (
    log_softmax_backward,
    log_softmax_forward,
    softmax_backward,
    softmax_forward,
)
from minialex.shapes import Shape, ShapeError, normalize_axis, numel
from minialex.tensor import Gradients, Op, Tensor, as_tensor


class SoftmaxOp(Op):
    """Positive numbers that add up to 1 along an axis.

        y[k] = exp(x[k]) / sum over j of exp(x[j]);  dx[k] = y[k] * (dy[k] - sum over j of dy[j] * y[j])

    Shapes: any -> the same.
    Args:   axis: the axis of the classes.
    Raises: ShapeError if the axis is out of range or has no extent.
    """

    kernels: ClassVar[tuple[Kernel, Kernel]] = (softmax_forward, softmax_backward)

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def shape(self, x: Shape) -> Shape:
        if x[normalize_axis(self.axis, len(x), self.name)] == 0:
            raise ShapeError(f"{self.name}: axis {self.axis} of shape {x} has no extent")
        return x

    def cost(self, x: Shape, itemsize: int = 4) -> Cost:
        K = x[normalize_axis(self.axis, len(x), self.name)]
        # Largest; then subtract, exponential, add and divide for each element.
        return Cost.of(numel(x) // K * (5 * K - 1), x, x, itemsize=itemsize)

    def forward(self, x: Array) -> Array:
        y = self._by_rows(self.kernels[0], x)
        self.save(y)
        return y

    def backward(self, dy: Array) -> Gradients:
        (y,) = self.saved
        return (self._by_rows(self.kernels[1], dy, y),)

    def _by_rows(self, kernel: Kernel, *inputs: Array) -> Array:
        """Run a kernel of matrices with the classes along the last axis, and put the axis back."""
        xp = array_module(inputs[0])
        moved = [xp.moveaxis(a, self.axis, -1) for a in inputs]
        result = xp.empty(moved[0].shape, dtype=inputs[0].dtype)
        K = result.shape[-1]
        kernel(*(m.reshape(-1, K) for m in moved), result.reshape(-1, K))
        return xp.ascontiguousarray(xp.moveaxis(result, -1, self.axis))


class LogSoftmaxOp(SoftmaxOp):
    """The logarithm of softmax, without the underflow of taking the two apart.

        y[k] = x[k] - log(sum over j of exp(x[j]));  dx[k] = dy[k] - exp(y[k]) * sum over j of dy[j]

    Shapes, Args, Raises: as SoftmaxOp.
    """

    kernels = (log_softmax_forward, log_softmax_backward)

    def cost(self, x: Shape, itemsize: int = 4) -> Cost:
        return Cost.of(5 * numel(x), x, x, itemsize=itemsize)


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """Positive numbers that add up to 1 along `axis`; see SoftmaxOp."""
    return SoftmaxOp(axis)(as_tensor(x))


def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """The logarithm of softmax along `axis`; see LogSoftmaxOp."""
    return LogSoftmaxOp(axis)(as_tensor(x))
