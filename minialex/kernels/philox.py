"""Random words by counter, compiled: the bits of `rng.bits`, some twenty times as fast for many at a time."""

from __future__ import annotations

import numpy as np

from minialex import rng
from minialex.backend import Array, jit

__all__ = ["CompiledStream", "philox_words"]


def _philox_loop(words: Array, first: int, low: int, high: int, purpose: int, step: int, item: int) -> None:
    """Philox4x32-10 in 64-bit registers: words[4*i : 4*i + 4] is block first + i (rng.philox_scalar, for the
    compiler)."""
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    for i in range(len(words) // 4):
        c0, c1, c2, c3 = np.uint64(purpose), np.uint64(step), np.uint64(item), np.uint64(first + i) & mask
        k0, k1 = np.uint64(low), np.uint64(high)
        for _ in range(10):
            p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
            c0, c1, c2, c3 = (p1 >> half) ^ c1 ^ k0, p1 & mask, (p0 >> half) ^ c3 ^ k1, p0 & mask
            k0 = (k0 + np.uint64(0x9E3779B9)) & mask
            k1 = (k1 + np.uint64(0xBB67AE85)) & mask
        words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3] = c0, c1, c2, c3


philox_words = jit(_philox_loop)


class CompiledStream(rng.Stream):
    """A stream of the same numbers for those who want millions: it is compiled, and runs without the GIL."""

    def bits(self, count: int) -> rng.UInt32Array:
        """The next `count` words; every call begins at a new block of four."""
        blocks = -(-count // 4)
        words = np.empty(4 * blocks, dtype=np.uint32)
        low, high = rng.split_seed(self.seed)
        address = (rng.PURPOSES[self.purpose], self.step & rng.MASK32, self.item & rng.MASK32)
        philox_words(words, self.block, low, high, *address)
        self.block += blocks
        return words[:count]
