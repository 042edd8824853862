"""Tensor, Op, backward, no_grad, observe: the engine, and the operators that Python spells with symbols."""

from minialex.tensor.anomaly import anomaly_mode
from minialex.tensor.arithmetic import AddOp, DivOp, MatmulOp, MulOp, NegOp, PowOp, SubOp, sum_to_shape
from minialex.tensor.elementary import ExpOp, LogOp
from minialex.tensor.graph import Event, Gradients, GraphError, Op, is_recording, no_grad, observe
from minialex.tensor.indexing import IndexOp
from minialex.tensor.recorded import recorded_ops, tape
from minialex.tensor.reductions import MeanOp, SumOp
from minialex.tensor.shaping import ReshapeOp, TransposeOp
from minialex.tensor.values import Tensor, as_tensor

__all__ = [
    "AddOp",
    "DivOp",
    "Event",
    "ExpOp",
    "Gradients",
    "GraphError",
    "IndexOp",
    "LogOp",
    "MatmulOp",
    "MeanOp",
    "MulOp",
    "NegOp",
    "Op",
    "PowOp",
    "ReshapeOp",
    "SubOp",
    "SumOp",
    "Tensor",
    "TransposeOp",
    "anomaly_mode",
    "as_tensor",
    "is_recording",
    "no_grad",
    "observe",
    "recorded_ops",
    "sum_to_shape",
    "tape",
]
