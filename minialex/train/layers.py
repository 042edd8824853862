"""Which layer an op belongs to: the engine's events name ops, a person thinks in layers."""

from __future__ import annotations

from typing import Any

from minialex.nn import active_module
from minialex.tensor import Event


class LayerNames:
    """Names the place of an event in a model: 'conv2d in features.3'. Must see the forward events, too."""

    def __init__(self, model: Any) -> None:
        self._names = {id(module): name for name, module in model.named_modules()}
        self._layers: dict[int, str] = {}

    def layer(self, event: Event) -> str:
        """The path of the layer that called the op; "" for the network itself and for what is outside it."""
        if event.phase == "forward":
            self._layers[event.op.order] = self._names.get(id(active_module()), "")
        return self._layers.get(event.op.order, "")

    def place(self, event: Event) -> str:
        """The op and its layer, for a message."""
        layer = self.layer(event)
        return f"{event.op.name} in {layer}" if layer else event.op.name
