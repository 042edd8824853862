"""What a network is made of and what it costs: one forward pass of zeros, watched by an observer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minialex import nn, ops
from minialex.shapes import Shape, numel
from minialex.tensor import Event, Tensor, no_grad, observe
from minialex.train.layer_table import Layer, describe, layer_tables, numbered
from minialex.train.reporter import table
from minialex.train.spans import LayerSpans


@dataclass(frozen=True)
class Row:
    """One op of the forward pass: FLOPs (a multiply-accumulate is 2) and bytes of its output."""

    layer: str
    op: str
    shape: tuple[int, ...]
    parameters: int
    flops: int
    bytes: int


@dataclass(frozen=True)
class Summary:
    """A network's rows and layers, for an input of `input_shape`."""

    name: str
    input_shape: tuple[int, ...]
    rows: tuple[Row, ...]
    layers: tuple[Layer, ...] = ()

    @property
    def parameters(self) -> int:
        """Trained numbers in all."""
        return sum(row.parameters for row in self.rows)

    @property
    def flops(self) -> int:
        """Of the forward pass."""
        return sum(row.flops for row in self.rows)

    @property
    def bytes(self) -> int:
        """Of all outputs together, as float32."""
        return sum(row.bytes for row in self.rows)

    @property
    def layer_tables(self) -> str:
        """The tables that stand in lectures: sizes, and parameters."""
        return layer_tables(self.layers, self.input_shape)

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("layer", "op", "output shape", "parameters", "FLOPs", "bytes")]
        for r in self.rows:
            counts = (f"{r.parameters:,}", _scaled(r.flops), _scaled(r.bytes))
            rows.append((r.layer, r.op, "x".join(map(str, r.shape)), *counts))
        rows.append(("all", "", "", f"{self.parameters:,}", _scaled(self.flops), _scaled(self.bytes)))
        title = f"{self.name}, forward pass of {' x '.join(map(str, self.input_shape))}"
        notes = f"{self.flops:,} FLOPs (a multiply-accumulate is 2), {self.bytes:,} bytes of outputs"
        return f"{title}\n{notes}\n\n{table(rows, right=(3, 4, 5))}"


def _scaled(count: int) -> str:
    """Three digits and a thousand's power: 105,415,200 -> 105 M. Exact counts are in the rows."""
    for unit, size in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= 0.9995 * size:
            digits = 2 if count < 9.995 * size else 1 if count < 99.95 * size else 0
            return f"{count / size:.{digits}f} {unit}"
    return f"{count}"


class _ForwardPass:
    """An observer that writes down the ops of a forward pass; their layers are known at its end.

    Args: model: whose parameters are counted, each once; shape: of the pictures.
    """

    def __init__(self, model: Any, shape: Shape) -> None:
        self._spans = LayerSpans(model)
        self._uncounted = {id(p) for p in model.parameters()}
        self._picture = shape  # () after a fully connected layer
        self._rows: list[tuple[int, Row]] = []
        self._layers: list[tuple[int, Layer]] = []

    def __call__(self, event: Event) -> None:
        if event.phase != "forward":
            return
        self._spans.see(event)
        op, output = event.op, event.outputs[0]
        inputs = [t.shape for t in event.inputs]
        new = [t.shape for t in event.inputs if id(t) in self._uncounted]
        self._uncounted.difference_update(map(id, event.inputs))
        size, flops = sum(map(numel, new)), int(op.cost(*inputs).flops)
        self._rows.append((op.order, Row("", op.name, output.shape, size, flops, output.data.nbytes)))
        layer = describe(op, inputs, new, self._picture)
        if layer is not None:
            self._layers.append((op.order, layer))
        if output.ndim == 4:
            self._picture = output.shape
        elif isinstance(op, ops.LinearOp):
            self._picture = ()

    def found(self) -> tuple[tuple[Row, ...], tuple[Layer, ...]]:
        """A row for each op, and what the tables of lectures say."""
        places = self._spans.resolve()
        rows = tuple(replace(row, layer=places[order]) for order, row in self._rows)
        return rows, numbered(replace(layer, place=places[order]) for order, layer in self._layers)


def summarize(model: Any, name: str = "model", batch: int = 1) -> Summary:
    """Run `batch` pictures of zeros through a model in evaluation mode and list what its ops do.

    Args: model: with attributes image_size and channels, as those of minialex.models.
    """
    shape = (batch, model.channels, model.image_size, model.image_size)
    look = _ForwardPass(model, shape)
    was_training = model.training
    model.eval()
    with no_grad(), observe(look), nn.unfused(model):
        model(Tensor(np.zeros(shape, np.float32)))
    if was_training:
        model.train()
    return Summary(name, shape, *look.found())
