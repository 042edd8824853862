"""The report: plain values, a call that repeats it, and counts that add up."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import minialex as mx
from minialex import ops
from minialex.gradient_check import GradcheckError, examine, gradcheck
from minialex.tensor import ExpOp, MulOp, Tensor
from minialex.testing import grid
from minialex.testing.check_settings import CheckSettings


class WrongOp(ExpOp):
    def backward(self, dy: np.ndarray) -> tuple[np.ndarray]:
        return (super().backward(dy)[0] * 1.5,)


def wrong(x: Tensor) -> Tensor:
    return WrongOp()(x)


def test_an_honest_report() -> None:
    report = examine(lambda x, w: x @ w, [grid(2, 3), grid(3, 2, item=1)], names=["x", "w"])
    assert report.ok
    assert report.counts == {"ok": 12, "kink": 0, "tie": 0, "precision": 0, "wrong": 0}
    assert report.listed == []
    assert report.op == "matmul"
    first, *rest = report.text().splitlines()
    assert first.startswith("gradcheck: the gradients are right; 12 elements, worst error ")
    assert rest[1].startswith("  x, shape (2, 3): 0 of 6 elements wrong, relative error ")
    assert report.inputs[0].fault is None


def test_plain_values_hold_everything() -> None:
    report = examine(lambda x, b: wrong(x) + b, [grid(2, 2), grid(2, item=1)], names=["x", "b"], seed=7)
    values = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert values["ok"] is False
    assert values["ops"] == ["wrong", "add"]
    assert values["counts"]["wrong"] == 4
    assert values["settings"]["seed"] == 7
    x, b = values["inputs"]
    assert (x["name"], x["shape"], x["ok"], x["compared"]) == ("x", [2, 2], False, 4)
    assert x["fault"]["kind"] == "factor"
    assert (b["ok"], b["fault"], b["worst"]) == (True, None, [])
    worst = x["worst"][0]
    assert worst["verdict"] == "wrong"
    assert worst["error"] == pytest.approx(abs(worst["analytic"] - worst["numeric"]))
    assert len(worst["curve"]) == 9
    assert values["repeat"] == "gradcheck(fn, inputs, eps=1e-06, atol=1e-05, rtol=0.001, seed=7)"


def test_nan_is_text_in_plain_values() -> None:
    class NanOp(ExpOp):
        def backward(self, dy: np.ndarray) -> tuple[np.ndarray]:
            return (dy * np.nan,)

    values = examine(lambda x: NanOp()(x), grid(3)).to_json()
    assert json.dumps(values, allow_nan=False)
    assert values["inputs"][0]["worst"][0]["analytic"] == "nan"
    assert values["inputs"][0]["fault"]["kind"] == "NaN"


def test_the_repeat_call_repeats_it() -> None:
    settings: dict[str, Any] = {
        "eps": 1e-5,
        "seed": 11,
        "max_elements": 6,
        "directions": 2,
        "nondet_tol": 1e-9,
    }
    report = examine(wrong, grid(20), **settings)
    names = {"gradcheck": examine, "fn": wrong, "inputs": grid(20)}
    again = eval(report.repeat, names)
    assert {**again.to_json(), "seconds": 0} == {**report.to_json(), "seconds": 0}


def test_the_error_carries_the_report() -> None:
    with pytest.raises(GradcheckError) as caught:
        gradcheck(wrong, grid(3))
    assert caught.value.report.counts["wrong"] == 3
    assert str(caught.value) == caught.value.report.text()
    with pytest.raises(GradcheckError) as refused:
        gradcheck(wrong, [])
    assert refused.value.report is None


def test_without_an_exception() -> None:
    assert gradcheck(wrong, grid(3), raise_exception=False) is False
    assert gradcheck(ops.tanh, grid(3), raise_exception=False) is True


def test_what_two_runs_may_differ_by() -> None:
    calls: list[int] = []

    class ShakyOp(MulOp):
        def backward(self, dy: np.ndarray) -> tuple[Any, ...]:
            calls.append(1)
            return tuple(None if d is None else d * (1 + 1e-13 * len(calls)) for d in super().backward(dy))

    def shaky(x: Tensor) -> Tensor:
        return ShakyOp()(x, Tensor(grid(3, item=1)))

    with pytest.raises(GradcheckError, match="backward is not deterministic"):
        gradcheck(shaky, grid(3))
    assert gradcheck(shaky, grid(3), nondet_tol=1e-9)
    with pytest.raises(GradcheckError, match="nondet_tol must be"):
        gradcheck(shaky, grid(3), nondet_tol=-1.0)


def test_progress_is_told_input_by_input() -> None:
    told: list[str] = []
    examine(lambda x, w: x @ w, [grid(2, 3), grid(3, 2)], names=["x", "w"], progress=told.append)
    assert told == ["x", "w"]


def test_the_likely_fault_is_told() -> None:
    with pytest.raises(GradcheckError, match=r"likely fault: every element is 1\.5 times too large"):
        mx.gradcheck(wrong, grid(5))


def test_numpy_scalars_are_inputs_too() -> None:
    assert gradcheck(lambda x, s: x * s, [grid(3), np.float64(2.5)])


@pytest.mark.parametrize("size", [1e-6, 1e-9, 1e-14])
def test_gradients_below_atol_are_held_against_rtol_alone(size: float) -> None:
    right, x = examine(lambda t: ops.tanh(t) * size, grid(4)), grid(4)
    assert right.ok
    assert "every gradient here is smaller than atol=1e-05, and held against rtol alone" in right.text()
    report = examine(lambda t: wrong(t) * size, x)
    assert report.counts["wrong"] == 4
    assert report.relative_error == pytest.approx(0.5, rel=1e-6)
    assert "every gradient here is smaller than atol=1e-05: held against rtol alone" in report.text()


def test_gradients_that_differences_cannot_see_are_no_fault() -> None:
    # The third power at 1e-12: eps**2 is all that a difference sees, whatever the step.
    assert examine(lambda t: t * t * t, grid(4) * 1e-12).ok
    assert examine(lambda t: (t + 1e6) * 1e-6 - 1.0, grid(4), atol=1.0).ok
    assert "smaller than atol" not in examine(ops.tanh, grid(4)).text()
    assert "smaller than atol" not in examine(lambda x, unused: x * 1.0, [grid(4), grid(2)]).text()


def test_very_large_gradients_have_a_relative_error() -> None:
    report = examine(ops.exp, grid(3) + 500.0)
    assert report.ok
    assert report.relative_error < 1e-6


def test_the_repeat_call_has_all_digits() -> None:
    report = examine(ops.tanh, grid(3), eps=1.2345678e-6, rtol=np.float64(1e-3), seed=123456789)
    assert "eps=1.2345678e-06, atol=1e-05, rtol=0.001, seed=123456789" in report.repeat
    words = CheckSettings(seed=123456789, eps=1.2345678e-6).words()
    assert words == ["--seed", "123456789", "--eps", "1.2345678e-06"]
