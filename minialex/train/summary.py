"""What a network is made of and what it costs: one forward pass of zeros, watched by an observer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minialex import nn
from minialex.tensor import Event, Tensor, no_grad, observe
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
    """A network's rows, for an input of `input_shape`."""

    name: str
    input_shape: tuple[int, ...]
    rows: tuple[Row, ...]

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


def summarize(model: Any, name: str = "model", batch: int = 1) -> Summary:
    """Run `batch` pictures of zeros through a model in evaluation mode and list what its ops do.

    Args: model: with attributes image_size and channels, as those of minialex.models.
    """
    spans = LayerSpans(model)
    parameters = {id(p) for p in model.parameters()}
    counted: set[int] = set()
    rows: list[tuple[int, Row]] = []

    def look(event: Event) -> None:
        if event.phase != "forward":
            return
        new = [t for t in event.inputs if id(t) in parameters - counted]
        counted.update(id(t) for t in new)
        output = event.outputs[0]
        cost = event.op.cost(*(t.shape for t in event.inputs))
        size = sum(t.size for t in new)
        spans.see(event)
        row = Row("", event.op.name, output.shape, size, int(cost.flops), output.data.nbytes)
        rows.append((event.op.order, row))

    shape = (batch, model.channels, model.image_size, model.image_size)
    was_training = model.training
    model.eval()
    with no_grad(), observe(look), nn.unfused(model):
        model(Tensor(np.zeros(shape, np.float32)))
    if was_training:
        model.train()
    layers = spans.resolve()
    return Summary(name, shape, tuple(replace(row, layer=layers[order]) for order, row in rows))
