"""Max-pooling, and the gradient's way back to the pixel that won."""

from __future__ import annotations

from minialex.backend import Array, Kernel, array_module, jit, per_image
from minialex.shapes import Padding, Pair


def max_pool2d_reference(
    x: Array, y: Array, argmax: Array, kernel_size: Pair, stride: Pair, padding: Padding
) -> None:
    """y[n, c, p, q] = the largest pixel of its window; argmax = the cell i*KW + j where it first stands.

    Shapes: x (N, C, H, W); y and argmax (N, C, OH, OW), written. A NaN wins over every number. Padding is
    minus infinity, and so is what a window sees beyond it.
    """
    N, C, H, W = x.shape
    KH, KW = kernel_size
    for n in range(N):
        for c in range(C):
            for p in range(y.shape[2]):
                for q in range(y.shape[3]):
                    top = p * stride[0] - padding[0][0]
                    left = q * stride[1] - padding[1][0]
                    best = -float("inf")
                    winner = -1
                    for row in range(max(top, 0), min(top + KH, H)):
                        for col in range(max(left, 0), min(left + KW, W)):
                            value = x[n, c, row, col]
                            # The first pixel wins even if it is minus infinity itself; NaN always wins.
                            if value > best or value != value or winner < 0:
                                best = value
                                winner = (row - top) * KW + col - left
                    y[n, c, p, q] = best
                    argmax[n, c, p, q] = winner


def max_pool2d_backward_reference(
    dy: Array, argmax: Array, dx: Array, kernel_size: Pair, stride: Pair, padding: Padding
) -> None:
    """dx[winner of each window] += dy: a pixel that wins several windows gets all their gradients.

    Shapes: dy and argmax (N, C, OH, OW); dx (N, C, H, W), written.
    """
    N, C, OH, OW = dy.shape
    dx[...] = 0
    for n in range(N):
        for c in range(C):
            for p in range(OH):
                for q in range(OW):
                    winner = int(argmax[n, c, p, q])
                    row = p * stride[0] - padding[0][0] + winner // kernel_size[1]
                    col = q * stride[1] - padding[1][0] + winner % kernel_size[1]
                    dx[n, c, row, col] += dy[n, c, p, q]


def max_pool2d_array(
    x: Array, y: Array, argmax: Array, kernel_size: Pair, stride: Pair, padding: Padding
) -> None:
    """One comparison of whole planes for each cell of the window, in the window's order."""
    xp = array_module(x)
    padded = _padded(x, y.shape[2:], kernel_size, stride, padding, fill=-xp.inf)
    on_picture = xp.ones((1, 1, *x.shape[2:]), dtype=bool)
    real = _padded(on_picture, y.shape[2:], kernel_size, stride, padding, fill=False)
    y[...] = -xp.inf
    found = xp.zeros((1, 1, *y.shape[2:]), dtype=bool)
    argmax[...] = 0
    for i in range(kernel_size[0]):
        for j in range(kernel_size[1]):
            cells = _cells(i, j, y.shape[2:], stride)
            value, inside = padded[cells], real[cells]
            better = (value > y) | xp.isnan(value) | (inside & ~found)
            y[...] = xp.where(better, value, y)
            argmax[...] = xp.where(better, argmax.dtype.type(i * kernel_size[1] + j), argmax)
            found |= inside


def max_pool2d_backward_array(
    dy: Array, argmax: Array, dx: Array, kernel_size: Pair, stride: Pair, padding: Padding
) -> None:
    """For each cell of the window, add dy where that cell won."""
    xp = array_module(dy)
    H, W = dx.shape[2:]
    total = _padded(xp.zeros_like(dx), dy.shape[2:], kernel_size, stride, padding, fill=0)
    for i in range(kernel_size[0]):
        for j in range(kernel_size[1]):
            won = argmax == argmax.dtype.type(i * kernel_size[1] + j)
            total[_cells(i, j, dy.shape[2:], stride)] += xp.where(won, dy, dy.dtype.type(0))
    top, left = padding[0][0], padding[1][0]
    dx[...] = total[:, :, top : top + H, left : left + W]


def _padded(
    x: Array, output: tuple[int, ...], kernel_size: Pair, stride: Pair, padding: Padding, fill: float
) -> Array:
    """x with its padding, and as much more at the end as the last window reaches beyond it."""
    N, C, H, W = x.shape
    top, left = padding[0][0], padding[1][0]
    height = max(H + sum(padding[0]), (output[0] - 1) * stride[0] + kernel_size[0])
    width = max(W + sum(padding[1]), (output[1] - 1) * stride[1] + kernel_size[1])
    padded = array_module(x).full((N, C, height, width), fill, dtype=x.dtype)
    padded[:, :, top : top + H, left : left + W] = x
    return padded


def _cells(i: int, j: int, output: tuple[int, ...], stride: Pair) -> tuple[slice, ...]:
    """Cell (i, j) of every window of a padded picture."""
    rows = slice(i, i + (output[0] - 1) * stride[0] + 1, stride[0])
    cols = slice(j, j + (output[1] - 1) * stride[1] + 1, stride[1])
    return slice(None), slice(None), rows, cols


max_pool2d_forward = Kernel(
    "max_pool2d_forward",
    outputs=("y", "argmax"),
    reference=max_pool2d_reference,
    array=max_pool2d_array,
    numba=per_image(jit(max_pool2d_reference), arrays=3),
)
max_pool2d_backward = Kernel(
    "max_pool2d_backward",
    outputs=("dx",),
    reference=max_pool2d_backward_reference,
    array=max_pool2d_backward_array,
    numba=per_image(jit(max_pool2d_backward_reference), arrays=3),
)
