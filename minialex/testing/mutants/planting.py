"""How a bug is planted, and taken out again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from minialex.backend import Kernel

# Kernels whose plain loops nobody else compares with: a bug goes into all of their variants.
BACKWARD = ("backward", "_input", "_weight", "col2im")


@dataclass(frozen=True)
class Mutant:
    """One planted bug.

    Args: name: what is wrong, in words; subject: the op, or the optimiser, whose rows must notice; plant: a
          context manager; fault: the kind (of gradient_check.faults.KINDS) that a diagnosis of the gradient
          should name, or None if the gradient is right, or is not where it shows.
    """

    name: str
    subject: type[Any]
    plant: Callable[[], Any]
    fault: str | None = None

    @property
    def label(self) -> str:
        """`conv2d`, `SGD`."""
        return str(getattr(self.subject, "name", self.subject.__name__))

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Inside, the bug is there."""
        with self.plant():
            yield


MUTANTS: list[Mutant] = []


def wrong_method(
    subject: type[Any], method: str, name: str, fault: str | None = None
) -> Callable[[Any], Any]:
    """Decorator: the function is a wrong version of subject.method; its first argument is the right one."""

    def register(wrong: Callable[..., Any]) -> Callable[..., Any]:
        @contextmanager
        def plant() -> Iterator[None]:
            own = method in subject.__dict__
            right = getattr(subject, method)
            setattr(subject, method, lambda self, *args, **kwargs: wrong(right, self, *args, **kwargs))
            try:
                yield
            finally:
                if own:
                    setattr(subject, method, right)
                else:
                    delattr(subject, method)

        MUTANTS.append(Mutant(name, subject, plant, fault))
        return wrong

    return register


def wrong_kernel(
    subject: type[Any], kernel: Kernel, name: str, fault: str | None = None, variant: str | None = None
) -> Callable[[Any], Any]:
    """Decorator: the function is wrong code for the kernel; its first argument is right code.

    A backward kernel is wrong in every variant, so that comparing them shows nothing; a forward kernel keeps
    its plain loops, because they are the reference.
    Args: variant: only this one is wrong, as when one of several implementations has a bug.
    """

    def register(wrong: Callable[..., Any]) -> Callable[..., Any]:
        @contextmanager
        def plant() -> Iterator[None]:
            right = dict(kernel.variants)
            backward = kernel.name.endswith(BACKWARD)
            spared = set() if backward else {"reference"}
            for key in {variant} if variant is not None else set(right) - spared:
                # What a backward mutant makes of its arguments, only NumPy's code may take.
                kernel.variants[key] = functools.partial(wrong, right["array" if backward else key])
            try:
                yield
            finally:
                kernel.variants.clear()
                kernel.variants.update(right)

        MUTANTS.append(Mutant(name, subject, plant, fault))
        return wrong

    return register
