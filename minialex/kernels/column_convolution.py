"""Convolution as a matrix product with im2col's columns, in strips.

No column matrix outlives its strip, and none is larger than the budget. It is what runs where nothing faster
applies, and what runs on a GPU without kernels of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from minialex.backend import (
    Array,
    array_module,
    device_of,
    empty,
    for_ranges,
    one_blas_thread,
    scratch,
)
from minialex.kernels.im2col import col2im, im2col
from minialex.shapes import Padding, Pair

# Bytes of the largest column matrix that a thread may hold. On the CPU small enough to stay in its cache
# between the copy that fills it and the product that reads it; on a GPU large enough to fill the device.
COLUMN_BUDGET = 2 * 2**20
GPU_COLUMN_BUDGET = 256 * 2**20

# Into how many parts the batch is cut for the sum over images that gives the weights' gradient.
WEIGHT_PARTS = 8


def conv2d_columns(
    x: Array,
    weight: Array,
    bias: Array | None,
    y: Array,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    relu: bool,
) -> None:
    """weight (G, F/G, K) @ columns (n, G, K, rows*OW), a strip of rows at a time."""
    N, F, OH, OW = y.shape
    matrix = weight.reshape(groups, F // groups, -1)
    target = y.reshape(N, groups, F // groups, OH * OW)  # No -1: N may be 0.

    def work(start: int, stop: int) -> None:
        for images, rows in _strips(start, stop, x.shape[1], weight.shape, y):
            columns = _fill(x[images], weight.shape, y.shape, rows, stride, padding, dilation, groups)
            pixels = slice(rows.start * OW, rows.stop * OW)
            array_module(x).matmul(matrix, columns, out=target[images, :, :, pixels])
            part = y[images, :, rows]
            if bias is not None:
                part += bias[:, None, None]
            if relu:
                array_module(x).maximum(part, 0, out=part)

    _over_images(y, work)


def conv2d_backward_columns(
    dy: Array,
    x: Array | None,
    weight: Array | None,
    mask: Array | None,
    dx: Array | None,
    dweight: Array | None,
    dbias: Array | None,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> None:
    """Each gradient for itself."""
    if mask is not None:
        dy = array_module(dy).where(mask <= 0, dy.dtype.type(0), dy)
    if dx is not None:
        conv2d_backward_input_columns(dy, weight, dx, stride, padding, dilation, groups)
    if dweight is not None:
        conv2d_backward_weight_columns(dy, x, dweight, stride, padding, dilation, groups)
    if dbias is not None:
        dbias[...] = dy.sum(axis=(0, 2, 3))


def conv2d_backward_input_columns(
    dy: Array, weight: Array, dx: Array, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> None:
    """weight.T @ dy gives the gradient of every column; col2im adds them up."""
    F, _, KH, KW = weight.shape
    N, _, OH, OW = dy.shape
    transposed = weight.reshape(groups, F // groups, -1).swapaxes(1, 2)
    source = dy.reshape(N, groups, F // groups, OH * OW)

    def work(start: int, stop: int) -> None:
        dx[start:stop] = 0
        for images, rows in _strips(start, stop, dx.shape[1], weight.shape, dy):
            pixels = slice(rows.start * OW, rows.stop * OW)
            part = source[images, :, :, pixels]
            dcolumns = _temporary("columns", dy, (len(part), groups, transposed.shape[1], part.shape[-1]))
            array_module(dy).matmul(transposed, part, out=dcolumns)
            dcolumns = dcolumns.reshape(len(part), dx.shape[1], KH, KW, rows.stop - rows.start, OW)
            col2im(dcolumns, dx[images], stride, padding, dilation, rows.start)

    _over_images(dy, work)


def conv2d_backward_weight_columns(
    dy: Array, x: Array, dweight: Array, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> None:
    """dy @ columns.T, added up image by image within a part of the batch, and then part by part.

    The parts are the same for any number of threads, and so are the bits of the sum.
    """
    N, F, OH, OW = dy.shape
    parts = min(N, WEIGHT_PARTS)
    partial = array_module(x).zeros((parts, groups, F // groups, dweight[0].size), dtype=dweight.dtype)
    source = dy.reshape(N, groups, F // groups, OH * OW)

    def work(first: int, last: int) -> None:
        for part in range(first, last):
            start, stop = N * part // parts, N * (part + 1) // parts
            for images, rows in _strips(start, stop, x.shape[1], dweight.shape, dy):
                columns = _fill(x[images], dweight.shape, dy.shape, rows, stride, padding, dilation, groups)
                pixels = slice(rows.start * OW, rows.stop * OW)
                # One image's product at a time: together they could be far larger than the columns.
                product = _temporary("product", x, partial.shape[1:])
                for n in range(len(columns)):
                    dy_image = source[images.start + n, :, :, pixels]
                    array_module(x).matmul(dy_image, columns[n].swapaxes(1, 2), out=product)
                    partial[part] += product

    _over_images(partial, work)
    total = dweight.reshape(partial.shape[1:])
    total[...] = 0
    for part in range(parts):
        total += partial[part]


def _over_images(array: Array, work: Callable[[int, int], None]) -> None:
    """work(start, stop) over the first axis: on threads of our own on the CPU, at once on a GPU."""
    if device_of(array) == "cpu":
        with one_blas_thread():
            for_ranges(len(array), work)
    else:
        work(0, len(array))


def _temporary(name: str, like: Array, shape: tuple[int, ...]) -> Array:
    """Memory for one strip: the thread's own, used again for the next, on the CPU."""
    return scratch(name, shape, like.dtype) if device_of(like) == "cpu" else empty(shape, like)


def _fill(
    x: Array,
    weight_shape: tuple[int, ...],
    y_shape: tuple[int, ...],
    rows: slice,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> Array:
    """The columns (n, G, K, rows*OW) of a strip."""
    N, C = x.shape[:2]
    KH, KW = weight_shape[2:]
    height = rows.stop - rows.start
    columns = _temporary("columns", x, (N, C, KH, KW, height, y_shape[3]))
    im2col(x, columns, stride, padding, dilation, rows.start)
    return columns.reshape(N, groups, C // groups * KH * KW, height * y_shape[3])


def _strips(
    start: int, stop: int, channels: int, weight_shape: tuple[int, ...], y: Array
) -> Iterator[tuple[slice, slice]]:
    """(images, output rows) whose columns fit the budget: several whole images, or strips of one.

    No strip is smaller than one output row of one image, whatever the budget.
    """
    KH, KW = weight_shape[2:]
    OH, OW = y.shape[2:]
    budget = COLUMN_BUDGET if device_of(y) == "cpu" else GPU_COLUMN_BUDGET
    row_bytes = channels * KH * KW * OW * y.dtype.itemsize
    if row_bytes * OH <= budget:
        step = budget // (row_bytes * OH)
        for n in range(start, stop, step):
            yield slice(n, min(n + step, stop)), slice(0, OH)
        return
    strips = min(OH, -(-OH * row_bytes // budget))
    for n in range(start, stop):
        for i in range(strips):
            yield slice(n, n + 1), slice(OH * i // strips, OH * (i + 1) // strips)
