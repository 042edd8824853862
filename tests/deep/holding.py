"""What must hold for a row that was drawn."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_rows import windows_fit
from hypothesis import event, note

from minialex.backend import Array, forced_variant
from minialex.rng import Stream
from minialex.shapes import ShapeError
from minialex.tensor import Tensor, no_grad
from minialex.testing import Case
from minialex.testing.check import CHECKS, CheckError, gradients, ties, variants

EPS = 1e-6
# Of the gradient's norm: rounding leaves 1e-10 or so, arithmetic in float32 3e-8.
TOLERANCE = 1e-8


def hold(case: Case) -> None:
    """Every check of check_op, with gradients along a direction; or, where no window fits, the refusal."""
    note(case.label)
    if windows_fit(case):
        agree(case)
        slope_along_a_direction(case)
    else:
        refuse(case)


def agree(case: Case) -> None:
    """Every check of check_op but that of gradients, which takes a difference for each element."""
    for check in CHECKS:
        if check is not gradients and not (check in (variants, ties) and forced_variant()):
            check(case)


def refuse(case: Case) -> None:
    """An output without pixels is refused, before any arithmetic and when the op is called."""
    event("no window fits")
    with pytest.raises(ShapeError, match="no window fits"):
        case.make().shape(*(a.shape for a in case.inputs))
    with pytest.raises(ShapeError, match="no window fits"):
        case.make()(*map(Tensor, case.inputs))


def slope_along_a_direction(case: Case) -> None:
    """<backward(v), u> is the slope along u, all inputs moved at once, in float64."""
    leaves = [Tensor(a, requires_grad=True) for a in case.inputs]
    y = case.make()(*leaves)
    v = normal(0, y.shape)
    y.backward(v)
    us = [normal(1 + i, a.shape) for i, a in enumerate(case.inputs)]
    with no_grad():
        ahead, behind = (
            case.make()(*(Tensor(a + sign * EPS * u) for a, u in zip(case.inputs, us, strict=True))).numpy()
            for sign in (1, -1)
        )
    slope = float(((ahead - behind) * v).sum()) / (2 * EPS)
    gradient = [leaf.grad for leaf in leaves]
    product = sum(float((g * u).sum()) for g, u in zip(gradient, us, strict=True))
    norm = float(np.sqrt(sum((g * g).sum() for g in gradient)))
    if not abs(product - slope) <= TOLERANCE * max(norm, 1.0):
        raise CheckError(f"{case.label}: backward says {product!r} along a direction, differences {slope!r}")


def normal(item: int, shape: tuple[int, ...]) -> Array:
    return np.asarray(Stream(2, "test", item=item).normal(shape=(*shape, 1)))[..., 0]
