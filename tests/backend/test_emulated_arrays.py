"""EmulatedArray: it stays what it is, refuses plain arrays, and new memory is poisoned."""

from __future__ import annotations

import operator
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minialex.backend import EmulatedArray, array_module, device_of, empty, is_array, to_device, to_numpy
from minialex.errors import DeviceError

pytestmark = pytest.mark.emulator


@pytest.fixture
def x() -> EmulatedArray:
    return to_device(np.arange(12.0).reshape(3, 4), "cuda-emulated")


STAYS: dict[str, Callable[[Any], Any]] = {
    "a sum with a number": lambda x: x + 1,
    "a NumPy scalar on the left": lambda x: np.float64(2) * x,
    "a product": lambda x: x * x,
    "a matrix product": lambda x: x @ x.T,
    "a comparison": lambda x: x > 3,
    "a view": lambda x: x[1:, ::2],
    "a transposed view": lambda x: x.T,
    "another shape": lambda x: x.reshape(-1),
    "another type": lambda x: x.astype(np.float32),
    "a copy": lambda x: x.copy(),
    "a sum": lambda x: x.sum(),
    "a sum over an axis": lambda x: x.sum(axis=0),
    "a mean": lambda x: x.mean(),
    "a mean over an axis": lambda x: x.mean(axis=(0, 1), keepdims=True),
    "a maximum": lambda x: x.max(),
    "where it stands": lambda x: array_module(x).argmax(x),
    "one element": lambda x: x[1, 2],
    "picked elements": lambda x: x[x > 3],
    "picked by a plain array": lambda x: x[np.array([0, 2])],
    "an exponential": lambda x: array_module(x).exp(x),
    "two outputs": lambda x: array_module(x).divmod(x, 3)[1],
    "where": lambda x: array_module(x).where(x > 3, x, 0.0),
    "concatenate": lambda x: array_module(x).concatenate([x, x]),
    "broadcast_to": lambda x: array_module(x).broadcast_to(x, (2, 3, 4)),
    "zeros_like": lambda x: array_module(x).zeros_like(x),
    "zeros": lambda x: array_module(x).zeros((2, 2), dtype=x.dtype),
    "arange": lambda x: array_module(x).arange(4),
    "asarray": lambda x: array_module(x).asarray(np.ones(3)),
    "empty": lambda x: empty((2,), x),
    "from a pickle": lambda x: pickle.loads(pickle.dumps(x)),
}


@pytest.mark.parametrize("make", STAYS.values(), ids=STAYS)
def test_it_stays_on_its_device(make: Callable[[Any], Any], x: EmulatedArray) -> None:
    assert type(x) is EmulatedArray
    made = make(x)
    assert type(made) is EmulatedArray
    assert device_of(made) == "cuda-emulated"


@pytest.mark.parametrize("make", STAYS.values(), ids=STAYS)
def test_the_values_are_numpys(make: Callable[[Any], Any], x: EmulatedArray) -> None:
    plain = np.arange(12.0).reshape(3, 4)
    if make is not STAYS["empty"]:
        np.testing.assert_array_equal(to_numpy(make(x)), np.asarray(make(plain)))


MIXTURES: dict[str, Callable[[Any, Any], Any]] = {
    "x + plain": operator.add,
    "plain + x": lambda x, plain: plain + x,
    "x += plain": operator.iadd,
    "plain += x": lambda x, plain: operator.iadd(plain, x),
    "x @ plain": lambda x, plain: x @ plain.T,
    "x == plain": operator.eq,
    "x[...] = plain": lambda x, plain: x.__setitem__(..., plain),
    "out": lambda x, plain: np.exp(x, out=plain),
    "where": lambda x, plain: np.where(plain > 1, x, 0.0),
    "concatenate": lambda x, plain: np.concatenate([x, plain]),
    "copyto": np.copyto,
}


@pytest.mark.parametrize("mix", MIXTURES.values(), ids=MIXTURES)
def test_it_does_not_meet_a_plain_array(mix: Callable[[Any, Any], Any], x: EmulatedArray) -> None:
    before = to_numpy(x)
    with pytest.raises(DeviceError, match=r"an array of the CPU .* meets one of device 'cuda-emulated'"):
        mix(x, np.ones((3, 4)))
    np.testing.assert_array_equal(to_numpy(x), before)


def test_results_can_be_written_into_it(x: EmulatedArray) -> None:
    y = empty(x.shape, x)
    assert np.exp(x, out=y) is y
    np.testing.assert_array_equal(to_numpy(y), np.exp(to_numpy(x)))
    view = y[1]
    view += 1
    x[0] = view
    np.testing.assert_array_equal(to_numpy(x)[0], np.exp([4.0, 5.0, 6.0, 7.0]) + 1)


@pytest.mark.parametrize("shape", [(), (3,), (0,), (2, 200, 300)])
def test_new_memory_is_poisoned(shape: tuple[int, ...], x: EmulatedArray) -> None:
    xp = array_module(x)
    for array in (
        empty(shape, x),
        xp.empty(shape),
        xp.empty_like(xp.zeros(shape)),
        empty(shape, x, np.float32),
    ):
        assert np.isnan(to_numpy(array)).all()
        assert array.shape == shape
    assert (to_numpy(empty(shape, x, np.uint8)) == 255).all()
    assert (to_numpy(xp.empty(shape, np.int64)) == -1).all()


def test_moves_are_copies(x: EmulatedArray) -> None:
    host = to_numpy(x)
    host[...] = 7
    assert type(host) is np.ndarray
    assert float(x[0, 1]) == 1
    there = to_device(host, "cuda-emulated")
    host[...] = 8
    assert float(there[0, 0]) == 7
    assert to_device(x, "cuda-emulated") is x
    assert type(to_device(x, "cpu")) is np.ndarray
    assert is_array(x)
    assert is_array(host)
    assert not is_array(1.0)
