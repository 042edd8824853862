"""Dropout by counter: the mask is a function of (seed, step, item, element), so nobody has to keep it.

Element e of the flattened array takes word e % 4 of Philox block e // 4. The backward pass is the same kernel
applied to dy.
"""

from __future__ import annotations

import numpy as np

from minialex import rng
from minialex.backend import Array, Kernel, array_module, jit


def dropout_reference(x: Array, y: Array, p: float, scale: float, seed: int, step: int, item: int) -> None:
    """y[e] = x[e] * (scale if uniform(e) >= p, else 0).

    Shapes: x (n,); y the same, written.
    Args:   p: the probability of a zero; scale: what the others are multiplied by; seed, step, item: the
            address of the mask.
    """
    key = rng.split_seed(seed)
    for e in range(len(x)):
        block = (e // 4) & rng.MASK32
        word = rng.philox_scalar((rng.PURPOSES["dropout"], step, item, block), key)[e % 4]
        y[e] = x[e] * (scale if (word >> 8) * 2.0**-24 >= p else 0.0)


def dropout_array(x: Array, y: Array, p: float, scale: float, seed: int, step: int, item: int) -> None:
    """All words at once."""
    words = rng.bits(len(x), seed=seed, purpose="dropout", step=step, item=item)
    # A float64 p, as in the loops: rounded to float32 it could let another element fall.
    factor = np.where(rng.to_uniform(words) >= np.float64(p), x.dtype.type(scale), x.dtype.type(0))
    y[...] = x * array_module(x).asarray(factor)


def _dropout_blocks(
    x: Array, y: Array, p: float, scale: float, low: int, high: int, purpose: int, step: int, item: int
) -> None:
    """Philox4x32-10 in 64-bit registers, four elements a block (rng.philox_scalar, for the compiler)."""
    mask = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    for block in range((len(x) + 3) // 4):
        c0, c1, c2, c3 = np.uint64(purpose), np.uint64(step), np.uint64(item), np.uint64(block) & mask
        k0, k1 = np.uint64(low), np.uint64(high)
        for _ in range(10):
            p0 = np.uint64(0xD2511F53) * c0
            p1 = np.uint64(0xCD9E8D57) * c2
            c0, c1, c2, c3 = (p1 >> half) ^ c1 ^ k0, p1 & mask, (p0 >> half) ^ c3 ^ k1, p0 & mask
            k0 = (k0 + np.uint64(0x9E3779B9)) & mask
            k1 = (k1 + np.uint64(0xBB67AE85)) & mask
        words = (c0, c1, c2, c3)
        for i in range(min(4, len(x) - 4 * block)):
            keep = np.float64(words[i] >> np.uint64(8)) * 2.0**-24 >= p
            y[4 * block + i] = x[4 * block + i] * (scale if keep else 0.0)


_dropout_compiled = jit(_dropout_blocks)


def dropout_numba(x: Array, y: Array, p: float, scale: float, seed: int, step: int, item: int) -> None:
    """The compiled loop."""
    low, high = rng.split_seed(seed)
    _dropout_compiled(
        x, y, p, scale, low, high, rng.PURPOSES["dropout"], step & rng.MASK32, item & rng.MASK32
    )


dropout_forward = Kernel(
    "dropout", outputs=("y",), reference=dropout_reference, array=dropout_array, numba=dropout_numba
)
