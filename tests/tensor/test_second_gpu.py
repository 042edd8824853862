"""Bare arrays are worked on where they are: CuPy works on its current device, which may be another one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from minialex import nn
from minialex.backend import EmulatedArray
from minialex.nn import module as module_file
from minialex.tensor import Tensor, anomaly, values

pytestmark = pytest.mark.emulator

EMULATED = "cuda-emulated"


@pytest.fixture
def at_home(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For every piece of NumPy's work on emulated arrays: was it done inside on_device_of?"""
    depth, seen = [0], []

    @contextmanager
    def on_device_of(array: Any) -> Iterator[None]:
        before, depth[0] = depth[0], depth[0] + isinstance(array, EmulatedArray)
        try:
            yield
        finally:
            depth[0] = before

    for owner in (values, module_file, anomaly):
        monkeypatch.setattr(owner, "on_device_of", on_device_of)
    for owner, name in (
        (EmulatedArray, "__array_ufunc__"),
        (EmulatedArray, "__setitem__"),
        (EmulatedArray, "astype"),
        (values, "array_module"),
    ):
        right = getattr(owner, name)

        def noted(*args: Any, right: Any = right, **kwargs: Any) -> Any:
            seen.append(depth[0] > 0)
            return right(*args, **kwargs)

        monkeypatch.setattr(owner, name, noted)
    return seen


WORK: dict[str, Callable[[Tensor], object]] = {
    "comparison": lambda x: x > 1,
    "equality": lambda x: x == x,
    "a number's array": lambda x: x._operand(2.0),
    "a list's array": lambda x: x._operand([1.0, 2.0, 3.0]),
    "assignment": lambda x: x.copy_(0),
    "another dtype": lambda x: x.astype("float64"),
    "a copy": lambda x: Tensor(x.data),
    "a copy of another dtype": lambda x: Tensor(x.data, dtype="float64"),
    "anomaly": lambda x: anomaly._describe(x.data),
    "finite": lambda x: anomaly._finite(x.data),
}


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_bare_arrays_are_worked_on_where_they_are(
    work: Callable[[Tensor], object], at_home: list[bool]
) -> None:
    x = Tensor(np.array([1.0, 2.0, 3.0], np.float32), device=EMULATED)
    at_home.clear()
    work(x)
    assert at_home
    assert all(at_home)


def test_a_model_is_converted_where_it_is(at_home: list[bool]) -> None:
    model = nn.Linear(2, 3).to(EMULATED)
    at_home.clear()
    model.astype("float64")
    assert at_home == [True, True]
