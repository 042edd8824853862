"""How much memory a training step needs: measured on two small batches, and extended to the batch asked for.

Ops do not say beforehand what they allocate, and should not have to: what they save, fuse and reuse changes,
and a second account of it would soon be wrong. So a few steps are run on small batches, while `tracemalloc`,
which NumPy reports its arrays to, writes down after each op how much is alive and how much was alive at most
since the op before. Each of these figures grows with the batch along a straight line, a part that is there
for any batch (weights, gradients) and a part for every picture; two batches give the line. The largest of all
figures, read off at the batch asked for, is the peak. What is largest may change with the batch, and so it is
looked for last.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from minialex import ops, optim
from minialex.backend import empty_cache, kept_memory
from minialex.errors import UsageError
from minialex.rng import random_scope
from minialex.tensor import Event, Tensor, observe
from minialex.train.reporter import table
from minialex.train.spans import LayerSpans, place_of

OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "adam": optim.Adam,
    "sgd": lambda params, lr: optim.SGD(params, lr=lr, momentum=0.9),
}
# The larger of the two batches that are run: the one asked for, but no more than the larger of these two, in
# pictures and in bytes of pictures. Both batches must be beyond the few pictures that some kernels take at a
# time: the buffers for these grow no more, and the line begins there.
MOST_PICTURES, MOST_BYTES = 24, 2**22


@dataclass(frozen=True)
class Footprint:
    """Bytes that a training step with `batch` pictures needs.

    Args: parameters, gradients, optimizer: of all parameters; activations: alive between forward and
          backward, the pictures included; transient: the most that one op needs for a moment beyond what is
          alive before and after it; arrays: the most that is alive at one time, `moment` says when, and less
          than the sum of all these, because activations go as gradients come; runtime: this process without
          any of them: Python, NumPy, Numba, compiled kernels, and the scratch memory of threads after a step
          with one picture, while what that grows by with the batch is in `arrays`; 0 where the system does
          not say.
    """

    batch: int
    parameters: int
    gradients: int
    optimizer: int
    activations: int
    transient: int
    arrays: int
    moment: str
    runtime: int

    @property
    def total(self) -> int:
        """What the largest resident set of the process is compared with."""
        return self.runtime + self.arrays

    def __str__(self) -> str:
        rows = [
            ("memory of a training step", "MB"),
            ("parameters", _megabytes(self.parameters)),
            ("gradients", _megabytes(self.gradients)),
            ("what the optimiser remembers", _megabytes(self.optimizer)),
            ("activations kept for backward, and pictures", _megabytes(self.activations)),
            ("largest array for a moment", _megabytes(self.transient)),
            (f"most at one time ({self.moment})", _megabytes(self.arrays)),
            ("Python, NumPy, Numba, kernels and scratch memory", _megabytes(self.runtime)),
            (f"the process, at batch {self.batch}", _megabytes(self.total)),
        ]
        return table(rows, right=(1,))


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f}"


@dataclass(frozen=True)
class _Mark:
    """What tracemalloc says after an op: bytes alive now, and at most since the mark before.

    Args: alive, peak: memory that is kept for reuse included; used: of what is alive, without it; order: the
          op's number, until its layers are known and stand in `moment`.
    """

    moment: str
    alive: int
    peak: int
    used: int
    order: int | None = None


def footprint_of(model: Any, batch: int, optimizer: str = "adam") -> Footprint:
    """How much memory a step needs; see the top of this file for how it is found.

    The model's weights stay as they are: the sample steps have a learning rate of 0. Its gradients are
    forgotten.

    Args:   model: with attributes image_size and channels, as those of minialex.models; batch: pictures;
            optimizer: "adam" or "sgd", the latter with momentum.
    Raises: UsageError for another optimiser.
    """
    if optimizer not in OPTIMIZERS:
        raise UsageError(f"unknown optimiser {optimizer!r}: expected {' or '.join(OPTIMIZERS)}")
    picture = 4 * model.channels * model.image_size**2
    large = max(2, min(batch, max(MOST_PICTURES, MOST_BYTES // picture)))
    small = max(1, 2 * large // 3)
    weights = sum(p.data.nbytes for p in model.parameters())
    with _left_as_it_was(model):
        # The first step loads compiled kernels and makes scratch memory that stays: both are in the runtime.
        _steps(model, optimizer, 1, 1)
        runtime = max(0, _resident_after_trimming() - weights)
        with _tracing():
            runs = [_steps(model, optimizer, count, 2) for count in (small, large)]

    def at_batch(a: int, b: int) -> int:
        return max(0, round(a + (b - a) / (large - small) * (batch - small)))

    first, second = (
        [
            _Mark(
                a.moment,
                at_batch(a.alive, b.alive),
                at_batch(a.peak, b.peak),
                at_batch(a.used, b.used),
            )
            for a, b in zip(runs[0].marks[number], runs[1].marks[number], strict=True)
        ]
        for number in range(2)
    )
    # From the second step on, memory that the first one freed is kept for reuse, the optimiser remembers, and
    # scratch memory has grown to the batch: what comes to that in its forward pass is kept for backward.
    beginning, forward_end = (
        next(mark for mark in second if mark.moment == moment) for moment in (BEGINNING, FORWARD_END)
    )
    largest = max(second, key=lambda mark: mark.peak)
    return Footprint(
        batch=batch,
        parameters=weights,
        gradients=weights,
        optimizer=runs[1].kept,
        activations=batch * picture + forward_end.used - beginning.used,
        transient=max(after.peak - max(before.alive, after.alive) for before, after in pairwise(first)),
        arrays=weights + largest.peak,
        moment=largest.moment,
        runtime=runtime,
    )


BEGINNING, FORWARD_END = "the beginning", "the end of the forward pass"
BACKWARD_END, STEP_END = "the end of backward", "the optimiser"


@dataclass(frozen=True)
class _Run:
    """Bytes that the optimiser keeps, and the marks of each step; all 0 without tracing."""

    kept: int
    marks: list[list[_Mark]]


def _steps(model: Any, optimizer: str, batch: int, count: int) -> _Run:
    empty_cache()
    optimiser = OPTIMIZERS[optimizer](list(model.parameters()), lr=0.0)
    spans = LayerSpans(model)
    images = np.zeros((batch, model.channels, model.image_size, model.image_size), np.float32)
    labels = np.zeros(batch, np.int64)
    marks: list[list[_Mark]] = []

    def mark(moment: str, order: int | None = None) -> None:
        alive, peak = tracemalloc.get_traced_memory()
        marks[-1].append(_Mark(moment, alive, peak, alive - kept_memory(), order))
        tracemalloc.reset_peak()

    def look(event: Event) -> None:
        if event.phase == "forward":
            spans.see(event)
        mark(f"{event.op.name}|{event.phase}", event.op.order)

    for _ in range(count):
        marks.append([])
        spans.begin()
        optimiser.zero_grad()
        mark(BEGINNING)
        with observe(look), random_scope(0, 0):
            loss = ops.cross_entropy(model(Tensor(images)), labels)
            mark(FORWARD_END)
            loss.backward()
        mark(BACKWARD_END)
        optimiser.step()
        mark(STEP_END)
        del loss
        marks[-1] = _with_layers(marks[-1], spans.resolve())
    model.zero_grad()
    kept = sum(array.nbytes for array in optimiser.state_dict().values() if hasattr(array, "nbytes"))
    return _Run(kept, marks)


def _with_layers(marks: list[_Mark], layers: dict[int, str]) -> list[_Mark]:
    """The marks after ops with the layers in their moments: "conv2d in features.3, backward"."""
    named = []
    for mark in marks:
        if mark.order is not None:
            op, phase = mark.moment.split("|")
            mark = replace(mark, moment=f"{place_of(op, layers.get(mark.order, ''))}, {phase}", order=None)
        named.append(mark)
    return named


@contextmanager
def _left_as_it_was(model: Any) -> Iterator[None]:
    was_training = model.training
    model.train()
    try:
        yield
    finally:
        model.zero_grad()
        model.train(was_training)


@contextmanager
def _tracing() -> Iterator[None]:
    if tracemalloc.is_tracing():  # By the program that calls: it goes on.
        yield
        return
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def _resident_after_trimming() -> int:
    """Bytes of this process in memory, freed ones given back first; 0 where the system does not say."""
    gc.collect()
    empty_cache()
    if sys.platform.startswith("linux"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none.
        if trim is not None:
            trim(0)
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))
