"""A look inside the function: what its operations do when one element moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from minialex.backend import to_numpy
from minialex.gradient_check.differences import ROUNDING_UNIT, two_sides
from minialex.gradient_check.experiment import Experiment
from minialex.gradient_check.settings import Float64Array, GradcheckError, same_bits
from minialex.rng import Stream
from minialex.tensor import Event

# A kink changes the slope by a good part of itself; what is less is curvature or rounding.
BEND = 1e-3
# The shortest and the longest step by which kinks are looked for.
STEPS = (1e-7, 1e-5)


@dataclass(frozen=True)
class Step:
    """One operation of the function: its name, its inputs and what came out."""

    name: str
    inputs: tuple[npt.NDArray[np.float64], ...]
    output: Float64Array


@dataclass(frozen=True)
class InnerKink:
    """The first operation that bends when one element moves.

    Args: verdict: "kink" or "tie"; text: which operation; last: whether its output is fn's.
    """

    verdict: str
    text: str
    last: bool


class Recorder:
    """An observer that keeps what every operation got, and copies of what it gave."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def __call__(self, event: Event) -> None:
        if event.phase == "forward":
            inputs = tuple(to_numpy(tensor.data) for tensor in event.inputs)
            self.steps.append(Step(event.op.name, inputs, np.array(to_numpy(event.outputs[0].data))))


def kink_inside(experiment: Experiment, position: int, element: int) -> InnerKink | None:
    """The first operation in fn that has a kink at this value of the element, if one has.

    The sum over fn's outputs can hide a kink: relu(x) - relu(-x) is straight, and its gradient by backward is
    0 at x = 0, because each relu's is.
    """
    long = float(np.clip(experiment.settings.eps, *STEPS))
    try:
        here, far = _bends(experiment, position, element, long)
        _, near = _bends(experiment, position, element, long / 16)
    except GradcheckError:
        return None
    for number, (step, a, b) in enumerate(zip(here, far, near, strict=False)):
        # Rounding bends a function, too, but never twice alike.
        alike = np.maximum(np.abs(a.right - b.right), np.abs(a.left - b.left)) <= 0.1 * b.size
        places = np.flatnonzero(a.bent & b.bent & alike)
        if len(places):
            value = float(step.output.reshape(-1)[places[0]])
            # In a pooling with a ReLU of its own, 0 is the ReLU's kink.
            tie = "max_pool" in step.name and not ("relu" in step.name and value == 0.0)
            text = f"in {step.name}" + (f" (op {number + 1} of {len(here)})" if len(here) > 1 else "")
            return InnerKink("tie" if tie else "kink", text, number == len(here) - 1)
    return None


@dataclass(frozen=True)
class _Bend:
    """The slopes of every element of one output on the right and on the left, and where they differ."""

    right: Float64Array
    left: Float64Array
    bent: npt.NDArray[np.bool_]

    @property
    def size(self) -> Float64Array:
        return np.asarray(np.abs(self.right - self.left))


def _bends(experiment: Experiment, position: int, element: int, eps: float) -> tuple[list[Step], list[_Bend]]:
    """Every operation of fn here, and how its output bends along one element."""
    recorder = Recorder()
    experiment.values(position, experiment.arguments[position].array, "no step", recorder)
    here, count = recorder.steps, len(recorder.steps)
    recorder = Recorder()
    two_sides(experiment, position, element, eps, recorder)
    above, below = recorder.steps[:count], recorder.steps[count:]
    shapes = [[step.output.shape for step in run] for run in (here, above, below)]
    if shapes[0] != shapes[1] or shapes[0] != shapes[2]:  # fn takes another path beside this place.
        return here, []
    outputs = ((h.output, a.output, b.output) for h, a, b in zip(here, above, below, strict=True))
    return here, [_bend(*three, eps) for three in outputs]


def _bend(here: Float64Array, above: Float64Array, below: Float64Array, eps: float) -> _Bend:
    if here.dtype.kind != "f":
        above = below = here = np.zeros(here.shape)
    right, left = (above - here).reshape(-1) / eps, (here - below).reshape(-1) / eps
    rounding = 16 * ROUNDING_UNIT * np.abs(here).reshape(-1) / eps
    size = np.maximum(np.abs(right), np.abs(left))
    return _Bend(right, left, np.abs(right - left) > np.maximum(BEND * size, rounding))


def float32_inside(experiment: Experiment) -> str:
    """The operation that computes in float32 what it then gives as float64, or "".

    With inputs that float32 cannot hold, an output that it can hold, to the last element, was rounded.
    """
    for position, argument in experiment.checked():
        noise = Stream(experiment.settings.seed, "gradcheck", step=2).normal(shape=(argument.array.size,))
        nearby = argument.array + 1e-5 * noise.reshape(argument.array.shape)
        before, after = Recorder(), Recorder()
        try:
            experiment.values(position, argument.array, "no step", before)
            values = experiment.values(position, nearby, "a random step", after)
        except GradcheckError:
            continue
        for old, new in zip(before.steps, after.steps, strict=False):
            rounded = is_rounded(new.output) and not any(is_rounded(array) for array in new.inputs)
            if rounded and not same_bits(old.output, new.output):  # It depends on this input.
                return new.name
        if not after.steps and is_rounded(values):
            return "fn"
    return ""


def is_rounded(array: npt.NDArray[np.float64]) -> bool:
    """Whether float32 could hold every number in it, and at least one is no whole number."""
    if array.dtype.kind != "f" or array.size == 0:
        return False
    with np.errstate(all="ignore"):
        return bool((array.astype(np.float32) == array).all() and (array != np.round(array)).any())
