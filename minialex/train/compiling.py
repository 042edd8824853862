"""The line that tells why a first step takes long: kernels are compiled for this machine, once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Self

from minialex.backend import Compilation, on_compile

# What the kernels of a training step took on two cores of 2.1 GHz, rounded up.
USUAL_SECONDS = 15
# All kernels, for float32 and float64.
ALL_KERNELS = 45


class CompileNotice:
    """Inside, `note` gets one line when the first kernel is compiled, and one with the time in the end.

    Nothing is said where everything comes from disk.
    Args: usual: what it takes all in all, seconds.
    """

    def __init__(self, note: Callable[[str], object], usual: int = USUAL_SECONDS) -> None:
        self._note, self._usual = note, usual
        self._kernels, self._seconds = 0, 0.0
        self._begun = self._ended = False
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(on_compile(self._see))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        self.step_done()

    def _see(self, compilation: Compilation) -> None:
        if compilation.seconds is not None:
            self._kernels, self._seconds = self._kernels + 1, self._seconds + compilation.seconds
        elif not self._begun:
            self._begun = True
            how_often = "once" if compilation.kept else "in every run, because no folder can keep them"
            advice = "" if compilation.kept else "; set NUMBA_CACHE_DIR to one that can be written"
            self._note(f"compiling kernels for this machine, {how_often}: about {self._usual} s{advice}")

    def step_done(self) -> None:
        """A first step is over: say how long it took. What is compiled later is little, and not told of."""
        if self._begun and not self._ended:
            self._note(f"compiled {self._kernels} kernels in {self._seconds:.1f} s")
        self._ended = self._ended or self._begun
