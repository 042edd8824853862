"""Networks as ONNX files, which onnxruntime and many other programs run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minialex.errors import UsageError
from minialex.interchange.onnx_nodes import IR_VERSION, OPSET, Node, nodes_for
from minialex.interchange.tracing import INPUT, OUTPUT, Trace, trace
from minialex.nn import Module
from minialex.tensor import Tensor
from minialex.train.files import atomic_write
from minialex.version import __version__

__all__ = ["export_onnx"]

# protobuf's limit for one message, less something for all that is not weights.
MAX_BYTES = 2**31 - 2**20
TRACED = 2


def export_onnx(
    model: Module,
    path: str | Path,
    batch: int | str = "dynamic",
    *,
    input_shape: tuple[int, int, int] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a network as an ONNX file: images (N, C, H, W), float32, in; logits (N, classes) out.

    What is written is what a forward pass in eval() runs, so that dropout leaves nothing behind. The size of
    the images is fixed, their number is not. Opset 13. The file appears whole, or not at all.

    Args:   batch: "dynamic", or the one number of pictures that the file shall take; input_shape: (C, H, W),
            None for (model.channels, model.image_size, model.image_size); metadata: texts for the file's
            metadata_props.
    Raises: UsageError if the package onnx is missing, if the network does something that ONNX cannot say, or
            if it is too large for the format; OutputError if the place cannot be written to.
    """
    onnx = _onnx()
    shape = _input_shape(model, input_shape)
    if batch != "dynamic" and not (isinstance(batch, int) and batch > 0):
        raise UsageError(f"ONNX export: batch must be 'dynamic' or a number of pictures, got {batch!r}")
    size = 4 * model.num_parameters()
    if size > MAX_BYTES:
        raise UsageError(
            f"ONNX export: the weights have {size:,} bytes, and an ONNX file at most {MAX_BYTES:,}"
        )
    number = "N" if batch == "dynamic" else batch
    graph = _graph(onnx, _traced(model, shape), shape, number)
    proto = onnx.helper.make_model(
        graph,
        producer_name="minialex",
        producer_version=__version__,
        ir_version=IR_VERSION,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
    )
    onnx.helper.set_model_props(proto, dict(metadata or {}))
    data = proto.SerializeToString()
    onnx.checker.check_model(data)
    atomic_write(Path(path), lambda file: file.write(data))


def _onnx() -> Any:
    try:
        import onnx
        import onnx.checker
        import onnx.helper
        import onnx.numpy_helper
    except ImportError as error:
        raise UsageError(
            f"ONNX export needs the package onnx ({error}): pip install 'minialex[onnx]'"
        ) from error
    return onnx


def _input_shape(model: Any, given: tuple[int, int, int] | None) -> tuple[int, int, int]:
    if given is not None:
        return given
    if not hasattr(model, "channels") or not hasattr(model, "image_size"):
        raise UsageError(
            f"ONNX export: {type(model).__name__} does not say what it takes; give input_shape=(C, H, W)"
        )
    return model.channels, model.image_size, model.image_size


def _traced(model: Module, shape: tuple[int, int, int]) -> Trace:
    """The trace of two pictures: of one alone, a reshape would not show what becomes of the batch."""
    first = next(model.parameters(), None)
    dtype = np.float32 if first is None else first.dtype
    device = "cpu" if first is None else first.device
    return trace(model, Tensor(np.zeros((TRACED, *shape), dtype), device=device))


def _graph(onnx: Any, found: Trace, shape: tuple[int, int, int], number: int | str) -> Any:
    nodes = [node for step in found.steps for node in nodes_for(step)]
    constants = {**found.constants, **{name: a for node in nodes for name, a in node.constants.items()}}
    if not found.steps:
        raise UsageError("ONNX export: the network does nothing with its images")
    classes = found.steps[-1].shape[1:]
    return onnx.helper.make_graph(
        [_node(onnx, node, found.output) for node in nodes],
        "minialex",
        [_value(onnx, INPUT, (number, *shape))],
        [_value(onnx, OUTPUT, (number, *classes))],
        [onnx.numpy_helper.from_array(_as_stored(array), name) for name, array in constants.items()],
    )


def _node(onnx: Any, node: Node, last: str) -> Any:
    """ONNX's node. What the network gives is called logits, everything else after its layer."""
    inputs = [OUTPUT if name == last else name for name in node.inputs]
    output = OUTPUT if node.output == last else node.output
    return onnx.helper.make_node(node.kind, inputs, [output], name=node.output, **node.attributes)


def _value(onnx: Any, name: str, shape: tuple[int | str, ...]) -> Any:
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def _as_stored(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """float32, the format's usual numbers; the extents of shapes stay whole numbers."""
    return np.ascontiguousarray(array if array.dtype == np.int64 else array.astype(np.float32, copy=False))
