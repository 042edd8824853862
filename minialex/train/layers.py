"""Which layer an op belongs to: the engine's events name ops, a person thinks in layers."""

from __future__ import annotations

from typing import Any

from minialex.nn import active_module
from minialex.tensor import Event


class LayerNames:
    """Names the place of an event in a model: 'conv2d in features.3'. Must see the forward events, too."""

    def __init__(self, model: Any) -> None:
        self._names = {id(module): name for name, module in model.named_modules()}
        self._owners = {id(p): name.rpartition(".")[0] for name, p in model.named_parameters()}
        self._layers: dict[int, str] = {}

    def layer(self, event: Event) -> str:
        """The path of the layer whose parameter the op is given, else of the one that called it.

        The first of these for ops that do the work of several layers; "" for what is outside of all layers.
        """
        if event.phase == "forward":
            owners = [self._owners[id(t)] for t in event.inputs if id(t) in self._owners]
            called = self._names.get(id(active_module()), "")
            self._layers[event.op.order] = owners[0] if owners else called
        return self._layers.get(event.op.order, "")

    def place(self, event: Event) -> str:
        """The op and its layer, for a message."""
        layer = self.layer(event)
        return f"{event.op.name} in {layer}" if layer else event.op.name
