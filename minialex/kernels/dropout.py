"""Dropout by counter: the mask is a function of (seed, step, item, element), so nobody has to keep it.

Element e of the flattened array takes word e % 4 of Philox block e // 4. The backward pass is the same kernel
applied to dy.
"""

from __future__ import annotations

import math

import numpy as np

from minialex import rng
from minialex.backend import Array, CudaKernel, Kernel, array_module, contiguous, for_ranges, jit
from minialex.kernels.philox import philox_words


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


# Blocks whose words are made at a time, and blocks that are worth a thread.
CHUNK, MANY = 1 << 8, 1 << 13


def _dropout_blocks(
    x: Array, y: Array, first: int, limit: int, scale: float, key: tuple[int, int], address: tuple[int, ...]
) -> None:
    """Blocks first, first + 1, ...: an element is kept if its word's upper 24 bits are at least `limit`."""
    words = np.empty(4 * CHUNK, np.uint32)
    for start in range(0, len(x), 4 * CHUNK):
        philox_words(words, first + start // 4, key[0], key[1], address[0], address[1], address[2])
        part, result = x[start : start + 4 * CHUNK], y[start : start + 4 * CHUNK]
        for e in range(len(part)):
            result[e] = part[e] * (scale if words[e] >> np.uint32(8) >= limit else 0.0)


_dropout_compiled = jit(_dropout_blocks)


def dropout_numba(x: Array, y: Array, p: float, scale: float, seed: int, step: int, item: int) -> None:
    """The compiled loops, on a part of the blocks for each thread; p is compared as a whole number."""
    key, limit = rng.split_seed(seed), _limit(p)
    address = (rng.PURPOSES["dropout"], step & rng.MASK32, item & rng.MASK32)

    def work(start: int, stop: int) -> None:
        part = slice(4 * start, 4 * stop)
        _dropout_compiled(x[part], y[part], start, limit, float(scale), key, address)

    for_ranges(-(-len(x) // 4), work, MANY)


_entry = CudaKernel("dropout", "dropout")


def dropout_cuda(x: Array, y: Array, p: float, scale: float, seed: int, step: int, item: int) -> None:
    """As the reference: a thread for the four words of a block; p is compared as a whole number."""
    address = (*rng.split_seed(seed), rng.PURPOSES["dropout"], step & rng.MASK32, item & rng.MASK32)
    words = [np.uint32(word) for word in address]
    _entry.for_each(-(-len(x) // 4), contiguous(x), y, len(x), _limit(p), float(scale), *words)


def _limit(p: float) -> int:
    """The least number of 24 bits that is kept: word / 2**24 >= p, without rounding."""
    return math.ceil(p * 2**24)


dropout_forward = Kernel(
    "dropout",
    outputs=("y",),
    reference=dropout_reference,
    array=dropout_array,
    numba=dropout_numba,
    cuda=dropout_cuda,
)
