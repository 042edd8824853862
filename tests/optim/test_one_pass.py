"""A step goes over all parameters at once: the threads meet once, and bits do not depend on them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import minialex as mx
from minialex import optim
from minialex.backend import use_variant
from minialex.optim import optimizer as module

SHAPES = ((700, 900), (5,), (0, 3), (300, 1000))
MAKE: dict[str, Callable[[list[mx.Tensor]], optim.Optimizer]] = {
    "Adam": lambda params: optim.Adam(params, 1e-2, weight_decay=0.1),
    "SGD": lambda params: optim.SGD(params, 0.1),
    "momentum": lambda params: optim.SGD(params, 0.1, momentum=0.9),
    "paper": lambda params: optim.SGD(params, 0.1, momentum=0.9, weight_decay=1e-3, rule="paper"),
}


def three_steps(name: str, transposed: bool) -> list[bytes]:
    random = np.random.default_rng(0)
    params = []
    for shape in SHAPES:
        values = random.standard_normal(shape).astype(np.float32)
        params.append(mx.Tensor(values, requires_grad=True))
        if transposed:
            params[-1].data = np.asfortranarray(values)
    rule = MAKE[name](params)
    for _ in range(3):
        for param in params:
            param.grad = random.standard_normal(param.shape).astype(np.float32)
        rule.step()
    return [np.ascontiguousarray(param.data).tobytes() for param in params]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("name", MAKE)
def test_bits_do_not_depend_on_the_number_of_threads(
    name: str, transposed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("MINIALEX_NUM_THREADS", threads)
        results.append(three_steps(name, transposed))
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("name", MAKE)
def test_pieces_cover_every_parameter_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of any length give what whole arrays give."""
    monkeypatch.setattr(module, "PIECE", 10**9)
    with use_variant("array"):
        whole = three_steps(name, transposed=False)
    for piece in (1 << 18, 7001):
        monkeypatch.setattr(module, "PIECE", piece)
        assert three_steps(name, transposed=False) == whole


def test_the_threads_meet_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIALEX_NUM_THREADS", "2")
    calls = []
    share = module.for_ranges
    monkeypatch.setattr(module, "for_ranges", lambda *args, **kw: (calls.append(args[0]), share(*args, **kw)))
    three_steps("Adam", transposed=False)
    assert len(calls) == 3
    assert min(calls) >= 2
