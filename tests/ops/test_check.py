"""check_op on ops of one's own, and the report of all rows."""

from __future__ import annotations

import numpy as np
import pytest

from minialex.cost import Cost
from minialex.shapes import Shape
from minialex.tensor import Gradients, Op
from minialex.testing import Case, CheckError, Result, check_op, grid
from minialex.testing.check_settings import CheckSettings
from minialex.testing.row_checks import check_rows

QUIET = CheckSettings(bar=False)


class ClipOp(Op):
    """y = min(max(x, low), high). Shapes: any -> the same."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def shape(self, x: Shape) -> Shape:
        return x

    def cost(self, x: Shape, itemsize: int = 4) -> Cost:
        return Cost.of(2 * int(np.prod(x)), x, x, itemsize=itemsize)

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.save(x)
        return np.clip(x, self.low, self.high)

    def backward(self, dy: np.ndarray) -> Gradients:
        (x,) = self.saved
        return (dy * ((x > self.low) & (x < self.high)),)


def clip_loops(x: np.ndarray, low: float, high: float) -> np.ndarray:
    y = np.empty(x.shape, x.dtype)
    for index in np.ndindex(x.shape):
        below, above = x[index] < low, x[index] > high
        y[index] = low if below else high if above else x[index]
    return y


LIMITS = {"low": -0.8, "high": 1.1}


def test_an_op_of_ones_own() -> None:
    result = check_op(ClipOp, [grid(3, 4)], LIMITS, clip_loops)
    assert isinstance(result, Result)
    assert (result.op, result.case) == ("clip", "clip (3,4) low=-0.8 high=1.1")
    assert result.relative_error < 1e-8


def test_by_class_and_without_a_reference() -> None:
    assert check_op(ClipOp, [grid(3, 4)], LIMITS).relative_error < 1e-8
    with pytest.raises(ValueError, match="has no reference"):
        Case(ClipOp, (grid(2),), LIMITS).expected(grid(2))


def test_a_wrong_cost_is_counted() -> None:
    class CheapOp(ClipOp):
        def cost(self, x: Shape, itemsize: int = 4) -> Cost:
            return Cost.of(int(np.prod(x)), x, x, itemsize=itemsize)

    message = r"cheap \(3,4\) .*\n  cost: cost\(\) says 12 flops, the loops count 24"
    with pytest.raises(CheckError, match=message):
        check_op(CheapOp, [grid(3, 4)], LIMITS, clip_loops)


def test_operations_that_depend_on_values_are_added_by_hand() -> None:
    def hasty(x: np.ndarray, low: float, high: float) -> np.ndarray:
        y = np.empty(x.shape, x.dtype)
        for index in np.ndindex(x.shape):  # One comparison is enough for what lies below.
            y[index] = low if x[index] < low else high if x[index] > high else x[index]
        return y

    below = int((grid(3, 4) < LIMITS["low"]).sum())
    check_op(Case(ClipOp, (grid(3, 4),), LIMITS, hasty, uncounted=below))
    with pytest.raises(CheckError, match=f"says 24 flops, the loops count {24 - below}"):
        check_op(Case(ClipOp, (grid(3, 4),), LIMITS, hasty))


@pytest.mark.parametrize("moved", [0, 1, 3])
def test_bytes_are_inputs_and_output_once(moved: int) -> None:
    class MovingOp(ClipOp):
        def cost(self, x: Shape, itemsize: int = 4) -> Cost:
            return Cost.of(24, *[x] * moved, itemsize=itemsize)

    message = rf"cost\(\) says {48 * moved} bytes for itemsize 4, the convention 96"
    with pytest.raises(CheckError, match=message):
        check_op(MovingOp, [grid(3, 4)], LIMITS, clip_loops)


def test_a_wrong_forward_is_named_with_its_place() -> None:
    with pytest.raises(CheckError, match=r"forward: the output differs at \[\d\]: .*expected"):
        check_op(ClipOp, [grid(4)], LIMITS, lambda x, low, high: clip_loops(x, low, high) + 0.5)


def test_an_op_that_raises_is_a_failure() -> None:
    class BrokenOp(ClipOp):
        def backward(self, dy: np.ndarray) -> Gradients:
            raise IndexError("off by one")

    with pytest.raises(CheckError, match="IndexError: off by one"):
        check_op(BrokenOp, [grid(4)], LIMITS)


def test_bad_shapes_must_be_refused() -> None:
    with pytest.raises(CheckError, match=r"shapes .* must raise ShapeError, got \(3, 1\)"):
        check_op(Case(ClipOp, (grid(4),), LIMITS, bad_shapes=[((3, 1),)]))


def test_there_is_a_line_for_every_op() -> None:
    lines: list[str] = []
    rows = [Case(ClipOp, (grid(n),), LIMITS) for n in (2, 3)]
    outcome = check_rows(QUIET, lines.append, rows)
    assert outcome.ok
    assert [row["op"] for row in outcome.data["rows"]] == ["clip", "clip"]
    (line,) = lines
    assert line.startswith("clip")
    assert "2 rows  ok" in line


def test_failures_are_told_together() -> None:
    class WrongOp(ClipOp):
        def backward(self, dy: np.ndarray) -> Gradients:
            return (dy * 1.5,)

    lines: list[str] = []
    outcome = check_rows(QUIET, lines.append, [Case(op, (grid(4),), LIMITS) for op in (ClipOp, WrongOp)])
    assert not outcome.ok
    assert outcome.exit_code == 6
    assert outcome.text.startswith("1 of 2 rows failed, in ")
    assert "wrong (4,)" in outcome.text
    assert "FAILED 1" in lines[1]
