"""Which layers an op does the work of: one, or several where ops are fused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from minialex.nn import active_module
from minialex.tensor import Event


@dataclass
class _Call:
    """An op's call: its number, the leaf it belongs to or None, the module that was active, and its kind."""

    order: int
    leaf: int | None
    container: str
    is_view: bool


class LayerSpans:
    """Names the layers of every op of a forward pass: "features.0", or "features.0-2" for a fused op.

    A leaf is a module without modules inside, such as nn.Conv2d. An op that runs while a leaf is called
    belongs to it. An op that runs while a container is called belongs to the leaf whose parameter it is
    given. What is left over, leaves that no op belongs to, is taken to be done by the op before it, and the
    other ops of the container, which have no parameters, share such leaves in order. A view, such as a
    reshape between two parts of a network, does no layer's work.
    """

    def __init__(self, model: Any) -> None:
        leaves = [(name, m) for name, m in model.named_modules() if next(m.children(), None) is None]
        self._names = [name for name, _ in leaves]
        self._leaf_of = {id(module): i for i, (_, module) in enumerate(leaves)}
        self._owner_of = {id(p): i for i, (_, module) in enumerate(leaves) for p in module.parameters()}
        self._containers = {id(module): name for name, module in model.named_modules()}
        self._calls: list[_Call] = []

    def begin(self) -> None:
        """A new forward pass."""
        self._calls = []

    def see(self, event: Event) -> None:
        """One op of the forward pass."""
        active = active_module()
        leaf = self._leaf_of.get(id(active))
        if leaf is None:
            owners = [self._owner_of[id(t)] for t in event.inputs if id(t) in self._owner_of]
            leaf = owners[0] if owners else None
        self._calls.append(
            _Call(event.op.order, leaf, self._containers.get(id(active), ""), event.op.is_view)
        )

    def resolve(self) -> dict[int, str]:
        """{number of the op: its layers}; "" for an op outside of all layers, such as the loss."""
        taken = {call.leaf for call in self._calls if call.leaf is not None}
        spans: list[list[int]] = [[] for _ in self._calls]
        last = -1
        for i, call in enumerate(self._calls):
            if call.leaf is not None:
                spans[i] = [call.leaf]
            elif not call.is_view and last + 1 not in taken and self._is_inside(last + 1, call.container):
                spans[i] = [last + 1]
                taken.add(last + 1)
            last = max([last, *spans[i]])
        self._stretch(spans, taken)
        return {call.order: self._text(span) for call, span in zip(self._calls, spans, strict=True)}

    def _is_inside(self, leaf: int, container: str) -> bool:
        prefix = f"{container}." if container else ""
        return leaf < len(self._names) and self._names[leaf].startswith(prefix)

    def _stretch(self, spans: list[list[int]], taken: set[int]) -> None:
        """Give leaves that no op belongs to, to the op of the leaf before them in the same container."""
        for span in spans:
            while span and (following := span[-1] + 1) < len(self._names) and following not in taken:
                if _parent(self._names[following]) != _parent(self._names[span[0]]):
                    break
                span.append(following)
                taken.add(following)

    def _text(self, span: list[int]) -> str:
        if len(span) < 2:
            return self._names[span[0]] if span else ""
        first, last = self._names[span[0]], self._names[span[-1]]
        numbered = re.fullmatch(r"(?:.*\.)?\d+", first) and re.fullmatch(r"(?:.*\.)?\d+", last)
        return f"{first}-{last.rpartition('.')[2]}" if numbered else f"{first}, {last}"


def _parent(name: str) -> str:
    return name.rpartition(".")[0]
