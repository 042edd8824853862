"""ReLU, sigmoid and tanh, element by element. Gradients come from the output, so that only it is kept."""

from __future__ import annotations

import numpy as np

from minialex.backend import Array, Kernel, array_module, jit, per_image


def relu_reference(x: Array, y: Array) -> None:
    """y = max(x, 0); NaN stays NaN. Shapes: x (n,); y the same, written."""
    for i in range(len(x)):
        y[i] = 0.0 if x[i] <= 0 else x[i]


def relu_backward_reference(dy: Array, y: Array, dx: Array) -> None:
    """dx = 0 where y = 0, also at the kink, else dy: NaN is not lost. Shapes: all (n,); dx written."""
    for i in range(len(dy)):
        dx[i] = 0.0 if y[i] <= 0 else dy[i]


def relu_array(x: Array, y: Array) -> None:
    """As the reference."""
    array_module(x).maximum(x, 0, out=y)


def relu_backward_array(dy: Array, y: Array, dx: Array) -> None:
    """As the reference."""
    xp = array_module(dy)
    dx[...] = xp.where(y <= 0, dy.dtype.type(0), dy)


def sigmoid_reference(x: Array, y: Array) -> None:
    """y = 1 / (1 + exp(-x)); a large -x overflows to infinity, and its reciprocal is the right 0.

    Shapes: x (n,); y the same, written.
    """
    for i in range(len(x)):
        y[i] = 1.0 / (1.0 + np.exp(-x[i]))


def sigmoid_backward_reference(dy: Array, y: Array, dx: Array) -> None:
    """dx = dy * y * (1 - y). Shapes: all (n,); dx written."""
    for i in range(len(dy)):
        dx[i] = dy[i] * y[i] * (1.0 - y[i])


def sigmoid_array(x: Array, y: Array) -> None:
    """As the reference."""
    y[...] = 1 / (1 + array_module(x).exp(-x))


def sigmoid_backward_array(dy: Array, y: Array, dx: Array) -> None:
    """As the reference."""
    dx[...] = dy * y * (1 - y)


def tanh_reference(x: Array, y: Array) -> None:
    """y = tanh(x). Shapes: x (n,); y the same, written."""
    for i in range(len(x)):
        y[i] = np.tanh(x[i])


def tanh_backward_reference(dy: Array, y: Array, dx: Array) -> None:
    """dx = dy * (1 - y**2). Shapes: all (n,); dx written."""
    for i in range(len(dy)):
        dx[i] = dy[i] * (1.0 - y[i] * y[i])


def tanh_array(x: Array, y: Array) -> None:
    """As the reference."""
    array_module(x).tanh(x, out=y)


def tanh_backward_array(dy: Array, y: Array, dx: Array) -> None:
    """As the reference."""
    dx[...] = dy * (1 - y * y)


relu_forward = Kernel(
    "relu_forward",
    outputs=("y",),
    reference=relu_reference,
    array=relu_array,
    numba=per_image(jit(relu_reference), 2),
)
relu_backward = Kernel(
    "relu_backward",
    outputs=("dx",),
    reference=relu_backward_reference,
    array=relu_backward_array,
    numba=per_image(jit(relu_backward_reference), 3),
)
sigmoid_forward = Kernel(
    "sigmoid_forward",
    outputs=("y",),
    reference=sigmoid_reference,
    array=sigmoid_array,
    numba=per_image(jit(sigmoid_reference), 2),
)
sigmoid_backward = Kernel(
    "sigmoid_backward",
    outputs=("dx",),
    reference=sigmoid_backward_reference,
    array=sigmoid_backward_array,
    numba=per_image(jit(sigmoid_backward_reference), 3),
)
tanh_forward = Kernel(
    "tanh_forward",
    outputs=("y",),
    reference=tanh_reference,
    array=tanh_array,
    numba=per_image(jit(tanh_reference), 2),
)
tanh_backward = Kernel(
    "tanh_backward",
    outputs=("dx",),
    reference=tanh_backward_reference,
    array=tanh_backward_array,
    numba=per_image(jit(tanh_backward_reference), 3),
)
