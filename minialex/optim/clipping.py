"""Clipping gradients by their norm."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from minialex.backend import Array, array_module, device_of, on_device_of
from minialex.tensor import Tensor

__all__ = ["clip_grad_norm_"]

# Elements whose squares are held in float64 at a time: on the CPU what its cache holds, on a GPU so many
# that each launch keeps it busy.
CHUNK, GPU_CHUNK = 1 << 16, 1 << 24


def clip_grad_norm_(params: Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients together, in place, so that their norm is at most `max_norm`.

    The norm is that of all gradients as one vector, summed in float64 in a fixed order. If it is NaN or
    infinite the gradients are left as they are: the caller sees the norm and decides.

    Args:    params: Tensors; those without a gradient are skipped; max_norm: above zero.
    Returns: the norm before scaling.
    Raises:  ValueError if max_norm is not above zero.
    """
    if not max_norm > 0.0:
        raise ValueError(f"clip_grad_norm_: max_norm must be above zero, got {max_norm}")
    tensors = [params] if isinstance(params, Tensor) else list(params)
    grads = [tensor.grad for tensor in tensors if tensor.grad is not None]
    # All sums are begun before the first is waited for, where a GPU works them out.
    sums = [_sums_of_squares(grad) for grad in grads]
    norm = math.sqrt(sum(math.fsum(map(float, parts)) for parts in sums))
    # PyTorch's 1e-6 keeps a norm near zero from giving a factor without bounds.
    factor = max_norm / (norm + 1e-6)
    if math.isfinite(norm) and factor < 1.0:
        for grad in grads:
            with on_device_of(grad):
                grad *= factor
    return norm


def _sums_of_squares(grad: Array) -> list[Array]:
    """The sum of squares of each chunk, in float64, where the gradient is."""
    step = CHUNK if device_of(grad) == "cpu" else GPU_CHUNK
    # An infinite or NaN gradient is the caller's news, not a warning's.
    with np.errstate(all="ignore"), on_device_of(grad):
        flat = grad.reshape(-1)
        parts = (flat[start : start + step].astype(np.float64) for start in range(0, flat.size, step))
        return [array_module(grad).sum(part * part) for part in parts]
