"""Dropout, inverted and as in the 2012 paper."""

from __future__ import annotations

from typing import NamedTuple

from minialex import rng
from minialex.backend import Array, array_module
from minialex.cost import Cost
from minialex.kernels.dropout import dropout_forward
from minialex.shapes import Shape, numel
from minialex.tensor import Gradients, Op, Tensor, as_tensor

MODES = ("inverted", "paper")


class DropoutKey(NamedTuple):
    """The address of a mask: the run's seed, the training step, and the number of the draw in the step."""

    seed: int
    step: int
    item: int


class DropoutOp(Op):
    """Set each element to zero with probability p, and multiply the others by `scale`.

        y = x * m,  m = scale where uniform(key, element) >= p, else 0;  dx = dy * m

    The mask is made again in the backward pass from its key; nothing is kept.
    Shapes: any -> the same.
    Args:   p: probability of a zero; scale: dimensionless; key: (seed, step, item), the mask's address.
    Raises: ValueError if p is not in [0, 1].
    Source: Hinton et al. 2012; Krizhevsky, Sutskever, Hinton 2012, section 4.2.
    """

    def __init__(self, p: float, scale: float, key: tuple[int, int, int]) -> None:
        self.p, self.scale = check_probability(p), float(scale)
        self.key = DropoutKey(*key)

    def shape(self, x: Shape) -> Shape:
        return x

    def cost(self, x: Shape, itemsize: int = 4) -> Cost:
        return Cost.of(numel(x), x, x, itemsize=itemsize)

    def forward(self, x: Array) -> Array:
        return self._masked(x)

    def backward(self, dy: Array) -> Gradients:
        return (self._masked(dy),)

    def _masked(self, values: Array) -> Array:
        result = array_module(values).empty(values.shape, dtype=values.dtype)
        dropout_forward(values.reshape(-1), result.reshape(-1), self.p, self.scale, *self.key)
        return result


def check_probability(p: float) -> float:
    """p as a float. Raises: ValueError if it is not in [0, 1]."""
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout: p must lie between 0 and 1, got {p}")
    return float(p)


def dropout(
    x: Tensor,
    p: float = 0.5,
    training: bool = True,
    *,
    mode: str = "inverted",
    key: tuple[int, int, int] | None = None,
) -> Tensor:
    """Drop elements of x with probability p while training; see DropoutOp.

    Args:   mode: "inverted" multiplies what is kept by 1/(1-p) while training and does nothing at test
            time; "paper" leaves it as it is while training and multiplies by 1-p at test time.
            key: the mask's address; None takes the next of rng.current_scope().
    Raises: ValueError for another mode, or p outside [0, 1].
    """
    x = as_tensor(x)
    if mode not in MODES:
        raise ValueError(f"dropout: mode must be 'inverted' or 'paper', got {mode!r}")
    keep = 1.0 - check_probability(p)
    if not training:
        return x * keep if mode == "paper" else x
    if key is None:
        scope = rng.current_scope()
        key = (scope.seed, scope.step, scope.next_item("dropout"))
    scale = 1.0 if mode == "paper" else 1.0 / keep if keep > 0 else 0.0
    return DropoutOp(p, scale, key)(x)
