"""Every row of testing/cases.py holds, and every Op has a row."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import numpy as np
import pytest

from minialex import ops
from minialex.tensor import Op
from minialex.testing import CASES, Case, all_ops, check_op, grid, positive


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_case(case: Case) -> None:
    result = check_op(case)
    assert result.relative_error <= 1e-6


ALL_OPS = all_ops()


def test_every_op_has_a_row() -> None:
    missing = {op.__name__ for op in ALL_OPS} - {case.op.__name__ for case in CASES}
    assert not missing, f"no row in minialex/testing/cases.py for {', '.join(sorted(missing))}"
    assert len(ALL_OPS) >= 27


def test_every_op_has_a_row_with_a_reference() -> None:
    missing = {op.__name__ for op in ALL_OPS} - {case.op.__name__ for case in CASES if case.reference}
    assert not missing, f"no row with plain loops for {', '.join(sorted(missing))}"


@pytest.mark.parametrize("op", ALL_OPS, ids=lambda op: op.__name__)
def test_an_op_has_shapes_that_it_refuses_or_takes_any(op: type[Op]) -> None:
    """Element by element any shape is right; the others must say what does not fit."""
    rows = [case for case in CASES if case.op is op]
    if not any(case.bad_shapes for case in rows):
        for shape in ((), (0,), (3,), (2, 0, 4), (2, 3, 4, 5), (1, 2, 3, 4, 5)):
            assert rows[0].make().shape(shape) == shape


def test_rows_are_distinct_and_avoid_kinks() -> None:
    assert len({(case.label, *(a.tobytes() for a in case.inputs)) for case in CASES}) == len(CASES)
    for case in CASES:
        for array in case.inputs:
            spacing = np.diff(np.sort(array.reshape(-1)))
            assert np.all(spacing > 1e-3), case.label
            assert np.all(np.abs(array) > 1e-3), case.label


def test_grids() -> None:
    for shape in ((), (1,), (2,), (3, 4), (5, 5)):
        values = grid(*shape)
        assert values.shape == shape
        assert np.abs(values).max(initial=0) <= 2.0
        # No tie between |x| and |-x| either, where there are two.
        assert len(np.unique(np.abs(values).round(12))) == values.size
        assert positive(*shape).min(initial=1.0) >= 0.5
    assert not np.array_equal(grid(6), grid(6, item=1))
    np.testing.assert_array_equal(grid(6), grid(6))


# -------------------------------------------------------------------------------------------- docstrings


def public_functions() -> Iterator[str]:
    for name in ops.__all__:
        if inspect.isfunction(getattr(ops, name)):
            yield name


@pytest.mark.parametrize("op", ALL_OPS, ids=lambda op: op.__name__)
def test_every_op_says_its_shapes(op: type[Op]) -> None:
    documentation = inspect.getdoc(op) or ""
    assert "Shapes" in documentation
    takes = [p for p in inspect.signature(op.__init__).parameters if p not in ("self", "args", "kwargs")]
    # Reshape and transpose explain their one argument in the line of shapes.
    if takes and op.name not in ("reshape", "transpose"):
        assert "Args" in documentation


@pytest.mark.parametrize("name", list(public_functions()))
def test_every_function_is_explained(name: str) -> None:
    """In its own docstring, or by naming the Op that explains it."""
    documentation = inspect.getdoc(getattr(ops, name)) or ""
    named = [op.__name__ for op in ALL_OPS if op.__name__ in documentation]
    assert named or "Shapes" in documentation or "->" in documentation


@pytest.mark.parametrize("op", ALL_OPS, ids=lambda op: op.__name__)
def test_the_parts_of_an_op_stand_in_order(op: type[Op]) -> None:
    order = ["shape", "cost", "forward", "backward"]
    own = [name for name in vars(op) if name in order]
    assert own == sorted(own, key=order.index)


def test_public_names_are_there_once() -> None:
    assert len(set(ops.__all__)) == len(ops.__all__)
    for name in ops.__all__:
        assert hasattr(ops, name)
