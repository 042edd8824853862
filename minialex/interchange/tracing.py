"""A network as the list of operations that a forward pass runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from minialex.backend import to_numpy
from minialex.nn import Module, unfused
from minialex.nn.module import active_module
from minialex.tensor import Op, Tensor, no_grad, observe

__all__ = ["Step", "Trace", "trace"]

INPUT, OUTPUT = "images", "logits"


@dataclass(frozen=True)
class Step:
    """One call of an operation. Args: op; name: the layer's path; inputs: names of values; shape: of y."""

    op: Op
    name: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]


@dataclass
class Trace:
    """What ran. Args: steps: in order, each output called as its step; output: the name of the last value;
    constants: arrays by name, the parameters by their names in the state dict.
    """

    steps: list[Step] = field(default_factory=list)
    constants: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    output: str = INPUT


def trace(model: Module, images: Tensor) -> Trace:
    """Run the model in eval() on `images`, layer by layer, and write down the operations."""
    recorder = _Recorder(model, images)
    with _evaluating(model), unfused(model), no_grad(), observe(recorder.see):
        logits = model(images)
    recorder.trace.output = recorder.name_of(logits)
    return recorder.trace


class _Recorder:
    def __init__(self, model: Module, images: Tensor) -> None:
        self.trace = Trace()
        self.paths = {id(module): path for path, module in model.named_modules()}
        self.parameters = {id(parameter): name for name, parameter in model.named_parameters()}
        self.names = {id(images): INPUT}
        self.kept: list[Any] = []  # A Tensor that is gone could lend its id to another one.
        self.calls: Counter[str] = Counter()

    def see(self, event: Any) -> None:
        inputs = tuple(self.name_of(x) for x in event.inputs)
        (y,) = event.outputs
        path = self.paths.get(id(active_module())) or event.op.name
        self.calls[path] += 1
        name = path if self.calls[path] == 1 else f"{path}.call{self.calls[path]}"
        if name in (INPUT, OUTPUT):  # A layer may be called so, but it is not them.
            name = f"{name}.layer"
        self.kept.append(y)
        self.names[id(y)] = name
        self.trace.steps.append(Step(event.op, name, inputs, tuple(y.shape)))

    def name_of(self, x: Tensor) -> str:
        """The name of a value; what is seen for the first time is a parameter, or a constant."""
        if id(x) not in self.names:
            name = self.parameters.get(id(x), f"constant{len(self.trace.constants)}")
            self.kept.append(x)
            self.names[id(x)] = name
            self.trace.constants[name] = to_numpy(x.data)
        return self.names[id(x)]


@contextmanager
def _evaluating(model: Module) -> Iterator[None]:
    """Inside, the model is in eval(); afterwards each module is as it was."""
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in training:
            module.training = mode
