"""The fault is named by what was done to the right gradient: to an array, or inside a small function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minialex import ops
from minialex.gradient_check import examine
from minialex.gradient_check.faults import KINDS, Fault, Hints, likely_fault
from minialex.gradient_check.locations import coverage
from minialex.rng import Stream
from minialex.shapes import Shape
from minialex.tensor import Gradients, Op, Tensor
from minialex.testing import grid

RIGHT = np.random.default_rng(7).normal(size=(2, 4, 6, 7))
NOISE = 1e-9 * np.random.default_rng(8).normal(size=RIGHT.shape)
NCHW = Hints(axes=("N", "C", "H", "W"))


def fault_of(wrong: np.ndarray, hints: Hints = NCHW, right: np.ndarray = RIGHT) -> Fault:
    """What is said to a gradient, with differences that are good to nine digits."""
    return likely_fault(wrong, right + NOISE.reshape(-1)[: right.size].reshape(right.shape), hints)


def changed(place: Any, factor: float = 0.0) -> np.ndarray:
    wrong = RIGHT.copy()
    wrong[place] *= factor
    return wrong


def moved(shift: int, axis: int) -> np.ndarray:
    """Shifted, with other numbers where something comes in."""
    wrong = np.roll(RIGHT, shift, axis)
    edge = [slice(None)] * 4
    edge[axis] = slice(None, shift) if shift > 0 else slice(shift, None)
    wrong[tuple(edge)] = 0.3
    return wrong


WHOLE = [
    (RIGHT * 2.5, "factor", "every element is 2.5 times too large"),
    (RIGHT / 3, "factor", "every element is 3 times too small"),
    (RIGHT * -2, "factor", "every element is 2 times too large and has the wrong sign"),
    (-RIGHT, "sign", "every element has the wrong sign"),
    (RIGHT[..., ::-1], "flipped", "reverse order along W"),
    (RIGHT[:, :, ::-1, ::-1], "flipped", "reverse order along H and W"),
    (RIGHT[:, ::-1], "flipped", "reverse order along C"),
    (RIGHT.swapaxes(2, 3).reshape(RIGHT.shape), "swapped axes", "with H and W exchanged"),
    (RIGHT.transpose(1, 0, 2, 3).reshape(RIGHT.shape), "swapped axes", "with N and C exchanged"),
    (moved(1, 2), "shifted", "1 row down too far"),
    (moved(-2, 3), "shifted", "2 columns left too far"),
    (moved(1, 1), "shifted", "1 channel forward too far"),
    (np.roll(RIGHT, 2, axis=1), "shifted", "2 channels forward too far"),
    (RIGHT[:, [2, 0, 3, 1]], "reordered", "C in the order [2, 0, 3, 1]"),
    (np.zeros_like(RIGHT), "zero", "every element is 0"),
    (RIGHT.astype(np.float32).astype(np.float64), "float32", "computed in float32"),
    (RIGHT * (1 + 3e-8 * np.sign(NOISE)), "float32", "computed in float32"),
]


@pytest.mark.parametrize(("wrong", "kind", "words"), WHOLE, ids=[f"{k}: {w}" for _, k, w in WHOLE])
def test_the_whole_array(wrong: np.ndarray, kind: str, words: str) -> None:
    fault = fault_of(wrong)
    assert fault.kind == kind, fault
    assert words in fault.text
    assert 0.5 < fault.confidence <= 1


PARTS = [
    (changed((slice(None), 2)), "channel", "only channel 2 of 4 is wrong; there it is 0"),
    (changed(1, 2.0), "channel", "only image 1 of 2 is wrong; there it is 2 times what it must be"),
    (changed((slice(None), slice(2, 4)), -1.0), "channel", "only channels 2, 3 of 4 are wrong"),
    (changed((..., slice(4, 6), slice(None))), "border", "only the 2 last rows are wrong"),
    (changed((..., 0)), "border", "only the first column is wrong"),
]


@pytest.mark.parametrize(("wrong", "kind", "words"), PARTS, ids=[f"{k}: {w}" for _, k, w in PARTS])
def test_a_part_of_the_array(wrong: np.ndarray, kind: str, words: str) -> None:
    fault = fault_of(wrong)
    assert fault.kind == kind, fault
    assert words in fault.text


def test_the_frame() -> None:
    wrong = 3 * RIGHT
    wrong[:, :, 1:-1, 1:-1] = RIGHT[:, :, 1:-1, 1:-1]
    fault = fault_of(wrong)
    assert (fault.kind, fault.text) == (
        "border",
        "only elements within 1 pixel of the border are wrong; there it is 3 times what it must be",
    )


def test_where_windows_overlap() -> None:
    window = Hints(axes=NCHW.axes, window=(3, 3), stride=(2, 2), windows=(2, 3))
    shared = coverage((6, 7), (3, 3), (2, 2), ((0, 0), (0, 0)), (1, 1), (2, 3)) > 1
    wrong = np.where(shared & (RIGHT > 0), 0.5 * RIGHT, RIGHT)
    fault = fault_of(wrong, window)
    assert fault.kind == "overlap"
    assert f"{int((shared & (RIGHT > 0)).sum())} of them" in fault.text
    assert fault_of(wrong).kind != "overlap"  # Without the window nobody can know.


def test_coverage_counts_windows() -> None:
    rows = coverage((6, 1), (3, 1), (2, 1), ((1, 0), (0, 0)), (1, 1), (3, 1))[:, 0]
    assert rows.tolist() == [1, 2, 1, 2, 1, 1]
    dilated = coverage((5, 1), (2, 1), (1, 1), ((0, 0), (0, 0)), (2, 1), (3, 1))[:, 0]
    assert dilated.tolist() == [1, 1, 2, 1, 1]


def test_a_mask() -> None:
    dead = RIGHT > 0.5
    right = np.where(dead, 0.0, RIGHT)
    leak = likely_fault(RIGHT, right, NCHW)
    assert leak.kind == "mask"
    assert f"{int(dead.sum())} elements where it must be 0" in leak.text
    useless = likely_fault(RIGHT, np.zeros_like(RIGHT), NCHW)
    assert useless.kind == "mask"
    assert "depends on none" in useless.text


def test_nan_says_where() -> None:
    wrong = RIGHT.copy()
    wrong[0, 1, 2, 3] = np.inf
    fault = fault_of(wrong)
    assert (fault.kind, fault.text) == ("NaN", "1 of 336 elements is not finite: inf at [0, 1, 2, 3]")


def test_the_cotangent_is_ignored() -> None:
    wrong = np.abs(RIGHT)
    assert fault_of(wrong, Hints(ones=wrong)).kind == "ignores the cotangent"
    assert fault_of(wrong, Hints(ones=RIGHT, second=wrong)).kind == "ignores the cotangent"
    assert fault_of(wrong, Hints(ones=RIGHT, second=2 * wrong)).kind == "unknown"


def test_a_forward_pass_in_float32() -> None:
    rough = RIGHT + 0.05 * np.sign(NOISE)
    fault = likely_fault(RIGHT, rough, Hints(coarse=RIGHT * (1 + 1e-5)))
    assert fault.kind == "float32"
    assert "forward pass rounds" in fault.text


def test_what_was_not_compared_does_not_count() -> None:
    right = RIGHT.copy()
    right[0, :, 2:4] = np.nan
    assert likely_fault(2 * RIGHT, right, NCHW).kind == "factor"
    assert likely_fault(RIGHT[..., ::-1], right, NCHW).kind in ("flipped", "unknown")
    assert likely_fault(np.where(np.isnan(right), 9.0, RIGHT), right, NCHW).text.startswith("no element")


def test_arrays_without_letters() -> None:
    matrix = RIGHT[0, 0]
    for wrong, kind, words in (
        (matrix[::-1], "flipped", "reverse order along axis 0"),
        (matrix.T.reshape(matrix.shape), "swapped axes", "with axis 0 and axis 1 exchanged"),
        (np.roll(matrix, 2, axis=1), "shifted", "2 places forward along axis 1 too far"),
        (
            np.where(np.arange(6)[:, None] == 4, 2 * matrix, matrix),
            "channel",
            "only place 4 of 6 along axis 0",
        ),
    ):
        fault = fault_of(wrong, Hints(), matrix)
        assert fault.kind == kind, fault
        assert words in fault.text


def test_nothing_known() -> None:
    noise = np.random.default_rng(1).normal(size=RIGHT.shape)
    fault = fault_of(noise)
    assert fault.kind == "unknown"
    assert "336 wrong elements in no pattern known; analytic / numeric goes from" in fault.text
    assert fault_of(RIGHT).confidence == 0.0


SHAPES: tuple[Shape, ...] = (
    (),
    (0,),
    (1,),
    (5,),
    (2, 3),
    (2, 0, 3),
    (1, 1, 1, 1),
    (2, 3, 4, 5),
    (2, 2, 2, 2, 2),
)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_comes_there_is_an_answer(seed: int) -> None:
    """Any shape, any numbers, NaN and infinities, Jacobians that have nothing to do with the gradient."""
    random = np.random.default_rng(seed)
    for shape in SHAPES:
        right = random.normal(size=shape) * 10.0 ** random.integers(-12, 12)
        hole = np.where(random.random(shape) < 0.3, np.nan, right)
        output = SHAPES[random.integers(len(SHAPES))]
        size = (int(np.prod(output)), int(np.prod(shape)))
        jacobian = random.normal(size=size) * (random.random(size) < 0.3)
        window: dict[str, Any] = {"axes": NCHW.axes, "window": (2, 3), "padding": ((0, 1), (1, 1))}
        known = [
            Hints(),
            Hints(output_shape=output, jacobians=(random.normal(size=size), jacobian)),
            Hints(output_shape=output, jacobians=(np.where(jacobian > 0, jacobian, 0), jacobian)),
            Hints(ones=hole, second=right, coarse=right, arrays={"x": right}),
            Hints(**window) if len(shape) == 4 else Hints(axes=("N",)),
        ]
        for wrong in (0 * right, 2 * right, hole, np.flip(right), random.normal(size=shape), right / 0.5e-3):
            for numeric in (right, hole, 0 * right, np.full(shape, np.inf)):
                for hints in known:
                    fault = likely_fault(np.asarray(wrong), np.asarray(numeric), hints)
                    assert fault.kind in KINDS
                    assert 0 <= fault.confidence <= 1


@pytest.mark.parametrize("seed", range(5))
def test_a_sample_does_not_show_an_order_that_is_not_there(seed: int) -> None:
    stream = Stream(seed, "test")
    right, wrong = stream.normal(shape=(60, 50)), stream.normal(shape=(60, 50))
    sampled = np.full(right.size, np.nan)
    places = stream.permutation(right.size)[:12]
    sampled[places] = right.reshape(-1)[places]
    fault = likely_fault(wrong, sampled.reshape(right.shape))
    assert fault.kind == "unknown", fault


@pytest.mark.parametrize(
    ("moved", "kind"),
    [
        (lambda a: a[:, ::-1], "flipped"),
        (lambda a: np.roll(a, 2, axis=1), "shifted"),
        (lambda a: a.T.reshape(60, 50), "swapped axes"),
    ],
)
def test_an_order_is_found_in_a_sample(moved: Callable[[np.ndarray], np.ndarray], kind: str) -> None:
    right = Stream(3, "test").normal(shape=(60, 50))
    sampled = np.full(right.size, np.nan)
    places = Stream(4, "test").permutation(right.size)[:12]
    sampled[places] = right.reshape(-1)[places]
    assert likely_fault(moved(right), sampled.reshape(right.shape)).kind == kind


def test_little_evidence_is_little_confidence() -> None:
    one = likely_fault(np.array([2.0]), np.array([1.0]))
    many = likely_fault(2 * RIGHT, RIGHT)
    assert one.kind == many.kind == "factor"
    assert one.text == "the one element is 2 times too large"
    assert one.confidence < 0.5 < many.confidence


def test_kinds_are_explained_and_none_is_precision() -> None:
    assert all(text and text[0].islower() for text in KINDS.values() if not text.startswith("NaN"))
    assert "precision" not in KINDS


# ------------------------------------------------------------------------------------ through `examine`


class WrongOp(Op):
    """y = x, with the gradient that `wrong` makes of dy."""

    def __init__(self, wrong: Any) -> None:
        self.wrong = wrong

    def shape(self, x: Shape) -> Shape:
        return x

    def forward(self, x: np.ndarray) -> np.ndarray:
        return x.copy()

    def backward(self, dy: np.ndarray) -> Gradients:
        return (np.ascontiguousarray(self.wrong(dy)),)


def named(wrong: Any, shape: Shape = (1, 3, 4, 5)) -> Fault:
    """The fault in the report of conv2d(identity(x)) whose identity has this backward."""
    weight = grid(2, 3, 3, 2, item=1)

    def fn(x: Tensor) -> Tensor:
        return ops.conv2d(WrongOp(wrong)(x), Tensor(weight))

    fault = examine(fn, [grid(*shape)], names=["x"]).inputs[0].fault
    assert fault is not None
    return fault


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        (lambda d: 3 * d, "factor"),
        (lambda d: -d, "sign"),
        (lambda d: d[..., ::-1], "flipped"),
        (lambda d: d.swapaxes(2, 3).reshape(d.shape), "swapped axes"),
        (lambda d: np.roll(d, 1, axis=1), "shifted"),
        (lambda d: 0 * d, "zero"),
        (lambda d: np.where(np.arange(3)[:, None, None] == 1, 0, d), "channel"),
        (lambda d: d.astype(np.float32).astype(d.dtype), "float32"),
        (lambda d: np.full_like(d, 0.5), "ignores the cotangent"),
        (lambda d: d / 0.0 * 0.0, "NaN"),
    ],
)
def test_what_a_layer_before_a_convolution_does_wrong(wrong: Any, kind: str) -> None:
    with np.errstate(all="ignore"):
        assert named(wrong).kind == kind


def test_an_honest_gradient_has_no_fault() -> None:
    assert examine(lambda x: WrongOp(lambda d: d)(x), [grid(2, 3)]).inputs[0].fault is None


def test_a_factor_in_one_input_only() -> None:
    class LopsidedOp(Op):
        """y = a * b, with db 4 times too large."""

        def shape(self, a: Shape, b: Shape) -> Shape:
            return a

        def forward(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
            self.save(a, b)
            return np.asarray(a * b)

        def backward(self, dy: np.ndarray) -> Gradients:
            a, b = self.saved
            return dy * b, 4 * dy * a

    report = examine(lambda a, b: LopsidedOp()(a, b), [grid(3, 2), grid(3, 2, item=1)], names=["a", "b"])
    right, wrong = report.inputs
    assert right.ok
    assert right.fault is None
    assert wrong.fault is not None
    assert wrong.fault.text == "every element is 4 times too large"
    assert "likely fault: every element is 4 times too large" in report.text()
