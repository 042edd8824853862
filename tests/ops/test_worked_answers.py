"""Answers worked out by hand: they pin the references that everything else is tested against."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minialex import DTypeError, Tensor, ops, use_variant
from minialex.cost import Cost
from minialex.ops import Conv2dOp, MaxPool2dOp
from minialex.rng import Stream
from minialex.shapes import ShapeError

pytestmark = pytest.mark.parametrize("variant", ["reference", "array", "numba"])


@pytest.fixture(autouse=True)
def forced(variant: str):
    with use_variant(variant):
        yield


def pixels(rows: list[list[float]]) -> Tensor:
    """One image of one channel."""
    return Tensor(np.array(rows, dtype=np.float64)[None, None], requires_grad=True)


class TestConvolution:
    def test_a_window_is_a_dot_product_and_the_kernel_is_not_flipped(self) -> None:
        x = pixels([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
        weight = pixels([[10, 1], [0, 2]])
        y = ops.conv2d(x, weight, Tensor(np.array([0.5])))
        # 1*10 + 2*1 + 4*0 + 5*2 + 0.5, and so on.
        np.testing.assert_array_equal(y.numpy()[0, 0], [[22.5, 35.5], [61.5, 74.5]])
        y.backward(np.array([[[[1.0, 0.0], [0.0, -1.0]]]]))
        np.testing.assert_array_equal(x.grad[0, 0], [[10, 1, 0], [0, 2 - 10, -1], [0, 0, -2]])
        np.testing.assert_array_equal(weight.grad[0, 0], [[1 - 5, 2 - 6], [4 - 8, 5 - 9]])

    def test_each_side_is_padded_by_its_own_number(self) -> None:
        ones = pixels([[1]])
        y = ops.conv2d(pixels([[1, 2], [3, 4]]), ones, padding=((1, 0), (0, 2)))
        np.testing.assert_array_equal(y.numpy()[0, 0], [[0, 0, 0, 0], [1, 2, 0, 0], [3, 4, 0, 0]])

    def test_groups_do_not_see_each_other(self) -> None:
        x = Tensor(np.array([1.0, 10.0, 100.0, 1000.0]).reshape(1, 4, 1, 1))
        y = ops.conv2d(x, Tensor(np.ones((2, 2, 1, 1))), groups=2)
        np.testing.assert_array_equal(y.numpy().ravel(), [11, 1100])

    def test_dilation_spreads_the_window(self) -> None:
        y = ops.conv2d(pixels([[1, 2, 4, 8, 16]]), pixels([[1, 1]]), dilation=2)
        np.testing.assert_array_equal(y.numpy().ravel(), [5, 10, 20])

    @pytest.mark.parametrize(
        ("size", "padding", "expected"),
        [(227, 0, 55), (224, 0, 54), (224, ((1, 2), (1, 2)), 55)],
    )
    def test_the_first_layer_of_alexnet(self, size: int, padding: object, expected: int) -> None:
        op = Conv2dOp(stride=4, padding=padding)  # type: ignore[arg-type]
        assert op.shape((1, 3, size, size), (96, 3, 11, 11)) == (1, 96, expected, expected)

    def test_its_cost(self) -> None:
        # 105,415,200 multiply-accumulates: 55 * 55 * 96 * 363.
        cost = Conv2dOp(stride=4).cost((1, 3, 227, 227), (96, 3, 11, 11), (96,))
        assert cost == Cost(2 * 105_415_200, 4 * (3 * 227**2 + 96 * 363 + 96 + 96 * 55 * 55))

    def test_errors_name_the_axis_and_both_numbers(self) -> None:
        with pytest.raises(ShapeError) as caught:
            ops.conv2d(Tensor(np.zeros((8, 3, 16, 16))), Tensor(np.zeros((96, 4, 11, 11))))
        assert str(caught.value) == (
            "conv2d: x has C=3 but weight expects C=4; x (8, 3, 16, 16), weight (96, 4, 11, 11)"
        )


class TestPooling:
    def test_overlapping_windows_add_up_in_the_pixel_that_wins_both(self) -> None:
        x = pixels([[1, 2, 9, 3, 4]])
        y = ops.max_pool2d(x, (1, 3), stride=(1, 2))
        np.testing.assert_array_equal(y.numpy().ravel(), [9, 9])
        y.backward(np.array([[[[10.0, 100.0]]]]))
        np.testing.assert_array_equal(x.grad.ravel(), [0, 0, 110, 0, 0])

    def test_the_first_of_equal_pixels_takes_the_whole_gradient(self) -> None:
        x = pixels([[5, 7], [7, 7]])
        ops.max_pool2d(x, 2).backward()
        np.testing.assert_array_equal(x.grad[0, 0], [[0, 1], [0, 0]])

    def test_padding_is_minus_infinity(self) -> None:
        y = ops.max_pool2d(pixels([[-3, -4], [-5, -6]]), 2, stride=2, padding=1)
        np.testing.assert_array_equal(y.numpy()[0, 0], [[-3, -4], [-5, -6]])

    def test_rounding_down_and_up(self) -> None:
        assert ops.max_pool2d(Tensor(np.zeros((1, 1, 6, 6))), 3, 2).shape == (1, 1, 2, 2)
        assert ops.max_pool2d(Tensor(np.zeros((1, 1, 6, 6))), 3, 2, ceil_mode=True).shape == (1, 1, 3, 3)
        # The third window would start in the far padding.
        assert ops.max_pool2d(Tensor(np.zeros((1, 1, 3, 3))), 2, 2, 1, ceil_mode=True).shape == (1, 1, 2, 2)

    @pytest.mark.parametrize(("side", "dtype"), [(16, np.uint8), (17, np.uint16)])
    def test_a_byte_for_each_winner_up_to_256_cells(self, side: int, dtype: type) -> None:
        op = MaxPool2dOp(side)
        x = Tensor(np.arange(side * side, dtype=np.float64).reshape(1, 1, side, side), requires_grad=True)
        y = op(x)
        (argmax,) = op.saved
        assert argmax.dtype == dtype
        assert argmax.item() == side * side - 1
        y.backward()
        assert x.grad[0, 0, -1, -1] == 1

    def test_averages_with_and_without_the_padding_in_the_divisor(self) -> None:
        x = pixels([[4, 8], [12, 16]])
        assert ops.avg_pool2d(x, 2).item() == 10
        with_padding = ops.avg_pool2d(x, 2, 2, 1)
        np.testing.assert_array_equal(with_padding.numpy()[0, 0], [[1, 2], [3, 4]])
        without = ops.avg_pool2d(x, 2, 2, 1, count_include_pad=False)
        np.testing.assert_array_equal(without.numpy()[0, 0], [[4, 8], [12, 16]])

    def test_adaptive_bins_may_overlap(self) -> None:
        y = ops.adaptive_avg_pool2d(pixels([[1, 2, 3, 4, 5]]), (1, 2))
        np.testing.assert_array_equal(y.numpy().ravel(), [2, 4])  # Pixels 0 to 2, and 2 to 4.


class TestLocalResponseNorm:
    def test_the_worked_example_of_the_course(self) -> None:
        """Neighbours 1, 1, 2: the middle one becomes 1 / (1 + 1 + 4)."""
        x = Tensor(np.array([1.0, 1.0, 2.0]).reshape(1, 3, 1, 1))
        y = ops.local_response_norm(x, size=2, alpha=1, beta=1, k=0, dialect="paper")
        np.testing.assert_allclose(y.numpy().ravel(), [1 / 2, 1 / 6, 2 / 5], rtol=1e-15)

    def test_the_dialects_differ_in_alpha_and_in_even_windows(self) -> None:
        x = Tensor(np.array([1.0, 1.0, 2.0]).reshape(1, 3, 1, 1))
        y = ops.local_response_norm(x, size=2, alpha=2, beta=1, k=0, dialect="torch")
        # One channel before, none after, and alpha / 2.
        np.testing.assert_allclose(y.numpy().ravel(), [1, 1 / 2, 2 / 5], rtol=1e-15)

    def test_the_dialect_must_be_said(self) -> None:
        with pytest.raises(TypeError, match="dialect"):
            ops.local_response_norm(Tensor(np.ones((1, 1, 1, 1))), 5)  # type: ignore[call-arg]
        with pytest.raises(ValueError, match="'paper' or 'torch', got 'caffe'"):
            ops.local_response_norm(Tensor(np.ones((1, 1, 1, 1))), 5, dialect="caffe")


class TestLosses:
    def test_equal_logits_cost_the_logarithm_of_the_number_of_classes(self) -> None:
        logits = Tensor(np.full((3, 5), 1000.0), requires_grad=True)
        loss = ops.cross_entropy(logits, np.array([0, 2, 4]))
        assert loss.item() == pytest.approx(math.log(5), rel=1e-15)
        loss.backward()
        np.testing.assert_allclose(logits.grad[0], np.array([0.2 - 1, 0.2, 0.2, 0.2, 0.2]) / 3, rtol=1e-14)

    def test_certain_and_right_costs_nothing_and_wrong_costs_the_distance(self) -> None:
        logits = Tensor(np.array([[1000.0, 0.0], [1000.0, 0.0]]))
        losses = ops.cross_entropy(logits, np.array([0, 1]), reduction="none")
        np.testing.assert_array_equal(losses.numpy(), [0, 1000])

    def test_label_smoothing_mixes_in_every_class(self) -> None:
        logits = Tensor(np.log(np.array([[0.5, 0.25, 0.25]])))
        loss = ops.cross_entropy(logits, np.array([0]), label_smoothing=0.3)
        expected = -(0.8 * math.log(0.5) + 0.1 * math.log(0.25) + 0.1 * math.log(0.25))
        assert loss.item() == pytest.approx(expected, rel=1e-14)

    def test_a_label_out_of_range_is_named(self) -> None:
        with pytest.raises(ValueError, match=r"label 7 at position 1 is outside 0 \.\. 4"):
            ops.cross_entropy(Tensor(np.zeros((2, 5))), np.array([0, 7]))
        with pytest.raises(DTypeError, match="labels must be integers, got dtype float64"):
            ops.cross_entropy(Tensor(np.zeros((2, 5))), np.array([0.0, 1.0]))

    def test_softmax_of_logarithms_gives_the_numbers_back(self) -> None:
        x = Tensor(np.log(np.array([[1.0, 2.0, 5.0]])))
        np.testing.assert_allclose(ops.softmax(x).numpy(), [[0.125, 0.25, 0.625]], rtol=1e-15)
        np.testing.assert_allclose(ops.log_softmax(x).numpy(), np.log([[0.125, 0.25, 0.625]]), rtol=1e-14)


class TestDropout:
    def test_both_scalings_have_the_same_mean(self) -> None:
        x = Tensor(np.ones(4000))
        inverted = ops.dropout(x, 0.25, key=(1, 2, 3)).numpy()
        assert set(np.unique(inverted)) == {0.0, 1 / 0.75}
        paper = ops.dropout(x, 0.25, mode="paper", key=(1, 2, 3)).numpy()
        np.testing.assert_array_equal(inverted > 0, paper > 0)
        assert set(np.unique(paper)) == {0.0, 1.0}
        assert abs(inverted.mean() - 1) < 0.03
        assert ops.dropout(x, 0.25, training=False).numpy().mean() == 1
        assert ops.dropout(x, 0.25, training=False, mode="paper").numpy().mean() == 0.75

    def test_p_0_keeps_all_and_p_1_none(self) -> None:
        x = Tensor(Stream(0, "test").normal(shape=(50,)))
        np.testing.assert_array_equal(ops.dropout(x, 0.0, key=(0, 0, 0)).numpy(), x.numpy())
        assert not ops.dropout(x, 1.0, key=(0, 0, 0)).numpy().any()


class TestActivations:
    def test_values_and_kinks(self) -> None:
        x = Tensor(np.array([-1.0, 0.0, 2.0, np.nan]), requires_grad=True)
        y = ops.relu(x)
        np.testing.assert_array_equal(y.numpy(), [0, 0, 2, np.nan])
        y.backward(np.ones(4))
        np.testing.assert_array_equal(x.grad[:3], [0, 0, 1])
        assert ops.sigmoid(Tensor(np.array(0.0))).item() == 0.5
        extreme = ops.sigmoid(Tensor(np.array([-1e4, 1e4])))
        np.testing.assert_array_equal(extreme.numpy(), [0, 1])
        assert ops.tanh(Tensor(np.array(0.0))).item() == 0
