"""How a bug is planted, and taken out again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from minialex.backend import Kernel
from minialex.tensor import Op


@dataclass(frozen=True)
class Mutant:
    """One planted bug.

    Args: name: what is wrong, in words; op: the op whose rows must notice; plant: a context manager.
    """

    name: str
    op: type[Op]
    plant: Callable[[], Any]

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Inside, the bug is there."""
        with self.plant():
            yield


MUTANTS: list[Mutant] = []


def wrong_method(op: type[Op], method: str, name: str) -> Callable[[Any], Any]:
    """Decorator: the function is a wrong version of op.method; its first argument is the right one."""

    def register(wrong: Callable[..., Any]) -> Callable[..., Any]:
        @contextmanager
        def plant() -> Iterator[None]:
            own = method in op.__dict__
            right = getattr(op, method)
            setattr(op, method, lambda self, *args, **kwargs: wrong(right, self, *args, **kwargs))
            try:
                yield
            finally:
                if own:
                    setattr(op, method, right)
                else:
                    delattr(op, method)

        MUTANTS.append(Mutant(name, op, plant))
        return wrong

    return register


def wrong_kernel(op: type[Op], kernel: Kernel, name: str) -> Callable[[Any], Any]:
    """Decorator: the function is wrong code for the kernel; its first argument is the right plain loops.

    A backward kernel is wrong in every variant, so that comparing them shows nothing; a forward kernel keeps
    its plain loops, because they are the reference.
    """

    def register(wrong: Callable[..., Any]) -> Callable[..., Any]:
        @contextmanager
        def plant() -> Iterator[None]:
            right = dict(kernel.variants)
            spared = (
                set() if kernel.name.endswith(("backward", "_input", "_weight", "col2im")) else {"reference"}
            )
            for variant in set(right) - spared:
                kernel.variants[variant] = lambda *args: wrong(right["reference"], *args)
            try:
                yield
            finally:
                kernel.variants.clear()
                kernel.variants.update(right)

        MUTANTS.append(Mutant(name, op, plant))
        return wrong

    return register
