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


@wrong_method(MulOp, "backward", "mul ignores dy", "ignores the cotangent")
def _mul_ignores_dy(right: Any, op: Op, dy: Array) -> Gradients:
    return right(op, np.ones_like(dy))


@wrong_method(SubOp, "backward", "sub without the minus sign", "sign")
def _sub_sign(right: Any, op: Op, dy: Array) -> Gradients:
    da, db = right(op, dy)
    return da, None if db is None else -db


@wrong_method(
    AddOp,
    "backward",
    "add takes one of the copies instead of summing a broadcast axis",
    "missing broadcast sum",
)
def _no_broadcast_sum(right: Any, op: Op, dy: Array) -> Gradients:
    def first(shape: tuple[int, ...]) -> Array:
        picked = dy[(0,) * (dy.ndim - len(shape))]
        return picked[tuple(slice(0, extent) for extent in shape)].copy()

    return tuple(first(s) if need else None for s, need in zip(op.input_shapes, op.needs, strict=True))


@wrong_method(DivOp, "backward", "div without the square of the divisor", "slope")
def _div_square(right: Any, op: Op, dy: Array) -> Gradients:
    da, db = right(op, dy)
    b = op.saved[1]
    return da, None if db is None or b.shape != db.shape else db * b


@wrong_method(PowOp, "backward", "pow forgets the factor of the exponent", "slope")
def _pow_factor(right: Any, op: Op, dy: Array) -> Gradients:
    da, db = right(op, dy)
    b = op.saved[1]
    return None if da is None else da / b if da.shape == b.shape else da, db


@wrong_method(NegOp, "backward", "neg lets the gradient pass with its sign", "sign")
def _neg_sign(right: Any, op: Op, dy: Array) -> Gradients:
    return (dy.copy(),)


@wrong_method(ExpOp, "backward", "exp has the gradient of the identity", "slope")
def _exp_passes(right: Any, op: Op, dy: Array) -> Gradients:
    return (dy.copy(),)


@wrong_method(LogOp, "backward", "log multiplies where it must divide", "slope")
def _log_multiplies(right: Any, op: Op, dy: Array) -> Gradients:
    return (dy * op.saved[0],)


@wrong_method(LogOp, "forward", "log to the base 2", "factor")
def _log_base(right: Any, op: Op, x: Array) -> Array:
    return right(op, x) / x.dtype.type(np.log(2.0))


@wrong_method(
    MatmulOp, "backward", "matmul gives the transposed gradient where the shape allows it", "swapped axes"
)
def _matmul_transposed(right: Any, op: Op, dy: Array) -> Gradients:
    return tuple(_transposed_if_square(d) for d in right(op, dy))


def _transposed_if_square(d: Array | None) -> Array | None:
    fits = d is not None and d.ndim == 2 and d.size > 1
    return d.T.reshape(d.shape) if fits and d is not None else d


@wrong_method(MeanOp, "backward", "mean has the gradient of sum", "factor")
def _mean_for_sum(right: Any, op: Op, dy: Array) -> Gradients:
    return SumOp.backward(op, dy)  # type: ignore[arg-type]


@wrong_method(SumOp, "backward", "sum spreads along the wrong axis", "flipped")
def _sum_axis(right: Any, op: Op, dy: Array) -> Gradients:
    (dx,) = right(op, dy)
    return (np.ascontiguousarray(dx)[..., ::-1],)


@wrong_method(ReshapeOp, "backward", "reshape takes the gradient back column by column", "swapped axes")
def _reshape_order(right: Any, op: Op, dy: Array) -> Gradients:
    return (dy.reshape(op.input_shapes[0], order="F"),)


@wrong_method(TransposeOp, "backward", "transpose uses the axes where their inverse is due", "swapped axes")
def _transpose_inverse(right: Any, op: Any, dy: Array) -> Gradients:
    return (dy.transpose(op._permutation(dy.ndim)).reshape(op.input_shapes[0]),)


@wrong_method(IndexOp, "backward", "index assigns where elements picked twice must add up", "overlap")
def _index_assigns(right: Any, op: Any, dy: Array) -> Gradients:
    dx = np.zeros(op.input_shapes[0], dtype=dy.dtype)
    dx[op.index] = dy
    return (dx,)


@wrong_method(ConcatenateOp, "backward", "concatenate gives every input the first cut", "shifted")
def _concatenate_offset(right: Any, op: Any, dy: Array) -> Gradients:
    axis = op.axis % dy.ndim
    return tuple(
        dy[(*(slice(None),) * axis, slice(0, shape[axis]))] if need else None
        for shape, need in zip(op.input_shapes, op.needs, strict=True)
    )


@wrong_method(AddOp, "backward", "add averages over a broadcast axis", "factor")
def _broadcast_mean(right: Any, op: Op, dy: Array) -> Gradients:
    return tuple(None if d is None else d * dy.dtype.type(d.size / dy.size) for d in right(op, dy))


@wrong_method(
    MulOp, "backward", "mul sums a broadcast axis over its first two places alone", "missing broadcast sum"
)
def _mul_first_row(right: Any, op: Any, dy: Array) -> Gradients:
    part = dy.copy()
    if dy.ndim and dy.shape[0] > 1 and any(shape != dy.shape for shape in op.input_shapes):
        part[-1] = 0
    whole, cut = right(op, dy), right(op, part)
    return tuple(
        full if shape == dy.shape else short
        for full, short, shape in zip(whole, cut, op.input_shapes, strict=True)
    )


@wrong_method(
    MulOp, "backward", "mul sends each input the other's gradient where the shapes allow it", "slope"
)
def _mul_crossed(right: Any, op: Any, dy: Array) -> Gradients:
    da, db = right(op, dy)
    crossed = da is not None and db is not None and da.shape == db.shape
    return (db, da) if crossed else (da, db)


@wrong_method(DivOp, "backward", "div without the minus sign of the divisor", "sign")
def _div_sign(right: Any, op: Op, dy: Array) -> Gradients:
    da, db = right(op, dy)
    return da, None if db is None else -db


@wrong_method(PowOp, "backward", "pow forgets that the power drops by one", "slope")
def _pow_undropped(right: Any, op: Op, dy: Array) -> Gradients:
    da, db = right(op, dy)
    a = op.saved[0]
    return da * a if da is not None and da.shape == a.shape else da, db


@wrong_method(ExpOp, "backward", "exp's gradient goes through float32", "float32")
def _exp_rounds(right: Any, op: Op, dy: Array) -> Gradients:
    (dx,) = right(op, dy)
    return (np.asarray(dx).astype(np.float32).astype(dy.dtype),)


@wrong_method(LogOp, "backward", "log's gradient is cut off", "zero")
def _log_detached(right: Any, op: Op, dy: Array) -> Gradients:
    return (np.zeros_like(dy),)


@wrong_method(SumOp, "backward", "sum has the gradient of mean", "factor")
def _sum_for_mean(right: Any, op: Op, dy: Array) -> Gradients:
    (dx,) = right(op, dy)
    return (dx * dy.dtype.type(dy.size / dx.size),)


@wrong_method(MeanOp, "backward", "mean divides by the number of outputs", "factor")
def _mean_count(right: Any, op: Op, dy: Array) -> Gradients:
    (dx,) = right(op, dy)
    return (dx * dy.dtype.type(dx.size / dy.size**2),)


@wrong_method(IndexOp, "backward", "index leaves what was not picked uninitialised", "NaN")
def _index_uninitialised(right: Any, op: Any, dy: Array) -> Gradients:
    (dx,) = right(op, dy)
    (picked,) = right(op, np.ones_like(dy))
    return (np.where(picked > 0, dx, np.nan),)


@wrong_method(ConcatenateOp, "backward", "concatenate forgets its last input", "zero")
def _concatenate_last(right: Any, op: Op, dy: Array) -> Gradients:
    *first, last = right(op, dy)
    return *first, None if last is None else np.zeros_like(last)


@wrong_method(TransposeOp, "backward", "transpose only reshapes the gradient", "swapped axes")
def _transpose_reshapes(right: Any, op: Op, dy: Array) -> Gradients:
    return (np.ascontiguousarray(dy).reshape(op.input_shapes[0]),)


@wrong_method(MatmulOp, "backward", "matmul forgets the first row of dy in the gradient of b", "channel")
def _matmul_first_row(right: Any, op: Op, dy: Array) -> Gradients:
    part = dy.copy()
    if dy.ndim == 2 and len(dy) > 1:
        part[0] = 0
    return right(op, dy)[0], right(op, part)[1]
