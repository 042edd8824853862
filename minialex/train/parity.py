"""Parity: one training step's passes on a device, every op held against the same op in float64.

Two networks that are both right drift apart: an error made in layer 1 is carried through layers 2 to 8, and a
pixel that wins a pooling window by a hair sends its gradient elsewhere. So a difference in layer 5 says
little about layer 5. Every op is therefore also worked out again, in float64 on the CPU, from the very arrays
that the device gave it: what is left is the op's own error, and the first op whose own error is more than
rounding explains is where the device goes wrong.

What rounding explains is measured, too. The same op from the same arrays in float32, by NumPy, has an error e
of its own; a device may have FACTOR times that, or FACTOR times one rounding where e is less. Both replays
use the kernels' array variants, which share no code with the compiled ones on the CPU or on a GPU.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minialex import ops
from minialex.backend import (
    PRECISIONS,
    Array,
    canonical_device,
    is_array,
    one_blas_thread,
    to_device,
    to_numpy,
    use_precision,
    use_variant,
    winograd_enabled,
)
from minialex.rng import random_scope
from minialex.tensor import Event, Op, Tensor, observe
from minialex.train.spans import LayerSpans

# Sums in another order, fused multiply-adds and Winograd's algorithm round differently from NumPy, by single
# factors; a kernel that is wrong is off by hundreds and more.
FACTOR = 16
# Winograd's algorithm adds and subtracts large multiples before it multiplies: on the CPU, while it is on, a
# convolution's error may be this many times larger still (up to 37 times NumPy's was seen).
WINOGRAD_FACTOR = 8
# Ops whose factors a GPU may round to TF32 or bfloat16 first.
PRODUCTS = ("conv2d", "linear", "matmul")
# Of whole numbers that are kept for backward (which pixel won), so many more may differ, of an array of 1000
# or more: where two values are nearly equal, rounding decides.
STRAY, STRAY_FROM = 4, 1000


@dataclass(frozen=True)
class Error:
    """How far an array is from the right one.

    Args: relative: |a - b| / |b|, Euclidean; ulps: the largest |a - b| of an element, in units of least
          precision of float32 at the largest |b|.
    """

    relative: float = 0.0
    ulps: float = 0.0


@dataclass(frozen=True)
class Check:
    """One array of one op.

    Args: what: "output", "kept 1" (for backward), "dweight"; own: its error from float64, given the same
          inputs; allowed: the most that rounding explains; whole: its error from the network in float64.
    """

    what: str
    own: Error
    allowed: Error
    whole: Error

    @property
    def ratio(self) -> float:
        """Own error over what is allowed; more than 1 is a divergence, and so is NaN."""
        ratios = (self.own.relative / self.allowed.relative, self.own.ulps / self.allowed.ulps)
        return float(np.nan_to_num(max(ratios), nan=np.inf))


@dataclass(frozen=True)
class Row:
    """One op, forward or backward, with the checks of all its arrays."""

    phase: str
    layer: str
    op: str
    checks: tuple[Check, ...]

    @property
    def worst(self) -> Check:
        """The check that is nearest to what is allowed, or farthest above it."""
        return max(self.checks, key=lambda check: check.ratio)

    @property
    def diverges(self) -> bool:
        """Whether the op's own error is more than rounding explains."""
        return not self.worst.ratio <= 1

    @property
    def whole(self) -> Error:
        """The largest error from the network in float64."""
        return max((check.whole for check in self.checks), key=lambda error: error.relative)


@dataclass(frozen=True)
class Run:
    """One device's passes."""

    device: str
    loss: float
    rows: tuple[Row, ...]

    def first(self, phase: str) -> Row | None:
        """The first op of "forward" or "backward" that diverges, in the order in which they ran."""
        return next((row for row in self.rows if row.phase == phase and row.diverges), None)

    @property
    def worst(self) -> Row:
        """The op that is nearest to its limit, or farthest above it."""
        return max(self.rows, key=lambda row: row.worst.ratio)

    @property
    def agrees(self) -> bool:
        """Whether nothing diverges."""
        return not any(row.diverges for row in self.rows)


@dataclass(frozen=True)
class Parity:
    """What was compared, and what came out: the CPU in float32, and the device if it is another."""

    name: str
    pictures: str
    shape: tuple[int, ...]
    precision: str
    loss: float
    runs: tuple[Run, ...]

    @property
    def agrees(self) -> bool:
        """Whether no op on any device diverges."""
        return all(run.agrees for run in self.runs)


@dataclass
class Experiment:
    """A network, a batch (N, C, H, W) float32 with labels (N,), and the address of the dropout masks."""

    model: Any
    images: Array
    labels: Array
    seed: int = 0
    precision: str = "fp32"


def compare(
    experiment: Experiment,
    device: str,
    name: str = "",
    pictures: str = "",
    say: Callable[[str], Any] = print,
    with_cpu: bool = True,
) -> Parity:
    """Run the step's two passes in float64 and in float32 on the CPU, and on the device.

    The model is left as it was, without gradients.

    Args: device: "cpu" compares float32 with float64 alone; name, pictures: for the report; say: is told
          what begins; with_cpu: False leaves the CPU's float32 out if the device is another, and computes
          float64 by NumPy alone: nothing has to be compiled.
    """
    place = canonical_device(device)
    say("float64 on cpu")
    with nullcontext() if with_cpu else use_variant("array"):
        whole = _in_float64(experiment)
    runs = []
    for where in dict.fromkeys(("cpu", place) if with_cpu else (place,)):
        say(f"float32 on {where}")
        runs.append(_on_device(experiment, where, whole))
    shape = tuple(experiment.images.shape)
    return Parity(name, pictures, shape, experiment.precision, whole.loss, tuple(runs))


# ---------------------------------------------------------------------------------------- three runs


@dataclass
class _Whole:
    """The network in float64: the arrays of every op, in the order in which they were made."""

    loss: float = float("nan")
    arrays: list[tuple[str, str, list[Array | None]]] = field(default_factory=list)

    def see(self, event: Event) -> None:
        self.arrays.append((event.phase, event.op.name, [_host(a) for a in _results(event)]))


def _in_float64(experiment: Experiment) -> _Whole:
    whole = _Whole()
    model = experiment.model
    with _weights_of(model):
        model.astype(np.float64)
        whole.loss = _passes(experiment, "cpu", np.float64, whole.see)
    return whole


def _on_device(experiment: Experiment, device: str, whole: _Whole) -> Run:
    model = experiment.model
    with _weights_of(model), use_precision(experiment.precision):
        model.to(device)
        # Rounding of the factors is allowed where products are rounded: never on the CPU.
        bits = PRECISIONS["fp32" if device == "cpu" else experiment.precision]
        winograd = device == "cpu" and winograd_enabled()
        recorder = _Recorder(LayerSpans(model), whole.arrays, 2.0**-bits, winograd)
        loss = _passes(experiment, device, np.float32, recorder.see)
        return Run(device, loss, recorder.rows())


def _passes(experiment: Experiment, device: str, dtype: Any, see: Callable[[Event], None]) -> float:
    """Forward and backward, in train mode with dropout; `see` observes every op. Returns: the loss."""
    model = experiment.model
    images = Tensor(experiment.images.astype(dtype), device=device)
    labels = to_device(experiment.labels, device)
    was_training = model.training
    model.train()
    try:
        with random_scope(experiment.seed), observe(see), one_blas_thread():
            loss = ops.cross_entropy(model(images), labels)
            value = float(loss.item())
            loss.backward()
    finally:
        model.train(was_training)
        model.zero_grad()
    return value


@contextmanager
def _weights_of(model: Any) -> Iterator[None]:
    """Inside, the weights may be converted and moved; afterwards they are the same arrays as before."""
    before = [(parameter, parameter.data) for parameter in model.parameters()]
    try:
        yield
    finally:
        for parameter, array in before:
            parameter.grad = None
            parameter.data = array


def _results(event: Event) -> Sequence[Array | None]:
    return [event.outputs[0].data] if event.phase == "forward" else event.outputs


def _host(array: Array | None, dtype: Any = None) -> Any:
    """A plain NumPy array; `dtype` is for floating ones. None stays."""
    if array is None:
        return None
    plain = to_numpy(array).view(np.ndarray)
    return plain.astype(dtype) if dtype is not None and plain.dtype.kind == "f" else plain


# ----------------------------------------------------------------------------------- op after op, again


class _Recorder:
    """Replays every op that a device runs, as soon as it ran, and keeps the errors."""

    def __init__(self, layers: LayerSpans, whole: Sequence[Any], unit: float, winograd: bool) -> None:
        self._layers, self._whole, self._unit, self._winograd = layers, whole, unit, winograd
        self._rows: list[tuple[int, Row]] = []
        layers.begin()

    def see(self, event: Event) -> None:
        """An observer of the engine."""
        phase, op = event.phase, event.op
        if phase == "forward":
            self._layers.see(event)
        # Nothing is beyond the last: a device may not run other ops than the CPU.
        expected = self._whole[len(self._rows)] if len(self._rows) < len(self._whole) else (None, None, ())
        if (phase, op.name) != expected[:2]:
            raise RuntimeError(
                f"{phase} of {op.name} stands where float64 had {expected[0]} of {expected[1]}"
            )
        names, got, wanted, rounded = (_forward if phase == "forward" else _backward)(event)
        unit = self._unit if any(word in op.name for word in PRODUCTS) else 2.0**-24
        factor = FACTOR * (WINOGRAD_FACTOR if self._winograd and "conv2d" in op.name else 1)
        checks = []
        for i, what in enumerate(names):
            if got[i] is not None:
                whole = measure(got[i], expected[2][i]) if i < len(expected[2]) else Error()
                limit = allowed(got[i], wanted[i], rounded[i], unit, factor)
                checks.append(Check(what, measure(got[i], wanted[i]), limit, whole))
        self._rows.append((op.order, Row(phase, "", op.name, tuple(checks))))

    def rows(self) -> tuple[Row, ...]:
        """All rows, in order, with the names of their layers."""
        layers = self._layers.resolve()
        return tuple(Row(row.phase, layers.get(order, ""), row.op, row.checks) for order, row in self._rows)


def _forward(event: Event) -> tuple[list[str], list[Any], list[Any], list[Any]]:
    """(names, the device's arrays, the same in float64, in float32): the output, and what was kept."""
    op, inputs, output = event.op, [t.data for t in event.inputs], event.outputs[0].data
    # What is kept beside inputs and output: which pixel won, for instance.
    kept = [
        i for i, a in enumerate(op._saved) if is_array(a) and not _any_is(a, [*inputs, output, *_held(op)])
    ]
    names = ["output", *(f"kept {i}" for i in kept)]
    got = [_host(output), *(_host(op._saved[i]) for i in kept)]
    answers = []
    for dtype in (np.float64, np.float32):
        again = _clone(op)
        with use_variant("array"), np.errstate(all="ignore"):
            y = again.forward(*(_host(a, dtype) for a in inputs))
        answers.append([np.asarray(y), *(again._saved[i] for i in kept)])
    return names, got, answers[0], answers[1]


def _backward(event: Event) -> tuple[list[str], list[Any], list[Any], list[Any]]:
    """As `_forward`: the gradient of each input, from what the device had kept."""
    op, answers = event.op, []
    for dtype in (np.float64, np.float32):
        again = _clone(op)
        again._saved = tuple(_host(a, dtype) if is_array(a) else a for a in op._saved)
        with use_variant("array"), np.errstate(all="ignore"):
            answers.append(list(again.backward(_host(event.inputs[0], dtype))))
    return _gradient_names(event), [_host(a) for a in event.outputs], answers[0], answers[1]


def _gradient_names(event: Event) -> list[str]:
    """dx, dweight and dbias, as the op's forward names its inputs."""
    parameters = inspect.signature(event.op.forward).parameters.values()
    named = [f"d{p.name}" for p in parameters if p.kind is not p.VAR_POSITIONAL]
    count = len(event.outputs)
    return named[:count] if len(named) >= count else [f"gradient of input {i}" for i in range(count)]


def _clone(op: Op) -> Op:
    """The same call, not yet recorded, with what it holds in host memory."""
    again = copy.copy(op)
    again._saved, again._versions, again.edges, again._output = (), (), (), None
    for name, value in vars(op).items():
        if is_array(value):
            setattr(again, name, _host(value))
    return again


def _held(op: Op) -> list[Any]:
    """Arrays that are parameters of the op, such as labels."""
    return [value for value in vars(op).values() if is_array(value)]


def _any_is(array: Any, others: Sequence[Any]) -> bool:
    return any(array is other for other in others)


# --------------------------------------------------------------------------------------- how far off


def measure(got: Array, wanted: Array) -> Error:
    """The distance of two arrays; infinite if shapes differ, or NaN and infinities stand elsewhere.

    Of whole numbers: the share, and the number, of those that differ.
    """
    if got.shape != wanted.shape:
        return Error(np.inf, np.inf)
    if got.size == 0:
        return Error()
    if got.dtype.kind != "f":
        return Error(float(np.mean(got != wanted)), float(np.count_nonzero(got != wanted)))
    finite = np.isfinite(wanted)
    if not np.array_equal(np.isfinite(got), finite):
        return Error(np.inf, np.inf)
    right = np.where(finite, wanted, 0).astype(np.float64)
    difference = np.where(finite, got, 0).astype(np.float64) - right
    length, distance = float(np.linalg.norm(right)), float(np.linalg.norm(difference))
    unit = float(np.spacing(np.float32(np.abs(right).max())))
    relative = 0.0 if distance == 0 else distance / length if length else np.inf
    return Error(relative, float(np.abs(difference).max()) / unit)


def allowed(got: Array, wanted: Array, rounded: Array, unit: float, factor: float = FACTOR) -> Error:
    """`factor` times the error that NumPy makes in float32, or times one rounding, whichever is more.

    Args: unit: the most that one rounding changes a number, relatively: 2**-24 in float32.
    """
    error = measure(rounded, wanted)
    if got.dtype.kind != "f":
        stray = STRAY if got.size >= STRAY_FROM else 0
        count = factor * error.ulps + stray + 0.5  # A half: none may differ where none is allowed.
        return Error(count / max(got.size, 1), count)
    # A unit of least precision is twice the most that rounding changes.
    return Error(factor * max(error.relative, unit), factor * max(error.ulps, unit * 2.0**24))
