"""One subject checked, and told: an operation, a user's function, a whole model."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from minialex import models
from minialex.backend import Array, keep_freed_memory
from minialex.errors import MinialexError, UsageError
from minialex.gradient_check import GradcheckError, Report, check_model, examine
from minialex.nn import Module
from minialex.rng import random_scope
from minialex.shapes import Shape
from minialex.tensor import Tensor, no_grad
from minialex.testing.cases import grid
from minialex.testing.check_settings import CheckSettings, Outcome
from minialex.testing.op_options import Option, Subject
from minialex.testing.progress import progress_bar
from minialex.testing.user_functions import failed_at, user_frame

__all__ = ["check_module", "check_net", "check_subject", "subject_of_module", "subject_of_net"]

PROGRAM = "minialex gradcheck"
BACKWARD_HINT = (
    "an Op's backward takes dy; one of --backward takes dy and then the inputs of forward, or (dy, cache) if "
    "forward returns (y, cache)"
)
NUMPY_HINT = (
    "write it with minialex.ops and Tensors, or, if it is for NumPy arrays, give its backward pass, too: "
    "--backward FILE.py:NAME"
)
# Pixels a side.
LARGE_PICTURE = 100


def check_subject(
    subject: Subject, words: Sequence[str], settings: CheckSettings, begin: Sequence[str] = ()
) -> Outcome:
    """examine for one function, with inputs and parameters as the words choose them.

    Args:   words: `--x 2,3 --axis 1`; begin: the words before them in a command that does this again,
            None for the subject's name.
    Raises: UsageError if the words do not fit, or the function does not take what they choose;
            GradcheckError if it cannot be checked.
    """
    settings.require()
    chosen = subject.chosen(words, settings.seed)
    inputs = [Tensor(a, requires_grad=a.dtype.kind == "f", device=settings.device) for a in chosen.inputs]
    with settings.forced():
        with _usage_errors(subject), no_grad(), random_scope(settings.seed, 0):
            output = chosen.fn(*(Tensor(tensor.data, device=settings.device) for tensor in inputs))
        _require_tensor(subject, output)
        if not any(array.size for array in chosen.inputs):
            raise UsageError(
                f"{subject.name}: the inputs have no elements, so that there is nothing to check"
            )
        with _own_errors(subject), progress_bar(len(inputs), settings.bar) as advance:
            numbers = settings.numbers()
            report = examine(chosen.fn, inputs, names=chosen.names, progress=advance, **numbers)
    return _reported(report, [*(begin or [subject.name]), *words], settings)


def _require_tensor(subject: Subject, output: object) -> None:
    """Raises: UsageError if a user's function gave something else, with what is likely to be missing."""
    if isinstance(output, Tensor):
        return
    hint = "did it forget `return`?" if output is None else NUMPY_HINT
    raise UsageError(f"{subject.name} must give one Tensor, got {type(output).__name__}; {hint}")


@contextmanager
def _usage_errors(subject: Subject) -> Iterator[None]:
    """Inside, what a function says of its arguments becomes a UsageError."""
    try:
        yield
    except MinialexError:
        raise
    except Exception as error:
        if subject.foreign and user_frame(error) is not None:
            hint = f"; {NUMPY_HINT}" if "'Tensor' does not support ufuncs" in str(error) else ""
            raise UsageError(f"{subject.name}: {failed_at(error)}{hint}") from error
        if subject.foreign and isinstance(error, NotImplementedError):  # A method that an Op must have.
            raise UsageError(f"{subject.name}: {error}") from error
        if isinstance(error, (ValueError, TypeError, LookupError)):
            raise UsageError(str(error)) from error
        raise


@contextmanager
def _own_errors(subject: Subject) -> Iterator[None]:
    """Inside, what a user's backward raises is told with its place in the user's file."""
    try:
        yield
    except MinialexError:
        raise
    except Exception as error:
        if subject.foreign and isinstance(error, TypeError) and "argument" in str(error):
            raise UsageError(f"{subject.name}: {error}; {BACKWARD_HINT}") from error
        missing = isinstance(error, NotImplementedError)  # A method that an Op must have.
        if not subject.foreign or (user_frame(error) is None and not missing):
            raise
        raise GradcheckError(f"gradcheck: {subject.name}: {failed_at(error)}") from error


def _reported(report: Report, words: Sequence[str], settings: CheckSettings) -> Outcome:
    repeat = f"{PROGRAM} {shlex.join([*words, *settings.words()])}"
    report = dataclasses.replace(report, repeat=repeat)
    text = f"{report.text()}\ntime:    {report.seconds:.1f} s"
    return Outcome(report.ok, text, {**report.to_json(), "variant": settings.variant}, report)


# ------------------------------------------------------------------------------------------------ models


def check_net(name: str, words: Sequence[str], settings: CheckSettings) -> Outcome:
    """check_model for a model by name, in training mode, its logits under a random cotangent.

    Args:   words: `--x 2,3,224,224`, `--classes 5`, `--image-size 224`; without, two pictures of
            its size, or one if they are large.
    Raises: UsageError for an unknown model and for words that do not fit; GradcheckError if it cannot be
            checked.
    """
    subject = subject_of_net(name)
    values = subject.values(words)
    with _usage_errors(subject), random_scope(settings.seed, 0):
        net = models.build(name, values.get("classes"), values.get("image_size"))
    # Two show what is averaged over the batch; of large pictures one takes long enough.
    count = 2 if net.image_size < LARGE_PICTURE else 1
    pictures = (count, net.channels, net.image_size, net.image_size)
    return _check_model(net, values.get("x", pictures), subject, ["--model", name, *words], settings)


def subject_of_net(name: str) -> Subject:
    """What can be chosen for a model by name."""
    options = (
        Option("x", "tensor", False),
        Option("classes", "int", False),
        Option("image_size", "int", False),
    )
    return Subject(f"--model {name}", models.build, options, _no_values)


def check_module(net: Module, spec: str, words: Sequence[str], settings: CheckSettings) -> Outcome:
    """check_model for a module of the user's; the words give the shape of its input: `--x 2,3,32,32`."""
    subject = subject_of_module(net, spec)
    shape = subject.values(words).get("x")
    if shape is None:
        raise UsageError(f"{spec} needs --x: the shape of its input, such as 2,3,32,32")
    return _check_model(net, shape, subject, ["--function", spec, *words], settings)


def subject_of_module(net: Module, spec: str) -> Subject:
    """What can be chosen for a module of the user's."""
    return Subject(spec, net, (Option("x", "tensor", True),), _no_values, foreign=True)


def _check_model(
    net: Module, shape: Shape, subject: Subject, words: Sequence[str], settings: CheckSettings
) -> Outcome:
    settings.require()
    if settings.atol is not None:
        raise UsageError("--atol: a model's gradients are judged in units of themselves; use --rtol")
    names = ["x", *(name for name, _ in net.named_parameters())]
    with settings.forced(), _usage_errors(subject):
        net.to(settings.device)
        x = Tensor(grid(*shape, item=settings.seed), requires_grad=True, device=settings.device)
        with progress_bar(len(names), settings.bar) as advance:
            # A large model's arrays are hundreds of megabytes each: given back and asked for anew, finding
            # and clearing them takes as long as the arithmetic.
            keep_freed_memory()
            report = check_model(net, x, progress=advance, **settings.numbers())
    return _reported(report, words, settings)


def _no_values(name: str, shape: Shape, item: int) -> Array:
    raise NotImplementedError(f"{name}: a model's input is made by check_model's caller")
