"""The numbers of an experiment, and how a check is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt

from minialex.errors import NumericalError
from minialex.tensor import Tensor

Float64Array: TypeAlias = npt.NDArray[np.float64]
Function: TypeAlias = Callable[..., Tensor]

# What differences of numbers around 1 leave of a derivative that is zero, with room to spare.
ROUNDING = 1e-7
# A shorter step moves no number around 1.
SHORTEST = 1e-15
# So many times the rounding of the outputs is what differences tell to a part in a hundred.
FAINT = 100.0
# Elements of an input that are compared one by one before a sample has to do.
MAX_ELEMENTS = 2000
# Random directions for an input of which only a sample is compared.
DIRECTIONS = 4


class GradcheckError(NumericalError):
    """A gradient that is wrong, or a function that cannot be checked; the message is the report.

    Attributes: report: the Report of a wrong gradient; None where the function could not be checked.
    """

    report: Any = None


@dataclass(frozen=True)
class Settings:
    """The numbers of one experiment; with the function and its inputs they repeat it exactly.

    Args: eps: the step, in units of the inputs; atol, rtol: |analytic - numeric| <= atol + rtol * |numeric|;
          seed: of the cotangent, the masks, the directions and the sampling; max_elements: compared one by
          one in each input, None for all; nondet_tol: what two runs may differ by; directions: random ones
          for an input with more elements; scaled: atol is not given but rtol times the root mean square of
          the numeric gradient, for inputs whose gradients have different sizes.
    """

    eps: float = 1e-6
    atol: float = 1e-5
    rtol: float = 1e-3
    seed: int = 0
    max_elements: int | None = MAX_ELEMENTS
    nondet_tol: float = 0.0
    directions: int = DIRECTIONS
    scaled: bool = False

    def __post_init__(self) -> None:
        numbers = {name: getattr(self, name) for name in ("eps", "atol", "rtol", "nondet_tol")}
        for name, value in numbers.items():
            if not (value > 0 if name == "eps" else value >= 0) or not np.isfinite(value):
                refuse(f"{name} must be a positive number, got {value!r}")
        if self.eps < SHORTEST:
            refuse(f"eps must be at least {SHORTEST:g}, got {self.eps!r}: float64 cannot take a shorter step")
        if self.max_elements is not None and self.max_elements < 1:
            refuse(f"max_elements must be at least 1, or None for all, got {self.max_elements!r}")
        if self.directions < 0:
            refuse(f"directions must be at least 0, got {self.directions!r}")

    def allowed(self, numeric: float) -> float:
        """The error allowed beside this numeric gradient."""
        return self.atol + self.rtol * abs(numeric)

    def call(self, function: str = "gradcheck(fn, inputs") -> str:
        """The call that repeats the experiment; `function` is how it begins."""
        extras = []
        if self.max_elements != MAX_ELEMENTS:
            extras.append(f"max_elements={self.max_elements}")
        if self.directions != DIRECTIONS:
            extras.append(f"directions={self.directions}")
        if self.nondet_tol:
            extras.append(f"nondet_tol={float(self.nondet_tol)!r}")
        # All digits, or it would be another experiment.
        atol = [] if self.scaled else [f"atol={float(self.atol)!r}"]
        usual = [f"eps={float(self.eps)!r}", *atol, f"rtol={float(self.rtol)!r}", f"seed={self.seed}"]
        return ", ".join([function, *usual, *extras]) + ")"


def check_loss(loss: object) -> None:
    """Raises: GradcheckError unless it is None or can be called."""
    if loss is not None and not callable(loss):
        refuse(
            f"loss must be a function of the output, got {type(loss).__name__}; for labels write "
            "lambda y: ops.cross_entropy(y, labels)"
        )


def refuse(reason: str) -> NoReturn:
    """Raises: GradcheckError: this cannot be checked."""
    raise GradcheckError(f"gradcheck: {reason}")


def index_text(index: Any) -> str:
    """`[0, 3]`."""
    return "[" + ", ".join(str(int(i)) for i in index) + "]"


def first_bad(values: npt.NDArray[Any]) -> str:
    """`nan at [0, 3]`: the first value that is not finite."""
    place = np.argwhere(~np.isfinite(values))[0]
    return f"{values[tuple(place)]} at {index_text(place)}"


def same_bits(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    """Whether two arrays agree in shape, dtype and every bit."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    # As integers, so that NaN equals itself and -0 is not 0.
    first, second = (np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in (a, b))
    return bool(np.array_equal(first, second))
