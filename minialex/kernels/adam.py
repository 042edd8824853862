"""One step of Adam.

All arrays are one-dimensional, contiguous and of one dtype; weight, mean and square are overwritten.
Scalars are brought to the arrays' dtype first, so that every variant rounds alike.
"""

from __future__ import annotations

import math

from minialex.backend import Array, CudaKernel, array_module, jit
from minialex.kernels.updates import UpdateKernel

__all__ = ["adam"]


def adam_reference(
    weight: Array,
    grad: Array,
    mean: Array,
    square: Array,
    rate: float,
    root: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> None:
    """Divide the running mean of the gradient by the root of the running mean of its square.

        g = grad + weight_decay * weight
        mean = mean + (1 - beta1) * (g - mean);  square = beta2 * square + (1 - beta2) * g**2
        weight -= rate * mean / (sqrt(square) / root + eps)

    The running means start at zero; rate and root make up for it.

    Shapes: weight, grad, mean, square (M,).
    Args:   rate: lr / (1 - beta1**step), step counting from 1; root: sqrt(1 - beta2**step); beta1, beta2: how
            much of the running means is kept; eps: keeps the divisor from zero; weight_decay: L2 penalty.
    Source: Kingma, Ba 2015, with PyTorch's order of rounding.
    """
    to_dtype = weight.dtype.type
    length, divisor, tiny, decay = to_dtype(rate), to_dtype(root), to_dtype(eps), to_dtype(weight_decay)
    fresh1, kept2, fresh2 = to_dtype(1.0 - beta1), to_dtype(beta2), to_dtype(1.0 - beta2)
    for i in range(weight.size):
        g = grad[i] + decay * weight[i]
        mean[i] += fresh1 * (g - mean[i])
        square[i] = kept2 * square[i] + fresh2 * (g * g)
        weight[i] -= length * mean[i] / (to_dtype(math.sqrt(square[i])) / divisor + tiny)


def adam_array(
    weight: Array,
    grad: Array,
    mean: Array,
    square: Array,
    rate: float,
    root: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> None:
    """The same on whole arrays, with two temporaries."""
    g = weight * weight_decay
    g += grad
    change = g - mean
    change *= 1.0 - beta1
    mean += change
    g *= g
    g *= 1.0 - beta2
    square *= beta2
    square += g
    array_module(weight).sqrt(square, out=g)
    g /= root
    g += eps
    change[...] = mean
    change *= rate
    change /= g
    weight -= change


adam = UpdateKernel(
    "adam",
    outputs=("weight", "mean", "square"),
    reference=adam_reference,
    array=adam_array,
    numba=jit(adam_reference),
    entry=CudaKernel("adam", "adam"),
    own=6,  # Rate and root too: a parameter may have been updated less often than others.
    scalars=lambda beta1, beta2, eps, decay: (1.0 - beta1, beta2, 1.0 - beta2, eps, decay),
)
