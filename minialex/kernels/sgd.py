"""One step of stochastic gradient descent, by two rules that differ when the learning rate changes.

All arrays are one-dimensional, contiguous and of one dtype; weight and velocity are overwritten. Scalars are
brought to the arrays' dtype first, so that every variant rounds alike. An empty velocity means no momentum.
"""

from __future__ import annotations

from minialex.backend import Array, CudaKernel, jit
from minialex.kernels.updates import UpdateKernel

__all__ = ["sgd_paper", "sgd_torch"]


def torch_reference(
    weight: Array,
    grad: Array,
    velocity: Array,
    lr: float,
    momentum: float,
    weight_decay: float,
    nesterov: bool,
) -> None:
    """g = grad + weight_decay * weight; v = momentum * v + g; weight -= lr * v (nesterov: g + momentum * v).

    Shapes: weight, grad (M,); velocity (M,), or (0,) for plain gradient descent.
    Args:   lr: step length; momentum: share of the velocity that is kept, 0 to 1; weight_decay: L2 penalty.
    Source: PyTorch's torch.optim.SGD with dampening 0.
    """
    to_dtype = weight.dtype.type
    rate, kept, decay = to_dtype(lr), to_dtype(momentum), to_dtype(weight_decay)
    for i in range(weight.size):
        g = grad[i] + decay * weight[i]
        if velocity.size > 0:
            velocity[i] = kept * velocity[i] + g
            g = g + kept * velocity[i] if nesterov else velocity[i]
        weight[i] -= rate * g


def torch_array(
    weight: Array,
    grad: Array,
    velocity: Array,
    lr: float,
    momentum: float,
    weight_decay: float,
    nesterov: bool,
) -> None:
    """The same on whole arrays, with one temporary."""
    g = weight * weight_decay
    g += grad
    if velocity.size > 0:
        velocity *= momentum
        velocity += g
        if nesterov:
            g += velocity * momentum
        else:
            g[...] = velocity
    g *= lr
    weight -= g


def paper_reference(
    weight: Array, grad: Array, velocity: Array, lr: float, momentum: float, weight_decay: float
) -> None:
    """v = momentum * v - weight_decay * lr * weight - lr * grad; weight += v.

    The learning rate is inside the velocity: a lower rate leaves the old velocity at its old length.

    Shapes: weight, grad, velocity (M,).
    Args:   as `torch_reference`.
    Source: Krizhevsky, Sutskever, Hinton 2012, section 5.
    """
    to_dtype = weight.dtype.type
    rate, kept, shrink = to_dtype(lr), to_dtype(momentum), to_dtype(weight_decay * lr)
    for i in range(weight.size):
        velocity[i] = kept * velocity[i] - shrink * weight[i] - rate * grad[i]
        weight[i] += velocity[i]


def paper_array(
    weight: Array, grad: Array, velocity: Array, lr: float, momentum: float, weight_decay: float
) -> None:
    """The same on whole arrays, with one temporary."""
    change = weight * (weight_decay * lr)
    velocity *= momentum
    velocity -= change
    change[...] = grad
    change *= lr
    velocity -= change
    weight += velocity


# Which thread does which part of which parameter is the optimiser's to say: a step is one pass over them all.
sgd_torch = UpdateKernel(
    "sgd_torch",
    outputs=("weight", "velocity"),
    reference=torch_reference,
    array=torch_array,
    numba=jit(torch_reference),
    entry=CudaKernel("sgd", "sgd_torch"),
    own=3,
)
sgd_paper = UpdateKernel(
    "sgd_paper",
    outputs=("weight", "velocity"),
    reference=paper_reference,
    array=paper_array,
    numba=jit(paper_reference),
    entry=CudaKernel("sgd", "sgd_paper"),
    own=3,
    scalars=lambda lr, momentum, weight_decay: (lr, momentum, weight_decay * lr),
)
