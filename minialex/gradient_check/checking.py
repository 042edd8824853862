"""examine: one function at one place, with a Report; gradcheck: the same, with an error if it is wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from minialex.backend import use_winograd
from minialex.gradient_check.comparison import Comparison
from minialex.gradient_check.cotangents import doubts_about_dy
from minialex.gradient_check.culprits import find_culprit
from minialex.gradient_check.differences import compare_elements
from minialex.gradient_check.directions import compare_directions
from minialex.gradient_check.experiment import Experiment, prepare
from minialex.gradient_check.judging import judge
from minialex.gradient_check.model_copies import is_model, model_experiment
from minialex.gradient_check.report import InputReport, Report
from minialex.gradient_check.settings import (
    DIRECTIONS,
    MAX_ELEMENTS,
    Function,
    GradcheckError,
    Settings,
)


def gradcheck(
    fn: Function,
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    seed: int = 0,
    names: Sequence[str] | None = None,
    max_elements: int | None = MAX_ELEMENTS,
    directions: int = DIRECTIONS,
) -> bool:
    """Check that backward gives the derivatives of `fn`, element by element, by central differences.

        |analytic - numeric| <= atol + rtol * |numeric|    for every element of every input

    Elements at a kink (relu of 0) or in a tie (equal pixels in a max-pool window) have no derivative; they
    are told apart, counted, and pass as long as backward chose a value between the two sides and at least
    half of the input's elements were compared. An element that is right with another eps passes, too. Where
    every gradient of an input is smaller than atol, rtol alone decides, as far as differences can tell. And
    backward must be linear: for -2 * dy, in memory with gaps, it must give -2 times the gradient.
    What passes: an error within rtol, which the report's relative error shows; in an input of which a sample
    is compared, an error in few elements that is less than rtol of the whole gradient's norm; and what fails
    at other values than these.
    Shapes: inputs any; fn(*inputs) any shape with at least one element.
    Args:   fn: takes as many Tensors as there are inputs and gives one Tensor. It is called many times, on
            float64 copies, each time inside random_scope(seed, 0): dropout always draws the same mask. A
            layer or a model is copied, and its parameters are checked, too; for large ones see check_model.
            inputs: a Tensor or array, or a list of them. Arrays of floating numbers are checked, Tensors if
            they require gradients; integers are passed through. Nobody's arrays or grads are touched.
            eps: the step, in units of the inputs; atol, rtol: the error allowed; raise_exception: False
            gives False for a wrong gradient; nondet_tol: what two runs may differ by (0: not by a bit);
            seed: of the cotangent, the masks and the sampling; names: of the inputs, for the report;
            max_elements: of each input (None: all). Where it has more, so many are drawn at random, and
            the whole input is compared along `directions` random directions.
    Returns: True. An input that the output does not reach has a gradient of zero, and must have no effect.
    Raises: GradcheckError with a report (`error.report`, a Report) if a gradient is wrong; and if the
            function cannot be checked: nothing to check, no Tensor given back, another dtype than float64,
            NaN or infinity, an output without elements, other bits at the second call, a backward that
            writes into its dy.
    """
    report = examine(
        fn,
        inputs,
        eps=eps,
        atol=atol,
        rtol=rtol,
        nondet_tol=nondet_tol,
        seed=seed,
        names=names,
        max_elements=max_elements,
        directions=directions,
    )
    if raise_exception:
        raise_if_wrong(report)
    return report.ok


def raise_if_wrong(report: Report) -> None:
    """Raises: GradcheckError with the report's text, and the report, if a gradient is wrong."""
    if not report.ok:
        error = GradcheckError(report.text())
        error.report = report
        raise error


def examine(
    fn: Function,
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    nondet_tol: float = 0.0,
    seed: int = 0,
    names: Sequence[str] | None = None,
    max_elements: int | None = MAX_ELEMENTS,
    directions: int = DIRECTIONS,
    progress: Callable[[str], object] | None = None,
) -> Report:
    """Compare both gradients of every input, and say what is wrong with those that disagree.

    Args:    as gradcheck; progress: called with the name of each input before it is compared.
    Returns: a Report; a wrong gradient is no error here.
    Raises:  GradcheckError if the function cannot be checked.
    """
    settings = Settings(eps, atol, rtol, seed, max_elements, nondet_tol, directions)
    return examine_experiment(_experiment(fn, inputs, settings, names), progress)


@use_winograd(False)  # fn may contain float32, whatever its inputs are.
def examine_experiment(
    experiment: Experiment, progress: Callable[[str], object] | None = None, repeat: str = ""
) -> Report:
    """The Report of an experiment, which this runs; `repeat`: how to repeat it, if not by gradcheck."""
    started = perf_counter()
    experiment.run()
    experiment.doubts = doubts_about_dy(experiment)
    parts = []
    for position, argument in experiment.checked():
        if progress is not None:
            progress(argument.name)
        directions = compare_directions(experiment, position)
        comparison = compare_elements(experiment, position)
        parts.append(judge(experiment, position, comparison, directions))
    return Report(
        ops=tuple(experiment.ops),
        inputs=tuple(parts),
        settings=experiment.settings,
        repeat=repeat or experiment.settings.call(),
        seconds=perf_counter() - started,
        notes=_notes(experiment, parts),
    )


def _notes(experiment: Experiment, parts: list[InputReport]) -> tuple[str, ...]:
    """Which operation did it, where there are several."""
    if not any(part.is_wrong for part in parts) or len(experiment.ops) < 2:
        return ()
    culprit = find_culprit(experiment)
    if culprit is not None:
        return (culprit.text(),)
    return (
        "checked by itself, no recorded operation is found to have a wrong backward: look at what is not "
        "recorded (detach, no_grad, NumPy inside fn)",
    )


@use_winograd(False)
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

    Args, Raises: as gradcheck; a wrong gradient is no error here, and no element is left out.
    """
    experiment = _experiment(fn, inputs, Settings(eps, 0.0, 0.0, seed, max_elements), names)
    experiment.run()
    return [compare_elements(experiment, position) for position, _ in experiment.checked()]


def _experiment(fn: Function, inputs: Any, settings: Settings, names: Sequence[str] | None) -> Experiment:
    if is_model(fn):
        return model_experiment(fn, inputs, names, settings)
    arguments = prepare(inputs, names)
    return Experiment(fn, arguments, settings, [argument.tensor() for argument in arguments])
