"""ReLU, sigmoid and tanh, element by element. Gradients come from the output, so that only it is kept."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minialex.backend import Array, CudaKernel, Kernel, array_module, contiguous, jit, per_image


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


# ------------------------------------------------------------------------------------- for the compiler
#
# As the references, but with constants of the arrays' own dtype: 1.0 is a float64, and would make all of a
# float32 loop twice as wide.


def relu_loop(x: Array, y: Array) -> None:
    """As the reference."""
    zero = x.dtype.type(0)
    for i in range(len(x)):
        y[i] = zero if x[i] <= zero else x[i]


def relu_backward_loop(dy: Array, y: Array, dx: Array) -> None:
    """As the reference."""
    zero = y.dtype.type(0)
    for i in range(len(dy)):
        dx[i] = zero if y[i] <= zero else dy[i]


def sigmoid_loop(x: Array, y: Array) -> None:
    """As the reference, for float32, with an exponential that the compiler can do for eight numbers at once.

    exp(z) = 2**n * exp(r), n the whole number nearest to z / ln 2, r = z - n ln 2 (ln 2 in two parts, so that
    the product with n is exact) and exp(r) a polynomial. Adding 1.5 * 2**23 rounds to a whole number, which
    then stands in the lowest bits; added to the exponent's bits it multiplies by 2**n. Good to 2e-7; beyond
    +-87 the result stays at that of 87, 2e-38 from 0 or 1. NaN stays.
    Source: the coefficients are those of expf in Moshier's Cephes library.
    """
    one, limit, rounder = np.float32(1), np.float32(87), np.float32(12582912)
    per_ln2, ln2, rest = np.float32(1.44269504), np.float32(0.693359375), np.float32(-2.12194440e-4)
    c0, c1, c2 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
    c3, c4, c5 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)
    for i in range(len(x)):
        z = np.float32(-x[i])
        z = limit if z > limit else z
        z = -limit if z < -limit else z
        shifted = np.float32(z * per_ln2 + rounder)
        n = shifted - rounder
        r = z - n * ln2 - n * rest
        power = np.float32((((((c0 * r + c1) * r + c2) * r + c3) * r + c4) * r + c5) * (r * r) + r + one)
        bits = np.int32(np.float32(power).view(np.int32) + (np.float32(shifted).view(np.int32) << 23))
        y[i] = one / (one + np.int32(bits).view(np.float32))


def sigmoid_backward_loop(dy: Array, y: Array, dx: Array) -> None:
    """As the reference."""
    one = y.dtype.type(1)
    for i in range(len(dy)):
        dx[i] = dy[i] * y[i] * (one - y[i])


def tanh_backward_loop(dy: Array, y: Array, dx: Array) -> None:
    """As the reference."""
    one = y.dtype.type(1)
    for i in range(len(dy)):
        dx[i] = dy[i] * (one - y[i] * y[i])


# What is worth a thread: these do little with an element, or do several at once.
MANY = 1 << 18
_sigmoid_fast, _sigmoid_exact = jit(sigmoid_loop, fastmath=("contract",)), jit(sigmoid_reference)
_sigmoid_float32, _sigmoid_float64 = per_image(_sigmoid_fast, 2, MANY), per_image(_sigmoid_exact, 2)


def sigmoid_of_either(x: Array, y: Array) -> None:
    """As the reference: the faster of the two for the dtype. For other compiled functions to call."""
    if x.itemsize == 4:
        _sigmoid_fast(x, y)
    else:
        _sigmoid_exact(x, y)


sigmoid_compiled = jit(sigmoid_of_either)
sigmoid_backward_compiled = jit(sigmoid_backward_loop)
sigmoid_backward_numba = per_image(sigmoid_backward_compiled, 3, MANY)


def sigmoid_numba(x: Array, y: Array) -> None:
    """The fast exponential for float32; for float64, which is for gradient checks, the exact one."""
    (_sigmoid_float32 if x.dtype == np.float32 else _sigmoid_float64)(x, y)


# ----------------------------------------------------------------------------------------------- on a GPU


def launched(entry: str) -> Callable[..., None]:
    """The variant that runs this entry of kernels/activations.cu: any arrays, the last of them written."""
    kernel = CudaKernel("activations", entry)

    def launch(*arrays: Array) -> None:
        count = arrays[-1].size
        kernel.for_each(count, *map(contiguous, arrays), count)

    return launch


relu_forward = Kernel(
    "relu_forward",
    outputs=("y",),
    reference=relu_reference,
    array=relu_array,
    numba=per_image(jit(relu_loop), 2, MANY),
    cuda=launched("relu_forward"),
)
relu_backward = Kernel(
    "relu_backward",
    outputs=("dx",),
    reference=relu_backward_reference,
    array=relu_backward_array,
    numba=per_image(jit(relu_backward_loop), 3, MANY),
    cuda=launched("relu_backward"),
)
sigmoid_forward = Kernel(
    "sigmoid_forward",
    outputs=("y",),
    reference=sigmoid_reference,
    array=sigmoid_array,
    numba=sigmoid_numba,
    cuda=launched("sigmoid_forward"),
)
sigmoid_backward = Kernel(
    "sigmoid_backward",
    outputs=("dx",),
    reference=sigmoid_backward_reference,
    array=sigmoid_backward_array,
    numba=sigmoid_backward_numba,
    cuda=launched("sigmoid_backward"),
)
tanh_forward = Kernel(
    "tanh_forward",
    outputs=("y",),
    reference=tanh_reference,
    array=tanh_array,
    numba=per_image(tanh_array, 2, MANY),  # NumPy does several at once, and Numba does not.
    cuda=launched("tanh_forward"),
)
tanh_backward = Kernel(
    "tanh_backward",
    outputs=("dx",),
    reference=tanh_backward_reference,
    array=tanh_backward_array,
    numba=per_image(jit(tanh_backward_loop), 3, MANY),
    cuda=launched("tanh_backward"),
)
