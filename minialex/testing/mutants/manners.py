"""Bugs that leave every value right: arrays written into, dtypes, gradients nobody asked for, costs."""

from __future__ import annotations

from typing import Any

import numpy as np

from minialex.backend import Array
from minialex.ops import Conv2dOp, LinearOp, ReluOp, TanhOp
from minialex.tensor import Gradients, IndexOp, MulOp, Op, ReshapeOp
from minialex.testing.mutants.planting import wrong_method


@wrong_method(ReluOp, "forward", "relu works in place on its input")
def _relu_in_place(right: Any, op: Op, x: Array) -> Array:
    np.maximum(x, 0, out=x)
    return right(op, x)


@wrong_method(MulOp, "backward", "mul scales its dy in place")
def _dy_in_place(right: Any, op: Op, dy: Array) -> Gradients:
    dy *= 2
    return tuple(None if d is None else d / 2 for d in right(op, dy))


@wrong_method(LinearOp, "forward", "linear works in float64 and forgets to come back")
def _linear_promotes(right: Any, op: Op, *arrays: Array) -> Array:
    return right(op, *(a.astype(np.float64) for a in arrays))


@wrong_method(TanhOp, "forward", "tanh works in float32 where float64 was asked", "float32")
def _tanh_rounds(right: Any, op: Op, x: Array) -> Array:
    return right(op, x.astype(np.float32).astype(x.dtype))


@wrong_method(LinearOp, "backward", "linear works out gradients that nobody asked for")
def _unasked(right: Any, op: Any, dy: Array) -> Gradients:
    dx, *others = right(op, dy)
    return np.zeros(op.input_shapes[0], dtype=dy.dtype) if dx is None else dx, *others


@wrong_method(Conv2dOp, "cost", "conv2d counts a multiplication and its addition as one")
def _half_the_flops(right: Any, op: Op, *shapes: Any, itemsize: int = 4) -> Any:
    whole = right(op, *shapes, itemsize=itemsize)
    return type(whole)(whole.flops // 2, whole.bytes)


@wrong_method(ReluOp, "cost", "relu's cost moves no bytes")
def _no_bytes(right: Any, op: Op, *shapes: Any, itemsize: int = 4) -> Any:
    whole = right(op, *shapes, itemsize=itemsize)
    return type(whole)(whole.flops, 0)


@wrong_method(Conv2dOp, "cost", "conv2d's cost forgets to read the weights")
def _weights_unread(right: Any, op: Op, x: Any, weight: Any, *bias: Any, itemsize: int = 4) -> Any:
    whole = right(op, x, weight, *bias, itemsize=itemsize)
    return type(whole)(whole.flops, whole.bytes - itemsize * int(np.prod(weight)))


@wrong_method(IndexOp, "cost", "index is charged for elements that it does not pick")
def _reads_all(right: Any, op: Op, x: Any, itemsize: int = 4) -> Any:
    whole = right(op, x, itemsize=itemsize)
    return type(whole)(whole.flops, whole.bytes // 2 + itemsize * int(np.prod(x)))


@wrong_method(ReshapeOp, "cost", "reshape is charged for a copy")
def _view_copies(right: Any, op: Op, x: Any, itemsize: int = 4) -> Any:
    whole = right(op, x, itemsize=itemsize)
    return type(whole)(whole.flops, 2 * itemsize * int(np.prod(x)))
