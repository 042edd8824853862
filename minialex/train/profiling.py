"""Where the time of a training step goes: the engine's events, timed, beside what the machine can do."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from minialex import ops, optim
from minialex.rng import Stream
from minialex.tensor import Event, Tensor, observe
from minialex.train.ceilings import Ceilings, measure_ceilings
from minialex.train.spans import LayerSpans

PHASES = ("forward", "backward")
INPUT, OPTIMIZER, OTHER = "input", "optimiser", "other"


@dataclass(frozen=True)
class ProfileRow:
    """One layer's forward or backward pass in a step, or what is no layer.

    Args: layer: path of the module, or "features.0-2" where one op does the work of several; ops: names of
          the ops; phase: "forward", "backward", or "" for input, optimiser and other; seconds: median over
          the steps; flops, bytes: see `Op.cost`, backward as `_backward_work` says; 0 where none are counted.
    """

    layer: str
    ops: str
    phase: str
    seconds: float
    flops: int
    bytes: int

    def shares_of_ceilings(self, ceilings: Ceilings) -> tuple[float, float]:
        """(arithmetic, traffic): the least time for each on this machine, as a share of the time taken."""
        seconds = max(self.seconds, 1e-9)
        return self.flops / ceilings.flops / seconds, self.bytes / ceilings.bytes / seconds

    def bound(self, ceilings: Ceilings) -> str:
        """What limits the work: "arithmetic", "memory", or "" where nothing is counted."""
        arithmetic, traffic = self.shares_of_ceilings(ceilings)
        return "" if arithmetic == traffic == 0 else "arithmetic" if arithmetic > traffic else "memory"


@dataclass(frozen=True)
class Span:
    """A stretch of time: start and length in seconds, counted from the beginning of the profile."""

    name: str
    lane: str
    start: float
    seconds: float


@dataclass(frozen=True)
class Profile:
    """Rows in the order of the forward pass; their seconds add up to those of a step.

    Args: seconds: of a step, the median; batch, steps: what was run.
    """

    name: str
    batch: int
    steps: int
    seconds: float
    ceilings: Ceilings
    rows: tuple[ProfileRow, ...]
    spans: tuple[Span, ...] = field(repr=False, default=())


@dataclass
class _Record:
    """What was seen of one row: its seconds in every step, and its work."""

    seconds: list[float]
    flops: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class _Call:
    """An op's call, without the arrays that an Event would keep alive."""

    order: int
    op: str
    phase: str
    start: float
    seconds: float
    flops: int
    bytes: int


def profile_step(
    model: Any,
    name: str = "model",
    batch: int = 32,
    steps: int = 5,
    warmup: int = 2,
    ceilings: Ceilings | None = None,
) -> Profile:
    """Train on random pictures for a few steps with Adam, and measure every op.

    The model is changed as by training.

    Args: model: with attributes image_size, channels and num_classes, as those of minialex.models; steps:
          that are measured; warmup: before them, for compilation; ceilings: None to measure them now.
    """
    ceilings = ceilings or measure_ceilings()
    recorder = _Recorder(model, steps)
    optimizer = optim.Adam(model.parameters(), lr=1e-4)
    shape = (batch, model.channels, model.image_size, model.image_size)
    images = Stream(0, "test").normal(shape=shape).astype(np.float32)
    labels = np.arange(batch) % model.num_classes
    was_training = model.training
    model.train()
    for number in range(-warmup, steps):
        recorder.begin_step(number)
        optimizer.zero_grad()
        x = recorder.timed(INPUT, lambda: Tensor(images))
        with observe(recorder.see):
            loss = ops.cross_entropy(model(x), labels)
            loss.backward()
        recorder.timed(OPTIMIZER, optimizer.step)
        del x, loss
        recorder.end_step()
    model.train(was_training)
    model.zero_grad()
    moved = sum(p.data.nbytes for p in model.parameters()) * (3 + 2 * len(optimizer.buffers))
    rows = recorder.rows(moved)
    return Profile(name, batch, steps, recorder.step_seconds(), ceilings, rows, tuple(recorder.spans))


class _Recorder:
    """Collects the calls of all steps by layer and phase."""

    def __init__(self, model: Any, steps: int) -> None:
        self._layers, self._steps = LayerSpans(model), steps
        self._records: dict[tuple[str, str, str], _Record] = {}
        self._names: dict[str, dict[str, None]] = {}
        self._timed: dict[str, list[float]] = {INPUT: [], OPTIMIZER: []}
        self._totals: list[float] = []
        self._calls: list[_Call] = []
        self.spans: list[Span] = []
        self._number, self._begun, self._start = 0, perf_counter(), 0.0

    def begin_step(self, number: int) -> None:
        """Steps with a number below 0 are not counted."""
        self._number, self._calls = number, []
        self._layers.begin()
        self._start = perf_counter()

    def see(self, event: Event) -> None:
        """An observer of the engine. Work is the same in every step, and counted in the first."""
        end, flops, size = perf_counter(), 0, 0
        if event.phase == "forward":
            self._layers.see(event)
        if self._number == 0:
            flops, size = _forward_work(event) if event.phase == "forward" else _backward_work(event)
        call = (event.op.order, event.op.name, event.phase, end - event.seconds, event.seconds, flops, size)
        self._calls.append(_Call(*call))

    def timed(self, what: str, work: Callable[[], Any]) -> Any:
        """The result of `work`, whose time is counted as `what`."""
        start = perf_counter()
        result = work()
        seconds = perf_counter() - start
        if self._number >= 0:
            self._timed[what].append(seconds)
            self._span(what, what, start, seconds)
        return result

    def end_step(self) -> None:
        """Sort this step's calls into rows."""
        total = perf_counter() - self._start
        if self._number < 0:
            return
        self._totals.append(total)
        self._span(f"step {self._number + 1}", "step", self._start, total)
        layers = self._layers.resolve()
        for call in self._calls:
            layer = layers.get(call.order, "")
            self._names.setdefault(layer, {})[call.op] = None
            # An op of no layer has a row for itself.
            key = (layer, "" if layer else call.op, call.phase)
            record = self._records.setdefault(key, _Record([0.0] * self._steps))
            record.seconds[self._number] += call.seconds
            record.flops += call.flops
            record.bytes += call.bytes
            self._span(f"{call.op} {layer}".strip(), call.phase, call.start, call.seconds)

    def _span(self, name: str, lane: str, start: float, seconds: float) -> None:
        self.spans.append(Span(name, lane, start - self._begun, seconds))

    def step_seconds(self) -> float:
        """The median of the steps."""
        return statistics.median(self._totals)

    def rows(self, optimizer_bytes: int) -> tuple[ProfileRow, ...]:
        """All rows, layers in the order of the forward pass; "other" is what the rest leaves of the step."""
        rows = [ProfileRow(INPUT, "", "", statistics.median(self._timed[INPUT]), 0, 0)]
        for layer, op in dict.fromkeys((layer, op) for layer, op, _ in self._records):
            names = op or ", ".join(self._names[layer])
            for phase in PHASES:
                record = self._records.get((layer, op, phase))
                if record is not None:
                    seconds = statistics.median(record.seconds)
                    rows.append(ProfileRow(layer, names, phase, seconds, record.flops, record.bytes))
        seconds = statistics.median(self._timed[OPTIMIZER])
        rows.append(ProfileRow(OPTIMIZER, "", "", seconds, 0, optimizer_bytes))
        rest = self.step_seconds() - sum(row.seconds for row in rows)
        return (*rows, ProfileRow(OTHER, "", "", rest, 0, 0))


def _forward_work(event: Event) -> tuple[int, int]:
    """(operations, bytes) of a forward call."""
    cost = event.op.cost(*event.op.input_shapes)
    return int(cost.flops), int(cost.bytes)


def _backward_work(event: Event) -> tuple[int, int]:
    """(operations, bytes) of a backward call, counted by the forward pass.

    An op's gradient towards one input (or weight) is counted like its forward pass: for a product, which is
    nearly all of the work, exactly so. A bias's gradient is left out. Bytes: dy and what was saved is read,
    gradients are written; a view moves nothing.
    """
    op, needed = event.op, 0
    if op.is_view:
        return 0, 0
    for shape, gradient in zip(op.input_shapes, event.outputs, strict=True):
        needed += gradient is not None and len(shape) > 1
    arrays = [*event.inputs, *(gradient for gradient in event.outputs if gradient is not None)]
    size = op.saved_bytes + sum(array.nbytes for array in arrays)
    return int(op.cost(*op.input_shapes).flops) * max(1, needed), size
