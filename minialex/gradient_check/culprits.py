"""Which operation of a function has the wrong backward: each is checked by itself, at the values that it saw.

A wrong backward spoils the gradients of everything before it, so that in a network nearly all of them are
wrong, and say little. Going back from the output, each recorded operation is run again with its own inputs,
and what it made of the gradient that reached it is compared with differences of that operation alone. The
first one that is wrong did it; what came before it is only its victim.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from minialex.backend import Array, device_of, to_numpy
from minialex.gradient_check.differences import compare_elements
from minialex.gradient_check.directions import compare_directions
from minialex.gradient_check.experiment import Experiment, Input
from minialex.gradient_check.judging import judge
from minialex.gradient_check.report import InputReport
from minialex.gradient_check.settings import GradcheckError
from minialex.tensor import Event, Op, Tensor, no_grad, observe

# Of each input of each operation as many elements are compared as let it read and write so many numbers, but
# at least so few; and of the one at fault more, to tell what is wrong with it.
NUMBERS, FEWEST = 4e6, 6
NUMBERS_AT_FAULT, FEWEST_AT_FAULT = 2e7, 24
MOST = 2000
DIRECTIONS = 2
# What an Op keeps of one call; the rest of it are the operation's parameters.
CALL_STATE = (
    "needs",
    "edges",
    "input_shapes",
    "order",
    "freed",
    "_saved",
    "_versions",
    "_output",
    "retains_grad",
)


@dataclasses.dataclass(frozen=True)
class Culprit:
    """An operation whose backward is wrong by itself.

    Args: name: of the op; number, count: it is the number-th of so many; report: of the input whose gradient
          is wrong.
    """

    name: str
    number: int
    count: int
    report: InputReport

    def text(self) -> str:
        """`conv2d (op 5 of 21) has a wrong backward, for its input 1: every element is 2 times too large`."""
        fault = f": {self.report.fault.text}" if self.report.fault is not None else ""
        return (
            f"going back from the output, {self.name} (op {self.number} of {self.count}) is the first whose "
            f"backward is wrong, for its {self.report.name}{fault}"
        )


def find_culprit(experiment: Experiment) -> Culprit | None:
    """The operation nearest to the output whose backward is wrong by itself; None if all are right."""
    calls: dict[int, tuple[Array, ...]] = {}
    found: list[Culprit] = []

    def watch(event: Event) -> None:
        if event.phase == "forward":
            calls[event.op.order] = tuple(tensor.data for tensor in event.inputs)
        elif not found and event.op.order in calls:
            number = sorted(calls).index(event.op.order) + 1
            try:
                reports = _check_op(event, calls[event.op.order], experiment)
            except GradcheckError:  # Its inputs are smaller than fn's, and a step leaves its domain.
                return
            found.extend(Culprit(event.op.name, number, len(calls), report) for report in reports[:1])

    with observe(watch):
        experiment.analytic(experiment.cotangent)
    return found[0] if found else None


def _check_op(event: Event, arrays: tuple[Array, ...], whole: Experiment) -> list[InputReport]:
    """An InputReport for each input of one recorded call whose gradient is wrong."""
    alone = _alone(event, arrays, whole)
    positions = [position for position, argument in alone.checked() if argument.array.size]
    wrong = [position for position in positions if not _judge(alone, position, NUMBERS, FEWEST).ok]
    return [_judge(alone, position, NUMBERS_AT_FAULT, FEWEST_AT_FAULT) for position in wrong[:1]]


def _judge(alone: Experiment, position: int, numbers: float, fewest: int) -> InputReport:
    once = alone.output.size + sum(argument.array.size for argument in alone.arguments)
    elements = int(np.clip(numbers / (2 * once), fewest, MOST))
    alone.settings = dataclasses.replace(alone.settings, max_elements=elements)
    directions = compare_directions(alone, position)
    return judge(alone, position, compare_elements(alone, position), directions)


def _alone(event: Event, arrays: tuple[Array, ...], whole: Experiment) -> Experiment:
    """One recorded call as an experiment of its own, with the gradients that it gave."""
    (dy,) = event.inputs
    wanted = [d is not None for d in event.outputs]
    alone = Experiment(
        fn=again(event.op),
        arguments=[_argument(i, a, w) for i, (a, w) in enumerate(zip(arrays, wanted, strict=True))],
        settings=dataclasses.replace(whole.settings, directions=DIRECTIONS),
        leaves=[Tensor._wrap(a, requires_grad=w) for a, w in zip(arrays, wanted, strict=True)],
    )
    with no_grad():
        alone.output = np.array(to_numpy(alone.fn(*alone.leaves).data))
    alone.cotangent = np.asarray(to_numpy(dy), dtype=np.float64)
    alone.gradients = [
        np.zeros(0) if d is None else np.array(to_numpy(d), dtype=np.float64) for d in event.outputs
    ]
    alone.ops = [event.op.name]
    return alone


def _argument(number: int, array: Array, checked: bool) -> Input:
    return Input(f"input {number}", to_numpy(array), device_of(array), checked)


def again(op: Op) -> Callable[..., Tensor]:
    """A function that calls the operation once more, with its parameters and without what it remembers."""

    def call(*tensors: Tensor) -> Tensor:
        twin: Any = copy.copy(op)
        for name in CALL_STATE:
            vars(twin).pop(name, None)
        result: Tensor = twin(*tensors)
        return result

    return call
