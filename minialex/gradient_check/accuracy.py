"""gradient_accuracy: how good float32 gradients are, and bfloat16 ones, layer by layer, against float64.

gradcheck asks whether a backward is right; this asks how much rounding leaves of it. The forward and backward
pass run in float64 and again in each lower precision, from the same values, with the same masks and the same
cotangent, and each gradient is compared in relative norm:

    ||gradient - gradient64|| / ||gradient64||

What to expect: float32 rounds to 6e-8 and bfloat16 to 4e-3; a gradient passes many operations on its way, and
a ReLU or a max-pool that decides otherwise after rounding adds to it. A layer that is much worse than its
neighbours loses digits by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minialex.backend import device_of, to_device, to_numpy
from minialex.backend.precision import round_to_precision
from minialex.gradient_check.comparison import relative_norm
from minialex.gradient_check.model_copies import copy_as, is_model
from minialex.gradient_check.settings import Float64Array, check_loss, refuse
from minialex.gradient_check.tables import table
from minialex.rng import Stream, random_scope
from minialex.shapes import Shape
from minialex.tensor import Event, Tensor, observe

PRECISIONS = ("float32", "bf16")


@dataclass(frozen=True)
class AccuracyRow:
    """One gradient. Args: name, shape: of the input or parameter; norm: of its float64 gradient; errors: the
    relative norm of the error in each precision."""

    name: str
    shape: Shape
    norm: float
    errors: dict[str, float]


@dataclass(frozen=True)
class Accuracy:
    """All rows, in the order of the forward pass. Args: rows; precisions: of their errors."""

    rows: tuple[AccuracyRow, ...]
    precisions: tuple[str, ...]

    def worst(self, precision: str = "float32") -> float:
        """The largest error in one precision."""
        return max(row.errors[precision] for row in self.rows)

    def text(self) -> str:
        """A table with a line for each gradient."""
        cells = [
            (row.name, str(row.shape), f"{row.norm:.3e}", *(f"{row.errors[p]:.1e}" for p in self.precisions))
            for row in self.rows
        ]
        header = ("gradient of", "shape", "norm", *self.precisions)
        note = "errors: ||gradient - gradient in float64|| / ||gradient in float64||"
        return "\n".join([*table(header, cells, left=(0, 1)), "", note])

    def to_json(self) -> dict[str, Any]:
        """Plain values, for json.dumps."""
        rows = [{**vars(row), "shape": list(row.shape), "errors": dict(row.errors)} for row in self.rows]
        return {"precisions": list(self.precisions), "rows": rows}


def gradient_accuracy(
    subject: Any,
    inputs: Any,
    loss: Callable[[Tensor], Tensor] | None = None,
    *,
    precisions: Sequence[str] = PRECISIONS,
    seed: int = 0,
    names: Sequence[str] | None = None,
) -> Accuracy:
    """Compare the gradients in lower precisions with those in float64.

    Args:   subject: a model (whose parameters get a row each), or a function of Tensors; both are given
            copies, and a model is copied itself. inputs: a Tensor or array, or a list of them; floating ones
            get a row. loss: makes of the output what is differentiated (None: the output, under a random
            cotangent). precisions: "float32", and "bf16": computed in float32, and every input, output and
            gradient of an operation rounded to bfloat16; seed: of the cotangent and the masks; names: of the
            inputs.
    Returns: an Accuracy.
    Raises: GradcheckError for a precision that is not known, or other names than inputs.
    """
    check_loss(loss)
    unknown = [precision for precision in precisions if precision not in PRECISIONS]
    if unknown:
        refuse(f"unknown precision {unknown[0]!r}: expected some of {', '.join(PRECISIONS)}")
    arrays = [_host(value) for value in (inputs if isinstance(inputs, (list, tuple)) else [inputs])]
    labels = list(names) if names is not None else [f"input {i}" for i in range(len(arrays))]
    if len(labels) != len(arrays):
        refuse(f"{len(labels)} names for {len(arrays)} inputs")
    device = next((v.device for v in _listed(inputs) if isinstance(v, Tensor)), "cpu")
    run = _Run(subject, arrays, labels, loss, device, seed)
    exact = run.gradients("float64")
    found = {precision: run.gradients(precision) for precision in precisions}
    rows = tuple(
        AccuracyRow(
            name,
            right.shape,
            float(np.linalg.norm(right)),
            {precision: relative_norm(found[precision][name], right) for precision in precisions},
        )
        for name, right in exact.items()
    )
    return Accuracy(rows, tuple(precisions))


def _listed(inputs: Any) -> list[Any]:
    return list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]


def _host(value: Any) -> npt.NDArray[Any]:
    """The values, floating ones rounded to float32, so that all precisions begin with the same."""
    array = to_numpy(value.data if isinstance(value, Tensor) else value)
    return array.astype(np.float32) if array.dtype.kind == "f" else np.array(array)


@dataclass(frozen=True)
class _Run:
    """What is run once in each precision; the fields are gradient_accuracy's arguments."""

    subject: Any
    arrays: list[npt.NDArray[Any]]
    labels: list[str]
    loss: Callable[[Tensor], Tensor] | None
    device: str
    seed: int

    def gradients(self, precision: str) -> dict[str, Float64Array]:
        """The gradient of every floating input and every parameter, by name."""
        dtype = np.dtype("float64" if precision == "float64" else "float32")
        has_parameters = is_model(self.subject)
        subject = copy_as(self.subject, dtype) if has_parameters else self.subject
        leaves = {}
        for name, array in zip(self.labels, self.arrays, strict=True):
            floating = array.dtype.kind == "f"
            values = to_device(array.astype(dtype) if floating else array, self.device)
            leaves[name] = Tensor(values, requires_grad=floating)
        inputs = list(leaves.values())
        leaves |= dict(subject.named_parameters()) if has_parameters else {}
        if precision == "bf16":
            for leaf in leaves.values():
                _round(leaf.data)
            with observe(_round_event):
                self._differentiate(subject, inputs)
        else:
            self._differentiate(subject, inputs)
        return {name: _gradient(leaf) for name, leaf in leaves.items() if leaf.requires_grad}

    def _differentiate(self, subject: Any, inputs: list[Tensor]) -> None:
        with random_scope(self.seed, 0):
            output = subject(*inputs)
            output = output if self.loss is None else self.loss(output)
            v = Stream(self.seed, "gradcheck").normal(shape=(output.size,)).reshape(output.shape)
            output.backward(to_device(v.astype(output.dtype), output.device))


def _gradient(leaf: Tensor) -> Float64Array:
    if leaf.grad is None:
        return np.zeros(leaf.shape)
    return np.asarray(to_numpy(leaf.grad), dtype=np.float64)


def _round_event(event: Event) -> None:
    """Round what an operation gave. Observers look and do not touch; this one stands for hardware that keeps
    nothing but bfloat16 between two operations."""
    outputs = [output.data if isinstance(output, Tensor) else output for output in event.outputs]
    for array in outputs:
        if array is not None and array.flags.writeable:
            _round(array)


def _round(array: Any) -> None:
    """Round float32 to the nearest bfloat16, in place."""
    if array.dtype == np.float32:
        array[...] = to_device(round_to_precision(to_numpy(array), "bf16"), device_of(array))
