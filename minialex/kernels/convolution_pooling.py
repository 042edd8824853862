"""Convolution, sigmoid and average pooling in one: a layer of LeNet.

Each thread takes its images through all three before it goes on: what the convolution gives is small enough
to be in the thread's own cache still when the sigmoid and the pooling want it, and the threads meet once
instead of three times. Where the direct convolution is not the fastest way, the kernels run one after the
other.
"""

from __future__ import annotations

import numpy as np

from minialex.backend import Array, Kernel, empty, for_ranges, jit, scratch
from minialex.kernels.activations import sigmoid_backward_compiled, sigmoid_compiled
from minialex.kernels.average_pooling import average_pool_backward_compiled, average_pool_compiled
from minialex.kernels.column_convolution import conv2d_backward_columns, conv2d_columns
from minialex.kernels.convolution import (
    conv2d_backward_fastest,
    conv2d_backward_reference,
    conv2d_fastest,
    conv2d_reference,
)
from minialex.kernels.cuda_convolution import conv2d_backward_cuda, conv2d_cuda
from minialex.kernels.direct_convolution import (
    WEIGHT_PARTS,
    backward_input,
    backward_scratch,
    backward_weight,
    direct_is_better,
    direct_scratch,
    forward_direct,
    images_worth_a_thread,
    partial_gradients,
    parts_worth_a_thread,
    sum_pixels,
    turned,
)
from minialex.kernels.sigmoid_pooling import sigmoid_average_pool_backward, sigmoid_average_pool_forward
from minialex.kernels.winograd_plan import winograd_is_better
from minialex.shapes import Padding, Pair

__all__ = ["conv2d_sigmoid_average_pool_backward", "conv2d_sigmoid_average_pool_forward"]


def forward_reference(
    x: Array,
    weight: Array,
    bias: Array | None,
    sigmoids: Array,
    y: Array,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    rows: Array,
    cols: Array,
) -> None:
    """sigmoids = 1 / (1 + exp(-conv2d(x))); y = their means, as in sigmoid_pooling.py.

    Shapes: x (N, C, H, W); weight (F, C/groups, KH, KW); bias (F,) or None; sigmoids (N, F, CH, CW), written;
            y (N, F, OH, OW), written; rows (OH, 3), cols (OW, 3): bounds, as in average_pooling.py.
    """
    convolved = np.empty_like(sigmoids)
    conv2d_reference(x, weight, bias, convolved, stride, padding, dilation, groups, False)
    sigmoid_average_pool_forward.variants["reference"](convolved, sigmoids, y, rows, cols)


def backward_reference(
    dy: Array,
    sigmoids: Array,
    x: Array | None,
    weight: Array | None,
    dx: Array | None,
    dweight: Array | None,
    dbias: Array | None,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    rows: Array,
    cols: Array,
) -> None:
    """The gradients of what is not None among dx, dweight and dbias.

    Shapes: dy (N, F, OH, OW); sigmoids, rows, cols as above; x needed for dweight, weight for dx; dx as x,
            dweight as weight, dbias (F,), written.
    """
    d = np.empty_like(sigmoids)
    sigmoid_average_pool_backward.variants["reference"](dy, sigmoids, d, rows, cols)
    conv2d_backward_reference(d, x, weight, None, dx, dweight, dbias, stride, padding, dilation, groups)


def forward_array(
    x: Array,
    weight: Array,
    bias: Array | None,
    sigmoids: Array,
    y: Array,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    rows: Array,
    cols: Array,
) -> None:
    """As the reference."""
    convolved = empty(sigmoids.shape, sigmoids)
    conv2d_columns(x, weight, bias, convolved, stride, padding, dilation, groups, False)
    sigmoid_average_pool_forward.variants["array"](convolved, sigmoids, y, rows, cols)


def backward_array(
    dy: Array,
    sigmoids: Array,
    x: Array | None,
    weight: Array | None,
    dx: Array | None,
    dweight: Array | None,
    dbias: Array | None,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    rows: Array,
    cols: Array,
) -> None:
    """As the reference."""
    d = empty(sigmoids.shape, sigmoids)
    sigmoid_average_pool_backward.variants["array"](dy, sigmoids, d, rows, cols)
    conv2d_backward_columns(d, x, weight, None, dx, dweight, dbias, stride, padding, dilation, groups)


# ------------------------------------------------------------------------------------- for the compiler


def _block_of_images(
    x: Array,
    weight: Array,
    bias: Array,
    sigmoids: Array,
    y: Array,
    plane: Array,
    sums: Array,
    convolved: Array,
    corner: Pair,
    dilation: Pair,
    rows: Array,
    cols: Array,
) -> None:
    """Forward of some images. Scratch: plane, sums: as forward_direct; convolved (1, F, CH, CW)."""
    for n in range(len(x)):
        forward_direct(x[n : n + 1], weight, bias, convolved, plane, sums, corner, dilation)
        sigmoid_compiled(convolved.reshape(-1), sigmoids[n].reshape(-1))
        average_pool_compiled(sigmoids[n : n + 1], y[n : n + 1], rows, cols)


def _backward_of_parts(
    dy: Array,
    sigmoids: Array,
    x: Array,
    taps: Array,
    dx: Array,
    dweights: Array,
    dbiases: Array,
    d: Array,
    plane: Array,
    pixels: Array,
    corner: Pair,
    dilation: Pair,
    rows: Array,
    cols: Array,
    first: int,
    last: int,
) -> None:
    """Backward of the parts first .. last - 1 of the batch: its dx, if that has images, dweights and dbiases.

    Scratch: plane, pixels: as backward_input; d (2, images of a part or more, F, CH, CW): a gradient spread
    over its windows, and that of what the convolution gave.
    """
    N, parts, C = len(x), len(dbiases), x.shape[1]
    for part in range(first, last):
        start, stop = N * part // parts, N * (part + 1) // parts
        spread, gradient = d[0, : stop - start], d[1, : stop - start]
        average_pool_backward_compiled(dy[start:stop], spread, rows, cols)
        sigmoid_backward_compiled(spread.reshape(-1), sigmoids[start:stop].reshape(-1), gradient.reshape(-1))
        if len(dx) > 0:
            backward_input(gradient, taps, dx[start:stop], plane, pixels, corner, dilation)
        backward_weight(gradient, x[start:stop], dweights[part], plane[:C], pixels, corner, dilation)
        sum_pixels(gradient, dbiases[part])


_block, _backward = jit(_block_of_images), jit(_backward_of_parts)


def forward_numba(
    x: Array,
    weight: Array,
    bias: Array | None,
    sigmoids: Array,
    y: Array,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    rows: Array,
    cols: Array,
) -> None:
    """Image by image, if directly; else one after the other."""
    if not _is_direct(weight, sigmoids, stride, dilation, groups):
        convolved = empty(sigmoids.shape, sigmoids)
        conv2d_fastest(x, weight, bias, convolved, stride, padding, dilation, groups, False)
        sigmoid_average_pool_forward(convolved, sigmoids, y, rows, cols)
        return
    biases = np.zeros(len(weight), dtype=x.dtype) if bias is None else bias
    corner = (padding[0][0], padding[1][0])

    def work(start: int, stop: int) -> None:
        plane, sums = direct_scratch(x, weight, sigmoids, dilation)
        convolved = scratch("convolved", (1, *sigmoids.shape[1:]), x.dtype)
        some = (x[start:stop], weight, biases, sigmoids[start:stop], y[start:stop])
        _block(*some, plane, sums, convolved, corner, dilation, rows, cols)

    for_ranges(len(x), work, images_worth_a_thread(weight.shape, sigmoids.shape))


def backward_numba(
    dy: Array,
    sigmoids: Array,
    x: Array | None,
    weight: Array | None,
    dx: Array | None,
    dweight: Array | None,
    dbias: Array | None,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    rows: Array,
    cols: Array,
) -> None:
    """Part of the batch by part, if directly; else, and for constant weights, one after the other."""
    if dweight is None or x is None or not _is_direct(dweight, sigmoids, stride, dilation, groups):
        d = empty(sigmoids.shape, sigmoids)
        sigmoid_average_pool_backward(dy, sigmoids, d, rows, cols)
        conv2d_backward_fastest(d, x, weight, None, dx, dweight, dbias, stride, padding, dilation, groups)
        return
    N, parts, corner = len(x), max(1, min(len(x), WEIGHT_PARTS)), (padding[0][0], padding[1][0])
    dweights, dbiases = partial_gradients(dweight, parts)
    taps, dinput = turned(dweight if weight is None else weight), x[:0] if dx is None else dx

    def work(first: int, last: int) -> None:
        d = scratch("d", (2, -(-N // parts), *sigmoids.shape[1:]), dy.dtype)
        plane, pixels = backward_scratch(x.shape[1], dweight.shape, sigmoids, dilation)
        some = (dy, sigmoids, x, taps, dinput, dweights, dbiases, d, plane, pixels)
        _backward(*some, corner, dilation, rows, cols, first, last)

    for_ranges(parts, work, parts_worth_a_thread(dweight.shape, sigmoids.shape, parts))
    dweights[:, :-1].sum(axis=0, out=dweight)
    if dbias is not None:
        dbiases.sum(axis=0, out=dbias)


def _is_direct(weight: Array, convolved: Array, stride: Pair, dilation: Pair, groups: int) -> bool:
    """Whether conv2d_fastest would take the direct way."""
    shapes = (weight.shape, convolved.shape)
    winograd = winograd_is_better(weight.dtype, *shapes, stride, dilation, groups)
    return not winograd and direct_is_better(*shapes, stride)


# ----------------------------------------------------------------------------------------------- on a GPU


def forward_cuda(
    x: Array,
    weight: Array,
    bias: Array | None,
    sigmoids: Array,
    y: Array,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    rows: Array,
    cols: Array,
) -> None:
    """The kernels one after another: the product needs the whole device."""
    convolved = empty(sigmoids.shape, sigmoids)
    conv2d_cuda(x, weight, bias, convolved, stride, padding, dilation, groups, False)
    sigmoid_average_pool_forward.variants["cuda"](convolved, sigmoids, y, rows, cols)


def backward_cuda(
    dy: Array,
    sigmoids: Array,
    x: Array | None,
    weight: Array | None,
    dx: Array | None,
    dweight: Array | None,
    dbias: Array | None,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    rows: Array,
    cols: Array,
) -> None:
    """As the reference."""
    d = empty(sigmoids.shape, sigmoids)
    sigmoid_average_pool_backward.variants["cuda"](dy, sigmoids, d, rows, cols)
    conv2d_backward_cuda(d, x, weight, None, dx, dweight, dbias, stride, padding, dilation, groups)


conv2d_sigmoid_average_pool_forward = Kernel(
    "conv2d_sigmoid_average_pool_forward",
    outputs=("sigmoids", "y"),
    reference=forward_reference,
    array=forward_array,
    numba=forward_numba,
    cuda=forward_cuda,
)
conv2d_sigmoid_average_pool_backward = Kernel(
    "conv2d_sigmoid_average_pool_backward",
    outputs=("dx", "dweight", "dbias"),
    reference=backward_reference,
    array=backward_array,
    numba=backward_numba,
    cuda=backward_cuda,
)
