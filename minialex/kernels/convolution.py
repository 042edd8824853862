"""Two-dimensional convolution: forward, and its two backward products.

What deep learning calls convolution does not flip the kernel (it is a cross-correlation). The array variants
go through im2col in chunks: no column matrix outlives a chunk, and none is larger than COLUMN_BUDGET bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

from minialex.backend import Array, Kernel, array_module, matmul
from minialex.kernels.im2col import col2im, im2col
from minialex.shapes import Padding, Pair

# Bytes of the largest column matrix that may exist. Small enough to stay in a shared cache between the copy
# that fills it and the product that reads it; large enough that a product is worth its call.
COLUMN_BUDGET = 16 * 2**20


def conv2d_reference(
    x: Array,
    weight: Array,
    bias: Array | None,
    y: Array,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> None:
    """y[n, f, p, q] = bias[f] + sum over c, i, j of x[n, c, row, col] * weight[f, c, i, j].

    Shapes: x (N, C, H, W); weight (F, C/groups, KH, KW); bias (F,) or None; y (N, F, OH, OW), written.
    """
    N, _, H, W = x.shape
    F, CG, KH, KW = weight.shape
    for n in range(N):
        for f in range(F):
            first_channel = f // (F // groups) * CG
            for p in range(y.shape[2]):
                for q in range(y.shape[3]):
                    total = bias[f] if bias is not None else 0.0
                    for c in range(CG):
                        for i in range(KH):
                            for j in range(KW):
                                row = p * stride[0] - padding[0][0] + i * dilation[0]
                                col = q * stride[1] - padding[1][0] + j * dilation[1]
                                inside = 0 <= row < H and 0 <= col < W
                                pixel = x[n, first_channel + c, row, col] if inside else 0.0
                                total = total + pixel * weight[f, c, i, j]
                    y[n, f, p, q] = total


def conv2d_backward_input_reference(
    dy: Array, weight: Array, dx: Array, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> None:
    """Every product of the forward pass sends dy[n, f, p, q] * weight[f, c, i, j] back to its pixel.

    Shapes: dy (N, F, OH, OW); weight (F, C/groups, KH, KW); dx (N, C, H, W), written.
    """
    N, F, OH, OW = dy.shape
    _, CG, KH, KW = weight.shape
    _, _, H, W = dx.shape
    dx[...] = 0
    for n in range(N):
        for f in range(F):
            first_channel = f // (F // groups) * CG
            for p in range(OH):
                for q in range(OW):
                    for c in range(CG):
                        for i in range(KH):
                            for j in range(KW):
                                row = p * stride[0] - padding[0][0] + i * dilation[0]
                                col = q * stride[1] - padding[1][0] + j * dilation[1]
                                if 0 <= row < H and 0 <= col < W:
                                    dx[n, first_channel + c, row, col] += dy[n, f, p, q] * weight[f, c, i, j]


def conv2d_backward_weight_reference(
    dy: Array, x: Array, dweight: Array, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> None:
    """dweight[f, c, i, j] = sum over n, p, q of dy[n, f, p, q] * x[n, c, row, col].

    Shapes: dy (N, F, OH, OW); x (N, C, H, W); dweight (F, C/groups, KH, KW), written.
    """
    N, F, OH, OW = dy.shape
    _, _, H, W = x.shape
    _, CG, KH, KW = dweight.shape
    for f in range(F):
        first_channel = f // (F // groups) * CG
        for c in range(CG):
            for i in range(KH):
                for j in range(KW):
                    total = 0.0
                    for n in range(N):
                        for p in range(OH):
                            for q in range(OW):
                                row = p * stride[0] - padding[0][0] + i * dilation[0]
                                col = q * stride[1] - padding[1][0] + j * dilation[1]
                                if 0 <= row < H and 0 <= col < W:
                                    total = total + dy[n, f, p, q] * x[n, first_channel + c, row, col]
                    dweight[f, c, i, j] = total


# ------------------------------------------------------------------------------------------ by columns


def conv2d_columns(
    x: Array,
    weight: Array,
    bias: Array | None,
    y: Array,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> None:
    """weight (G, F/G, K) @ columns (n, G, K, rows*OW), a chunk of images or a strip of rows at a time."""
    matrix = weight.reshape(groups, weight.shape[0] // groups, -1)
    for images, rows in _chunks(weight.shape, y.shape, x.dtype.itemsize, groups):
        columns = _fill(x[images], weight.shape, y.shape, rows, stride, padding, dilation, groups)
        target = y[images, :, rows]
        product = matmul(matrix, columns)
        target[...] = product.reshape(target.shape)
        if bias is not None:
            target += bias[:, None, None]


def conv2d_backward_input_columns(
    dy: Array, weight: Array, dx: Array, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> None:
    """weight.T @ dy gives the gradient of every column; col2im adds them up."""
    F, _, KH, KW = weight.shape
    transposed = weight.reshape(groups, F // groups, -1).swapaxes(1, 2)
    dx[...] = 0
    for images, rows in _chunks(weight.shape, dy.shape, dy.dtype.itemsize, groups):
        part = array_module(dy).ascontiguousarray(dy[images, :, rows])
        n, _, height, OW = part.shape
        dcolumns = matmul(transposed, part.reshape(n, groups, F // groups, height * OW))
        dcolumns = dcolumns.reshape(n, dx.shape[1], KH, KW, height, OW)
        col2im(dcolumns, dx[images], stride, padding, dilation, rows.start)


def conv2d_backward_weight_columns(
    dy: Array, x: Array, dweight: Array, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> None:
    """dy @ columns.T, added up image by image, so that the bits do not depend on the size of a chunk."""
    F = dy.shape[1]
    matrix = dweight.reshape(groups, F // groups, -1)
    matrix[...] = 0
    for images, rows in _chunks(dweight.shape, dy.shape, x.dtype.itemsize, groups):
        columns = _fill(x[images], dweight.shape, dy.shape, rows, stride, padding, dilation, groups)
        part = dy[images, :, rows].reshape(len(columns), groups, F // groups, -1)
        for n in range(len(columns)):
            matrix += matmul(part[n], columns[n].swapaxes(1, 2))


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
    """The columns (n, G, K, rows*OW) of a chunk."""
    N, C = x.shape[:2]
    KH, KW = weight_shape[2:]
    height = rows.stop - rows.start
    columns = array_module(x).empty((N, C, KH, KW, height, y_shape[3]), dtype=x.dtype)
    im2col(x, columns, stride, padding, dilation, rows.start)
    return columns.reshape(N, groups, C // groups * KH * KW, height * y_shape[3])


def _chunks(
    weight_shape: tuple[int, ...], y_shape: tuple[int, ...], itemsize: int, groups: int
) -> Iterator[tuple[slice, slice]]:
    """(images, output rows) whose columns fit the budget: several whole images, or strips of one."""
    _, CG, KH, KW = weight_shape
    N, _, OH, OW = y_shape
    row_bytes = groups * CG * KH * KW * OW * itemsize
    step = max(1, COLUMN_BUDGET // (row_bytes * OH))
    if row_bytes * OH <= COLUMN_BUDGET:
        for n in range(0, N, step):
            yield slice(n, min(n + step, N)), slice(0, OH)
        return
    strip = max(1, COLUMN_BUDGET // row_bytes)
    for n in range(N):
        for p in range(0, OH, strip):
            yield slice(n, n + 1), slice(p, min(p + strip, OH))


# The compiled variants are the same functions: what Numba is for is im2col and col2im inside them.
conv2d_forward = Kernel(
    "conv2d_forward", reference=conv2d_reference, array=conv2d_columns, numba=conv2d_columns
)
conv2d_backward_input = Kernel(
    "conv2d_backward_input",
    reference=conv2d_backward_input_reference,
    array=conv2d_backward_input_columns,
    numba=conv2d_backward_input_columns,
)
conv2d_backward_weight = Kernel(
    "conv2d_backward_weight",
    reference=conv2d_backward_weight_reference,
    array=conv2d_backward_weight_columns,
    numba=conv2d_backward_weight_columns,
)
