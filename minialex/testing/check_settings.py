"""What every check of `minialex gradcheck` takes, and what comes of it."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from minialex.backend import VariantError, require_device, use_variant
from minialex.errors import NumericalError, UsageError
from minialex.gradient_check import Report

__all__ = ["CheckSettings", "Outcome"]

# A step that a float64 near 1 still feels, with three digits.
SMALLEST_EPS = 1e-13


@dataclass(frozen=True)
class CheckSettings:
    """What every check takes.

    Args: seed: of cotangents and values; eps, atol, rtol: as gradcheck, None for what suits the subject;
          variant: of the kernels, None for what runs usually; device: where; bar: whether to show progress
          on a terminal.
    """

    seed: int = 0
    eps: float | None = None
    atol: float | None = None
    rtol: float | None = None
    variant: str | None = None
    device: str = "cpu"
    bar: bool = True

    def numbers(self) -> dict[str, Any]:
        """By gradcheck's names: the seed, and of the others those that were given."""
        numbers = {"eps": self.eps, "atol": self.atol, "rtol": self.rtol}
        return {"seed": self.seed, **{name: value for name, value in numbers.items() if value is not None}}

    def words(self) -> list[str]:
        """As options of the command line."""
        words = [word for name, value in self.numbers().items() for word in (f"--{name}", repr(value))]
        words += ["--variant", self.variant] if self.variant else []
        return words + (["--device", self.device] if self.device != "cpu" else [])

    def forced(self) -> AbstractContextManager[None]:
        """Inside, kernels run the variant that was asked for."""
        return use_variant(self.variant) if self.variant else nullcontext()

    def require(self) -> None:
        """Raises: UsageError for numbers and variants that cannot be, DeviceError for devices not there."""
        for name, value in (("eps", self.eps), ("atol", self.atol), ("rtol", self.rtol)):
            if value is not None and not 0 <= value < math.inf:
                raise UsageError(f"--{name} must be a number from 0 up, got {value}")
        if self.eps is not None and not SMALLEST_EPS <= self.eps <= 1:
            raise UsageError(
                f"--eps must lie between {SMALLEST_EPS:g} and 1, got {self.eps:g}: the inputs are near 1, "
                "and a smaller step is lost in their rounding; 1e-6, the default, is rarely wrong"
            )
        if self.seed < 0:
            raise UsageError(f"--seed must be at least 0, got {self.seed}")
        try:
            with self.forced():
                pass
        except VariantError as error:
            raise UsageError(f"--variant {self.variant}: {error}") from None
        on_cpu = self.device == "cpu"
        require_device("cuda-emulated" if on_cpu and self.variant == "cuda" else self.device)


@dataclass(frozen=True)
class Outcome:
    """What came of a command.

    Args: ok: whether every gradient is right; text: to read; data: the same for json.dumps; report: of a
          single check; failed: the exit code where ok is False.
    """

    ok: bool
    text: str
    data: dict[str, Any]
    report: Report | None = None
    failed: int = NumericalError.exit_code

    @property
    def exit_code(self) -> int:
        """What the command ends with."""
        return 0 if self.ok else self.failed
