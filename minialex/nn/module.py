"""Module: parameters and a forward pass, in a tree with names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from minialex.backend import (
    canonical_device,
    on_device_of,
    parse_device,
    require_device,
    to_device,
    to_numpy,
)
from minialex.nn.loading import LoadResult, load_into
from minialex.nn.parameter import Parameter
from minialex.tensor import Tensor

__all__ = ["Module", "active_module"]

_active: ContextVar[Module | None] = ContextVar("minialex_active_module", default=None)


def active_module() -> Module | None:
    """The innermost Module that is being called here, or None outside of every call.

    An observer of the engine (`mx.observe`) asks this in the forward phase to tell which layer an op
    belongs to.
    """
    return _active.get()


class Module:
    """A layer, or a network of layers: assign Parameters and Modules as attributes, and define `forward`.

        class Block(nn.Module):
            def __init__(self):
                self.conv = nn.Conv2d(3, 8, kernel_size=3)   # its weight is called "conv.weight"

            def forward(self, x):
                return ops.relu(self.conv(x))

    Names are the paths of attributes, joined by dots, in the order of assignment. There is no hidden
    registry: the attributes are the tree, so calling super().__init__() is good style but nothing depends
    on it.

    Attributes: training: True after train() and at first, False after eval(); dropout asks for it.
    """

    training: bool = True

    # ------------------------------------------------------------------------------------- calling

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The computation. Raises: NotImplementedError if a subclass does not define it."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(self, x)")

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Run `forward`; `active_module()` is this Module meanwhile."""
        token = _active.set(self)
        try:
            return self.forward(*args, **kwargs)
        finally:
            _active.reset(token)

    # ---------------------------------------------------------------------------------- attributes

    def __setattr__(self, name: str, value: Any) -> None:
        self._check_assignment(name, value)
        super().__setattr__(name, value)

    def _check_assignment(self, name: str, value: Any) -> None:
        """Refuse what would leave weights out of the tree without a word."""
        where = f"{type(self).__name__}.{name}"
        if isinstance(value, type) and issubclass(value, Module):
            raise TypeError(
                f"{where}: {value.__name__} is a class; make a layer of it: {value.__name__}(...)"
            )
        if isinstance(value, list | tuple | dict):
            items = value.values() if isinstance(value, dict) else value
            if any(isinstance(item, Module | Parameter) for item in items):
                raise TypeError(
                    f"{where}: the weights in a {type(value).__name__} would not be found; "
                    "use nn.Sequential, or one attribute for each"
                )
        old = vars(self).get(name)
        for kind in (Parameter, Module):
            if isinstance(old, kind) and value is not None and not isinstance(value, kind):
                raise TypeError(f"{where}: expected a {kind.__name__} or None, got {type(value).__name__}")
        if isinstance(value, Module | Parameter):
            if value is self:
                raise ValueError(f"{where}: a Module cannot contain itself")
            if not name or "." in name:
                raise ValueError(f"{where}: a name in the tree must not be empty or contain a dot")
            if callable(getattr(type(self), name, None)):
                raise ValueError(f"{where}: {name} is a method of every Module; choose another name")

    # --------------------------------------------------------------------------------- walking the tree

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, Module) of the Modules directly below."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value

    def children(self) -> Iterator[Module]:
        """The Modules directly below."""
        for _, child in self.named_children():
            yield child

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(path, Module) of this Module, whose path is `prefix`, and of all below it, each once."""
        seen: set[int] = set()
        for name, module in self._walk(prefix):
            if id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def modules(self) -> Iterator[Module]:
        """This Module and all below it, each once."""
        for _, module in self.named_modules():
            yield module

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """(path, Parameter) of all Parameters here and below; a shared one comes once, by its first name."""
        seen: set[int] = set()
        for name, parameter in self._all_names(prefix):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield name, parameter

    def parameters(self) -> Iterator[Parameter]:
        """All Parameters here and below, each once."""
        for _, parameter in self.named_parameters():
            yield parameter

    def num_parameters(self) -> int:
        """How many numbers the Parameters hold together."""
        return sum(parameter.size for parameter in self.parameters())

    def _walk(self, prefix: str) -> Iterator[tuple[str, Module]]:
        yield prefix, self
        for name, child in self.named_children():
            yield from child._walk(f"{prefix}.{name}" if prefix else name)

    def _all_names(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """Every name of every Parameter: a shared one under each of its names."""
        for path, module in self._walk(prefix):
            for name, value in vars(module).items():
                if isinstance(value, Parameter):
                    yield f"{path}.{name}" if path else name, value

    # -------------------------------------------------------------------------------------- state

    def state_dict(self) -> dict[str, npt.NDArray[Any]]:
        """{path: NumPy array}: copies of all Parameters, which further training does not change."""
        return {name: np.array(to_numpy(parameter.data)) for name, parameter in self._all_names()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> LoadResult:
        """Overwrite the Parameters with the values of the same names, keeping their dtype and device.

        Args:    state_dict: {path: array or Tensor}; strict: whether every name must be on both sides.
        Returns: LoadResult(missing, unexpected): names that only this Module or only the state dict has.
        Raises:  StateDictError listing all names that are missing, unexpected or of another shape; then
                 nothing was loaded. Another shape is an error for strict=False, too.
        """
        return load_into(dict(self._all_names()), state_dict, strict, type(self).__name__)

    # --------------------------------------------------------------------------------------- modes

    def train(self, mode: bool = True) -> Self:
        """Set `training` here and below: dropout drops."""
        for module in self.modules():
            module.training = bool(mode)
        return self

    def eval(self) -> Self:
        """The opposite of train(): dropout lets everything pass."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Say for every Parameter whether it is learned. A frozen one has no gradient and is not updated."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
            if not requires_grad:
                parameter.grad = None
        return self

    def zero_grad(self) -> None:
        """Forget all gradients: they become None, and their memory is free."""
        for parameter in self.parameters():
            parameter.zero_grad()

    def to(self, device: str) -> Self:
        """Move all Parameters and gradients to `device`; the Parameters stay the same objects.

        One that is there already is left alone, so that a recorded forward pass stays valid.

        Raises: DeviceError if the device cannot be used; then nothing was moved.
        """
        if parse_device(device)[0] != "cpu":
            require_device(device)
        target = canonical_device(device)
        for parameter in self.parameters():
            if parameter.device == target:
                continue
            grad, parameter.grad = parameter.grad, None
            parameter.data = to_device(parameter.data, target)
            parameter.grad = None if grad is None else to_device(grad, target)
        return self

    def astype(self, dtype: npt.DTypeLike) -> Self:
        """Convert all Parameters to a floating dtype, such as "float64" for gradient checks.

        Gradients of the other dtype are forgotten. A Parameter that has the dtype already is left alone.
        """
        target = np.dtype(dtype)
        if target.kind != "f":
            raise TypeError(f"astype: Parameters are floating numbers, got {target}")
        for parameter in self.parameters():
            if parameter.dtype != target:
                parameter.grad = None
                with on_device_of(parameter.data):
                    parameter.data = parameter.data.astype(target)
        return self

    def apply(self, function: Callable[[Module], object]) -> Self:
        """Call function(module) for all Modules below, then for this one."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    # ---------------------------------------------------------------------------------------- repr

    def extra_repr(self) -> str:
        """What stands in the parentheses of repr() before the children: a layer's settings."""
        return ""

    def __repr__(self) -> str:
        lines = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self.named_children()]
        extra = self.extra_repr()
        if not lines:
            return f"{type(self).__name__}({extra})"
        return "\n  ".join([f"{type(self).__name__}({extra}", *lines]) + "\n)"
