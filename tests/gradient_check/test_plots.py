"""The picture of a check."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minialex import nn, ops
from minialex.errors import OutputError
from minialex.gradient_check import Report, check_model, examine
from minialex.tensor import ExpOp, Tensor
from minialex.testing import grid
from minialex.testing.plots import _plane, plot_report


def size_of(path: Path) -> tuple[int, int]:
    from PIL import Image

    with Image.open(path) as image:
        assert image.format == "PNG"
        return image.size


class WrongOp(ExpOp):
    def backward(self, dy: np.ndarray) -> tuple[np.ndarray]:
        (dx,) = super().backward(dy)
        wrong = np.array(dx)
        wrong[..., 0] = 0.0
        return (wrong,)


def wrong(x: Tensor, b: Tensor) -> Tensor:
    return WrongOp()(x) + b


REPORTS = {
    "honest": lambda: examine(ops.conv2d, [grid(2, 3, 5, 5), grid(4, 3, 3, 3, item=1)]),
    "wrong": lambda: examine(wrong, [grid(2, 3, 4), grid(4)], names=["$x$", "b"]),
    "kinks": lambda: examine(ops.relu, np.array([[0.0, 1.0, -1.0, 2.0]])),
    "a scalar": lambda: examine(lambda x: x * x, grid()),
    "nothing beside something": lambda: examine(lambda x, y: x * 1.0 + y.sum(), [grid(2), np.zeros((0, 3))]),
    "a sample": lambda: examine(ops.tanh, grid(60, 50), max_elements=20),
    "not in float32": lambda: examine(lambda x: x * Tensor(grid(3)), grid(3)),
    "a model": lambda: check_model(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), grid(2, 3)),
    "huge values": lambda: examine(lambda x: x * x, grid(3) * 1e150),
}


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_every_report_can_be_drawn(report: type[Report], tmp_path: Path) -> None:
    plot_report(tmp_path / "check.png", report())
    width, height = size_of(tmp_path / "check.png")
    assert width > 1000
    assert height > 300


def test_more_inputs_make_a_taller_picture_up_to_four(tmp_path: Path) -> None:
    heights = []
    for count in (1, 2, 4, 6):
        report = examine(lambda *xs: sum(xs[1:], xs[0]) * 1.0, [grid(3, item=i) for i in range(count)])
        plot_report(tmp_path / "check.png", report)
        heights.append(size_of(tmp_path / "check.png")[1])
    assert heights[0] < heights[1] < heights[2] == heights[3]


def test_tiles_stand_where_their_planes_are() -> None:
    (part,) = examine(lambda x: x * x, grid(2, 3, 4, 5)).inputs
    values = np.arange(120.0)
    plane, bent, tile, label = _plane(part, values)
    assert plane.shape == (8, 15)
    assert tile == (4, 5)
    np.testing.assert_array_equal(plane[4:, 5:10], values.reshape(2, 3, 4, 5)[1, 1])
    assert not bent.any()
    assert label == "6 tiles of the last two axes"


def test_the_curves_are_a_u_in_both_precisions() -> None:
    (part,) = examine(lambda x: x.exp(), grid(5)).inputs
    wide, narrow = part.curves()
    assert (wide.dtype, narrow.dtype) == ("float64", "float32")
    for curve, best, error in ((wide, 1e-5, 1e-9), (narrow, 1e-2, 1e-3)):
        errors = np.array(curve.errors)
        lowest = int(np.nanargmin(errors))
        assert best / 30 <= curve.eps[lowest] <= best * 30
        assert errors[lowest] < error
        assert errors[0] > 10 * errors[lowest]
        last = errors[np.isfinite(errors)][-1]
        assert last > 10 * errors[lowest]


def test_the_curve_of_a_wrong_gradient_is_flat() -> None:
    part = examine(wrong, [grid(2, 3, 4), grid(4)]).inputs[0]
    for curve in part.curves():
        errors = np.array(curve.errors)[:8]
        assert errors.min() > 0.5
        assert errors.max() < 2.0


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    report = examine(ops.tanh, grid(3))
    with pytest.raises(OutputError, match="cannot write"):
        plot_report(tmp_path / "missing" / "check.png", report)
