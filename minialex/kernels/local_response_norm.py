"""Local response normalisation: y = x * scale**-beta, scale = k + alpha * sum of x**2 over near channels.

`lower` and `upper` say how many channels before and after its own a window reaches; `alpha` is what
multiplies the sum: dialects differ in these, and the Op works them out. The backward pass computes the
scale again instead of keeping it.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from minialex.backend import Array, CudaKernel, Kernel, array_module, contiguous, jit, per_image


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


# ------------------------------------------------------------------------------------- compiled for the CPU

# lower, upper, alpha, beta, k. In compiled code alpha and k have the dtype of x, so that nothing is widened.
Norm: TypeAlias = tuple[int, int, float, float, float]

# Pixels that are worked on at a time: their sums stay in the first cache.
STRIP = 256


@jit
def window_scales(x: Array, c: int, start: int, count: int, norm: Norm, floor: float, scale: Array) -> None:
    """scale[i] = k + alpha * sum of x[j, start + i]**2 over the channels j of c's window.

    Each sum is made anew: one that slides from channel to channel by subtracting would cancel.
    Shapes: x (C, H*W); scale (at least count,), written.
    Args:   floor: an x at or below it is taken as it: 0 for relu(x); NaN for x itself, because nothing
            compares with NaN.
    """
    lower, upper, alpha, _, k = norm
    for i in range(count):
        scale[i] = 0
    for j in range(max(c - lower, 0), min(c + upper + 1, x.shape[0])):
        for i in range(count):
            value = x[np.uintp(j), np.uintp(start + i)]
            value = floor if value <= floor else value
            scale[i] += value * value
    for i in range(count):
        scale[i] = k + alpha * scale[i]


@jit
def inverse_powers(scale: Array, count: int, beta: float, power: Array) -> None:
    """power = scale**-beta.

    For the paper's beta of 3/4 by two square roots and a division, which the processor does for eight pixels
    at once: rounded four times and the first error halved by the second root, that is off by at most
    4.5 units of rounding (2**-24 in float32).
    """
    if beta == 0.75:
        for i in range(count):
            root = np.sqrt(scale[i])
            power[i] = scale.dtype.type(1) / (root * np.sqrt(root))
    else:
        for i in range(count):
            power[i] = scale[i] ** scale.dtype.type(-beta)


@jit
def normalise_plane(x: Array, c: int, norm: Norm, floor: float, strips: Array, y: Array) -> None:
    """y = channel c of x, or of relu(x), divided by its scale**beta.

    Shapes: x (C, H*W); strips (2, STRIP), used up; y (H*W,), written.
    """
    scale, power = strips[0], strips[1]
    for start in range(0, len(y), STRIP):
        count = min(len(y) - start, STRIP)
        window_scales(x, c, start, count, norm, floor, scale)
        inverse_powers(scale, count, norm[3], power)
        for i in range(count):
            value = x[np.uintp(c), np.uintp(start + i)]
            value = floor if value <= floor else value
            y[np.uintp(start + i)] = value * power[i]


@jit
def spread_plane(
    dy: Array, x: Array, c: int, norm: Norm, floor: float, strips: Array, own: Array, shares: Array
) -> None:
    """own = dy * scale**-beta; shares = dy * x * scale**(-beta-1), what c sends to all in its window.

    Shapes: dy (at least H*W,); x (C, H*W); strips (2, STRIP), used up; own, shares (H*W,), written.
    """
    scale, power = strips[0], strips[1]
    for start in range(0, len(own), STRIP):
        count = min(len(own) - start, STRIP)
        window_scales(x, c, start, count, norm, floor, scale)
        inverse_powers(scale, count, norm[3], power)
        for i in range(count):
            place = np.uintp(start + i)
            value = x[np.uintp(c), place]
            value = floor if value <= floor else value
            own[place] = dy[place] * power[i]
            shares[place] = dy[place] * value * power[i] / scale[i]


@jit
def collect_plane(
    x: Array, c: int, norm: Norm, floor: float, strips: Array, shares: Array, dx: Array
) -> None:
    """dx -= 2 * alpha * beta * x[c] * the sum of the shares that c gets; 0 where x is at or below floor.

    Shapes: x (C, H*W); strips (2, STRIP), used up; shares (ring, H*W): channel j's are in row j % ring;
            dx (H*W,), what spread_plane made of it.
    """
    lower, upper, alpha, beta, _ = norm
    factor, total = strips.dtype.type(2 * beta * alpha), strips[0]
    for start in range(0, len(dx), STRIP):
        count = min(len(dx) - start, STRIP)
        for i in range(count):
            total[i] = 0
        for j in range(max(c - upper, 0), min(c + lower + 1, x.shape[0])):
            row = j % len(shares)
            for i in range(count):
                total[i] += shares[np.uintp(row), np.uintp(start + i)]
        for i in range(count):
            place = np.uintp(start + i)
            value = x[np.uintp(c), place]
            gradient = dx[place] - factor * value * total[i]
            dx[place] = 0 if value <= floor else gradient


@jit
def lrn_planes(x: Array, y: Array, lower: int, upper: int, alpha: float, beta: float, k: float) -> None:
    """A channel at a time."""
    N, C, H, W = x.shape
    real = x.dtype.type
    norm = (lower, upper, real(alpha), beta, real(k))
    strips = np.empty((2, STRIP), x.dtype)
    for n in range(N):
        image, planes = x[n].reshape(C, H * W), y[n].reshape(C, H * W)
        for c in range(C):
            normalise_plane(image, c, norm, real(np.nan), strips, planes[c])


@jit
def lrn_backward_planes(
    dy: Array, x: Array, dx: Array, lower: int, upper: int, alpha: float, beta: float, k: float
) -> None:
    """A channel at a time: it sends its shares, and the channel whose window is now complete collects."""
    N, C, H, W = x.shape
    real = x.dtype.type
    none, norm = real(np.nan), (lower, upper, real(alpha), beta, real(k))
    strips = np.empty((2, STRIP), x.dtype)
    shares = np.empty((lower + upper + 1, H * W), x.dtype)
    for n in range(N):
        image, dimage = x[n].reshape(C, H * W), dx[n].reshape(C, H * W)
        dnormalised = dy[n].reshape(C, H * W)
        for j in range(C + lower):
            if j < C:
                row = shares[j % len(shares)]
                spread_plane(dnormalised[j], image, j, norm, none, strips, dimage[j], row)
            if j >= lower:
                collect_plane(image, j - lower, norm, none, strips, shares, dimage[j - lower])


# ----------------------------------------------------------------------------------------------- for a GPU

# Channels of a pixel that a thread makes, as in kernels/local_response_norm.cuh.
CHANNELS = 32
_forward = CudaKernel("local_response_norm", "lrn_forward")
_backward = CudaKernel("local_response_norm", "lrn_backward")


def lrn_cuda(x: Array, y: Array, lower: int, upper: int, alpha: float, beta: float, k: float) -> None:
    """As the reference: a thread for 32 channels of a pixel."""
    N, C, H, W = x.shape
    norm = (lower, upper, float(alpha), float(beta), float(k))
    _forward.for_each(N * channel_shares(C) * H * W, contiguous(x), y, N, C, H * W, *norm)


def lrn_backward_cuda(
    dy: Array, x: Array, dx: Array, lower: int, upper: int, alpha: float, beta: float, k: float
) -> None:
    """As the reference: a thread for 32 channels of a pixel."""
    N, C, H, W = x.shape
    norm = (lower, upper, float(alpha), float(beta), float(k))
    arrays = (contiguous(dy), contiguous(x), dx)
    _backward.for_each(N * channel_shares(C) * H * W, *arrays, N, C, H * W, *norm)


def channel_shares(C: int) -> int:
    """Threads that share the channels of a pixel."""
    return -(-C // CHANNELS)


lrn_forward = Kernel(
    "lrn_forward",
    outputs=("y",),
    reference=lrn_reference,
    array=lrn_array,
    numba=per_image(lrn_planes, arrays=2),
    cuda=lrn_cuda,
)
lrn_backward = Kernel(
    "lrn_backward",
    outputs=("dx",),
    reference=lrn_backward_reference,
    array=lrn_backward_array,
    numba=per_image(lrn_backward_planes, arrays=3),
    cuda=lrn_backward_cuda,
)
