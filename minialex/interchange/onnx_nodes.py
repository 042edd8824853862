"""How each operation is said in ONNX, in the operators of opset 13.

Where ONNX means something else by a number than we do, it is converted here. Padding that only rounding up
makes necessary is written out, because programs differ in what ONNX's ceil_mode does at the edge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from minialex import ops
from minialex.errors import UsageError
from minialex.interchange.tracing import Step
from minialex.kernels.average_pooling import Bounds, adaptive_bounds
from minialex.shapes import Padding
from minialex.tensor import Op
from minialex.tensor.arithmetic import AddOp, DivOp, MatmulOp, MulOp, NegOp, SubOp
from minialex.tensor.shaping import ReshapeOp

__all__ = ["Node", "nodes_for"]

OPSET = 13
# The oldest format that has it: as many programs as possible can read the file.
IR_VERSION = 7


@dataclass(frozen=True)
class Node:
    """One node. Args: kind: ONNX's operator; inputs, output: names of values; attributes: ONNX's;
    constants: arrays by name that only this node needs.
    """

    kind: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any] = field(default_factory=dict)
    constants: dict[str, npt.NDArray[Any]] = field(default_factory=dict)


Writer: TypeAlias = Callable[[Step, Any], list[Node]]


def nodes_for(step: Step) -> list[Node]:
    """The nodes of a step, the last of which has its output. Raises: UsageError if ONNX has no such thing."""
    writer = _WRITERS.get(type(step.op))
    if writer is None:
        raise UsageError(f"ONNX export: {step.name}: there is no ONNX for the operation {step.op.name}")
    return writer(step, step.op)


def _plain(kind: str) -> Writer:
    return lambda step, op: [Node(kind, step.inputs, step.name)]


def _conv(step: Step, op: ops.Conv2dOp) -> list[Node]:
    attributes = {
        "kernel_shape": list(op.input_shapes[1][2:]),
        "strides": list(op.stride),
        "pads": _pads(op.padding),
        "dilations": list(op.dilation),
        "group": op.groups,
    }
    return [Node("Conv", step.inputs, step.name, attributes)]


def _pads(padding: Padding) -> list[int]:
    (top, bottom), (left, right) = padding
    return [top, left, bottom, right]


def _linear(step: Step, op: ops.LinearOp) -> list[Node]:
    if len(op.input_shapes[0]) != 2:
        raise UsageError(
            f"ONNX export: {step.name}: a fully connected layer on {op.input_shapes[0]}; flatten first"
        )
    return [Node("Gemm", step.inputs, step.name, {"transB": 1})]


def _norm(step: Step, op: ops.LocalResponseNormOp) -> list[Node]:
    """ONNX divides alpha by size, as PyTorch does; an even size reaches further after than before."""
    if op.lower != op.upper:
        raise UsageError(
            f"ONNX export: {step.name}: ONNX's window of {op.size} channels is another one than PyTorch's; "
            "use an odd size"
        )
    size = op.lower + op.upper + 1
    attributes = {"size": size, "alpha": op.alpha * size, "beta": op.beta, "bias": op.k}
    return [Node("LRN", step.inputs, step.name, attributes)]


def _max_pool(step: Step, op: ops.MaxPool2dOp) -> list[Node]:
    return [Node("MaxPool", step.inputs, step.name, _window(step, op))]


def _window(step: Step, op: ops.MaxPool2dOp | ops.AvgPool2dOp) -> dict[str, Any]:
    pads = _pads(op.padding)
    if op.ceil_mode:
        for axis in range(2):
            reach = (step.shape[2 + axis] - 1) * op.stride[axis] + op.kernel_size[axis]
            pads[2 + axis] = max(0, reach - op.input_shapes[0][2 + axis] - pads[axis])
    return {"kernel_shape": list(op.kernel_size), "strides": list(op.stride), "pads": pads}


def _average_pool(step: Step, op: ops.AvgPool2dOp) -> list[Node]:
    window = _window(step, op)
    padded = any(_pads(op.padding))
    if padded and op.count_include_pad and window["pads"] != _pads(op.padding):
        # A last window that is cut off counts the padding, but not what lies beyond: ONNX cannot say that.
        return _averages(step, *op.bounds(op.input_shapes[0], True))
    counted = int(padded and op.count_include_pad)
    return [Node("AveragePool", step.inputs, step.name, {**window, "count_include_pad": counted})]


def _adaptive_average_pool(step: Step, op: ops.AdaptiveAvgPool2dOp) -> list[Node]:
    """For this size of images alone: ONNX has no pooling to a given size."""
    bounds = [adaptive_bounds(op.input_shapes[0][2 + i], op.output_size[i]) for i in range(2)]
    windows = [_sliding(bound, op.input_shapes[0][2 + i]) for i, bound in enumerate(bounds)]
    if windows == [(1, 1), (1, 1)]:
        return [Node("Identity", step.inputs, step.name)]
    if None in windows:
        return _averages(step, bounds[0], bounds[1])
    kernel, stride = zip(*[w for w in windows if w], strict=True)
    return [
        Node("AveragePool", step.inputs, step.name, {"kernel_shape": list(kernel), "strides": list(stride)})
    ]


def _sliding(bounds: Bounds, size: int) -> tuple[int, int] | None:
    """(kernel, stride) if the bins are a window that slides over the whole axis, or None."""
    kernel = bounds[0][1]
    stride = bounds[1][0] if len(bounds) > 1 else 1
    same = all(
        (start, stop) == (i * stride, i * stride + kernel) for i, (start, stop, _) in enumerate(bounds)
    )
    return (kernel, stride) if same and stride and (size - kernel) // stride + 1 == len(bounds) else None


def _averages(step: Step, rows: Bounds, cols: Bounds) -> list[Node]:
    """Means over any rectangles as two products of matrices: y = A x B, A (OH, H), B (W, OW)."""
    height, width = step.op.input_shapes[0][2:]
    left, right, half = (f"{step.name}.{part}" for part in ("rows", "cols", "half"))
    return [
        Node("MatMul", (left, *step.inputs), half, constants={left: _weights(rows, height)}),
        Node("MatMul", (half, right), step.name, constants={right: _weights(cols, width).T}),
    ]


def _weights(bounds: Bounds, size: int) -> npt.NDArray[Any]:
    matrix = np.zeros((len(bounds), size), np.float32)
    for row, (start, stop, divisor) in zip(matrix, bounds, strict=True):
        row[start:stop] = 1 / divisor
    return matrix


def _reshape(step: Step, op: ReshapeOp) -> list[Node]:
    before, after = op.input_shapes[0], step.shape
    if before == after:
        return [Node("Identity", step.inputs, step.name)]
    if not before or not after or before[0] != after[0]:
        raise UsageError(
            f"ONNX export: {step.name}: a reshape from {before} to {after} mixes pictures of a batch"
        )
    if len(after) == 2:
        return [Node("Flatten", step.inputs, step.name, {"axis": 1})]
    shape = f"{step.name}.shape"
    extents = np.array([0, *after[1:]], np.int64)  # 0: as it is.
    return [Node("Reshape", (*step.inputs, shape), step.name, constants={shape: extents})]


def _along_axis(kind: str) -> Writer:
    return lambda step, op: [Node(kind, step.inputs, step.name, {"axis": op.axis})]


_WRITERS: dict[type[Op], Writer] = {
    ops.Conv2dOp: _conv,
    ops.LinearOp: _linear,
    ops.LocalResponseNormOp: _norm,
    ops.MaxPool2dOp: _max_pool,
    ops.AvgPool2dOp: _average_pool,
    ops.AdaptiveAvgPool2dOp: _adaptive_average_pool,
    ReshapeOp: _reshape,
    ops.ReluOp: _plain("Relu"),
    ops.SigmoidOp: _plain("Sigmoid"),
    ops.TanhOp: _plain("Tanh"),
    ops.SoftmaxOp: _along_axis("Softmax"),
    ops.LogSoftmaxOp: _along_axis("LogSoftmax"),
    AddOp: _plain("Add"),
    SubOp: _plain("Sub"),
    MulOp: _plain("Mul"),
    DivOp: _plain("Div"),
    NegOp: _plain("Neg"),
    MatmulOp: _plain("MatMul"),
}
