"""What is found out about a function whose gradient is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minialex import ops
from minialex.gradient_check.evidence import ELEMENTS, gather_hints
from minialex.gradient_check.experiment import Experiment, prepare
from minialex.gradient_check.fault_kinds import Hints
from minialex.gradient_check.settings import Settings
from minialex.tensor import Tensor
from minialex.testing import grid


def hints(fn: Any, inputs: list[np.ndarray], position: int = 0) -> Hints:
    arguments = prepare(inputs, None)
    experiment = Experiment(fn, arguments, Settings(), [argument.tensor() for argument in arguments])
    experiment.run()
    return gather_hints(experiment, position)


def test_both_jacobians_agree_for_an_honest_op() -> None:
    x, weight = grid(1, 2, 4, 5), grid(3, 2, 2, 3, item=1)
    for position, size in ((0, x.size), (1, weight.size)):
        found = hints(lambda x, w: ops.conv2d(x, w, padding=1), [x, weight], position)
        assert found.output_shape == (1, 3, 5, 5)
        assert found.jacobians is not None
        analytic, numeric = found.jacobians
        assert analytic.shape == numeric.shape == (75, size)
        np.testing.assert_allclose(analytic, numeric, atol=1e-8)


def test_the_sum_of_a_jacobian_is_the_gradient_of_ones() -> None:
    found = hints(lambda x: ops.softmax(x) * x, [grid(3, 4)])
    assert found.jacobians is not None
    assert found.ones is not None
    assert found.second is not None
    np.testing.assert_allclose(found.jacobians[0].sum(axis=0).reshape(3, 4), found.ones, atol=1e-14)
    assert not np.allclose(found.second, found.ones)


def test_what_a_convolution_says_about_its_inputs() -> None:
    def fn(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return ops.relu(ops.conv2d(x, w, b, stride=(1, 2), padding=((0, 1), (2, 0)), dilation=2))

    inputs = [grid(1, 2, 6, 7), grid(2, 2, 2, 3, item=1), grid(2, item=2)]
    x, weight, bias = (hints(fn, inputs, position) for position in range(3))
    assert x.axes == ("N", "C", "H", "W")
    assert (x.window, x.stride, x.padding, x.dilation) == ((2, 3), (1, 2), ((0, 1), (2, 0)), (2, 2))
    assert weight.axes == ("F", "C", "KH", "KW")
    assert weight.window is None
    assert bias.axes == ("F",)


def test_what_pooling_says_with_a_window_that_hangs_over() -> None:
    found = hints(lambda x: ops.max_pool2d(x, 3, 2, ceil_mode=True), [grid(1, 1, 6, 7)])
    assert (found.window, found.stride, found.windows) == ((3, 3), (2, 2), (3, 3))
    assert hints(ops.relu, [grid(1, 1, 2, 3)]).window is None


def test_an_input_that_is_used_twice_has_no_window() -> None:
    found = hints(lambda x: ops.max_pool2d(x, 2) + ops.avg_pool2d(x, 2), [grid(1, 1, 4, 4)])
    assert found.window is None
    assert found.axes == ()


def test_arrays_that_a_factor_may_be_made_of() -> None:
    found = hints(lambda a, b: a / b, [grid(2, 3), grid(2, 3, item=1)], 1)
    assert list(found.arrays) == ["input 0", "input 1", "the output"]
    assert list(hints(lambda a, b: a / b, [grid(2, 3), grid(3, item=1)], 1).arrays) == ["input 1"]


def test_a_long_step_gives_the_same_slopes() -> None:
    found = hints(ops.sigmoid, [grid(4, 3)])
    assert found.coarse is not None
    assert found.jacobians is not None
    assert np.isfinite(found.coarse).all()


@pytest.mark.parametrize("size", [ELEMENTS + 1])
def test_no_jacobians_where_they_would_take_long(size: int) -> None:
    found = hints(lambda x: (x * x).sum(), [grid(size)])
    assert found.jacobians is None
    assert found.ones is not None


def test_what_the_function_raises_elsewhere_is_left_out() -> None:
    def fussy(x: Tensor) -> Tensor:
        if np.abs(x.numpy() - grid(2, 3)).max() > 1e-4:
            raise KeyError("too far")
        return ops.exp(x)

    found = hints(fussy, [grid(2, 3)])
    assert found.coarse is None
    assert found.jacobians is not None
