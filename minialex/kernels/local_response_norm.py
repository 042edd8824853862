"""Local response normalisation: y = x * scale**-beta, scale = k + alpha * sum of x**2 over near channels.

`lower` and `upper` say how many channels before and after its own a window reaches; `alpha` is what
multiplies the sum: dialects differ in these, and the Op works them out. The backward pass computes the
scale again instead of keeping it.
"""

from __future__ import annotations

import numpy as np

from minialex.backend import Array, Kernel, array_module, jit, per_image


def lrn_reference(x: Array, y: Array, lower: int, upper: int, alpha: float, beta: float, k: float) -> None:
    """y[n, c] = x[n, c] / (k + alpha * sum(x[n, j]**2 for c-lower <= j <= c+upper)) ** beta.

    Shapes: x (N, C, H, W); y the same, written. The window is cut at the first and the last channel.
    """
    N, C, H, W = x.shape
    for n in range(N):
        for h in range(H):
            for w in range(W):
                for c in range(C):
                    energy = 0.0
                    for j in range(max(c - lower, 0), min(c + upper + 1, C)):
                        energy = energy + x[n, j, h, w] * x[n, j, h, w]
                    y[n, c, h, w] = x[n, c, h, w] / (k + alpha * energy) ** beta


def lrn_backward_reference(
    dy: Array, x: Array, dx: Array, lower: int, upper: int, alpha: float, beta: float, k: float
) -> None:
    """dx[c] = dy[c] * scale[c]**-beta - 2*alpha*beta * x[c] * sum of dy[j] * x[j] * scale[j]**(-beta-1),

    the sum running over the channels j whose windows hold c: c-upper <= j <= c+lower.
    Shapes: dy, x (N, C, H, W); dx the same, written.
    """
    N, C, H, W = x.shape
    for n in range(N):
        for h in range(H):
            for w in range(W):
                for c in range(C):
                    crossed = 0.0
                    own = 1.0
                    for j in range(max(c - upper, 0), min(c + lower + 1, C)):
                        energy = 0.0
                        for i in range(max(j - lower, 0), min(j + upper + 1, C)):
                            energy = energy + x[n, i, h, w] * x[n, i, h, w]
                        scale = k + alpha * energy
                        crossed = crossed + dy[n, j, h, w] * x[n, j, h, w] * scale ** (-beta - 1.0)
                        if j == c:
                            own = scale**-beta
                    dx[n, c, h, w] = dy[n, c, h, w] * own - 2.0 * alpha * beta * x[n, c, h, w] * crossed


def lrn_array(x: Array, y: Array, lower: int, upper: int, alpha: float, beta: float, k: float) -> None:
    """The windowed sum is one addition of shifted channels for each channel of the window."""
    scale = k + alpha * _window_sum(x * x, lower, upper)
    y[...] = x * scale**-beta


def lrn_backward_array(
    dy: Array, x: Array, dx: Array, lower: int, upper: int, alpha: float, beta: float, k: float
) -> None:
    """As the reference; the window of the sum is the mirrored one."""
    scale = k + alpha * _window_sum(x * x, lower, upper)
    power = scale**-beta
    crossed = _window_sum(dy * x * power / scale, upper, lower)
    dx[...] = dy * power - (2.0 * alpha * beta) * x * crossed


def _window_sum(values: Array, lower: int, upper: int) -> Array:
    """sum(values[:, j] for c-lower <= j <= c+upper) for every channel c."""
    C = values.shape[1]
    total = array_module(values).zeros_like(values)
    for shift in range(-lower, upper + 1):
        first, last = max(0, -shift), min(C, C - shift)
        if first < last:
            total[:, first:last] += values[:, first + shift : last + shift]
    return total


def lrn_planes(x: Array, y: Array, lower: int, upper: int, alpha: float, beta: float, k: float) -> None:
    """A channel's plane at a time, in the order of memory; y holds the sums until it is overwritten."""
    N, C, H, W = x.shape
    for n in range(N):
        for c in range(C):
            for h in range(H):
                for w in range(W):
                    y[n, c, h, w] = 0.0
                for j in range(max(c - lower, 0), min(c + upper + 1, C)):
                    for w in range(W):
                        y[n, c, h, w] += x[n, j, h, w] * x[n, j, h, w]
                for w in range(W):
                    y[n, c, h, w] = x[n, c, h, w] * (k + alpha * y[n, c, h, w]) ** -beta


def lrn_backward_planes(
    dy: Array, x: Array, dx: Array, lower: int, upper: int, alpha: float, beta: float, k: float
) -> None:
    """The same, a row of the picture at a time, with the scales of that row for all channels at hand."""
    N, C, H, W = x.shape
    scale = np.empty((C, W), dtype=x.dtype)
    for n in range(N):
        for h in range(H):
            for c in range(C):
                for w in range(W):
                    scale[c, w] = 0.0
                for j in range(max(c - lower, 0), min(c + upper + 1, C)):
                    for w in range(W):
                        scale[c, w] += x[n, j, h, w] * x[n, j, h, w]
                for w in range(W):
                    scale[c, w] = k + alpha * scale[c, w]
                    # dx first holds what each channel sends to those its window covers.
                    power = scale[c, w] ** -beta
                    dx[n, c, h, w] = dy[n, c, h, w] * x[n, c, h, w] * power / scale[c, w]
                    scale[c, w] = power
            sums = np.zeros((C, W), dtype=x.dtype)
            for c in range(C):
                for j in range(max(c - upper, 0), min(c + lower + 1, C)):
                    for w in range(W):
                        sums[c, w] += dx[n, j, h, w]
            for c in range(C):
                for w in range(W):
                    own = dy[n, c, h, w] * scale[c, w]
                    dx[n, c, h, w] = own - 2.0 * alpha * beta * x[n, c, h, w] * sums[c, w]


lrn_forward = Kernel(
    "lrn_forward",
    outputs=("y",),
    reference=lrn_reference,
    array=lrn_array,
    numba=per_image(jit(lrn_planes), arrays=2),
)
lrn_backward = Kernel(
    "lrn_backward",
    outputs=("dx",),
    reference=lrn_backward_reference,
    array=lrn_backward_array,
    numba=per_image(jit(lrn_backward_planes), arrays=3),
)
