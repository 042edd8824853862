"""The last layer of a network, whose outputs are the classes: which it is, and another in its place."""

from __future__ import annotations

from typing import Any

from minialex import nn
from minialex.errors import UsageError
from minialex.nn import init

__all__ = ["head_name", "replace_head"]


def head_name(model: nn.Module) -> str:
    """The path of the last fully connected layer: "classifier.6". Raises: UsageError if there is none."""
    names = [name for name, module in model.named_modules() if name and isinstance(module, nn.Linear)]
    if not names:
        raise UsageError(f"{type(model).__name__} has no fully connected layer whose outputs are the classes")
    return names[-1]


def replace_head(model: Any, num_classes: int) -> None:
    """Put a new last layer, for `num_classes` classes, in the place of the old one.

    Its first values are drawn as the network's own were (`model.first_values`; PyTorch's default for a
    network that does not say). It is learned, whether or not the old one was frozen; dtype and device are
    the old one's.

    Args:   model: a Module; its num_classes is set.
    Raises: UsageError if it has no fully connected layer, or for less than one class.
    """
    if num_classes < 1:
        raise UsageError(f"the number of classes must be at least 1, got {num_classes}")
    path, _, name = head_name(model).rpartition(".")
    parent = dict(model.named_modules())[path]
    old = getattr(parent, name)
    with init.without_init():
        head = nn.Linear(old.in_features, num_classes, bias=old.bias is not None)
    if not init.is_skipped():
        getattr(model, "first_values", init.pytorch_)(nn.Sequential(head))
    setattr(parent, name, head.astype(old.weight.dtype).to(old.weight.device).train(old.training))
    model.num_classes = num_classes
