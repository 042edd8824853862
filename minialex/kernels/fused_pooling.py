"""ReLU, local response normalisation and max-pooling in one: no array of the whole batch between them.

Forward, a channel is normalised and pooled while it is near. Backward, x is all that is kept beside the
winners: what ReLU made of it and its scales are worked out again. Values and gradients are those of the three
kernels one after another: the compiled code is theirs, so that its bits are the same as well.
"""

from __future__ import annotations

import numpy as np

from minialex.backend import Array, CudaKernel, Kernel, array_module, contiguous, empty, jit, per_image
from minialex.kernels.activations import relu_backward_reference, relu_forward, relu_reference
from minialex.kernels.local_response_norm import (
    STRIP,
    Norm,
    channel_shares,
    collect_plane,
    lrn_array,
    lrn_backward_array,
    lrn_backward_reference,
    lrn_forward,
    lrn_reference,
    normalise_plane,
    spread_plane,
)
from minialex.kernels.max_pooling import (
    max_pool2d_array,
    max_pool2d_backward_array,
    max_pool2d_backward_reference,
    max_pool2d_forward,
    max_pool2d_reference,
    offsets_of_cells,
    pool_channel,
    pool_scratch,
    send_to_winners,
)
from minialex.shapes import Padding, Pair


def relu_lrn_max_pool2d_reference(
    x: Array,
    y: Array,
    argmax: Array,
    norm: Norm,
    kernel_size: Pair,
    stride: Pair,
    padding: Padding,
) -> None:
    """y, argmax = max-pooling of the normalised relu(x): the three loops that specify them, in turn.

    Shapes: x (N, C, H, W); y and argmax (N, C, OH, OW), written.
    Args:   norm: lower, upper, alpha, beta, k of local_response_norm; the rest is max_pooling's.
    """
    rectified, normalised = np.empty(x.shape, x.dtype), np.empty(x.shape, x.dtype)
    relu_reference(x.reshape(-1), rectified.reshape(-1))
    lrn_reference(rectified, normalised, *norm)
    max_pool2d_reference(normalised, y, argmax, kernel_size, stride, padding, False)


def relu_lrn_max_pool2d_backward_reference(
    dy: Array,
    argmax: Array,
    x: Array,
    dx: Array,
    norm: Norm,
    kernel_size: Pair,
    stride: Pair,
    padding: Padding,
) -> None:
    """dx = the gradient of the three, in turn. Shapes: dy, argmax (N, C, OH, OW); x, dx (N, C, H, W)."""
    rectified, dnormalised = np.empty(x.shape, x.dtype), np.empty(x.shape, x.dtype)
    relu_reference(x.reshape(-1), rectified.reshape(-1))
    max_pool2d_backward_reference(dy, argmax, dnormalised, kernel_size, stride, padding)
    lrn_backward_reference(dnormalised, rectified, dx, *norm)
    relu_backward_reference(dx.reshape(-1), rectified.reshape(-1), dx.reshape(-1))


def relu_lrn_max_pool2d_array(
    x: Array,
    y: Array,
    argmax: Array,
    norm: Norm,
    kernel_size: Pair,
    stride: Pair,
    padding: Padding,
) -> None:
    """As the reference, an image at a time."""
    xp = array_module(x)
    for n in range(len(x)):
        image = slice(n, n + 1)
        normalised = xp.empty_like(x[image])
        lrn_array(xp.maximum(x[image], 0), normalised, *norm)
        max_pool2d_array(normalised, y[image], argmax[image], kernel_size, stride, padding, False)


def relu_lrn_max_pool2d_backward_array(
    dy: Array,
    argmax: Array,
    x: Array,
    dx: Array,
    norm: Norm,
    kernel_size: Pair,
    stride: Pair,
    padding: Padding,
) -> None:
    """As the reference, an image at a time."""
    xp = array_module(x)
    for n in range(len(x)):
        image = slice(n, n + 1)
        dnormalised = xp.empty_like(x[image])
        max_pool2d_backward_array(dy[image], argmax[image], dnormalised, kernel_size, stride, padding)
        rectified = xp.maximum(x[image], 0)
        lrn_backward_array(dnormalised, rectified, dx[image], *norm)
        dx[image] = xp.where(rectified <= 0, dx.dtype.type(0), dx[image])


@jit
def relu_lrn_max_pool2d_planes(
    x: Array,
    y: Array,
    argmax: Array,
    norm: Norm,
    kernel_size: Pair,
    stride: Pair,
    padding: Padding,
) -> None:
    """A channel at a time: normalised into a plane of scratch, and pooled from there."""
    N, C, H, W = x.shape
    real = x.dtype.type
    lower, upper, alpha, beta, k = norm
    typed = (lower, upper, real(alpha), beta, real(k))
    strips, normalised = np.empty((2, STRIP), x.dtype), np.empty((H, W), x.dtype)
    plane = normalised.reshape(H * W)
    scratch = pool_scratch(x, y, kernel_size, stride, padding)
    for n in range(N):
        image = x[n].reshape(C, H * W)
        for c in range(C):
            normalise_plane(image, c, typed, real(0), strips, plane)
            pool_channel(
                normalised, y[n, c], argmax[n, c], kernel_size, stride, padding, real(np.nan), scratch
            )


@jit
def relu_lrn_max_pool2d_backward_planes(
    dy: Array,
    argmax: Array,
    x: Array,
    dx: Array,
    norm: Norm,
    kernel_size: Pair,
    stride: Pair,
    padding: Padding,
) -> None:
    """A channel at a time: what pooling sends back to it goes on to its window, as in lrn_backward_planes."""
    N, C, H, W = x.shape
    real = x.dtype.type
    lower, upper, alpha, beta, k = norm
    zero, typed = real(0), (lower, upper, real(alpha), beta, real(k))
    offsets = offsets_of_cells(W, kernel_size)
    dnormalised, strips = np.empty(H * W + 1, x.dtype), np.empty((2, STRIP), x.dtype)
    shares = np.empty((lower + upper + 1, H * W), x.dtype)
    for n in range(N):
        image, dimage = x[n].reshape(C, H * W), dx[n].reshape(C, H * W)
        for j in range(C + lower):
            if j < C:
                row = shares[j % len(shares)]
                send_to_winners(dy[n, j], argmax[n, j], dnormalised, W, offsets, stride, padding)
                spread_plane(dnormalised, image, j, typed, zero, strips, dimage[j], row)
            if j >= lower:
                collect_plane(image, j - lower, typed, zero, strips, shares, dimage[j - lower])


# ----------------------------------------------------------------------------------------------- for a GPU

# Threads of a block and the pixels that its tile holds, as in kernels/fused_pooling.cu; channels of a block.
BLOCK, TILE, CHANNELS = 256, 1024, 16


def relu_lrn_max_pool2d_cuda(
    x: Array,
    y: Array,
    argmax: Array,
    norm: Norm,
    kernel_size: Pair,
    stride: Pair,
    padding: Padding,
) -> None:
    """As the reference: a block for a rectangle of outputs, 16 channels of it one after another."""
    if kernel_size[0] * kernel_size[1] > TILE:  # Nobody's network.
        rectified, normalised = empty(x.shape, x), empty(x.shape, x)
        relu_forward(contiguous(x).reshape(-1), rectified.reshape(-1))
        lrn_forward(rectified, normalised, *norm)
        max_pool2d_forward(normalised, y, argmax, kernel_size, stride, padding, False)
        return
    (N, C, H, W), (OH, OW) = x.shape, y.shape[2:]
    rows, columns = rectangle_of_outputs((OH, OW), kernel_size, stride)
    grid = (N * -(-OH // rows) * -(-OW // columns), -(-C // CHANNELS))
    entry, cells = _entry("forward", argmax)
    winners = argmax if argmax.dtype == cells else empty(argmax.shape, argmax, cells)
    geometry = (*kernel_size, *stride, padding[0][0], padding[1][0])
    numbers = (C, H, W, OH, OW, *_reals(norm), *geometry, rows, columns, CHANNELS)
    entry.launch(grid, BLOCK, contiguous(x), y, winners, *numbers)
    if winners is not argmax:
        argmax[...] = winners


def relu_lrn_max_pool2d_backward_cuda(
    dy: Array,
    argmax: Array,
    x: Array,
    dx: Array,
    norm: Norm,
    kernel_size: Pair,
    stride: Pair,
    padding: Padding,
) -> None:
    """As the reference: a thread for 32 channels of a pixel of x, which asks the windows that saw it."""
    (N, C, H, W), (OH, OW) = x.shape, dy.shape[2:]
    entry, cells = _entry("backward", argmax)
    arrays = (contiguous(dy), contiguous(argmax.astype(cells, copy=False)), contiguous(x), dx)
    geometry = (*kernel_size, *stride, padding[0][0], padding[1][0])
    numbers = (N, C, H, W, OH, OW, *_reals(norm), *geometry)
    entry.for_each(N * channel_shares(C) * H * W, *arrays, *numbers)


def rectangle_of_outputs(output: Pair, kernel_size: Pair, stride: Pair) -> Pair:
    """Rows and columns of outputs whose windows see at most TILE pixels: whole rows if they fit."""
    KH, KW = kernel_size
    columns = min(output[1], (TILE // KH - KW) // stride[1] + 1)
    width = (columns - 1) * stride[1] + KW
    return min(output[0], (TILE // width - KH) // stride[0] + 1), columns


def _entry(direction: str, argmax: Array) -> tuple[CudaKernel, type[np.generic]]:
    """The entry for winners of this width, and the type that it takes: a byte, else 32 bits."""
    if argmax.dtype == np.uint8:
        return _entries[direction], np.uint8
    return _entries[f"{direction}_wide"], np.uint32


def _reals(norm: Norm) -> Norm:
    lower, upper, *reals = norm
    alpha, beta, k = map(float, reals)
    return lower, upper, alpha, beta, k


_entries = {
    name: CudaKernel("fused_pooling", f"relu_lrn_max_pool2d_{name}")
    for name in ("forward", "backward", "forward_wide", "backward_wide")
}

relu_lrn_max_pool2d_forward = Kernel(
    "relu_lrn_max_pool2d_forward",
    outputs=("y", "argmax"),
    reference=relu_lrn_max_pool2d_reference,
    array=relu_lrn_max_pool2d_array,
    numba=per_image(relu_lrn_max_pool2d_planes, arrays=3),
    cuda=relu_lrn_max_pool2d_cuda,
)
relu_lrn_max_pool2d_backward = Kernel(
    "relu_lrn_max_pool2d_backward",
    outputs=("dx",),
    reference=relu_lrn_max_pool2d_backward_reference,
    array=relu_lrn_max_pool2d_backward_array,
    numba=per_image(relu_lrn_max_pool2d_backward_planes, arrays=4),
    cuda=relu_lrn_max_pool2d_backward_cuda,
)
