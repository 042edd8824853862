"""Counter-based random numbers: the published vectors, and what addresses promise."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

import minialex as mx
from minialex import rng
from minialex.rng import PURPOSES, Stream, current_scope, manual_seed, random_scope

# Random123's kat_vectors, philox4x32 with 10 rounds: counter, key, result.
VECTORS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "result"), VECTORS)
def test_published_vectors(counter: tuple[int, ...], key: tuple[int, int], result: tuple[int, ...]) -> None:
    assert rng.philox_scalar(counter, key) == result
    assert tuple(int(word) for word in rng.philox4x32(counter, key)) == result


def test_vectorised_agrees_with_scalar() -> None:
    counters = np.arange(800, dtype=np.uint64).reshape(10, 20, 4) * np.uint64(0x9E3779B1) % np.uint64(2**32)
    key = rng.split_seed(0x0123456789ABCDEF)
    words = rng.philox4x32(counters, key)
    assert words.dtype == np.uint32
    for index in np.ndindex(10, 20):
        assert tuple(words[index]) == rng.philox_scalar([int(c) for c in counters[index]], key)


def test_the_address_is_key_and_counter() -> None:
    words = rng.bits(6, seed=5 + (7 << 32), purpose="shuffle", step=11, item=13, first_block=2)
    expected = [
        *rng.philox_scalar((PURPOSES["shuffle"], 11, 13, 2), (5, 7)),
        *rng.philox_scalar((PURPOSES["shuffle"], 11, 13, 3), (5, 7)),
    ]
    assert list(words) == expected[:6]


def test_a_longer_draw_begins_like_a_shorter_one() -> None:
    np.testing.assert_array_equal(
        rng.bits(5, seed=1, purpose="test"), rng.bits(100, seed=1, purpose="test")[:5]
    )


def test_purposes_are_distinct_and_never_change() -> None:
    assert len(set(PURPOSES.values())) == len(PURPOSES)
    # Runs would change with them: add new ones at the end.
    pinned = {"init": 1, "dropout": 2, "shuffle": 3, "augment": 4, "split": 5, "gradcheck": 6, "drawn": 7}
    assert {name: PURPOSES[name] for name in pinned} == pinned


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_outside_64_bits(seed: int) -> None:
    for use in (lambda: manual_seed(seed), lambda: Stream(seed, "test").bits(1)):
        with pytest.raises(ValueError, match="seed must lie between 0"):
            use()
    with pytest.raises(ValueError, match="seed must lie between 0"), random_scope(seed):
        pass


# ----------------------------------------------------------------------------------------- distributions


def test_uniforms_fill_the_interval_evenly() -> None:
    values = Stream(3, "test").uniform(-1.0, 3.0, (100_000,))
    assert values.dtype == np.float64
    assert (values >= -1.0).all()
    assert (values < 3.0).all()
    counts = np.histogram(values, bins=50, range=(-1.0, 3.0))[0]
    # Chi-squared with 49 degrees of freedom: mean 49, standard deviation 10.
    assert ((counts - 2000) ** 2 / 2000).sum() < 100


def test_float32_uniforms_are_24_exact_bits() -> None:
    words = np.array([0, 0xFF, 0x100, 0xFFFFFFFF], np.uint32)
    uniforms = rng.to_uniform(words)
    assert uniforms.dtype == np.float32
    assert [float(u) for u in uniforms] == [0.0, 0.0, 2.0**-24, 1.0 - 2.0**-24]


def test_normal_deviates() -> None:
    values = Stream(4, "test").normal(2.0, 3.0, (100_000,))
    z = (values - 2.0) / 3.0
    assert np.isfinite(values).all()
    assert abs(z.mean()) < 0.015
    assert abs(z.std() - 1.0) < 0.01
    assert abs((z**3).mean()) < 0.05
    assert abs((z**4).mean() - 3.0) < 0.1
    assert Stream(4, "test").normal(shape=(3,)).shape == (3,)  # An odd count.


def test_integers_cover_their_range_evenly() -> None:
    values = Stream(5, "test").integers(-2, 5, (70_000,))
    assert values.dtype == np.int64
    assert set(values) == set(range(-2, 5))
    assert abs(np.bincount(values + 2) - 10_000).max() < 400
    with pytest.raises(ValueError, match="high must be greater than low"):
        Stream(5, "test").integers(3, 3)


def test_scalars_are_python_numbers() -> None:
    stream = Stream(6, "test")
    assert type(stream.uniform()) is float
    assert type(stream.normal()) is float
    assert type(stream.integers(0, 10)) is int
    assert stream.choice(["a", "b"]) in ("a", "b")


@pytest.mark.parametrize("shape", [(0,), (2, 0), (3, 4)])
def test_shapes(shape: tuple[int, ...]) -> None:
    stream = Stream(6, "test")
    assert stream.uniform(shape=shape).shape == shape
    assert stream.normal(shape=shape).shape == shape
    assert stream.integers(0, 9, shape).shape == shape


def test_permutations() -> None:
    order = Stream(7, "shuffle").permutation(1000)
    assert sorted(order) == list(range(1000))
    assert (order != np.arange(1000)).mean() > 0.99
    assert len(Stream(7, "shuffle").permutation(0)) == 0
    # Each element lands everywhere equally often.
    places = np.stack([Stream(7, "shuffle", step).permutation(4) for step in range(2000)])
    counts = np.stack([np.bincount(places[:, i], minlength=4) for i in range(4)])
    assert abs(counts - 500).max() < 100


# ------------------------------------------------------------------------------------------ independence


def test_neighbouring_addresses_are_uncorrelated() -> None:
    base = Stream(1, "test", 2, 3)
    others = [
        Stream(2, "test", 2, 3),
        Stream(1 + 2**32, "test", 2, 3),
        Stream(1, "augment", 2, 3),
        Stream(1, "test", 3, 3),
        Stream(1, "test", 2, 4),
    ]
    reference = base.uniform(shape=(20_000,))
    for other in others:
        correlation = np.corrcoef(reference, other.uniform(shape=(20_000,)))[0, 1]
        assert abs(correlation) < 0.03


def test_successive_draws_are_uncorrelated() -> None:
    values = Stream(8, "test").uniform(shape=(50_000,))
    for lag in (1, 2, 3, 4, 8):
        assert abs(np.corrcoef(values[:-lag], values[lag:])[0, 1]) < 0.02


def test_streams_share_nothing() -> None:
    first, second = Stream(9, "test"), Stream(9, "test")
    a = [first.uniform() for _ in range(3)]
    b = [second.uniform() for _ in range(3)]
    assert a == b
    assert len(set(a)) == 3


# ------------------------------------------------------------------------------------------------ scopes


def test_a_scope_depends_on_seed_and_step_alone() -> None:
    def draws() -> list[float]:
        return [current_scope().stream("dropout").uniform() for _ in range(3)]

    with random_scope(1, 5):
        first = draws()
    current_scope().stream("dropout")  # Something that ran in between.
    with random_scope(1, 5):
        again = draws()
    with random_scope(1, 6):
        other = draws()
    assert first == again
    assert not set(first) & set(other)
    assert len(set(first)) == 3


def test_purposes_are_counted_apart() -> None:
    with random_scope(0) as scope:
        assert [scope.next_item("dropout"), scope.next_item("init"), scope.next_item("dropout")] == [0, 0, 1]


def test_scopes_nest_and_end_after_errors() -> None:
    outside = current_scope()
    with random_scope(1), random_scope(2) as inner:
        assert current_scope() is inner
    with pytest.raises(ZeroDivisionError), random_scope(1):
        _ = 1 / 0
    assert current_scope() is outside


def test_manual_seed_starts_the_process_anew() -> None:
    scope = current_scope()
    kept = scope.seed
    try:
        manual_seed(42)
        first = [current_scope().stream("init").uniform() for _ in range(2)]
        mx.manual_seed(42)
        assert [current_scope().stream("init").uniform() for _ in range(2)] == first
        mx.manual_seed(43)
        assert current_scope().stream("init").uniform() not in first
    finally:
        manual_seed(kept)


def test_a_scope_belongs_to_its_thread() -> None:
    seen = []
    with random_scope(77):
        thread = threading.Thread(target=lambda: seen.append(current_scope().seed))
        thread.start()
        thread.join()
    assert seen != [77]


def test_another_process_draws_the_same() -> None:
    draw = "Stream(5, 'augment', 3, 2).normal(shape=(3,)).tobytes().hex()"
    script = f"from minialex.rng import Stream; print({draw})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == Stream(5, "augment", 3, 2).normal(shape=(3,)).tobytes().hex()
