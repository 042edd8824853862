"""Bugs in the operators that Python spells with symbols, in reductions and in indexing."""

from __future__ import annotations

from typing import Any

import numpy as np

from minialex.backend import Array
from minialex.ops import ConcatenateOp
from minialex.tensor import (
    AddOp,
    DivOp,
    ExpOp,
    Gradients,
    IndexOp,
    LogOp,
    MatmulOp,
    MeanOp,
    MulOp,
    NegOp,
    Op,
    PowOp,
    ReshapeOp,
    SubOp,
    SumOp,
    TransposeOp,
)
from minialex.testing.mutants.planting import wrong_method


@wrong_method(MulOp, "backward", "mul ignores dy")
def _mul_ignores_dy(right: Any, op: Op, dy: Array) -> Gradients:
    return right(op, np.ones_like(dy))


@wrong_method(SubOp, "backward", "sub without the minus sign")
def _sub_sign(right: Any, op: Op, dy: Array) -> Gradients:
    da, db = right(op, dy)
    return da, None if db is None else -db


@wrong_method(AddOp, "backward", "add takes one of the copies instead of summing a broadcast axis")
def _no_broadcast_sum(right: Any, op: Op, dy: Array) -> Gradients:
    def first(shape: tuple[int, ...]) -> Array:
        picked = dy[(0,) * (dy.ndim - len(shape))]
        return picked[tuple(slice(0, extent) for extent in shape)].copy()

    return tuple(first(s) if need else None for s, need in zip(op.input_shapes, op.needs, strict=True))


@wrong_method(DivOp, "backward", "div without the square of the divisor")
def _div_square(right: Any, op: Op, dy: Array) -> Gradients:
    da, db = right(op, dy)
    b = op.saved[1]
    return da, None if db is None or b.shape != db.shape else db * b


@wrong_method(PowOp, "backward", "pow forgets the factor of the exponent")
def _pow_factor(right: Any, op: Op, dy: Array) -> Gradients:
    da, db = right(op, dy)
    b = op.saved[1]
    return None if da is None else da / b if da.shape == b.shape else da, db


@wrong_method(NegOp, "backward", "neg lets the gradient pass with its sign")
def _neg_sign(right: Any, op: Op, dy: Array) -> Gradients:
    return (dy.copy(),)


@wrong_method(ExpOp, "backward", "exp has the gradient of the identity")
def _exp_passes(right: Any, op: Op, dy: Array) -> Gradients:
    return (dy.copy(),)


@wrong_method(LogOp, "backward", "log multiplies where it must divide")
def _log_multiplies(right: Any, op: Op, dy: Array) -> Gradients:
    return (dy * op.saved[0],)


@wrong_method(LogOp, "forward", "log to the base 2")
def _log_base(right: Any, op: Op, x: Array) -> Array:
    return right(op, x) / x.dtype.type(np.log(2.0))


@wrong_method(MatmulOp, "backward", "matmul gives the transposed gradient where the shape allows it")
def _matmul_transposed(right: Any, op: Op, dy: Array) -> Gradients:
    return tuple(_transposed_if_square(d) for d in right(op, dy))


def _transposed_if_square(d: Array | None) -> Array | None:
    fits = d is not None and d.ndim == 2 and d.size > 1
    return d.T.reshape(d.shape) if fits and d is not None else d


@wrong_method(MeanOp, "backward", "mean has the gradient of sum")
def _mean_for_sum(right: Any, op: Op, dy: Array) -> Gradients:
    return SumOp.backward(op, dy)  # type: ignore[arg-type]


@wrong_method(SumOp, "backward", "sum spreads along the wrong axis")
def _sum_axis(right: Any, op: Op, dy: Array) -> Gradients:
    (dx,) = right(op, dy)
    return (np.ascontiguousarray(dx)[..., ::-1],)


@wrong_method(ReshapeOp, "backward", "reshape takes the gradient back column by column")
def _reshape_order(right: Any, op: Op, dy: Array) -> Gradients:
    return (dy.reshape(op.input_shapes[0], order="F"),)


@wrong_method(TransposeOp, "backward", "transpose uses the axes where their inverse is due")
def _transpose_inverse(right: Any, op: Any, dy: Array) -> Gradients:
    return (dy.transpose(op._permutation(dy.ndim)).reshape(op.input_shapes[0]),)


@wrong_method(IndexOp, "backward", "index assigns where elements picked twice must add up")
def _index_assigns(right: Any, op: Any, dy: Array) -> Gradients:
    dx = np.zeros(op.input_shapes[0], dtype=dy.dtype)
    dx[op.index] = dy
    return (dx,)


@wrong_method(ConcatenateOp, "backward", "concatenate gives every input the first cut")
def _concatenate_offset(right: Any, op: Any, dy: Array) -> Gradients:
    axis = op.axis % dy.ndim
    return tuple(
        dy[(*(slice(None),) * axis, slice(0, shape[axis]))] if need else None
        for shape, need in zip(op.input_shapes, op.needs, strict=True)
    )
