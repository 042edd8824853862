"""Counter-based random numbers: the same bits on every device, in every order of calling.

A generator with a hidden state gives numbers that depend on everything that drew before. Here a random
number is a function of its address alone: key = seed, counter = (purpose, step, item, block). A dropout
mask can be made again in the backward pass instead of being kept, an image is augmented alike by one
worker or by four, and a run that was resumed draws what the unbroken run would have drawn.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Philox4x32-10).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

UInt32Array = npt.NDArray[np.uint32]

# The first word of the counter. A number once given is never used for anything else: runs would change.
PURPOSES = {
    "init": 1,
    "dropout": 2,
    "shuffle": 3,
    "augment": 4,
    "split": 5,
    "gradcheck": 6,
    "drawn": 7,
    "data": 8,
    "test": 9,
    "bootstrap": 10,
}

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
MASK32 = 0xFFFFFFFF

# Counters worked on at a time: their words fit a core's cache, which makes the rounds several times faster.
CHUNK = 1 << 13
# So many blocks are quicker one by one, without arrays: an augmented picture takes three or four.
FEW = 8


def split_seed(seed: int) -> tuple[int, int]:
    """The Philox key of a seed: its low and its high 32 bits.

    Raises: ValueError if the seed is not in 0 .. 2**64 - 1.
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must lie between 0 and 2**64 - 1, got {seed}")
    return seed & MASK32, seed >> 32


def philox4x32(counter: npt.ArrayLike, key: tuple[int, int]) -> UInt32Array:
    """Philox4x32-10: four random words for each counter.

    Shapes: counter (..., 4) of unsigned 32-bit words -> (..., 4).
    Args:   key: two unsigned 32-bit words.
    Source: Salmon et al. 2011; the tests hold the published vectors against it.
    """
    words = np.asarray(counter)
    flat = words.reshape(-1, 4)
    result = np.empty(flat.shape, dtype=np.uint32)
    for start in range(0, len(flat), CHUNK):
        part = slice(start, start + CHUNK)
        columns = [np.array(flat[part, i], dtype=np.uint64) for i in range(4)]
        _rounds(columns, key)
        for i, column in enumerate(columns):
            result[part, i] = column
    return result.reshape(words.shape)


def _rounds(columns: list[npt.NDArray[np.uint64]], key: tuple[int, int]) -> None:
    """The ten rounds on the four words of many counters, in place: an array for each word, held in 64
    bits."""
    c0, c1, c2, c3 = columns
    p0, p1 = np.empty_like(c0), np.empty_like(c0)
    k0, k1 = key
    for _ in range(ROUNDS):
        np.multiply(c0, MULTIPLIERS[0], out=p0)
        np.multiply(c2, MULTIPLIERS[1], out=p1)
        np.right_shift(p1, 32, out=c0)
        c0 ^= c1
        c0 ^= k0
        np.bitwise_and(p1, MASK32, out=c1)
        np.right_shift(p0, 32, out=c2)
        c2 ^= c3
        c2 ^= k1
        np.bitwise_and(p0, MASK32, out=c3)
        k0, k1 = (k0 + WEYL[0]) & MASK32, (k1 + WEYL[1]) & MASK32


def philox_scalar(counter: Sequence[int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """The same function on Python integers, one counter at a time: the specification, in six lines."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        p0, p1 = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & MASK32, (p0 >> 32) ^ c3 ^ k1, p0 & MASK32
        k0, k1 = (k0 + WEYL[0]) & MASK32, (k1 + WEYL[1]) & MASK32
    return c0, c1, c2, c3


def bits(
    count: int, *, seed: int, purpose: str, step: int = 0, item: int = 0, first_block: int = 0
) -> UInt32Array:
    """`count` random 32-bit words at an address. Word i comes from block first_block + i // 4.

    Args:   seed: the run's seed; purpose: a name in PURPOSES; step, item: which draw (an epoch and an
            image, a training step and a layer), each below 2**32.
    """
    blocks = -(-count // 4)
    if blocks <= FEW:
        head, key = (PURPOSES[purpose], int(step) & MASK32, int(item) & MASK32), split_seed(int(seed))
        few = [philox_scalar((*head, (first_block + i) & MASK32), key) for i in range(blocks)]
        return np.array(few, dtype=np.uint32).reshape(-1)[:count]
    counter = np.empty((blocks, 4), dtype=np.uint32)
    counter[:, 0] = PURPOSES[purpose]
    counter[:, 1] = step & MASK32
    counter[:, 2] = item & MASK32
    counter[:, 3] = np.arange(first_block, first_block + blocks, dtype=np.uint64)  # Modulo 2**32.
    return philox4x32(counter, split_seed(seed)).reshape(-1)[:count]


def to_uniform(words: UInt32Array) -> npt.NDArray[np.float32]:
    """Words to float32 in [0, 1): the upper 24 bits, which float32 holds exactly on every device."""
    return (words >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


@dataclass
class Stream:
    """Random numbers one after another, all from one address: local to whoever made it, never shared.

    Args: seed, purpose, step, item: the address, as in `bits`.
    """

    seed: int
    purpose: str
    step: int = 0
    item: int = 0
    block: int = 0

    def bits(self, count: int) -> UInt32Array:
        """The next `count` words; every call begins at a new block of four."""
        words = bits(
            count,
            seed=self.seed,
            purpose=self.purpose,
            step=self.step,
            item=self.item,
            first_block=self.block,
        )
        self.block += -(-count // 4)
        return words

    def uniform(self, low: float = 0.0, high: float = 1.0, shape: tuple[int, ...] = ()) -> Any:
        """Uniform float64 numbers in [low, high), 53 bits each: a float for shape (), else an array."""
        count = math.prod(shape)
        words = self.bits(2 * count)
        whole = words[0::2].astype(np.uint64)
        whole <<= np.uint64(32)
        whole |= words[1::2]
        whole >>= np.uint64(11)
        values = whole.astype(np.float64)
        values *= 2.0**-53
        values *= high - low
        values += low
        return float(values[0]) if shape == () else values.reshape(shape)

    def normal(self, mean: float = 0.0, std: float = 1.0, shape: tuple[int, ...] = ()) -> Any:
        """Normal float64 deviates by Box and Muller, made on the host so that bits agree everywhere."""
        count = math.prod(shape)
        pairs = -(-count // 2)
        u = self.uniform(shape=(2, pairs))
        radius = np.sqrt(-2.0 * np.log1p(-u[0]))
        angle = 2.0 * np.pi * u[1]
        z = np.empty((pairs, 2))
        np.multiply(radius, np.cos(angle), out=z[:, 0])
        np.multiply(radius, np.sin(angle), out=z[:, 1])
        values = z.reshape(-1)[:count]
        values *= std
        values += mean
        return float(values[0]) if shape == () else values.reshape(shape)

    def integers(self, low: int, high: int, shape: tuple[int, ...] = ()) -> Any:
        """Integers in [low, high): an int for shape (), else an int64 array.

        Raises: ValueError if high is not greater than low.
        """
        if high <= low:
            raise ValueError(f"integers: high must be greater than low, got low={low}, high={high}")
        values = low + np.floor(np.asarray(self.uniform(shape=shape or (1,))) * (high - low)).astype(np.int64)
        return int(values[0]) if shape == () else values

    def permutation(self, count: int) -> npt.NDArray[np.int64]:
        """0 .. count - 1 in random order: the order that sorts random 64-bit keys, ties by position."""
        words = self.bits(2 * count).astype(np.uint64)
        keys = (words[0::2] << np.uint64(32)) | words[1::2]
        return np.argsort(keys, kind="stable").astype(np.int64)

    def choice(self, options: Sequence[Any]) -> Any:
        """One of the options, each equally likely."""
        return options[self.integers(0, len(options))]


@dataclass
class Scope:
    """Where layers take their addresses: the seed, the step, and how many draws each purpose has made."""

    seed: int = 0
    step: int = 0
    drawn: dict[str, int] = field(default_factory=dict)

    def next_item(self, purpose: str) -> int:
        """The number of this draw within the step, counted for each purpose apart."""
        item = self.drawn.get(purpose, 0)
        self.drawn[purpose] = item + 1
        return item

    def stream(self, purpose: str) -> Stream:
        """A stream at the next address of this scope."""
        return Stream(self.seed, purpose, self.step, self.next_item(purpose))


_process_scope = Scope()
_active: ContextVar[Scope | None] = ContextVar("minialex_rng_scope", default=None)


def current_scope() -> Scope:
    """The scope that layers draw from: the innermost `random_scope`, else that of `manual_seed`."""
    return _active.get() or _process_scope


def manual_seed(seed: int) -> None:
    """Start the process's own draws (weight initialisation, dropout outside a scope) from `seed`.

    Raises: ValueError if the seed is not in 0 .. 2**64 - 1; RuntimeError inside a `random_scope`, whose
            own seed is what counts there.
    """
    split_seed(seed)
    if _active.get() is not None:
        raise RuntimeError("manual_seed has no effect inside random_scope: give the scope another seed")
    _process_scope.seed = seed
    _process_scope.step = 0
    _process_scope.drawn.clear()


@contextmanager
def random_scope(seed: int, step: int = 0) -> Iterator[Scope]:
    """Inside, random draws depend on (seed, step) and their order in the block, and on nothing before it.

    The training loop opens one for every step; a gradient check opens the same one for every evaluation,
    so that all of them see one dropout mask.
    """
    split_seed(seed)
    scope = Scope(seed, step)
    token = _active.set(scope)
    try:
        yield scope
    finally:
        _active.reset(token)
