"""Bugs in pooling and local response normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np

from minialex.backend import Array
from minialex.kernels import average_pooling, max_pooling
from minialex.kernels import local_response_norm as lrn_kernels
from minialex.ops import AdaptiveAvgPool2dOp, AvgPool2dOp, LocalResponseNormOp, MaxPool2dOp
from minialex.tensor import Gradients, Op
from minialex.testing.mutants.planting import wrong_kernel, wrong_method


@wrong_kernel(
    MaxPool2dOp,
    max_pooling.max_pool2d_forward,
    "max_pool2d gives a tie to the last of the equal pixels",
)
def _last_of_equals(
    right: Any, x: Array, y: Array, argmax: Array, kernel_size: Any, stride: Any, padding: Any, *rest: Any
) -> None:
    right(x, y, argmax, kernel_size, stride, padding, *rest)
    (KH, KW), (H, W) = kernel_size, x.shape[2:]
    for n, c, p, q in np.ndindex(y.shape):
        top, left = p * stride[0] - padding[0][0], q * stride[1] - padding[1][0]
        rows, cols = range(max(top, 0), min(top + KH, H)), range(max(left, 0), min(left + KW, W))
        equal = [
            (row - top) * KW + col - left
            for row in rows
            for col in cols
            if x[n, c, row, col] == y[n, c, p, q]
        ]
        if argmax[n, c, p, q] < KH * KW and equal:
            argmax[n, c, p, q] = equal[-1]


@wrong_kernel(
    MaxPool2dOp,
    max_pooling.max_pool2d_backward,
    "max_pool2d sends the gradient a column too far",
    "shifted",
)
def _pool_shifted(right: Any, dy: Array, argmax: Array, dx: Array, *rest: Any) -> None:
    right(dy, argmax, dx, *rest)
    dx[:, :, :, 1:] = dx[:, :, :, :-1].copy()
    dx[:, :, :, 0] = 0


@wrong_kernel(
    MaxPool2dOp,
    max_pooling.max_pool2d_backward,
    "max_pool2d reads rows for columns in the winner",
    "winner",
)
def _winner_turned(right: Any, dy: Array, argmax: Array, dx: Array, kernel_size: Any, *rest: Any) -> None:
    KH, KW = kernel_size
    cell = argmax.astype(np.int64)
    turned = np.minimum(cell % KW, KH - 1) * KW + np.minimum(cell // KW, KW - 1)
    right(dy, _on_picture(turned, argmax, dx.shape, kernel_size, *rest), dx, kernel_size, *rest)


def _on_picture(
    winner: Array, argmax: Array, picture: Any, kernel_size: Any, stride: Any, padding: Any
) -> Array:
    """The wrong winners, and the right ones where a wrong one would lie beside the picture."""
    KH, KW = kernel_size
    row = np.arange(argmax.shape[2])[:, None] * stride[0] - padding[0][0] + winner // KW
    col = np.arange(argmax.shape[3])[None, :] * stride[1] - padding[1][0] + winner % KW
    inside = (row >= 0) & (row < picture[2]) & (col >= 0) & (col < picture[3]) & (argmax < KH * KW)
    return np.asarray(np.where(inside, winner, argmax), dtype=argmax.dtype)


@wrong_kernel(
    MaxPool2dOp,
    max_pooling.max_pool2d_backward,
    "max_pool2d leaves losers uninitialised",
    "NaN",
)
def _losers_uninitialised(right: Any, dy: Array, argmax: Array, dx: Array, *rest: Any) -> None:
    right(np.ones_like(dy), argmax, dx, *rest)
    lost = dx == 0
    right(dy, argmax, dx, *rest)
    dx[lost] = np.nan


@wrong_kernel(
    MaxPool2dOp,
    max_pooling.max_pool2d_backward,
    "max_pool2d spreads the gradient over its window",
    "window",
)
def _pool_spreads(right: Any, dy: Array, argmax: Array, dx: Array, kernel_size: Any, *rest: Any) -> None:
    KH, KW = kernel_size
    stride, padding = rest
    dx[...] = 0
    for n, c, p, q in np.ndindex(dy.shape):
        top, left = p * stride[0] - padding[0][0], q * stride[1] - padding[1][0]
        rows, cols = slice(max(top, 0), top + KH), slice(max(left, 0), left + KW)
        dx[n, c, rows, cols] += dy[n, c, p, q] / (KH * KW)


@wrong_kernel(
    MaxPool2dOp, max_pooling.max_pool2d_backward, "max_pool2d assigns where windows overlap", "overlap"
)
def _pool_assigns(
    right: Any, dy: Array, argmax: Array, dx: Array, kernel_size: Any, stride: Any, padding: Any
) -> None:
    dx[...] = 0
    for n, c, p, q in np.ndindex(dy.shape):
        i, j = divmod(int(argmax[n, c, p, q]), kernel_size[1])
        dx[n, c, p * stride[0] - padding[0][0] + i, q * stride[1] - padding[1][0] + j] = dy[n, c, p, q]


@wrong_kernel(MaxPool2dOp, max_pooling.max_pool2d_forward, "max_pool2d pads with zeros")
def _zero_padding(
    right: Any, x: Array, y: Array, argmax: Array, kernel_size: Any, stride: Any, padding: Any, *rest: Any
) -> None:
    right(x, y, argmax, kernel_size, stride, padding, *rest)
    if any(sum(sides) for sides in padding):
        y[...] = np.maximum(y, 0)


@wrong_kernel(
    MaxPool2dOp, max_pooling.max_pool2d_forward, "max_pool2d keeps the winner of the window before", "winner"
)
def _stale_argmax(right: Any, x: Array, y: Array, argmax: Array, *rest: Any) -> None:
    right(x, y, argmax, *rest)
    stale = np.roll(argmax, 1, axis=3).astype(np.int64)
    argmax[...] = _on_picture(stale, argmax.copy(), x.shape, *rest[:3])


@wrong_kernel(
    MaxPool2dOp, max_pooling.max_pool2d_forward, "max_pool2d keeps winners in a byte for 289 cells", "winner"
)
def _narrow_argmax(right: Any, x: Array, y: Array, argmax: Array, *rest: Any) -> None:
    right(x, y, argmax, *rest)
    argmax[...] = argmax.astype(np.uint8)


@wrong_kernel(
    AvgPool2dOp, average_pooling.average_pool_backward, "avg_pool2d does not divide the gradient", "factor"
)
def _average_undivided(right: Any, dy: Array, dx: Array, rows: Array, cols: Array) -> None:
    ones = [np.concatenate([b[:, :2], np.ones_like(b[:, 2:])], axis=1) for b in (rows, cols)]
    right(dy, dx, *ones)


@wrong_kernel(
    AvgPool2dOp, average_pooling.average_pool_backward, "avg_pool2d assigns where windows overlap", "overlap"
)
def _average_assigns(right: Any, dy: Array, dx: Array, rows: Array, cols: Array) -> None:
    dx[...] = 0
    for p, (top, bottom, high) in enumerate(rows):
        for q, (left, end, wide) in enumerate(cols):
            dx[:, :, top:bottom, left:end] = dy[:, :, p : p + 1, q : q + 1] / (high * wide)


@wrong_kernel(
    AvgPool2dOp, average_pooling.average_pool_backward, "avg_pool2d misses its last row of windows", "border"
)
def _average_last_row(right: Any, dy: Array, dx: Array, rows: Array, cols: Array) -> None:
    part = dy.copy()
    part[:, :, -1] = 0
    right(part, dx, rows, cols)


@wrong_method(AvgPool2dOp, "bounds", "avg_pool2d always counts the padding")
def _counts_padding(right: Any, op: Op, x: Any, count_include_pad: bool) -> Any:
    return right(op, x, True)


@wrong_method(AdaptiveAvgPool2dOp, "_bounds", "adaptive_avg_pool2d's bins do not overlap")
def _bins_apart(right: Any, op: Any, x: Any) -> Any:
    """Where a bin ends is rounded down instead of up."""
    axes = []
    for size, bins in zip(x[2:], op.output_size, strict=True):
        starts = [size * p // bins for p in range(bins)]
        stops = [max(size * (p + 1) // bins, starts[p] + 1) for p in range(bins)]
        axes.append([(start, stop, stop - start) for start, stop in zip(starts, stops, strict=True)])
    return tuple(axes)


@wrong_method(
    AdaptiveAvgPool2dOp, "backward", "adaptive_avg_pool2d divides by the mean bin, not by each", "factor"
)
def _mean_bin(right: Any, op: Any, dy: Array) -> Gradients:
    rows, cols = (np.asarray(b, dtype=np.int64) for b in op._bounds(op.input_shapes[0]))
    cells = rows[:, None, 2] * cols[None, :, 2]
    (dx,) = right(op, (dy * (cells / cells.mean())).astype(dy.dtype))
    return (dx,)


@wrong_kernel(LocalResponseNormOp, lrn_kernels.lrn_backward, "lrn without its cross term", "cross terms")
def _lrn_diagonal(
    right: Any, dy: Array, x: Array, dx: Array, lower: int, upper: int, *numbers: float
) -> None:
    y = np.empty_like(x)
    lrn_kernels.lrn_reference(x, y, lower, upper, *numbers)
    dx[...] = dy * y / x


@wrong_kernel(
    LocalResponseNormOp,
    lrn_kernels.lrn_backward,
    "lrn sums the same window back, not the mirrored one",
    "window",
)
def _lrn_mirror(right: Any, dy: Array, x: Array, dx: Array, lower: int, upper: int, *numbers: float) -> None:
    right(dy, x, dx, upper, lower, *numbers)


@wrong_method(LocalResponseNormOp, "__init__", "lrn always divides alpha by size")
def _alpha_divided(
    right: Any, op: Any, size: int, alpha: float, *args: float, dialect: str, **rest: Any
) -> None:
    right(op, size, alpha / size if dialect == "paper" else alpha, *args, dialect=dialect, **rest)


@wrong_kernel(
    LocalResponseNormOp, lrn_kernels.lrn_forward, "lrn's window is a channel short at the far end", "window"
)
def _lrn_short(right: Any, x: Array, y: Array, lower: int, upper: int, *numbers: float) -> None:
    right(x, y, lower, max(upper - 1, 0), *numbers)


def _wrong_lrn(factor: float, power: float) -> Any:
    """LRN's gradient with its cross term times `factor`, and scale**(-beta - power) in it."""

    def wrong(
        right: Any,
        dy: Array,
        x: Array,
        dx: Array,
        lower: int,
        upper: int,
        alpha: float,
        beta: float,
        k: float,
    ) -> None:
        scale = k + alpha * lrn_kernels._window_sum(x * x, lower, upper)
        crossed = lrn_kernels._window_sum(dy * x * scale ** (-beta - power), upper, lower)
        dx[...] = dy * scale**-beta - factor * 2 * alpha * beta * x * crossed

    return wrong


_LRN = (LocalResponseNormOp, lrn_kernels.lrn_backward)
wrong_kernel(*_LRN, "lrn adds its cross term", "slope")(_wrong_lrn(-1.0, 1.0))
wrong_kernel(*_LRN, "lrn's cross term without the 2 of the square", "slope")(_wrong_lrn(0.5, 1.0))
wrong_kernel(*_LRN, "lrn's cross term with the power of the scale too high by one", "slope")(
    _wrong_lrn(1.0, 0.0)
)


@wrong_kernel(*_LRN, "lrn divides alpha by the window's length in its gradient alone", "slope")
def _lrn_alpha_in_gradient(
    right: Any, dy: Array, x: Array, dx: Array, lower: int, upper: int, alpha: float, *rest: float
) -> None:
    right(dy, x, dx, lower, upper, alpha / (lower + upper + 1), *rest)


@wrong_kernel(*_LRN, "lrn's gradient misses the last channel of the window", "window")
def _lrn_edges(
    right: Any, dy: Array, x: Array, dx: Array, lower: int, upper: int, alpha: float, beta: float, k: float
) -> None:
    scale = k + alpha * lrn_kernels._window_sum(x * x, lower, upper)
    crossed = lrn_kernels._window_sum(dy * x * scale ** (-beta - 1), upper, max(lower - 1, 0))
    dx[...] = dy * scale**-beta - 2 * alpha * beta * x * crossed


@wrong_kernel(
    LocalResponseNormOp,
    lrn_kernels.lrn_forward,
    "lrn's compiled code counts its own channel twice",
    variant="numba",
)
def _lrn_twice(
    right: Any, x: Array, y: Array, lower: int, upper: int, alpha: float, beta: float, k: float
) -> None:
    right(x, y, lower, upper, alpha, beta, k)
    scale = k + alpha * (lrn_kernels._window_sum(x * x, lower, upper) + x * x)
    y[...] = x * scale**-beta
