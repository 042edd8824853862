"""Every Op of the package, found by walking its files, so that no list of them can be incomplete."""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module

import minialex.tensor
from minialex import ops
from minialex.tensor import Op

__all__ = ["all_ops"]


def all_ops() -> list[type[Op]]:
    """The Op classes of tensor/ and ops/ by name; what starts with an underscore is only shared by others."""
    found = set()
    for package in (minialex.tensor, ops):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            for value in vars(import_module(module.name)).values():
                is_op = inspect.isclass(value) and issubclass(value, Op) and value is not Op
                if is_op and not value.__name__.startswith("_"):
                    found.add(value)
    return sorted(found, key=lambda op: op.__name__)
