"""im2col lays every window of a picture out as a column; col2im adds columns back to where they came from.

A convolution is then one matrix product: (F, C*KH*KW) @ (C*KH*KW, OH*OW). col2im is the transpose of im2col,
not its inverse: a pixel that k windows share gets k contributions.

Both work on the output rows first_row, first_row + 1, ... that `columns` has room for, so that a large
picture can be done in strips.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from minialex.backend import Array, CudaKernel, Kernel, contiguous, jit, per_image
from minialex.kernels.launch_grids import THREADS, grid_of_channels
from minialex.shapes import Padding, Pair


def im2col_reference(
    x: Array, columns: Array, stride: Pair, padding: Padding, dilation: Pair, first_row: int
) -> None:
    """columns[n, c, i, j, p, q] = x[n, c, row, col], or 0 in the padding.

    Shapes: x (N, C, H, W); columns (N, C, KH, KW, OH, OW), written.
    """
    N, C, H, W = x.shape
    _, _, KH, KW, OH, OW = columns.shape
    for n in range(N):
        for c in range(C):
            for i in range(KH):
                for j in range(KW):
                    for p in range(OH):
                        for q in range(OW):
                            row = (first_row + p) * stride[0] - padding[0][0] + i * dilation[0]
                            col = q * stride[1] - padding[1][0] + j * dilation[1]
                            if 0 <= row < H and 0 <= col < W:
                                columns[n, c, i, j, p, q] = x[n, c, row, col]
                            else:
                                columns[n, c, i, j, p, q] = 0.0


def col2im_reference(
    columns: Array, dx: Array, stride: Pair, padding: Padding, dilation: Pair, first_row: int
) -> None:
    """dx[n, c, row, col] += columns[n, c, i, j, p, q] for every window cell that lies on the picture.

    Shapes: columns (N, C, KH, KW, OH, OW); dx (N, C, H, W), added to.
    """
    _, _, H, W = dx.shape
    N, C, KH, KW, OH, OW = columns.shape
    for n in range(N):
        for c in range(C):
            for i in range(KH):
                for j in range(KW):
                    for p in range(OH):
                        for q in range(OW):
                            row = (first_row + p) * stride[0] - padding[0][0] + i * dilation[0]
                            col = q * stride[1] - padding[1][0] + j * dilation[1]
                            if 0 <= row < H and 0 <= col < W:
                                dx[n, c, row, col] += columns[n, c, i, j, p, q]


def im2col_array(
    x: Array, columns: Array, stride: Pair, padding: Padding, dilation: Pair, first_row: int
) -> None:
    """One strided copy for each of the window's cells."""
    _, _, KH, KW, OH, OW = columns.shape
    for i in range(KH):
        for j in range(KW):
            source, target = _overlap(x.shape, (i, j), (OH, OW), stride, padding, dilation, first_row)
            columns[:, :, i, j] = 0
            columns[:, :, i, j][target] = x[source]


def col2im_array(
    columns: Array, dx: Array, stride: Pair, padding: Padding, dilation: Pair, first_row: int
) -> None:
    """One strided addition for each of the window's cells."""
    _, _, KH, KW, OH, OW = columns.shape
    for i in range(KH):
        for j in range(KW):
            source, target = _overlap(dx.shape, (i, j), (OH, OW), stride, padding, dilation, first_row)
            dx[source] += columns[:, :, i, j][target]


def _overlap(
    shape: tuple[int, ...],
    cell: Pair,
    output: Pair,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    first_row: int,
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Slices of the picture that one window cell sees, and of the output positions that see them."""
    source: list[slice] = [slice(None), slice(None)]
    target: list[slice] = [slice(None), slice(None)]
    for axis in range(2):
        first = first_row if axis == 0 else 0
        offset = first * stride[axis] - padding[axis][0] + cell[axis] * dilation[axis]
        start = max(0, -(offset // stride[axis]))  # The first position at or after pixel 0.
        stop = max(start, min(output[axis], -((offset - shape[2 + axis]) // stride[axis])))
        begin = offset + start * stride[axis]
        source.append(
            slice(begin, begin + (stop - start) * stride[axis], stride[axis]) if stop > start else slice(0)
        )
        target.append(slice(start, stop))
    return tuple(source), tuple(target)


def im2col_rows(
    x: Array, columns: Array, stride: Pair, padding: Padding, dilation: Pair, first_row: int
) -> None:
    """A row at a time: where the picture begins and ends is worked out once for all columns of the row.

    Indices within a row are unsigned: for signed ones Numba asks each whether it counts from the end, and the
    loop is not vectorised. One loop for all strides: a loop for stride 1 alone becomes a call of memcpy, and
    that takes longer than it saves for rows as short as these.
    """
    N, C, H, W = x.shape
    _, _, KH, KW, OH, OW = columns.shape
    zero, step = x.dtype.type(0), np.uint64(stride[1])
    for n in range(N):
        for c in range(C):
            for i in range(KH):
                for j in range(KW):
                    offset = j * dilation[1] - padding[1][0]
                    start = min(max(0, -(offset // stride[1])), OW)
                    stop = max(start, min(OW, -((offset - W) // stride[1])))
                    first, count = np.uint64(start), np.uint64(stop - start)
                    begin, padded = np.uint64(offset + start * stride[1]), stop - start < OW
                    for p in range(OH):
                        row = (first_row + p) * stride[0] - padding[0][0] + i * dilation[0]
                        target = columns[n, c, i, j, p]
                        if row < 0 or row >= H:
                            for q in range(OW):
                                target[q] = zero
                            continue
                        source = x[n, c, row]
                        for q in range(count):
                            target[first + q] = source[begin + q * step]
                        if padded:
                            for q in range(start):
                                target[q] = zero
                            for q in range(stop, OW):
                                target[q] = zero


def col2im_rows(
    columns: Array, dx: Array, stride: Pair, padding: Padding, dilation: Pair, first_row: int
) -> None:
    """The same rows, added back."""
    _, _, H, W = dx.shape
    N, C, KH, KW, OH, OW = columns.shape
    step = np.uint64(stride[1])
    for n in range(N):
        for c in range(C):
            for i in range(KH):
                for j in range(KW):
                    offset = j * dilation[1] - padding[1][0]
                    start = min(max(0, -(offset // stride[1])), OW)
                    stop = max(start, min(OW, -((offset - W) // stride[1])))
                    first, count = np.uint64(start), np.uint64(stop - start)
                    begin = np.uint64(offset + start * stride[1])
                    for p in range(OH):
                        row = (first_row + p) * stride[0] - padding[0][0] + i * dilation[0]
                        if row < 0 or row >= H:
                            continue
                        source, target = columns[n, c, i, j, p], dx[n, c, row]
                        for q in range(count):
                            target[begin + q * step] += source[first + q]


# ----------------------------------------------------------------------------------------------- on a GPU

_im2col, _col2im = CudaKernel("im2col", "im2col"), CudaKernel("im2col", "col2im")


class ColumnLayout(NamedTuple):
    """How columns stand in memory: the last two axes are output pixels, the others as the strides say.

    window: KH, KW; output: rows and width, of which first_row is the first; image_stride, cell_stride:
    elements from one image to the next, and from one window cell to the next.
    """

    window: Pair
    output: Pair
    first_row: int
    image_stride: int
    cell_stride: int


def launch_im2col(
    x: Array, columns: Array, layout: ColumnLayout, stride: Pair, padding: Padding, dilation: Pair
) -> None:
    """Write the columns of all images of x."""
    N, C = x.shape[:2]
    grid = grid_of_channels(N * math.prod(layout.output), C)
    _im2col.launch(grid, THREADS, x, columns, *_geometry(x, layout, stride, padding, dilation))


def launch_col2im(
    columns: Array,
    dx: Array,
    layout: ColumnLayout,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    add: bool,
) -> None:
    """Write dx, or add to it. One pixel sees every so manieth cell, in windows so many positions apart."""
    N, C, H, W = dx.shape
    steps = []
    for s, d in zip(stride, dilation, strict=True):
        steps += [s // math.gcd(s, d), d // math.gcd(s, d)]
    geometry = _geometry(dx, layout, stride, padding, dilation)
    _col2im.launch(grid_of_channels(N * H * W, C), THREADS, columns, dx, *geometry, *steps, add)


def _geometry(
    x: Array, layout: ColumnLayout, stride: Pair, padding: Padding, dilation: Pair
) -> tuple[int, ...]:
    corner = (padding[0][0], padding[1][0])
    return (*x.shape, *layout.window, *layout.output, *stride, *corner, *dilation, *layout[2:])


def _one_picture_after_another(columns: Array, first_row: int) -> ColumnLayout:
    _, C, KH, KW, OH, OW = columns.shape
    return ColumnLayout((KH, KW), (OH, OW), first_row, C * KH * KW * OH * OW, OH * OW)


def im2col_cuda(
    x: Array, columns: Array, stride: Pair, padding: Padding, dilation: Pair, first_row: int
) -> None:
    """kernels/im2col.cu: one thread writes the column of one window and channel."""
    layout = _one_picture_after_another(columns, first_row)
    launch_im2col(contiguous(x), columns, layout, stride, padding, dilation)


def col2im_cuda(
    columns: Array, dx: Array, stride: Pair, padding: Padding, dilation: Pair, first_row: int
) -> None:
    """kernels/im2col.cu: one thread gathers what one pixel is part of."""
    layout = _one_picture_after_another(columns, first_row)
    launch_col2im(contiguous(columns), dx, layout, stride, padding, dilation, add=True)


im2col = Kernel(
    "im2col",
    outputs=("columns",),
    reference=im2col_reference,
    array=im2col_array,
    numba=per_image(jit(im2col_rows), arrays=2),
    cuda=im2col_cuda,
)

col2im = Kernel(
    "col2im",
    outputs=("dx",),
    reference=col2im_reference,
    array=col2im_array,
    numba=per_image(jit(col2im_rows), arrays=2),
    cuda=col2im_cuda,
)
