"""A network as it stands in lectures: sizes and parameters, layer by layer, with the numbers filled in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from minialex import ops
from minialex.models import SIZE_RULE, size_by_rule
from minialex.shapes import Pair, Shape, numel
from minialex.tensor import Op
from minialex.train.reporter import table

RULE = f"""{SIZE_RULE}, rounded down
W: pixels a side; F: of the kernel; P: zeros at each end (1 + 2: one before, two
after); S: stride"""


@dataclass(frozen=True)
class Layer:
    """A line of the tables, in words and numbers as they are printed; "" where a layer has no such thing.

    Args: name: conv1, norm1, maxpool1, fc1, ...; place: of the layer in the network, such as features.0;
          kernel, padding, stride: pixels; number: of filters or of outputs; output: pixels a side, by
          SIZE_RULE, or numbers in and out; product: the weights as a product of extents; weights, biases: how
          many.
    """

    name: str
    place: str = ""
    kernel: str = ""
    number: str = ""
    padding: str = ""
    stride: str = ""
    output: str = ""
    product: str = ""
    weights: int = 0
    biases: int = 0

    @property
    def parameters(self) -> int:
        """Trained numbers in all."""
        return self.weights + self.biases


def describe(op: Op, inputs: Sequence[Shape], parameters: Sequence[Shape], before: Shape) -> Layer | None:
    """What the tables say of an op's call, its name without a number; None for an op that they leave out.

    Args: inputs: shapes of the op's inputs; parameters: those of them that are the network's and were not
          counted before; before: the last shape (N, C, H, W), () if a fully connected layer came after it.
    """
    layer = _layer(op, inputs, before)
    weights = sum(numel(shape) for shape in parameters if len(shape) != 1)
    biases = sum(numel(shape) for shape in parameters if len(shape) == 1)
    if layer is None:
        return Layer(op.name, weights=weights, biases=biases) if weights + biases else None
    return replace(layer, weights=weights, biases=biases)


def _layer(op: Op, inputs: Sequence[Shape], before: Shape) -> Layer | None:
    x = inputs[0]
    if isinstance(op, ops.Conv2dOp):
        return _convolution(op, x, inputs[1])
    if isinstance(op, ops.MaxPool2dOp | ops.AvgPool2dOp):
        sizes = [
            size_by_rule(x[2 + i], op.kernel_size[i], op.stride[i], op.padding[i], 1, op.ceil_mode)
            for i in (0, 1)
        ]
        return Layer(
            "maxpool" if isinstance(op, ops.MaxPool2dOp) else "avgpool",
            kernel=_by(op.kernel_size),
            padding=_padding(op.padding),
            stride=_stride(op.stride),
            output=_once(sizes),
        )
    if isinstance(op, ops.AdaptiveAvgPool2dOp):
        sizes = [f"{size} -> {target}" for size, target in zip(x[2:], op.output_size, strict=True)]
        return Layer("avgpool", output=f"{_once(sizes)}, adaptive")
    if isinstance(op, ops.LocalResponseNormOp):
        return Layer("norm", output=_once([str(size) for size in x[2:]]) + f", over {op.size} channels")
    if isinstance(op, ops.LinearOp):
        outputs, features = inputs[1]
        pictures = f"{_by((*before[2:], before[1]))} = " if before and numel(before[1:]) == features else ""
        output, product = f"{pictures}{features:,} -> {outputs:,}", f"{features:,} x {outputs:,}"
        return Layer("fc", number=f"{outputs:,}", output=output, product=product)
    return None


def _convolution(op: ops.Conv2dOp, x: Shape, weight: Shape) -> Layer:
    filters, channels, *kernel = weight
    sizes = [size_by_rule(x[2 + i], kernel[i], op.stride[i], op.padding[i], op.dilation[i]) for i in (0, 1)]
    return Layer(
        "conv",
        kernel=_by(tuple(kernel)),
        number=str(filters) if op.groups == 1 else f"{op.groups} x {filters // op.groups}",
        padding=_padding(op.padding),
        stride=_stride(op.stride),
        output=_once(sizes),
        product=_by((*kernel, channels, filters)),
    )


def numbered(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    """conv, maxpool, conv -> conv1, maxpool1, conv2."""
    counts: Counter[str] = Counter()
    result = []
    for layer in layers:
        counts[layer.name] += 1
        result.append(replace(layer, name=f"{layer.name}{counts[layer.name]}"))
    return tuple(result)


def layer_tables(layers: Sequence[Layer], input_shape: Shape) -> str:
    """Two tables: the sizes for a picture of this shape (N, C, H, W), and the parameters with their sum."""
    sizes: list[tuple[str, ...]] = [("layer", "kernel", "number", "padding", "stride", "output size N")]
    sizes.append(("input", "", str(input_shape[1]), "", "", _once([str(size) for size in input_shape[2:]])))
    sizes += [(r.name, r.kernel, r.number, r.padding, r.stride, r.output) for r in layers]
    counts: list[tuple[str, ...]] = [("layer", "place", "weights", "biases", "parameters")]
    for r in layers:
        if r.parameters:
            product = f"{r.product} = {r.weights:,}" if r.product else f"{r.weights:,}"
            counts.append((r.name, r.place, product, f"{r.biases:,}", f"{r.parameters:,}"))
    weights, biases = sum(r.weights for r in layers), sum(r.biases for r in layers)
    counts.append(("all", "", f"{weights:,}", f"{biases:,}", f"{weights + biases:,}"))
    return f"{RULE}\n\n{table(sizes, right=(2,))}\n\n{table(counts, right=(2, 3, 4))}"


def _by(extents: Sequence[int]) -> str:
    return " x ".join(map(str, extents))


def _stride(stride: Pair) -> str:
    return _once([str(step) for step in stride])


def _padding(padding: tuple[Pair, Pair]) -> str:
    """2 where both ends have as many, otherwise 1 + 2."""
    return _once([str(a) if a == b else f"{a} + {b}" for a, b in padding])


def _once(texts: Sequence[str]) -> str:
    """What holds for height and width: one text if they agree, otherwise both."""
    return texts[0] if texts[0] == texts[1] else "; ".join(texts)
