"""Values edited after an op saved them are noticed, and the error names the op."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import minialex as mx
from minialex.tensor import GraphError, Tensor


def leaf(values: object) -> Tensor:
    return Tensor(np.asarray(values, dtype=np.float64), requires_grad=True)


def optimiser_step(x: Tensor) -> None:
    x.data[...] -= 0.1
    x.bump_version()


def replace_data(x: Tensor) -> None:
    x.data = np.zeros(x.shape)


EDITS: dict[str, Callable[[Tensor], object]] = {
    "copy_": lambda x: x.copy_([7.0, 7.0]),
    "zero_": lambda x: x.zero_(),
    "setitem": lambda x: x.__setitem__(0, 7.0),
    "an optimiser": optimiser_step,
    "data =": replace_data,
    "a detached view": lambda x: x.detach().copy_(7.0),
    "a slice": lambda x: x[:1].copy_(7.0),
    "a slice of a reshape of a transpose": lambda x: x.T.reshape(1, 2)[0].zero_(),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edit_before_backward_is_noticed(edit: Callable[[Tensor], object]) -> None:
    x = leaf([2.0, 3.0])
    y = (x * x).sum()
    with mx.no_grad():
        edit(x)
    with pytest.raises(GraphError, match=r"mul: a value that it saved for backward was edited in place"):
        y.backward()


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edit_of_what_nobody_saved_is_allowed(edit: Callable[[Tensor], object]) -> None:
    x = leaf([2.0, 3.0])
    y = (x + x).sum()
    with mx.no_grad():
        edit(x)
    y.backward()
    np.testing.assert_array_equal(x.grad, [2.0, 2.0])


def test_an_edit_after_backward_is_allowed() -> None:
    x = leaf([2.0, 3.0])
    for _ in range(2):
        (x * x).sum().backward()
        with mx.no_grad():
            x[...] = x - 0.1 * x.grad
        x.zero_grad()
    np.testing.assert_allclose(x.data, [2.0 * 0.64, 3.0 * 0.64])


def test_an_edit_of_a_saved_output_is_noticed() -> None:
    x = leaf([1.0, 2.0])
    y = x.exp()
    with mx.no_grad():
        y.zero_()
    with pytest.raises(GraphError, match=r"exp: a value that it saved .*version 1, saved at version 0"):
        y.sum().backward()


def test_a_view_shares_its_version_and_a_copy_does_not() -> None:
    x = Tensor(np.arange(6.0).reshape(2, 3))
    views = [x[0], x[:, ::2], x.reshape(6), x.T, x.detach(), x[None]]
    copies = [x[[0, 1]], x.T.reshape(6), x + 0.0, Tensor(x), x.astype("float64")]
    x[0, 0] = 9.0
    assert [v.version.count for v in views] == [1] * len(views)
    assert [c.version.count for c in copies] == [0] * len(copies)


def test_an_edit_through_one_view_is_seen_by_another() -> None:
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    row, column = x[0], x[:, 0]
    y = (row * row).sum()
    with mx.no_grad():
        column.zero_()
    with pytest.raises(GraphError, match="edited in place"):
        y.backward()


def test_setitem_takes_tensors_as_index_and_as_values() -> None:
    x = Tensor(np.zeros(3))
    x[Tensor(np.array([0, 2]))] = Tensor(np.array([1.0, 2.0]))
    np.testing.assert_array_equal(x.data, [1.0, 0.0, 2.0])
    assert x.copy_([4.0, 5.0, 6.0]) is x
