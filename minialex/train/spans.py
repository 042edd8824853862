"""Which layers an op does the work of: one, or several where ops are fused.

The engine's events name ops; a person thinks in layers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from minialex import nn
from minialex.tensor import Event

# What a fused op's name says of the layers that it does the work of, in their order: relu_lrn_max_pool2d.
WORDS: dict[type[nn.Module], str] = {
    nn.AvgPool2d: "avg_pool2d",
    nn.Conv2d: "conv2d",
    nn.LocalResponseNorm: "lrn",
    nn.MaxPool2d: "max_pool2d",
    nn.ReLU: "relu",
    nn.Sigmoid: "sigmoid",
}


@dataclass
class _Call:
    """An op's call.

    Args: order: its number; op: its name; leaf: the one it belongs to, or None; container: otherwise;
          may_share: whether it may do the work of other leaves (too).
    """

    order: int
    op: str
    leaf: int | None
    container: str
    may_share: bool


class LayerSpans:
    """Names the layers of every op of a forward pass: "features.0", or "features.0-2" for a fused op.

    A leaf is a module without modules inside, such as nn.Conv2d. An op that runs while a leaf is called
    belongs to it, and to no other. An op that runs while a container is called belongs to the module whose
    parameter it is given. Leaves that no op belongs to are taken to be done by the container's op whose turn
    it is, if its name says so: a relu_max_pool2d does the work of the next nn.ReLU and of the nn.MaxPool2d
    that follows. Others are not done by any op, such as a Dropout in eval mode, which is called and lets
    everything pass. An op that does no leaf's work belongs to the container.
    """

    def __init__(self, model: Any) -> None:
        leaves = [(name, m) for name, m in model.named_modules() if next(m.children(), None) is None]
        self._names = [name for name, _ in leaves]
        self._words = [WORDS.get(type(module)) for _, module in leaves]  # a subclass may do anything
        self._leaf_of = {name: i for i, name in enumerate(self._names)}
        self._modules = {id(module): name for name, module in model.named_modules()}
        self._owners = {id(p): name.rpartition(".")[0] for name, p in model.named_parameters()}
        self._calls: list[_Call] = []

    def begin(self) -> None:
        """A new forward pass."""
        self._calls = []

    def see(self, event: Event) -> None:
        """One op of the forward pass."""
        module = self._modules.get(id(nn.active_module()), "")
        may_share = False
        if module not in self._leaf_of:
            owner = next((self._owners[id(t)] for t in event.inputs if id(t) in self._owners), None)
            may_share = owner is None or owner in self._leaf_of
            module = module if owner is None else owner
        self._calls.append(_Call(event.op.order, event.op.name, self._leaf_of.get(module), module, may_share))

    def resolve(self) -> dict[int, str]:
        """{number of the op: its layers}; "" for an op outside of all layers, such as the loss."""
        taken = {call.leaf for call in self._calls if call.leaf is not None}
        last, layers = -1, {}
        for call in self._calls:
            leaf = call.leaf
            if leaf is None and call.may_share:
                leaf = self._next_left(call, last, taken)
            span = [] if leaf is None else [leaf]
            if call.may_share:
                self._stretch(span, call.op, taken)
            taken.update(span)
            last = max([last, *span])
            layers[call.order] = self._text(span) or call.container
        return layers

    def _next_left(self, call: _Call, last: int, taken: set[int]) -> int | None:
        """The leaf that the op does first: after `last`, in its container, before the next op's; or None."""
        prefix = f"{call.container}." if call.container else ""
        for leaf in range(last + 1, len(self._names)):
            if leaf in taken or not self._names[leaf].startswith(prefix):
                return None
            word = self._words[leaf]
            if word is not None and _begins(call.op, word):
                return leaf
        return None

    def _stretch(self, span: list[int], op: str, taken: set[int]) -> None:
        """Add the leaves that follow, in the same container and in the op's name, that no op belongs to."""
        while span and (following := span[-1] + 1) < len(self._names) and following not in taken:
            done = "_".join(self._words[leaf] or "" for leaf in span)
            word, parent = self._words[following], _parent(self._names[following])
            if word is None or parent != _parent(self._names[span[0]]) or not _begins(op, f"{done}_{word}"):
                break
            span.append(following)

    def _text(self, span: list[int]) -> str:
        if len(span) < 2:
            return self._names[span[0]] if span else ""
        first, last = self._names[span[0]], self._names[span[-1]]
        numbered = re.fullmatch(r"(?:.*\.)?\d+", first) and re.fullmatch(r"(?:.*\.)?\d+", last)
        return f"{first}-{last.rpartition('.')[2]}" if numbered else f"{first}, {last}"


def place_of(op: str, layers: str) -> str:
    """An op and its layers, for a message: "conv2d in features.3"."""
    return f"{op} in {layers}" if layers else op


def _begins(op: str, words: str) -> bool:
    return f"{op}_".startswith(f"{words}_")


def _parent(name: str) -> str:
    return name.rpartition(".")[0]
