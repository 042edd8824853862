"""Planted bugs prove that the checks can fail."""

from __future__ import annotations

import pytest

from minialex.tensor import MulOp
from minialex.testing import CASES, Case, CheckError, all_ops, check_op
from minialex.testing.mutants import MUTANTS, Mutant


def rows_of(mutant: Mutant) -> list[Case]:
    return [case for case in CASES if case.op is mutant.op]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_planted_bug_is_caught(mutant: Mutant) -> None:
    caught = []
    with mutant.planted():
        for case in rows_of(mutant):
            try:
                check_op(case)
            except CheckError as error:
                caught.append(str(error))
                break
    assert caught, f"survived: {mutant.name}"
    assert mutant.op.name in caught[0]


def test_what_was_planted_is_taken_out_again() -> None:
    before = {name: value for name, value in vars(MulOp).items() if not name.startswith("__")}
    for mutant in MUTANTS:
        with mutant.planted():
            pass
        with pytest.raises(ZeroDivisionError), mutant.planted():
            _ = 1 / 0
    assert {name: value for name, value in vars(MulOp).items() if not name.startswith("__")} == before
    for mutant in MUTANTS:
        check_op(rows_of(mutant)[0])


def test_every_op_has_a_planted_bug() -> None:
    missing = {op.__name__ for op in all_ops()} - {mutant.op.__name__ for mutant in MUTANTS}
    assert not missing, f"no mutant in minialex/testing/mutants/ for {', '.join(sorted(missing))}"


def test_there_are_enough_and_each_has_a_name() -> None:
    assert len(MUTANTS) >= 50
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
