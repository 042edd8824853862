"""Sequential: layers one after another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self, overload

from minialex.nn.module import Module
from minialex.tensor import Tensor

__all__ = ["Sequential"]


class Sequential(Module):
    """Modules called one after another; their names are "0", "1", ...

        net = Sequential(Conv2d(3, 8, 3), ReLU(), Flatten())
        net[0], net[-1], net[:2], len(net), net.append(Softmax())

    A slice is a Sequential of the very same Modules, numbered anew from 0.

    Raises: TypeError for anything that is not a Module.
    """

    def __init__(self, *modules: Module) -> None:
        super().__init__()
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> Self:
        """Add a Module at the end."""
        if not isinstance(module, Module):
            hint = f"; did you mean {module.__name__}()?" if isinstance(module, type) else ""
            raise TypeError(f"Sequential: item {len(self)} must be a Module, got {module!r}{hint}")
        setattr(self, str(len(self)), module)
        return self

    def forward(self, x: Tensor) -> Tensor:
        for module in self.children():
            x = module(x)
        return x

    def __len__(self) -> int:
        return sum(1 for _ in self.children())

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: int | slice) -> Module | Sequential:
        modules = list(self.children())
        if isinstance(index, slice):
            return Sequential(*modules[index])
        if not -len(modules) <= index < len(modules):
            raise IndexError(f"Sequential: index {index} is out of range for {len(modules)} modules")
        return modules[index]

    def __setitem__(self, index: int, module: Module) -> None:
        name = [name for name, _ in self.named_children()][index]
        setattr(self, name, module)
