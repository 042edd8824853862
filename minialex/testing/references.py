"""What every op must give, by loops over scalars: the kernel's own, or for an op without a kernel, these.

Each function takes the op's input arrays and its parameters by name and gives a new array: float64, or
objects where the inputs are objects (numbers that count). Nothing here is shared with the code it is held
against: sizes of outputs, padding and windows are worked out anew.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minialex.backend import Array, Kernel
from minialex.kernels import (
    activations,
    average_pooling,
    convolution,
    local_response_norm,
    max_pooling,
)
from minialex.kernels import cross_entropy as cross_entropy_kernels
from minialex.kernels import dropout as dropout_kernels
from minialex.kernels import softmax as softmax_kernels
from minialex.testing.counting import Counted

Reference = Callable[..., Array]


def empty(shape: Sequence[int], *inputs: Array) -> Array:
    """A new array for the result: of objects if the inputs are, else float64."""
    return np.empty(tuple(shape), dtype=object if any(a.dtype == object for a in inputs) else np.float64)


# ------------------------------------------------------------------------------ symbols, with broadcasting


def _stretched(array: Array, index: tuple[int, ...]) -> Any:
    """The element that broadcasting puts at `index`: axes align at the end, an extent of 1 is repeated."""
    own = index[len(index) - array.ndim :]
    return array[tuple(0 if extent == 1 else i for i, extent in zip(own, array.shape, strict=True))]


def _binary(function: Callable[[Any, Any], Any]) -> Reference:
    def loops(a: Array, b: Array) -> Array:
        y = empty(np.broadcast_shapes(a.shape, b.shape), a, b)
        for index in np.ndindex(y.shape):
            y[index] = function(_stretched(a, index), _stretched(b, index))
        return y

    return loops


def _unary(function: Callable[[Any], Any]) -> Reference:
    def loops(x: Array) -> Array:
        y = empty(x.shape, x)
        for index in np.ndindex(x.shape):
            y[index] = function(x[index])
        return y

    return loops


add = _binary(operator.add)
sub = _binary(operator.sub)
mul = _binary(operator.mul)
div = _binary(operator.truediv)
power = _binary(operator.pow)
neg = _unary(operator.neg)
exp = _unary(np.exp)
log = _unary(np.log)


def matmul(a: Array, b: Array) -> Array:
    """y[..., i, j] = sum over k of a[..., i, k] * b[..., k, j]; a vector is a row (right: column)."""
    rows = a if a.ndim > 1 else a.reshape(1, -1)
    cols = b if b.ndim > 1 else b.reshape(-1, 1)
    leading = np.broadcast_shapes(rows.shape[:-2], cols.shape[:-2])
    y = empty((*leading, rows.shape[-2], cols.shape[-1]), a, b)
    for *batch, i, j in np.ndindex(y.shape):
        total = 0.0
        for k in range(rows.shape[-1]):
            left = _stretched(rows[..., i, k], tuple(batch)) if batch else rows[i, k]
            right = _stretched(cols[..., k, j], tuple(batch)) if batch else cols[k, j]
            total = total + left * right
        y[(*batch, i, j)] = total
    kept = [*leading, *([a.shape[-2]] if a.ndim > 1 else []), *([b.shape[-1]] if b.ndim > 1 else [])]
    return y.reshape(kept)


# ------------------------------------------------------------------------------------------------- reductions


def sum_over(x: Array, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Array:
    """The sum over `axis`: every element is added to where it ends up."""
    chosen = range(x.ndim) if axis is None else [axis] if isinstance(axis, int) else axis
    axes = {a % x.ndim for a in chosen}
    y = empty([1 if i in axes else extent for i, extent in enumerate(x.shape)], x)
    y[...] = 0.0
    for index in np.ndindex(x.shape):
        place = tuple(0 if i in axes else position for i, position in enumerate(index))
        y[place] = y[place] + x[index]
    return y if keepdims else y.reshape([extent for i, extent in enumerate(x.shape) if i not in axes])


def mean_over(x: Array, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Array:
    """The sum divided by how many elements went into each."""
    total = sum_over(x, axis, keepdims)
    y = empty(total.shape, x)
    for index in np.ndindex(y.shape):
        y[index] = total[index] / (x.size // total.size)
    return y


# ---------------------------------------------------------------------------------- where elements come from


def reshape(x: Array, shape: Sequence[int]) -> Array:
    """Elements in row-major order; -1 is the extent that is left over."""
    known = 1
    for extent in shape:
        known *= extent if extent != -1 else 1
    y = empty([x.size // known if extent == -1 else extent for extent in shape], x)
    for target, source in zip(np.ndindex(y.shape), np.ndindex(x.shape), strict=True):
        y[target] = x[source]
    return y


def transpose(x: Array, axes: Sequence[int] | None = None) -> Array:
    """Axis axes[i] of x is axis i of y."""
    order = [a % x.ndim for a in axes] if axes is not None else list(range(x.ndim))[::-1]
    y = empty([x.shape[a] for a in order], x)
    for target in np.ndindex(y.shape):
        source = [0] * x.ndim
        for i, position in zip(order, target, strict=True):
            source[i] = position
        y[target] = x[tuple(source)]
    return y


def index(x: Array, index: Any) -> Array:
    """x[index], every axis of x by itself: a number, a slice, None, ..., or one array of integers or truths.

    An array may stand alone or among slices, which is as far as these loops go.
    """
    parts = list(index) if isinstance(index, tuple) else [index]
    taken = sum(1 for part in parts if part is not None and part is not Ellipsis)
    if not any(part is Ellipsis for part in parts):
        parts.append(Ellipsis)
    at = next(i for i, part in enumerate(parts) if part is Ellipsis)
    parts[at : at + 1] = [slice(None)] * (x.ndim - taken)
    places: list[list[int]] = []  # Of each axis of x, the positions that are read.
    extents: list[int | None] = []  # What each axis of the result has; None: no axis.
    for part in parts:
        if part is None:
            extents.append(1)
            continue
        size = x.shape[len(places)]
        chosen = _positions(part, size)
        places.append(chosen)
        extents.append(None if isinstance(part, int) else len(chosen))
    y = empty([extent for extent in extents if extent is not None], x)
    flat = y.reshape(-1)
    for number, picks in enumerate(np.ndindex(*(len(place) for place in places))):
        flat[number] = x[tuple(place[pick] for place, pick in zip(places, picks, strict=True))]
    return y


def _positions(part: Any, size: int) -> list[int]:
    if isinstance(part, int):
        return [part % size]
    if isinstance(part, slice):
        return list(range(*part.indices(size)))
    values = np.asarray(part)
    if values.dtype == np.bool_:
        return [i for i in range(size) if values[i]]
    return [int(i) % size for i in values]


def concatenate(*arrays: Array, axis: int = 0) -> Array:
    """One after another along `axis`."""
    axis = axis % arrays[0].ndim
    shape = list(arrays[0].shape)
    shape[axis] = sum(a.shape[axis] for a in arrays)
    y = empty(shape, *arrays)
    offset = 0
    for array in arrays:
        for source in np.ndindex(array.shape):
            target = list(source)
            target[axis] += offset
            y[tuple(target)] = array[source]
        offset += array.shape[axis]
    return y


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """y[..., f] = bias[f] + sum over k of x[..., k] * weight[f, k]."""
    F, K = weight.shape
    y = empty((*x.shape[:-1], F), x, weight)
    for *row, f in np.ndindex(y.shape):
        total = bias[f] if bias is not None else 0.0
        for k in range(K):
            total = total + x[(*row, k)] * weight[f, k]
        y[(*row, f)] = total
    return y


# ----------------------------------------------------------------------------------- the kernels' own loops


def loops_of(kernel: Kernel) -> Callable[..., Any]:
    """The plain function that specifies a kernel."""
    return kernel.variants["reference"]


def _flat(kernel: Kernel) -> Reference:
    def loops(x: Array) -> Array:
        y = empty((x.size,), x)
        loops_of(kernel)(x.reshape(-1), y)
        return y.reshape(x.shape)

    return loops


relu = _flat(activations.relu_forward)
sigmoid = _flat(activations.sigmoid_forward)
tanh = _flat(activations.tanh_forward)


def dropout(x: Array, p: float, scale: float, key: Sequence[int]) -> Array:
    """By the kernel's loops."""
    y = empty((x.size,), x)
    loops_of(dropout_kernels.dropout_forward)(x.reshape(-1), y, p, scale, *key)
    return y.reshape(x.shape)


def _by_rows(kernel: Kernel) -> Reference:
    def loops(x: Array, axis: int = -1) -> Array:
        last = np.moveaxis(x, axis, -1)
        y = empty((last.size // last.shape[-1], last.shape[-1]), x)
        loops_of(kernel)(last.reshape(y.shape), y)
        return np.moveaxis(y.reshape(last.shape), -1, axis)

    return loops


softmax = _by_rows(softmax_kernels.softmax_forward)
log_softmax = _by_rows(softmax_kernels.log_softmax_forward)


def cross_entropy(
    logits: Array, labels: Array, label_smoothing: float = 0.0, reduction: str = "mean"
) -> Array:
    """By the kernel's loops, and one more for the reduction."""
    losses = empty((len(logits),), logits)
    loops_of(cross_entropy_kernels.cross_entropy_forward)(logits, labels, losses, label_smoothing)
    if reduction == "none":
        return losses
    total = 0.0
    for loss in losses:
        total = total + loss
    y = empty((), logits)
    y[()] = total / len(losses) if reduction == "mean" else total
    return y


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Array:
    """By the kernel's loops."""
    strides, dilations, pads = _two(stride), _two(dilation), _pads(padding)
    windows = [dilations[i] * (weight.shape[2 + i] - 1) + 1 for i in range(2)]
    sizes = [_positions_of_window(x.shape[2 + i], windows[i], strides[i], pads[i]) for i in range(2)]
    y = empty((x.shape[0], weight.shape[0], *sizes), x, weight)
    loops_of(convolution.conv2d_forward)(x, weight, bias, y, strides, pads, dilations, groups, False)
    return y


def conv2d_relu(x: Array, weight: Array, bias: Array | None = None, **geometry: Any) -> Array:
    """One after the other."""
    return relu(conv2d(x, weight, bias, **geometry))


def max_pool2d(
    x: Array,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    rectify: bool = False,
) -> Array:
    """By the kernel's loops."""
    kernels, pads = _two(kernel_size), _pads(padding)
    strides = kernels if stride is None else _two(stride)
    sizes = [
        _positions_of_window(x.shape[2 + i], kernels[i], strides[i], pads[i], ceil_mode) for i in range(2)
    ]
    y = empty((*x.shape[:2], *sizes), x)
    winners = np.empty(y.shape, int)
    loops_of(max_pooling.max_pool2d_forward)(x, y, winners, kernels, strides, pads, rectify)
    return y


def sigmoid_avg_pool2d(x: Array, **geometry: Any) -> Array:
    """One after another."""
    return avg_pool2d(sigmoid(x), **geometry)


def conv2d_sigmoid_avg_pool2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    kernel_size: Any,
    pool_stride: Any = None,
    pool_padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    **geometry: Any,
) -> Array:
    """One after another."""
    window = (kernel_size, pool_stride, pool_padding, ceil_mode, count_include_pad)
    return avg_pool2d(sigmoid(conv2d(x, weight, bias, **geometry)), *window)


def relu_max_pool2d(x: Array, **geometry: Any) -> Array:
    """By the kernel's loops: ReLU of the largest is the largest of what ReLU gives."""
    return max_pool2d(x, **geometry, rectify=True)


def relu_lrn_max_pool2d(
    x: Array, size: int, alpha: float, beta: float, k: float, *, dialect: str, **geometry: Any
) -> Array:
    """One after another. The zeros that ReLU leaves go on counting, if the elements of x do."""
    first = x.flat[0] if x.size else None
    zero = Counted(0.0, first.tally) if isinstance(first, Counted) else 0.0
    rectified = empty(x.shape, x)
    for place in np.ndindex(x.shape):
        rectified[place] = zero if x[place] <= 0 else x[place]
    return max_pool2d(lrn(rectified, size, alpha, beta, k, dialect=dialect), **geometry)


def avg_pool2d(
    x: Array,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:
    """By the kernel's loops: each window summed where it lies on the picture, divided by its count."""
    kernels, pads = _two(kernel_size), _pads(padding)
    strides = kernels if stride is None else _two(stride)
    axes = []
    for i in range(2):
        size, (before, after) = x.shape[2 + i], pads[i]
        axis = []
        for p in range(_positions_of_window(size, kernels[i], strides[i], pads[i], ceil_mode)):
            cells = [p * strides[i] - before + cell for cell in range(kernels[i])]
            padded = [cell for cell in cells if cell < size + after]
            real = [cell for cell in cells if 0 <= cell < size]
            axis.append((real[0], real[-1] + 1, len(padded if count_include_pad else real)))
        axes.append(np.array(axis))
    return _average(x, axes[0], axes[1])


def adaptive_avg_pool2d(x: Array, output_size: Any) -> Array:
    """By the kernel's loops; a pixel h belongs to bin p if the intervals [h, h+1) and [p, p+1)*H/OH meet."""
    axes = []
    for size, bins in zip(x.shape[2:], _two(output_size), strict=True):
        axis = []
        for p in range(bins):
            real = [h for h in range(size) if h * bins < (p + 1) * size and (h + 1) * bins > p * size]
            axis.append((real[0], real[-1] + 1, len(real)))
        axes.append(np.array(axis))
    return _average(x, axes[0], axes[1])


def _average(x: Array, rows: Array, cols: Array) -> Array:
    y = empty((*x.shape[:2], len(rows), len(cols)), x)
    loops_of(average_pooling.average_pool_forward)(x, y, rows, cols)
    return y


def lrn(
    x: Array, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0, *, dialect: str
) -> Array:
    """By the kernel's loops. An even window: as the paper's formula is written, or PyTorch's exact `size`."""
    before = size // 2
    after = before if dialect == "paper" else size - 1 - before
    y = empty(x.shape, x)
    scaled = alpha if dialect == "paper" else alpha / size
    loops_of(local_response_norm.lrn_forward)(x, y, before, after, scaled, beta, k)
    return y


def _two(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _pads(padding: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    vertical, horizontal = (padding, padding) if isinstance(padding, int) else padding
    return _two(vertical), _two(horizontal)


def _positions_of_window(
    size: int, window: int, stride: int, pads: tuple[int, int], ceil_mode: bool = False
) -> int:
    """Windows along an axis, counted one by one.

    With ceil_mode one more, if it hangs over the end by less than a stride and starts before the far padding.
    """
    length = size + pads[0] + pads[1]
    count = 0
    while count * stride + window <= length:
        count += 1
    overhang = count * stride + window - length
    if ceil_mode and overhang < stride and count * stride < size + pads[0]:
        count += 1
    return count
