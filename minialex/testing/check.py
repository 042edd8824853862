"""check_op: everything that must hold for one op on one row, forward and backward.

Each check below is one sentence that an op must make true; `CHECKS` at the end lists them in their order. A
failure raises CheckError, which names the row and the sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np

from minialex.backend import Array, VariantError, to_device, to_numpy, use_variant
from minialex.errors import NumericalError
from minialex.gradient_check import GradcheckError, Report, examine
from minialex.ops import MaxPool2dOp, ReluMaxPool2dOp, ReluOp
from minialex.rng import Stream
from minialex.shapes import ShapeError, numel
from minialex.tensor import IndexOp, Op, Tensor
from minialex.testing.cases import Case
from minialex.testing.counting import count_flops
from minialex.testing.references import Reference

__all__ = ["CheckError", "Result", "check_op"]

# Tighter than gradcheck's own defaults: with these inputs central differences are good to nine digits.
GRADIENT_ATOL, GRADIENT_RTOL = 1e-7, 1e-5
RELATIVE_NORM = 1e-6
FORWARD_FLOAT64, FORWARD_FLOAT32 = 1e-12, 2e-5
VARIANTS = ("reference", "array", "numba")
# What decides between equal values. With a normalisation before it, rounding would.
TIE_OPS = (MaxPool2dOp, ReluMaxPool2dOp, ReluOp)


# Raises CheckError, or gives the relative error of a gradient, or nothing.
Check: TypeAlias = Callable[[Case], float | None]


class CheckError(NumericalError):
    """A row for which an op does not do what it must.

    Attributes: report: of a wrong gradient, its Report; None for anything else.
    """

    def __init__(self, message: str, report: Report | None = None) -> None:
        super().__init__(message)
        self.report = report


@dataclass(frozen=True)
class Result:
    """What came of a row that passed.

    Args: op: its name; case: the row's label; relative_error: the worst ||analytic - numeric|| / ||numeric||
          of its inputs; seconds: how long all checks took.
    """

    op: str
    case: str
    relative_error: float
    seconds: float


def check_op(
    subject: Case | type[Op],
    inputs: Sequence[Array] = (),
    params: dict[str, Any] | None = None,
    reference: Reference | None = None,
    *,
    checks: Sequence[Check] | None = None,
) -> Result:
    """Check one op on one row: shapes, forward, every kernel variant, gradients, cost, and good manners.

    Args:   subject: a Case; or an Op class, and then inputs: float64 (and integer) arrays without ties and
            kinks, params: for its __init__, reference: loops that take the inputs and the params (None: the
            forward pass and the cost are not compared); checks: some of CHECKS, or variations of them;
            None for all.
    Returns: the Result of a row that passed.
    Raises: CheckError, naming the row and what does not hold.
    """
    case = subject if isinstance(subject, Case) else Case(subject, tuple(inputs), params or {}, reference)
    started = perf_counter()
    relative_error = 0.0
    for check in CHECKS if checks is None else checks:
        where = f"{case.label}\n  {check.__name__}"
        try:
            relative_error = check(case) or relative_error
        except CheckError as error:
            raise CheckError(f"{where}: {error}", error.report) from error
        except Exception as error:  # Whatever the op raises on a good row is the op's failure.
            raise CheckError(f"{where}: {type(error).__name__}: {error}") from error
    return Result(case.op.name, case.label, relative_error, perf_counter() - started)


# ------------------------------------------------------------------------------------------- one experiment


@dataclass
class Run:
    """One forward and backward pass: the output, and a gradient or None for each input."""

    y: Array
    gradients: list[Array | None]
    dy: Array


def _floating(case: Case) -> list[int]:
    return [i for i, array in enumerate(case.inputs) if array.dtype.kind == "f"]


def _cotangent(shape: tuple[int, ...], dtype: Any = np.float64) -> Array:
    return np.asarray(Stream(1, "test").normal(shape=(*shape, 1)))[..., 0].astype(dtype)


def _run(
    case: Case,
    arrays: Sequence[Array] | None = None,
    needs: Sequence[int] | None = None,
    device: str = "cpu",
) -> Run:
    """The op on these arrays (None: the row's own); gradients are asked of inputs `needs` (None: all)."""
    arrays = [a.copy() for a in case.inputs] if arrays is None else arrays
    asked = _floating(case) if needs is None else needs
    # The very arrays, without a copy: an op that writes into its inputs must be caught.
    placed = [to_device(array, device) for array in arrays]
    leaves = [Tensor._wrap(array, requires_grad=i in asked) for i, array in enumerate(placed)]
    y = case.make()(*leaves)
    dy = _cotangent(y.shape, y.dtype)
    kept = dy.copy()
    if asked:
        y.backward(dy)
    if not _equal(dy, kept):
        raise CheckError("backward wrote into its dy")
    gradients = [None if leaf.grad is None else to_numpy(leaf.grad) for leaf in leaves]
    return Run(y.numpy(), gradients, dy)


def _equal(a: Array | None, b: Array | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _require_close(what: str, got: Array | None, wanted: Array | None, tolerance: float) -> None:
    """Raises: CheckError if they differ by more than `tolerance` * max(1, |wanted|)."""
    if got is None or wanted is None:
        if got is not wanted:
            raise CheckError(f"{what}: {'missing' if got is None else 'there, although nobody asked for it'}")
        return
    if got.shape != wanted.shape:
        raise CheckError(f"{what} has shape {got.shape}, expected {wanted.shape}")
    if got.size == 0:
        return
    difference = np.abs(got.astype(np.float64) - wanted.astype(np.float64))
    allowed = tolerance * max(1.0, float(np.abs(wanted).max()))
    if not bool((difference <= allowed).all()):
        place = np.unravel_index(int(np.nan_to_num(difference, nan=np.inf).argmax()), difference.shape)
        index = [int(i) for i in place]
        raise CheckError(
            f"{what} differs at {index}: {got[place]!r}, expected {wanted[place]!r} (allowed {allowed:.1e})"
        )


# ------------------------------------------------------------------------------------------------ the checks


def shapes(case: Case) -> None:
    """The output has the shape that shape() says, and shapes that do not fit raise ShapeError."""
    _run(case)  # The engine refuses an output and gradients of other shapes.
    for bad in case.bad_shapes:
        try:
            answer = case.make().shape(*bad)
        except ShapeError as error:
            if case.op.name not in str(error) and not any(str(s) in str(error) for s in bad):
                raise CheckError(f"the error for {bad} names neither the op nor a shape: {error}") from error
            continue
        raise CheckError(f"shapes {bad} must raise ShapeError, got {answer}")


def forward(case: Case, *, device: str = "cpu") -> None:
    """Forward agrees with the plain loops, in float64 and in float32, and float32 stays float32.

    Args: device: where the op sees its inputs.
    """
    if case.reference is None:
        return
    wanted = case.expected(*case.inputs)
    _require_close("the output", _run(case, device=device).y, wanted, FORWARD_FLOAT64)
    narrow = [a.astype(np.float32) if a.dtype.kind == "f" else a for a in case.inputs]
    wide = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in narrow]
    run = _run(case, narrow, device=device)
    for array in (run.y, *run.gradients):
        if array is not None and array.dtype != np.float32:
            raise CheckError(f"an output or a gradient is {array.dtype} for float32 inputs")
    _require_close("the float32 output", run.y, case.expected(*wide), FORWARD_FLOAT32)


def gradients(
    case: Case,
    *,
    eps: float = 1e-6,
    atol: float = GRADIENT_ATOL,
    rtol: float = GRADIENT_RTOL,
    norm: float = RELATIVE_NORM,
    seed: int = 0,
    device: str = "cpu",
) -> float:
    """Backward gives the derivatives of forward, by central differences with a random cotangent.

    Args:    eps, atol, rtol, seed: as gradcheck; norm: the relative error allowed to an input's gradient, in
             norm; device: where the op sees its inputs.
    Returns: the worst relative error, in norm, of an input's gradient; 0 if no input has one.
    """
    if not _floating(case):
        return 0.0

    def fn(*tensors: Tensor) -> Tensor:
        return case.make()(*tensors)

    inputs = [Tensor(a, requires_grad=a.dtype.kind == "f", device=device) for a in case.inputs]
    try:
        report = examine(fn, inputs, eps=eps, atol=atol, rtol=rtol, seed=seed, max_elements=None)
    except GradcheckError as error:
        raise CheckError(str(error)) from error
    # Rows have neither kinks nor ties: what the report would excuse elsewhere is wrong here.
    comparisons = [part.comparison for part in report.inputs]
    if not report.ok or any(c.wrong(atol, rtol).any() for c in comparisons):
        raise CheckError(report.text(), report)
    worst = max(c.relative_error for c in comparisons)
    if not worst <= norm:
        raise CheckError(f"a gradient is off by {worst:.1e} of its norm, more than {norm:.0e}", report)
    return worst


def variants(case: Case) -> None:
    """Every variant of the op's kernels gives the same output and gradients."""
    for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 2e-5)):
        arrays = [a.astype(dtype) if a.dtype.kind == "f" else a for a in case.inputs]
        usual = _run(case, arrays)
        for variant in VARIANTS:
            try:
                with use_variant(variant):
                    run = _run(case, arrays)
            except VariantError:  # One of the op's kernels has no such variant.
                continue
            label = f"{variant}, {np.dtype(dtype)}"
            _require_close(f"the output ({label})", run.y, usual.y, tolerance)
            for i, (got, wanted) in enumerate(zip(run.gradients, usual.gradients, strict=True)):
                _require_close(f"the gradient of input {i} ({label})", got, wanted, tolerance)


def ties(case: Case) -> None:
    """Of equal pixels the first wins, and where x is 0 ReLU stops the gradient, whatever the variant.

    Differences cannot tell: there is no derivative. So the variants are held against the plain loops.
    """
    if case.op not in TIE_OPS:
        return
    arrays = [np.trunc(a) for a in case.inputs]
    usual = _run(case, arrays)
    for variant in VARIANTS:
        with use_variant(variant):
            run = _run(case, arrays)
        _require_close(f"the output ({variant}, with ties)", run.y, usual.y, 0.0)
        _require_close(f"the gradient ({variant}, with ties)", run.gradients[0], usual.gradients[0], 1e-12)


def needs(case: Case) -> None:
    """Asked for the gradient of one input alone, the op gives the same values, and None for the others."""
    together = _run(case)
    for i in _floating(case):
        alone = _run(case, needs=[i])
        _require_close("the output with one gradient asked", alone.y, together.y, 0.0)
        _require_close(f"the gradient of input {i} alone", alone.gradients[i], together.gradients[i], 1e-12)
        op = case.make()
        leaves = [Tensor(a, requires_grad=j == i) for j, a in enumerate(case.inputs)]
        y = op(*leaves)
        for j, gradient in enumerate(op.backward(together.dy.reshape(y.shape))):
            if j != i and gradient is not None:
                raise CheckError(f"backward worked out the gradient of input {j}, which nobody asked for")
    if any(g is not None for g in _run(case, needs=[]).gradients):
        raise CheckError("a gradient was left although none was asked for")


def manners(case: Case) -> None:
    """Inputs are not written into; a second run gives the same bits, a second backward the same gradient."""
    arrays = [a.copy() for a in case.inputs]
    first = _run(case, arrays)
    for i, (array, original) in enumerate(zip(arrays, case.inputs, strict=True)):
        if not _equal(array, original):
            raise CheckError(f"forward or backward wrote into input {i}")
    second = _run(case, arrays)
    if not _equal(first.y, second.y) or not all(map(_equal, first.gradients, second.gradients)):
        raise CheckError("two runs gave different bits")
    leaves = [Tensor(a, requires_grad=i in _floating(case)) for i, a in enumerate(case.inputs)]
    y = case.make()(*leaves)
    for times in (1, 2):
        if y.requires_grad:
            y.backward(first.dy, retain_graph=True)
        for i, (leaf, once) in enumerate(zip(leaves, first.gradients, strict=True)):
            wanted = None if once is None else times * once
            _require_close(f"the gradient of input {i} after backward no. {times}", leaf.grad, wanted, 1e-12)


def layouts(case: Case) -> None:
    """Inputs and a cotangent that are not contiguous give the same values."""
    usual = _run(case)
    strided = [_strided(a) for a in case.inputs]
    run = _run(case, strided)
    _require_close("the output of strided inputs", run.y, usual.y, 1e-12)
    for i, (got, wanted) in enumerate(zip(run.gradients, usual.gradients, strict=True)):
        _require_close(f"the gradient of strided input {i}", got, wanted, 1e-12)
    leaves = [Tensor(a, requires_grad=i in _floating(case)) for i, a in enumerate(case.inputs)]
    y = case.make()(*leaves)
    if y.requires_grad:
        y.backward(_strided(usual.dy))
    for i, (leaf, wanted) in enumerate(zip(leaves, usual.gradients, strict=True)):
        _require_close(f"the gradient of input {i} for a strided dy", leaf.grad, wanted, 1e-12)


def _strided(array: Array) -> Array:
    """The same values, every axis reversed in memory and every second element unused."""
    wide = np.zeros([2 * extent for extent in array.shape[::-1]], dtype=array.dtype)
    every_second: tuple[Any, ...] = (*(slice(None, None, 2) for _ in array.shape), ...)
    view = wide[every_second].T
    view[...] = array
    return view


def cost(case: Case) -> None:
    """The cost is what the loops count, and bytes follow the convention of cost.py."""
    if case.reference is None:
        return
    shapes_in = [a.shape for a in case.inputs]
    promised = case.make().cost(*shapes_in, itemsize=4)
    counted = count_flops(case.reference, *case.inputs, **case.params)
    if counted + case.uncounted != promised.flops:
        raise CheckError(f"cost() says {promised.flops} flops, the loops count {counted + case.uncounted}")
    moved = 4 * _elements_moved(case)
    if promised.bytes != moved:
        raise CheckError(f"cost() says {promised.bytes} bytes for itemsize 4, the convention {moved}")
    wide = case.make().cost(*shapes_in, itemsize=8)
    if wide.flops != promised.flops or wide.bytes != 2 * promised.bytes:
        raise CheckError(f"cost() does not scale with itemsize: {promised} for 4 bytes, {wide} for 8")


def _elements_moved(case: Case) -> int:
    """By cost.py: inputs and output once; nothing for a view; for a gather what it reads and writes."""
    shapes_in = [a.shape for a in case.inputs]
    output = numel(case.make().shape(*shapes_in))
    if issubclass(case.op, IndexOp):
        return 2 * output
    if case.op.is_view:
        return 0
    return sum(map(numel, shapes_in)) + output


CHECKS: tuple[Check, ...] = (
    shapes,
    forward,
    variants,
    gradients,
    ties,
    needs,
    manners,
    layouts,
    cost,
)
