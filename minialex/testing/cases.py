"""A row, usually several, for every Op: inputs, parameters and the loops that say what must come out.

Inputs are shuffled, evenly spaced grids without zero: no two elements are equal and none is at a kink, by
construction, so that a difference quotient with a step far below the spacing never straddles one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from minialex.backend import Array
from minialex.ops import (
    AdaptiveAvgPool2dOp,
    AvgPool2dOp,
    ConcatenateOp,
    Conv2dOp,
    Conv2dReluOp,
    Conv2dSigmoidAvgPool2dOp,
    CrossEntropyOp,
    DropoutOp,
    LinearOp,
    LocalResponseNormOp,
    LogSoftmaxOp,
    MaxPool2dOp,
    ReluLrnMaxPool2dOp,
    ReluMaxPool2dOp,
    ReluOp,
    SigmoidAvgPool2dOp,
    SigmoidOp,
    SoftmaxOp,
    TanhOp,
)
from minialex.rng import Stream
from minialex.shapes import Shape
from minialex.tensor import (
    AddOp,
    DivOp,
    ExpOp,
    IndexOp,
    LogOp,
    MatmulOp,
    MeanOp,
    MulOp,
    NegOp,
    Op,
    PowOp,
    ReshapeOp,
    SubOp,
    SumOp,
    TransposeOp,
)
from minialex.testing import references

__all__ = ["CASES", "Case", "grid", "positive"]


@dataclass(frozen=True, eq=False)
class Case:
    """One row: an op on given inputs.

    Args: op: the class; inputs: float64 and integer arrays; params: for the op's __init__, and by the same
          names for the reference; reference: loops, reference(*inputs, **params) -> array;
          bad_shapes: input shapes that must raise ShapeError with these params;
          uncounted: operations that the cost has and that the loops leave out, where what they do depends
          on the values.
    """

    op: type[Op]
    inputs: tuple[Array, ...]
    params: dict[str, Any] = field(default_factory=dict)
    reference: references.Reference | None = None
    bad_shapes: Sequence[tuple[Shape, ...]] = ()
    uncounted: int = 0

    def make(self) -> Op:
        """A new call of the op."""
        return self.op(**self.params)

    def expected(self, *arrays: Array) -> Array:
        """What the reference gives for these arrays."""
        if self.reference is None:
            raise ValueError(f"{self.label}: this case has no reference")
        return self.reference(*arrays, **self.params)

    @property
    def label(self) -> str:
        """`conv2d (2,3,5,5) (4,3,2,3) stride=2`: what a report calls this row."""
        shapes = " ".join(str(a.shape).replace(" ", "") for a in self.inputs)
        params = " ".join(f"{name}={_text(value)}" for name, value in self.params.items())
        return " ".join(part for part in (self.op.name, shapes, params) if part)


def _text(value: Any) -> str:
    return f"array{value.shape}" if hasattr(value, "shape") else str(value)


def grid(*shape: int, item: int = 0, scale: float = 2.0) -> npt.NDArray[np.float64]:
    """Evenly spaced numbers from -scale to scale without zero, shuffled; `item` picks the shuffle."""
    count = int(np.prod(shape))
    # An offset of three quarters: the middle of an odd count is not zero, and no x has -x beside it.
    values = (np.arange(count, dtype=np.float64) + 0.75 - count / 2) * (2 * scale / max(count, 1))
    return values[Stream(0, "test", item=item).permutation(count)].reshape(shape)


def positive(*shape: int, item: int = 0, low: float = 0.5, high: float = 2.5) -> npt.NDArray[np.float64]:
    """Evenly spaced numbers between low and high, shuffled."""
    count = int(np.prod(shape))
    values = low + (np.arange(count, dtype=np.float64) + 0.5) * ((high - low) / max(count, 1))
    return values[Stream(0, "test", item=item).permutation(count)].reshape(shape)


# The ways in which two shapes meet: equal, repeated at the front, in the middle, on both sides, a scalar.
BROADCASTS: tuple[tuple[Shape, Shape], ...] = (
    ((2, 3), (2, 3)),
    ((2, 3), (3,)),
    ((4, 1, 3), (2, 1)),
    ((), (2, 2)),
    ((3, 1), (1, 4)),
)
UNBROADCASTABLE: tuple[tuple[Shape, ...], ...] = (((2, 3), (2,)), ((2, 3), (3, 2)), ((4,), (5,)))


def _symbols() -> list[Case]:
    rows = []
    for a, b in BROADCASTS:
        plain = (grid(*a), grid(*b, item=1))
        for op, reference in ((AddOp, references.add), (SubOp, references.sub), (MulOp, references.mul)):
            rows.append(Case(op, plain, {}, reference, UNBROADCASTABLE))
        rows.append(Case(DivOp, (grid(*a), positive(*b, item=1)), {}, references.div, UNBROADCASTABLE))
        rows.append(Case(PowOp, (positive(*a), grid(*b, item=1)), {}, references.power, UNBROADCASTABLE))
    # Divisors and bases below zero: signs must come out right.
    rows.append(Case(DivOp, (grid(2, 3), -positive(2, 3, item=1)), {}, references.div))
    rows.append(Case(NegOp, (grid(2, 3),), {}, references.neg))
    rows.append(Case(NegOp, (grid(),), {}, references.neg))
    return rows


def _matmul() -> list[Case]:
    pairs: list[tuple[Shape, Shape]] = [
        ((2, 3), (3, 4)),
        ((3,), (3, 2)),
        ((2, 3), (3,)),
        ((3,), (3,)),
        ((2, 1, 2, 3), (4, 3, 2)),  # Leading axes that broadcast.
        ((2, 2, 3), (3,)),
        ((3,), (2, 3, 2)),
        ((1, 1), (1, 5)),
    ]
    bad = (((2, 3), (2, 3)), ((), (2, 2)), ((3,), (4,)), ((2, 2, 3), (3, 3, 2)))
    return [Case(MatmulOp, (grid(*a), grid(*b, item=1)), {}, references.matmul, bad) for a, b in pairs]


def _reductions() -> list[Case]:
    rows = []
    for op, reference in ((SumOp, references.sum_over), (MeanOp, references.mean_over)):
        for axis in (None, 0, -1, (0, 2), (1,)):
            for keepdims in (False, True):
                params = {"axis": axis, "keepdims": keepdims}
                bad = (((),),) if axis is not None else ()
                rows.append(Case(op, (grid(2, 3, 4),), params, reference, bad))
        rows.append(Case(op, (grid(),), {}, reference))
    return rows


def _elements() -> list[Case]:
    """One in, one out, or only moved."""
    rows = [
        Case(ExpOp, (grid(2, 3),), {}, references.exp),
        Case(ExpOp, (grid(),), {}, references.exp),
        Case(LogOp, (positive(2, 3),), {}, references.log),
    ]
    for shape in ((6, 4), (-1, 3), (24,), (2, 1, -1, 4)):
        rows.append(Case(ReshapeOp, (grid(2, 3, 4),), {"shape": shape}, references.reshape, (((5,),),)))
    for axes in (None, (1, 0, 2), (2, 0, 1), (-1, 0, 1)):  # (2, 0, 1) is not its own inverse.
        bad = (((2, 3),),) if axes is not None else ()
        rows.append(Case(TransposeOp, (grid(2, 3, 4),), {"axes": axes}, references.transpose, bad))
    return rows


def _indexing() -> list[Case]:
    indices: list[Any] = [
        1,
        slice(1, None),
        (slice(None), slice(None, None, -2)),
        (Ellipsis, -1),
        (None, 0, Ellipsis),
        (slice(None), 1, None, slice(1, 3)),
        np.array([2, 0, 2, -1]),  # Element 2 twice and once more as -1: gradients add up.
        np.array([True, False, True]),
        (slice(None), np.array([0, 0, 3])),
    ]
    bad = (((),),)
    return [Case(IndexOp, (grid(3, 4, 5),), {"index": index}, references.index, bad) for index in indices]


# ---------------------------------------------------------------------------------------------- networks


def _activations() -> list[Case]:
    rows = []
    for op, reference in (
        (ReluOp, references.relu),
        (SigmoidOp, references.sigmoid),
        (TanhOp, references.tanh),
    ):
        rows += [Case(op, (grid(*shape),), {}, reference) for shape in ((2, 3, 2, 2), (5,), ())]
    rows.append(Case(ReluOp, (-positive(2, 3),), {}, references.relu))  # Dead: no gradient at all.
    masks = ((0.5, 2.0, (0, 0, 0)), (0.2, 1.25, (7, 3, 1)), (0.4, 1.0, (2**40, 5, 2)), (0, 1.0, (1, 1, 1)))
    for p, scale, key in masks:
        params = {"p": p, "scale": scale, "key": key}
        rows.append(Case(DropoutOp, (grid(3, 7),), params, references.dropout))
    return rows


def _losses() -> list[Case]:
    rows = []
    for op, reference in ((SoftmaxOp, references.softmax), (LogSoftmaxOp, references.log_softmax)):
        for shape, axis in (((3, 5), -1), ((2, 4, 3), 1), ((4,), 0), ((2, 1), 1), ((3, 2), 0)):
            empty: Shape = (3, 0) if axis == -1 else ()
            rows.append(Case(op, (grid(*shape),), {"axis": axis}, reference, ((empty,),)))
        rows.append(Case(op, (grid(2, 3, scale=400.0),), {}, reference))  # exp alone would overflow.
    labels = np.array([2, 0, 4])
    bad = (((3,),), ((4, 5),), ((3, 0),))
    for reduction in ("mean", "sum", "none"):
        for smoothing in (0.0, 0.1):
            params = {"labels": labels, "label_smoothing": smoothing, "reduction": reduction}
            rows.append(Case(CrossEntropyOp, (grid(3, 5),), params, references.cross_entropy, bad))
    rows.append(Case(CrossEntropyOp, (grid(1, 2),), {"labels": np.array([1])}, references.cross_entropy))
    return rows


def _linear() -> list[Case]:
    bad = (((2, 4), (5, 3), (5,)), ((2, 3), (5, 3), (4,)), ((2, 3), (3,), (5,)), ((), (5, 3), (5,)))
    bias = grid(5, item=2)
    return [
        Case(LinearOp, (grid(2, 3), grid(5, 3, item=1), bias), {}, references.linear, bad),
        Case(LinearOp, (grid(2, 3), grid(5, 3, item=1)), {}, references.linear),
        Case(LinearOp, (grid(1, 3), grid(5, 3, item=1), bias), {}, references.linear),
        Case(LinearOp, (grid(3), grid(5, 3, item=1), bias), {}, references.linear),
        Case(LinearOp, (grid(2, 2, 3), grid(5, 3, item=1), bias), {}, references.linear),
    ]


def _concatenations() -> list[Case]:
    bad = (((2, 3), (3, 4)), ((2, 3), (2, 3, 1)), ((),))
    three = (grid(2, 3), grid(2, 1, item=1), grid(2, 2, item=2))
    return [
        Case(ConcatenateOp, three, {"axis": 1}, references.concatenate, bad),
        Case(ConcatenateOp, (grid(2, 3, 2), grid(1, 3, 2, item=1)), {}, references.concatenate),
        Case(ConcatenateOp, (grid(2, 2), grid(2, 3, item=1)), {"axis": -1}, references.concatenate),
        Case(ConcatenateOp, (grid(4),), {}, references.concatenate),
    ]


def _convolutions() -> list[Case]:
    """x, weight, whether there is a bias, and the geometry."""
    everything = {"stride": 2, "padding": ((0, 1), (2, 0)), "dilation": 2, "groups": 2}
    geometries: list[tuple[Shape, Shape, bool, dict[str, Any]]] = [
        ((2, 3, 5, 6), (4, 3, 3, 2), True, {}),
        ((1, 1, 4, 4), (1, 1, 3, 3), False, {}),
        ((2, 2, 7, 6), (3, 2, 2, 3), True, {"stride": 2}),  # A rest is left over.
        ((1, 2, 6, 8), (2, 2, 3, 2), True, {"stride": (2, 3), "padding": (1, 0)}),
        ((1, 2, 4, 5), (2, 2, 3, 3), True, {"padding": ((1, 2), (0, 3))}),
        ((1, 2, 7, 8), (2, 2, 3, 2), False, {"dilation": (2, 3)}),
        ((2, 4, 4, 5), (6, 2, 2, 3), True, {"groups": 2, "padding": 1}),
        ((1, 3, 4, 4), (3, 1, 3, 2), True, {"groups": 3}),  # Depthwise.
        ((1, 4, 6, 6), (2, 2, 2, 3), False, everything),
        ((2, 3, 4, 3), (2, 3, 1, 1), True, {}),
        ((2, 2, 3, 4), (5, 2, 3, 4), True, {}),  # One window: a linear layer in disguise.
        ((1, 1, 2, 2), (2, 1, 3, 3), True, {"padding": 1}),  # A kernel larger than the picture.
        ((1, 1, 5, 5), (1, 1, 1, 2), True, {"stride": 3}),  # Pixels that no window sees.
    ]
    bad = (
        ((2, 3, 5, 6), (4, 2, 3, 2), (4,)),
        ((2, 3, 5, 6), (4, 3, 3, 2), (3,)),
        ((3, 5, 6), (4, 3, 3, 2), (4,)),
        ((2, 3, 2, 6), (4, 3, 3, 2), (4,)),
    )
    return [
        Case(
            op,
            (grid(*x), grid(*weight, item=1), *([grid(weight[0], item=2)] if bias else [])),
            params,
            reference,
            () if params else bad,
        )
        for op, reference in ((Conv2dOp, references.conv2d), (Conv2dReluOp, references.conv2d_relu))
        for x, weight, bias, params in geometries
    ]


# How windows of pooling lie on a picture: its shape, and the parameters.
WINDOWS: tuple[tuple[Shape, dict[str, Any]], ...] = (
    ((2, 2, 4, 4), {"kernel_size": 2}),
    ((2, 2, 7, 7), {"kernel_size": 3, "stride": 2}),  # Overlapping, as in the paper.
    ((1, 2, 6, 8), {"kernel_size": (3, 2), "stride": (2, 3)}),
    ((1, 1, 5, 6), {"kernel_size": 3, "stride": 2, "padding": 1}),
    ((1, 2, 5, 5), {"kernel_size": (4, 3), "stride": 2, "padding": ((1, 2), (0, 1))}),
    ((1, 2, 6, 7), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    # The last window would start in the far padding, and is dropped.
    ((1, 1, 3, 4), {"kernel_size": 2, "stride": 2, "padding": 1, "ceil_mode": True}),
    ((1, 1, 4, 6), {"kernel_size": (2, 3), "stride": 4, "padding": ((0, 1), (1, 1)), "ceil_mode": True}),
    ((1, 3, 3, 3), {"kernel_size": 3, "stride": 1}),
    ((1, 1, 1, 1), {"kernel_size": 1}),
)
BAD_PICTURES: tuple[tuple[Shape, ...], ...] = (((2, 4, 4),), ((1, 1, 0, 4),))


def _poolings() -> list[Case]:
    rows, bad = [], BAD_PICTURES
    for shape, params in WINDOWS:
        rows.append(Case(MaxPool2dOp, (grid(*shape),), params, references.max_pool2d, bad))
        rows.append(Case(AvgPool2dOp, (grid(*shape),), params, references.avg_pool2d, bad))
        # Padding with zeros would win over every pixel.
        rows.append(Case(MaxPool2dOp, (-positive(*shape),), params, references.max_pool2d))
        if "padding" in params:
            excluded = {**params, "count_include_pad": False}
            rows.append(Case(AvgPool2dOp, (grid(*shape),), excluded, references.avg_pool2d))
    # The winner is the last of 289 cells, a number that does not fit a byte.
    rising = np.sort(grid(18 * 17)).reshape(1, 1, 18, 17)
    rows.append(Case(MaxPool2dOp, (rising,), {"kernel_size": 17, "stride": 1}, references.max_pool2d))
    for shape, size in (((2, 2, 5, 7), (2, 3)), ((1, 2, 6, 6), 6), ((1, 1, 4, 5), 1), ((1, 1, 2, 3), (5, 4))):
        params = {"output_size": size}
        rows.append(Case(AdaptiveAvgPool2dOp, (grid(*shape),), params, references.adaptive_avg_pool2d, bad))
    return rows


def _normalisations() -> list[Case]:
    """alpha is 1: at 1e-4 a window that is a channel short would pass."""
    rows = []
    for dialect in ("paper", "torch"):
        for size, channels in ((5, 7), (4, 6), (3, 2), (1, 3), (2, 3), (9, 4), (3, 1)):
            params = {"size": size, "alpha": 1.0, "beta": 0.75, "k": 2.0, "dialect": dialect}
            x = grid(2, channels, 1, 2)
            rows.append(Case(LocalResponseNormOp, (x,), params, references.lrn, (((2, 3, 4),),)))
        sharp = {"size": 3, "alpha": 1.0, "beta": 1.0, "k": 0.0, "dialect": dialect}
        rows.append(Case(LocalResponseNormOp, (positive(1, 4, 2, 2),), sharp, references.lrn))
    return rows


def _fused_poolings() -> list[Case]:
    rows, bad = [], BAD_PICTURES
    for number, (shape, params) in enumerate(WINDOWS):
        dialect, size = (("paper", 3), ("torch", 4), ("paper", 5), ("torch", 2))[number % 4]
        norm = {"size": size, "alpha": 1.0, "beta": 0.75, "k": 2.0, "dialect": dialect}
        # Half of the pixels are below zero, so that some windows have nothing left; and all of them are.
        for x in (grid(*shape), -positive(*shape)):
            rows.append(Case(ReluMaxPool2dOp, (x,), params, references.relu_max_pool2d, bad))
        rows.append(Case(SigmoidAvgPool2dOp, (grid(*shape),), params, references.sigmoid_avg_pool2d, bad))
        both = {**norm, **params}
        rows.append(Case(ReluLrnMaxPool2dOp, (grid(*shape),), both, references.relu_lrn_max_pool2d, bad))
    # With ReLU, 256 cells need 257 numbers. The windows above see nothing above zero, those below do.
    rising = np.sort(grid(17 * 17)).reshape(1, 1, 17, 17) - 137 * 4 / 17**2
    wide = {"kernel_size": 16, "stride": 1}
    rows.append(Case(ReluMaxPool2dOp, (rising,), wide, references.relu_max_pool2d))
    for dialect in ("paper", "torch"):
        both = {"size": 4, "alpha": 0.5, "beta": 1.1, "k": 1.5, "dialect": dialect, "kernel_size": 2}
        x = grid(2, 7, 4, 4, item=5)
        rows.append(Case(ReluLrnMaxPool2dOp, (x,), both, references.relu_lrn_max_pool2d))
    return rows


def _fused_convolutions() -> list[Case]:
    """Filters five wide at stride 1 go one way, image by image, and all others another."""
    rows = []
    pairs: tuple[tuple[Shape, Shape, dict[str, Any], dict[str, Any]], ...] = (
        ((2, 1, 6, 6), (2, 1, 5, 5), {"padding": 2}, {"kernel_size": 2}),
        ((1, 2, 7, 8), (3, 2, 5, 5), {}, {"kernel_size": 2}),
        ((1, 2, 4, 9), (2, 1, 2, 5), {"dilation": (1, 2), "groups": 2}, {"kernel_size": (2, 1)}),
        (
            (1, 1, 5, 7),
            (1, 1, 3, 5),
            {"padding": ((1, 0), (2, 1))},
            {"kernel_size": 2, "pool_stride": 1, "pool_padding": 1, "count_include_pad": False},
        ),
        ((2, 2, 6, 5), (2, 2, 3, 2), {"stride": (2, 1)}, {"kernel_size": 2, "ceil_mode": True}),
        ((1, 3, 4, 4), (2, 3, 3, 3), {"padding": 1}, {"kernel_size": 3, "pool_padding": 1}),
    )
    bad = (((1, 3, 6, 6), (2, 2, 5, 5), (2,)), ((1, 2, 5, 5), (2, 2, 5, 5), (2,)))
    for number, (x, weight, geometry, window) in enumerate(pairs):
        inputs = (grid(*x), grid(*weight, item=1), grid(weight[0], item=2))
        row = Case(Conv2dSigmoidAvgPool2dOp, inputs, geometry | window, references.conv2d_sigmoid_avg_pool2d)
        rows.append(dataclasses.replace(row, bad_shapes=bad) if number == 1 else row)
        rows.append(dataclasses.replace(row, inputs=inputs[:2]))
    return rows


CASES: list[Case] = [
    *_symbols(),
    *_matmul(),
    *_reductions(),
    *_elements(),
    *_indexing(),
    *_activations(),
    *_losses(),
    *_linear(),
    *_concatenations(),
    *_convolutions(),
    *_poolings(),
    *_normalisations(),
    *_fused_poolings(),
    *_fused_convolutions(),
]
