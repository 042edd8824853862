"""What an experiment can still find out about a gradient that is wrong: the hints for naming the fault."""

from __future__ import annotations

from typing import Any

import numpy as np

from minialex.gradient_check.differences import two_sides
from minialex.gradient_check.experiment import Experiment
from minialex.gradient_check.fault_kinds import Float64Array, Hints
from minialex.rng import Stream, random_scope
from minialex.tensor import recorded_ops

__all__ = ["gather_hints"]

# Jacobians are made up to this many outputs, elements, and entries; above, the gradient has to do.
OUTPUTS, ELEMENTS, ENTRIES = 1000, 1000, 400_000
# A step so long that differences of numbers rounded to float32 are good to some three digits.
COARSE_EPS, COARSE_ELEMENTS = 1e-3, 32
# With so many numbers going in, a function may take seconds.
LARGE = 1_000_000


def gather_hints(experiment: Experiment, position: int) -> Hints:
    """Everything that likely_fault can use, by some more runs of the function.

    Args: experiment: one that has run; position: of the argument whose gradient is wrong.

    What cannot be found out (the function raises at another cotangent or step) is left out.
    """
    known: dict[str, Any] = {"output_shape": experiment.output.shape, "arrays": _arrays(experiment, position)}
    for find in (_geometry, _cotangents, _coarse, _jacobians):
        try:
            known |= find(experiment, position)
        except Exception:  # Hints are a favour; what fn raises elsewhere is not what was asked about.
            continue
    return Hints(**known)


def _arrays(experiment: Experiment, position: int) -> dict[str, Float64Array]:
    """What has the input's shape: itself, the other inputs, the output."""
    shape = experiment.arguments[position].array.shape
    found = {
        a.name: a.array for a in experiment.arguments if a.array.dtype.kind == "f" and a.array.shape == shape
    }
    if experiment.output.shape == shape:
        found["the output"] = experiment.output
    return found


def _cotangents(experiment: Experiment, position: int) -> dict[str, Any]:
    """The gradients for a dy of ones, and for a second random one."""
    shape = experiment.output.shape
    second = Stream(experiment.settings.seed, "gradcheck", step=2).normal(shape=(experiment.output.size,))
    return {
        "ones": experiment.analytic(np.ones(shape))[1][position].copy(),
        "second": experiment.analytic(second.reshape(shape))[1][position].copy(),
    }


def _coarse(experiment: Experiment, position: int) -> dict[str, Any]:
    """Slopes with a long step, for the first elements; none for a function that takes seconds."""
    array = experiment.arguments[position].array
    if sum(argument.array.size for argument in experiment.arguments) > LARGE:
        return {}
    slopes = np.full(array.size, np.nan)
    for element in range(min(array.size, COARSE_ELEMENTS)):
        above, below, up, down = two_sides(experiment, position, element, COARSE_EPS)
        slopes[element] = ((above - below) * experiment.cotangent).sum() / (up + down)
    return {"coarse": slopes.reshape(array.shape)}


def _jacobians(experiment: Experiment, position: int) -> dict[str, Any]:
    """One backward for each output, and one difference for each element."""
    outputs, elements = experiment.output.size, experiment.arguments[position].array.size
    if outputs > OUTPUTS or elements > ELEMENTS or outputs * elements > ENTRIES:
        return {}
    analytic, numeric = np.empty((outputs, elements)), np.empty((outputs, elements))
    for o in range(outputs):
        one = np.zeros(experiment.output.shape)
        one.flat[o] = 1.0
        analytic[o] = experiment.analytic(one)[1][position].reshape(-1)
    for i in range(elements):
        above, below, up, down = two_sides(experiment, position, i, experiment.settings.eps)
        numeric[:, i] = ((above - below) / (up + down)).reshape(-1)
    return {"jacobians": (analytic, numeric)}


# --------------------------------------------------------------------------------- what the op itself says


def _geometry(experiment: Experiment, position: int) -> dict[str, Any]:
    """The letters of the axes, and the window, as the attributes of the op that takes the input say."""
    leaf = experiment.leaves[position]
    with random_scope(experiment.settings.seed, 0):
        ops = recorded_ops(experiment._call())
    users = [(op, i) for op in ops for i, edge in enumerate(op.edges) if edge is leaf]
    if len(users) != 1:
        return {}
    op, place = users[0]
    if hasattr(op, "dilation") and len(op.input_shapes) > 1 and len(op.input_shapes[1]) == 4:
        return _convolution(op, place)
    if len(leaf.shape) != 4:
        return {}
    letters = {"axes": ("N", "C", "H", "W")}
    if not hasattr(op, "kernel_size"):
        return letters
    output = op.shape(*op.input_shapes)
    return letters | _window(op, op.kernel_size, output)


def _convolution(op: Any, place: int) -> dict[str, Any]:
    if place:
        return {"axes": (("F", "C", "KH", "KW"), ("F",))[place - 1]}
    kernel = op.input_shapes[1][2:]
    return {"axes": ("N", "C", "H", "W"), "dilation": op.dilation} | _window(op, kernel, None)


def _window(op: Any, size: Any, output: Any) -> dict[str, Any]:
    found = {"window": tuple(size), "stride": tuple(op.stride), "padding": tuple(op.padding)}
    return found | ({} if output is None else {"windows": tuple(output[2:])})
