"""The experiment: a function, float64 copies of its inputs, a random cotangent, the gradients by backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from minialex.backend import DTypeError, device_of, is_array, to_device, to_numpy
from minialex.gradient_check.settings import (
    Float64Array,
    Function,
    GradcheckError,
    Settings,
    first_bad,
    refuse,
    same_bits,
)
from minialex.rng import Stream, random_scope
from minialex.shapes import ShapeError
from minialex.tensor import Event, GraphError, Op, Tensor, no_grad, observe, recorded_ops

# Elements of an input of which not every evaluation makes a copy.
LARGE = 1_000_000


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

    def tensor(self) -> Tensor:
        """A new leaf with a copy of its own, so that whatever the function does to it, this one stays."""
        return Tensor(self.array, requires_grad=self.checked, device=self.device)


@dataclass
class Experiment:
    """One function at one place, with everything that is needed to ask for its slopes there.

    Args: fn: of as many Tensors as there are arguments; arguments: its inputs; settings: the numbers;
          leaves: what fn is called with, a Tensor for each argument; takes_leaves: whether fn uses what it
          is called with, and not Tensors of its own, as a model uses its parameters.
    Attributes, after `run`: output: fn's values (float64, on the host); cotangent: v, of the output's shape;
    gradients: by backward, of <fn, v>, one for each argument; ops: the names of what was recorded, in order;
    doubts: by position, what speaks against a gradient although it agrees (see cotangents.py).
    """

    fn: Function
    arguments: list[Input]
    settings: Settings
    leaves: list[Tensor]
    takes_leaves: bool = True
    output: Float64Array = field(init=False)
    cotangent: Float64Array = field(init=False)
    gradients: list[Float64Array] = field(init=False)
    ops: list[str] = field(init=False)
    doubts: dict[int, str] = field(init=False, default_factory=dict)
    _spare: dict[int, Float64Array] = field(init=False, repr=False, default_factory=dict)

    def run(self) -> None:
        """Forward and backward, twice. Raises: GradcheckError if the two differ, or one cannot be done."""
        self.output, self.gradients = self.analytic()
        again, second = self.analytic()
        if not self._agree(self.output, again):
            refuse("fn is not deterministic: two calls on the same inputs gave different outputs")
        for argument, first, other in zip(self.arguments, self.gradients, second, strict=True):
            if not self._agree(first, other):
                refuse(f"backward is not deterministic: two runs gave different gradients of {argument.name}")

    def _agree(self, a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
        tolerance = self.settings.nondet_tol
        if tolerance == 0 or a.shape != b.shape:
            return same_bits(a, b)
        return bool(np.all(np.abs(a - b) <= tolerance))

    @property
    def is_whole_model(self) -> bool:
        """Whether it is check_model's: slow, and its parts tell more about a fault than the whole."""
        return self.settings.scaled and not self.takes_leaves

    def checked(self) -> Iterator[tuple[int, Input]]:
        """(position, argument) of those whose gradients are looked at."""
        return ((i, argument) for i, argument in enumerate(self.arguments) if argument.checked)

    # ------------------------------------------------------------------------------ by backward: analytic

    def analytic(self, cotangent: Float64Array | None = None) -> tuple[npt.NDArray[Any], list[Float64Array]]:
        """The output, and the gradient of every argument by one backward (zero if it was not reached).

        Args: cotangent: of the output's shape; None draws the experiment's own and keeps it.
        """
        with random_scope(self.settings.seed, 0):
            output = self._call()
            _require_output(output)
            if cotangent is None:
                cotangent = Stream(self.settings.seed, "gradcheck").normal(shape=(output.size,))
                self.cotangent = cotangent = cotangent.reshape(output.shape)
                self.ops = [op.name for op in recorded_ops(output)]
            try:
                if output.requires_grad:
                    with _grads_put_back(output, self.leaves):
                        _run_backward(output, cotangent)
                gradients = [_gradient(leaf) for leaf in self.leaves]
            finally:
                for leaf in self.leaves:
                    leaf.grad = None
        for argument, leaf in zip(self.arguments, self.leaves, strict=True):
            values = to_numpy(leaf.data)
            if values is not argument.array and not same_bits(values, argument.array):
                refuse(
                    f"fn edits {argument.name} in place, so it has no derivative there; let it edit a copy"
                )
        return np.array(to_numpy(output.data)), gradients

    def _call(self) -> Tensor:
        try:
            output = self.fn(*self.leaves)
        except DTypeError as error:
            raise GradcheckError(
                f"gradcheck: fn does not work on float64 inputs: {error} (gradients are checked in float64; "
                "arrays and parameters that fn brings along must be float64 too, or be given as inputs; "
                "a model can stand for fn itself, and is copied in float64)"
            ) from error
        if not isinstance(output, Tensor):
            refuse(f"fn must give one Tensor, got {type(output).__name__}")
        return output

    # -------------------------------------------------------------------------- by differences: evaluation

    @contextmanager
    def spare(self, position: int) -> Iterator[Float64Array]:
        """A copy of an argument's array, to be changed and to be put right again.

        Copies of a large one take longer than many a function, so that one is kept for the next time.
        """
        array = self.arguments[position].array
        if array.size < LARGE:
            yield array.copy(order="K")
            return
        kept = self._spare.pop(position, None)
        self._spare.clear()
        copied = array.copy(order="K") if kept is None else kept
        yield copied
        self._spare[position] = copied

    def values(
        self,
        position: int,
        array: Float64Array,
        where: str,
        observer: Callable[[Event], None] | None = None,
    ) -> Float64Array:
        """fn's values with argument `position` replaced by `array`; everything else, masks too, stays.

        Args:   where: `a step of 1e-06 at x[0]`, for errors; observer: sees every op that is called.
        Raises: GradcheckError if the output has another shape there, or is not finite.
        """
        leaf, argument = self.leaves[position], self.arguments[position]
        kept = leaf.data
        try:
            leaf.data = to_device(array, argument.device)
            with ExitStack() as stack:
                stack.enter_context(no_grad())
                stack.enter_context(random_scope(self.settings.seed, 0))
                if observer is not None:
                    stack.enter_context(observe(observer))
                output = self._call()
            values: Float64Array = np.array(to_numpy(output.data))
        finally:
            leaf.data = kept
        if values.shape != self.output.shape:
            refuse(f"fn gave shape {self.output.shape} and, after a step of eps, shape {values.shape}")
        if not np.isfinite(values).all():
            refuse(
                f"after {where} the output holds {first_bad(values)}: fn ends within eps of here; "
                "move the input, or give a smaller eps"
            )
        return values


# ------------------------------------------------------------------------------------------- the inputs


def prepare(inputs: Any, names: Sequence[str] | None) -> list[Input]:
    """Copies of the inputs, with names. Raises: GradcheckError if there is nothing to check in them."""
    values = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    if names is not None and len(names) != len(values):
        refuse(f"{len(names)} names for {len(values)} inputs")
    labels = list(names) if names is not None else [f"input {i}" for i in range(len(values))]
    arguments = [as_input(value, label) for value, label in zip(values, labels, strict=True)]
    require_something(arguments, ", ".join(type(value).__name__ for value in values))
    return arguments


def require_something(arguments: list[Input], got: str) -> None:
    """Raises: GradcheckError if no argument is checked, or all that are have no elements."""
    checked = [argument for argument in arguments if argument.checked]
    if not checked:
        refuse(
            "nothing to check: no input is a floating array or a Tensor with requires_grad=True; got "
            + (got or "no inputs")
        )
    if all(argument.array.size == 0 for argument in checked):
        refuse("nothing to check: the inputs that require gradients have no elements")


def as_input(value: Any, name: str) -> Input:
    """A copy of one input, its axes in memory as they were.

    Raises: GradcheckError if it is no Tensor or array, or not finite.
    """
    if isinstance(value, Tensor):
        array, device = to_numpy(value.data), value.device
    elif hasattr(value, "dtype") and hasattr(value, "shape"):
        array = to_numpy(np.asarray(value) if isinstance(value, np.generic) else value)
        device = device_of(value) if is_array(value) else "cpu"
    else:
        refuse(f"{name} must be a Tensor or an array, got {type(value).__name__}")
    if array.dtype.kind not in "fiub":
        refuse(f"{name} holds {array.dtype}: only floating numbers are checked, and integers passed through")
    floating = array.dtype.kind == "f"
    copied = np.array(array, dtype=np.float64 if floating else None, order="K")
    if floating and not np.isfinite(copied).all():
        refuse(f"{name} holds {first_bad(copied)}")
    wanted = value.requires_grad if isinstance(value, Tensor) else True
    return Input(name, copied, device, floating and wanted)


# ------------------------------------------------------------------------------------ pieces of backward


def _require_output(output: Tensor) -> None:
    if output.dtype != np.float64:
        refuse(
            f"fn gave dtype {output.dtype} from float64 inputs: somewhere inside it rounds, and "
            "differences of rounded numbers say nothing"
        )
    if output.size == 0:
        refuse(f"the output has no elements, shape {output.shape}: there is nothing to differentiate")
    values = to_numpy(output.data)
    if not np.isfinite(values).all():
        refuse(f"the output holds {first_bad(values)}")


def _run_backward(output: Tensor, cotangent: Float64Array) -> None:
    kept = cotangent.copy()
    try:
        # The graph may reach back into one of the user's own, which must not be freed.
        output.backward(cotangent, retain_graph=True)
    except (GraphError, ShapeError, DTypeError) as error:
        raise GradcheckError(f"gradcheck: backward does not run: {error}") from error
    if not same_bits(cotangent, kept):  # Else the differences would be held against another v.
        cotangent[...] = kept
        name = _writer(output, cotangent)
        refuse(f"the backward of {name} writes into its dy, which others may still read; let it edit a copy")


def _writer(output: Tensor, cotangent: Float64Array) -> str:
    """The name of the operation whose backward changes the cotangent, which is put right again."""
    kept = cotangent.copy()
    names: list[str] = []

    def watch(event: Event) -> None:
        if event.phase == "backward" and not same_bits(cotangent, kept):
            names.append(event.op.name)

    with observe(watch):
        output.backward(cotangent, retain_graph=True)
    cotangent[...] = kept
    return names[0] if names else "fn"


def _gradient(leaf: Tensor) -> Float64Array:
    if leaf.grad is None:
        return np.zeros(leaf.shape)
    # The leaf's own gradient is forgotten right after, so that it need not be copied.
    return np.asarray(to_numpy(leaf.grad), dtype=np.float64)


@contextmanager
def _grads_put_back(output: Tensor, leaves: list[Tensor]) -> Iterator[None]:
    """Inside, Tensors that the function brings along (parameters) collect gradients; after it, as before."""
    mine = {id(leaf) for leaf in leaves}
    ops: list[Op] = recorded_ops(output)
    edges = [edge for op in ops for edge in op.edges if isinstance(edge, Tensor)]
    retained = [op._output() for op in ops if op.retains_grad and op._output is not None]
    others = {id(t): t for t in [output, *edges, *retained] if t is not None and id(t) not in mine}
    before = {key: tensor.grad for key, tensor in others.items()}
    for tensor in others.values():
        tensor.grad = None
    try:
        yield
    finally:
        for key, tensor in others.items():
            tensor.grad = before[key]
