"""Gradient checks against central differences: is this backward the derivative of this forward?

    mx.gradcheck(lambda x, w: ops.conv2d(x, w, stride=2), [x, w])     # True, or GradcheckError

A function of arrays becomes a function of one number: s(x) = <fn(x), v>, with a random cotangent v. What
`backward(v)` leaves in x.grad must be the slope of s along every element of x,

    ds/dx[i]  =  <fn(x + eps*e[i]) - fn(x - eps*e[i]), v> / (2 * eps)  +  O(eps**2).

A cotangent of ones would let softmax pass with any gradient at all (its outputs always sum to one), and a
backward that forgets its dy. Everything runs in float64: in float32 rounding is as large as the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from minialex.backend import DTypeError, to_numpy, use_winograd
from minialex.errors import NumericalError
from minialex.rng import Stream, random_scope
from minialex.shapes import Shape, ShapeError
from minialex.tensor import GraphError, Tensor, no_grad, recorded_ops

__all__ = ["Comparison", "GradcheckError", "compare_gradients", "gradcheck"]

Float64Array = npt.NDArray[np.float64]
Function = Callable[..., Tensor]

# What differences of numbers around 1 leave of a derivative that is zero, with room to spare.
ROUNDING = 1e-7
# Failing elements that a report lists, the worst first.
LISTED = 10


class GradcheckError(NumericalError):
    """A gradient that is wrong, or a function that cannot be checked; the message is the report."""


@dataclass(frozen=True)
class Input:
    """One argument of the function: a float64 copy of its values, or integers as they are.

    Args: name: for reports; array: the copy; device: where the function sees it; checked: whether its
          gradient is looked at.
    """

    name: str
    array: npt.NDArray[Any]
    device: str
    checked: bool

    def tensor(self, array: npt.NDArray[Any] | None = None) -> Tensor:
        """A new leaf, so that whatever the function does to it, this copy stays."""
        values = self.array if array is None else array
        return Tensor(values, requires_grad=self.checked, device=self.device)


@dataclass(frozen=True)
class Comparison:
    """The gradient of one input: by backward, and by differences.

    Args: name, shape: of the input; elements: the K positions compared, counted in row-major order;
          analytic, numeric: their K gradients.
    """

    name: str
    shape: Shape
    elements: npt.NDArray[np.int64]
    analytic: Float64Array
    numeric: Float64Array

    @property
    def error(self) -> Float64Array:
        """|analytic - numeric|, an element."""
        with np.errstate(invalid="ignore"):
            return np.asarray(np.abs(self.analytic - self.numeric))

    @property
    def relative_error(self) -> float:
        """||analytic - numeric|| / ||numeric||; the plain norm where the gradient is zero, up to rounding."""
        norm = float(np.linalg.norm(self.numeric))
        difference = float(np.linalg.norm(self.error))
        return difference / norm if norm > ROUNDING else difference

    def tolerance(self, atol: float, rtol: float) -> Float64Array:
        """The error allowed to each element: atol + rtol * |numeric|."""
        return np.asarray(atol + rtol * np.abs(self.numeric))

    def wrong(self, atol: float, rtol: float) -> npt.NDArray[np.bool_]:
        """Which elements differ by more than their tolerance; NaN differs from everything."""
        return ~(self.error <= self.tolerance(atol, rtol))


@dataclass(frozen=True)
class Settings:
    """The numbers of one experiment; with the function and its inputs they repeat it exactly."""

    eps: float
    atol: float
    rtol: float
    seed: int
    max_elements: int | None

    def __post_init__(self) -> None:
        for name, value in (("eps", self.eps), ("atol", self.atol), ("rtol", self.rtol)):
            if not (value > 0 if name == "eps" else value >= 0) or not np.isfinite(value):
                _refuse(f"{name} must be a positive number, got {value!r}")
        if self.max_elements is not None and self.max_elements < 1:
            _refuse(f"max_elements must be at least 1, or None for all, got {self.max_elements!r}")

    def call(self) -> str:
        """The call that repeats the experiment."""
        limit = "" if self.max_elements is None else f", max_elements={self.max_elements}"
        return (
            f"gradcheck(fn, inputs, eps={self.eps:g}, atol={self.atol:g}, rtol={self.rtol:g}, "
            f"seed={self.seed}{limit})"
        )


def gradcheck(
    fn: Function,
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    seed: int = 0,
    names: Sequence[str] | None = None,
    max_elements: int | None = None,
) -> bool:
    """Check that backward gives the derivatives of `fn`, element by element, by central differences.

        |analytic - numeric| <= atol + rtol * |numeric|    for every element of every input

    Shapes: inputs any; fn(*inputs) any shape with at least one element.
    Args:   fn: takes as many Tensors as there are inputs and gives one Tensor. It is called many times, on
            float64 copies, each time inside random_scope(seed, 0): dropout always draws the same mask.
            inputs: a Tensor or array, or a list of them. Arrays of floating numbers are checked, Tensors if
            they require gradients; integers are passed through. Nobody's arrays or grads are touched.
            eps: the step, in units of the inputs; atol, rtol: the error allowed; seed: of the cotangent, the
            masks and the sampling; names: of the inputs, for the report; max_elements: of each input, drawn
            at random where it has more (None: all).
    Returns: True. An input that the output does not reach has a gradient of zero, and must have no effect.
    Raises: GradcheckError with a report (input, index, analytic, numeric, error, tolerance) if a gradient is
            wrong; and if the function cannot be checked: nothing to check, no Tensor given back, another
            dtype than float64, NaN or infinity, an output without elements, other bits at the second call.
    """
    settings = Settings(eps, atol, rtol, seed, max_elements)
    comparisons = _compare(fn, inputs, settings, names)
    if any(c.wrong(atol, rtol).any() for c in comparisons):
        raise GradcheckError(_report(comparisons, settings))
    return True


def compare_gradients(
    fn: Function,
    inputs: Any,
    *,
    eps: float = 1e-6,
    seed: int = 0,
    names: Sequence[str] | None = None,
    max_elements: int | None = None,
) -> list[Comparison]:
    """Both gradients of each checked input, for whoever judges them otherwise than `gradcheck` does.

    Args, Raises: as gradcheck; a wrong gradient is no error here.
    """
    return _compare(fn, inputs, Settings(eps, 0.0, 0.0, seed, max_elements), names)


@use_winograd(False)  # fn may contain float32, whatever its inputs are.
def _compare(fn: Function, inputs: Any, settings: Settings, names: Sequence[str] | None) -> list[Comparison]:
    arguments = _prepare(inputs, names)
    output, cotangent, gradients = _analytic(fn, arguments, settings)
    again, _, second = _analytic(fn, arguments, settings)
    if not _same_bits(output, again):
        _refuse("fn is not deterministic: two calls on the same inputs gave different outputs")
    for argument, first_grad, second_grad in zip(arguments, gradients, second, strict=True):
        if not _same_bits(first_grad, second_grad):
            _refuse(f"backward is not deterministic: two runs gave different gradients of {argument.name}")
    return [
        _numeric(fn, arguments, position, gradients[position], cotangent, settings)
        for position, argument in enumerate(arguments)
        if argument.checked
    ]


# ------------------------------------------------------------------------------------------- the inputs


def _prepare(inputs: Any, names: Sequence[str] | None) -> list[Input]:
    values = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    if names is not None and len(names) != len(values):
        _refuse(f"{len(names)} names for {len(values)} inputs")
    labels = list(names) if names is not None else [f"input {i}" for i in range(len(values))]
    arguments = [_as_input(value, label) for value, label in zip(values, labels, strict=True)]
    checked = [argument for argument in arguments if argument.checked]
    if not checked:
        _refuse(
            "nothing to check: no input is a floating array or a Tensor with requires_grad=True; got "
            + (", ".join(type(value).__name__ for value in values) or "no inputs")
        )
    if all(argument.array.size == 0 for argument in checked):
        _refuse("nothing to check: the inputs that require gradients have no elements")
    return arguments


def _as_input(value: Any, name: str) -> Input:
    if isinstance(value, Tensor):
        array, device = to_numpy(value.data), value.device
    elif hasattr(value, "dtype") and hasattr(value, "shape"):
        array, device = to_numpy(value), Tensor(value).device
    else:
        _refuse(f"{name} must be a Tensor or an array, got {type(value).__name__}")
    floating = array.dtype.kind == "f"
    copied = np.array(array, dtype=np.float64 if floating else None, order="C")
    if floating and not np.isfinite(copied).all():
        _refuse(f"{name} holds {_first_bad(copied)}")
    wanted = value.requires_grad if isinstance(value, Tensor) else True
    return Input(name, copied, device, floating and wanted)


# ---------------------------------------------------------------------------------- by backward: analytic


def _analytic(
    fn: Function, arguments: list[Input], settings: Settings
) -> tuple[npt.NDArray[Any], Float64Array, list[Float64Array]]:
    """The output, the cotangent, and the gradient of every input by one backward (zero if not reached)."""
    leaves = [argument.tensor() for argument in arguments]
    with random_scope(settings.seed, 0):
        output = _call(fn, leaves)
        _require_output(output)
        cotangent: Float64Array = Stream(settings.seed, "gradcheck").normal(shape=(output.size,))
        cotangent = cotangent.reshape(output.shape)
        if output.requires_grad:
            with _grads_put_back(output, leaves):
                _run_backward(output, cotangent)
    for argument, leaf in zip(arguments, leaves, strict=True):
        if not _same_bits(to_numpy(leaf.data), argument.array):
            _refuse(f"fn edits {argument.name} in place, so it has no derivative there; let it edit a copy")
    gradients = [
        np.zeros(leaf.shape) if leaf.grad is None else np.array(to_numpy(leaf.grad), dtype=np.float64)
        for leaf in leaves
    ]
    return np.array(to_numpy(output.data)), cotangent, gradients


def _call(fn: Function, leaves: list[Tensor]) -> Tensor:
    try:
        output = fn(*leaves)
    except DTypeError as error:
        raise GradcheckError(
            f"gradcheck: fn does not work on float64 inputs: {error} (gradients are checked in float64; "
            "arrays and parameters that fn brings along must be float64 too, or be given as inputs)"
        ) from error
    if not isinstance(output, Tensor):
        _refuse(f"fn must give one Tensor, got {type(output).__name__}")
    return output


def _require_output(output: Tensor) -> None:
    if output.dtype != np.float64:
        _refuse(
            f"fn gave dtype {output.dtype} from float64 inputs: somewhere inside it rounds, and "
            "differences of rounded numbers say nothing"
        )
    if output.size == 0:
        _refuse(f"the output has no elements, shape {output.shape}: there is nothing to differentiate")
    values = to_numpy(output.data)
    if not np.isfinite(values).all():
        _refuse(f"the output holds {_first_bad(values)}")


def _run_backward(output: Tensor, cotangent: Float64Array) -> None:
    try:
        # The graph may reach back into one of the user's own, which must not be freed.
        output.backward(cotangent, retain_graph=True)
    except (GraphError, ShapeError, DTypeError) as error:
        raise GradcheckError(f"gradcheck: backward does not run: {error}") from error


@contextmanager
def _grads_put_back(output: Tensor, leaves: list[Tensor]) -> Iterator[None]:
    """Inside, Tensors that the function brings along (parameters) collect gradients; after it, as before."""
    mine = {id(leaf) for leaf in leaves}
    edges = [edge for op in recorded_ops(output) for edge in op.edges if isinstance(edge, Tensor)]
    retained = [op._output() for op in recorded_ops(output) if op.retains_grad and op._output is not None]
    others = {id(t): t for t in [output, *edges, *retained] if t is not None and id(t) not in mine}
    before = {key: tensor.grad for key, tensor in others.items()}
    for tensor in others.values():
        tensor.grad = None
    try:
        yield
    finally:
        for key, tensor in others.items():
            tensor.grad = before[key]


# ------------------------------------------------------------------------------- by differences: numeric


def _numeric(
    fn: Function,
    arguments: list[Input],
    position: int,
    gradient: Float64Array,
    cotangent: Float64Array,
    settings: Settings,
) -> Comparison:
    argument = arguments[position]
    others = [a.tensor() for a in arguments]
    elements = _elements(argument.array.size, position, settings)
    numeric = np.empty(len(elements))
    shifted = argument.array.copy()
    flat = shifted.reshape(-1)
    for row, element in enumerate(elements):
        value = flat[element]
        outputs, places = [], []
        for place in (value + settings.eps, value - settings.eps):
            flat[element] = place
            others[position] = argument.tensor(shifted)
            outputs.append(_evaluate(fn, others, argument, int(element), cotangent.shape, settings))
            places.append(place)
        flat[element] = value
        # The step that float64 really took; differences first, so that large outputs do not swallow it.
        numeric[row] = ((outputs[0] - outputs[1]) * cotangent).sum() / (places[0] - places[1])
    return Comparison(argument.name, argument.array.shape, elements, gradient.reshape(-1)[elements], numeric)


def _evaluate(
    fn: Function, leaves: list[Tensor], argument: Input, element: int, shape: Shape, settings: Settings
) -> Float64Array:
    with no_grad(), random_scope(settings.seed, 0):
        output = _call(fn, leaves)
    values: Float64Array = to_numpy(output.data)
    if values.shape != shape:
        _refuse(f"fn gave shape {shape} and, after a step of eps, shape {values.shape}")
    if not np.isfinite(values).all():
        place = f"{argument.name}{_index_text(np.unravel_index(element, argument.array.shape))}"
        _refuse(f"after a step of {settings.eps:g} at {place} the output holds {_first_bad(values)}")
    return values.copy()


def _elements(size: int, position: int, settings: Settings) -> npt.NDArray[np.int64]:
    """Which elements to look at: all of them, or a random choice of max_elements."""
    if settings.max_elements is None or size <= settings.max_elements:
        return np.arange(size, dtype=np.int64)
    order = Stream(settings.seed, "gradcheck", item=1 + position).permutation(size)
    return np.sort(order[: settings.max_elements])


# --------------------------------------------------------------------------------------------- reporting


def _report(comparisons: list[Comparison], settings: Settings) -> str:
    """What is wrong, where, by how much, and how to see it again."""
    rows, failed, total = [], 0, 0
    for comparison in comparisons:
        wrong = np.flatnonzero(comparison.wrong(settings.atol, settings.rtol))
        tolerance = comparison.tolerance(settings.atol, settings.rtol)
        failed, total = failed + len(wrong), total + len(comparison.analytic)
        for i in wrong:
            excess = comparison.error[i] / tolerance[i] if tolerance[i] > 0 else np.inf
            rows.append((np.nan_to_num(excess, nan=np.inf), comparison, int(i), float(tolerance[i])))
    rows.sort(key=lambda row: -row[0])
    lines = [f"gradcheck: {failed} of {total} elements have a wrong gradient"]
    for comparison in comparisons:
        bad = int(comparison.wrong(settings.atol, settings.rtol).sum())
        lines.append(
            f"  {comparison.name}, shape {comparison.shape}: {bad} of {len(comparison.analytic)} wrong, "
            f"relative error {comparison.relative_error:.2e}"
        )
        if bad and not comparison.analytic.any():
            lines.append(
                "    every gradient here is 0: is the input cut off inside fn (detach, no_grad, NumPy), "
                "or at a kink (relu of 0)?"
            )
    lines += ["", _table([_row(comparison, i, tolerance) for _, comparison, i, tolerance in rows[:LISTED]])]
    if failed > LISTED:
        lines.append(f"... and {failed - LISTED} more")
    lines += [
        "",
        "numeric: central differences of <fn(inputs), v> in float64, v normal from the seed",
        "kinks:   relu at 0, equal pixels in a max-pool window: there is no derivative to agree with; "
        "move the input",
        f"repeat:  {settings.call()}",
    ]
    return "\n".join(lines)


def _row(comparison: Comparison, i: int, tolerance: float) -> tuple[str, ...]:
    numbers = (comparison.analytic[i], comparison.numeric[i])
    return (
        comparison.name,
        _index_text(np.unravel_index(comparison.elements[i], comparison.shape)),
        *(f"{number:.9g}" for number in numbers),
        f"{comparison.error[i]:.2e}",
        f"{tolerance:.2e}",
    )


def _table(rows: list[tuple[str, ...]]) -> str:
    header = ("input", "index", "analytic", "numeric", "error", "tolerance")
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [header, *rows]
    )


def _index_text(index: Any) -> str:
    return "[" + ", ".join(str(int(i)) for i in index) + "]"


def _first_bad(values: npt.NDArray[Any]) -> str:
    """`nan at [0, 3]`: the first value that is not finite."""
    place = np.argwhere(~np.isfinite(values))[0]
    return f"{values[tuple(place)]} at {_index_text(place)}"


def _same_bits(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def _refuse(reason: str) -> NoReturn:
    raise GradcheckError(f"gradcheck: {reason}")
