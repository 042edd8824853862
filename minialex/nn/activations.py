"""Activations as layers: no parameters, one op call each."""

from __future__ import annotations

from minialex import ops
from minialex.nn.module import Module
from minialex.tensor import Tensor

__all__ = ["LogSoftmax", "ReLU", "Sigmoid", "Softmax", "Tanh"]


class ReLU(Module):
    """max(x, 0), element by element.

    Shapes: any -> the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        return ops.relu(x)


class Sigmoid(Module):
    """1 / (1 + exp(-x)), element by element.

    Shapes: any -> the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        return ops.sigmoid(x)


class Tanh(Module):
    """The hyperbolic tangent, element by element.

    Shapes: any -> the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        return ops.tanh(x)


class Softmax(Module):
    """exp(x) / sum(exp(x)) along `axis`: probabilities. CrossEntropyLoss wants logits, without this layer.

    Shapes: any -> the same.
    Args:   axis: along which the results sum to one.
    """

    def __init__(self, axis: int = -1) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        return ops.softmax(x, self.axis)

    def extra_repr(self) -> str:
        return f"axis={self.axis}"


class LogSoftmax(Module):
    """The logarithm of the softmax along `axis`, computed without overflow.

    Shapes: any -> the same.
    Args:   axis: along which the exponentials of the results sum to one.
    """

    def __init__(self, axis: int = -1) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        return ops.log_softmax(x, self.axis)

    def extra_repr(self) -> str:
        return f"axis={self.axis}"
