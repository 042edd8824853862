"""What `minialex gradcheck` does with the words of its command line."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minialex.errors import MinialexError, UsageError
from minialex.nn import Module
from minialex.testing.cases import CASES
from minialex.testing.check_settings import CheckSettings, Outcome
from minialex.testing.lessons import lesson
from minialex.testing.mutants import MUTANTS
from minialex.testing.mutation import mutation_score
from minialex.testing.op_options import Subject, known_ops, subject_of
from minialex.testing.plots import plot_report
from minialex.testing.progress import progress_bar
from minialex.testing.row_checks import check_rows
from minialex.testing.subject_checks import (
    check_module,
    check_net,
    check_subject,
    subject_of_module,
    subject_of_net,
)
from minialex.testing.user_functions import load_named, subject_of_function, subject_of_pair

__all__ = ["Request", "help_for", "list_ops", "run"]


# Of the command itself, for who mistypes one.
OPTIONS = [
    "--list",
    "--model",
    "--function",
    "--backward",
    "--variant",
    "--device",
    "--seed",
    "--eps",
    "--atol",
]
OPTIONS += ["--rtol", "--plot", "--json", "--mutate", "--lesson", "--answer"]


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Args: words: an op and its options, as they were typed; model: a name; function, backward: MODULE:NAME;
          plot: where a picture goes; mutate: the mutation score; lesson: its number; answer: to it;
          settings: what every check takes.
    """

    words: tuple[str, ...] = ()
    model: str | None = None
    function: str | None = None
    backward: str | None = None
    plot: Path | None = None
    mutate: bool = False
    lesson: int | None = None
    answer: str | None = None
    settings: CheckSettings = field(default_factory=CheckSettings)

    @property
    def op(self) -> str:
        """The word before the first option, "" if there is none."""
        return self.words[0] if self.words and not self.words[0].startswith("-") else ""


def run(request: Request, say: Callable[[str], object] = print) -> Outcome:
    """Do what was asked for.

    Args:   say: takes lines about what is done, as they come.
    Raises: UsageError for words that do not fit; DeviceError for a device that cannot be used;
            GradcheckError for what cannot be checked.
    """
    _require_one_subject(request)
    if request.plot is not None:
        _require_plottable(request, request.plot)
    if request.lesson is not None or request.answer is not None:
        return _lesson(request)
    if request.mutate:
        return _mutate(request, say)
    if request.model is not None:
        outcome = check_net(request.model, request.words, request.settings)
    elif request.function is not None:
        outcome = _check_function(request, request.function)
    elif len(request.words) > 1 or (request.op and not _has_rows(request.op)):
        outcome = check_subject(_subject(request), request.words[1:], request.settings)
    else:
        outcome = check_rows(request.settings, say, op=request.op)
    if request.plot is not None and outcome.report is not None:
        with request.settings.forced():  # The curves evaluate the function once more.
            plot_report(request.plot, outcome.report)
        return dataclasses.replace(outcome, text=f"{outcome.text}\npicture: {request.plot}")
    return outcome


def _require_one_subject(request: Request) -> None:
    given = [
        text
        for text, is_there in (
            (f"the operation {request.op}", request.op),
            (f"--model {request.model}", request.model is not None),
            (f"--function {request.function}", request.function is not None),
        )
        if is_there
    ]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)}: one of them at a time")
    if request.backward is not None and request.function is None:
        raise UsageError("--backward MODULE:NAME needs --function MODULE:NAME, the forward pass")
    if request.words and not given:
        near = difflib.get_close_matches(request.words[0].partition("=")[0], OPTIONS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(
            f"no such option: {request.words[0]}; {hint}options of an operation come after its name, such as "
            "conv2d --x 2,3,13,13 --weight 8,3,5,5 (minialex gradcheck --list shows all of them)"
        )


def _has_rows(op: str) -> bool:
    return any(case.op.name == op for case in CASES)


def _subject(request: Request) -> Subject:
    if request.op not in known_ops() and _has_rows(request.op):
        raise UsageError(
            f"{request.op}: its inputs cannot be chosen; minialex gradcheck {request.op} checks its rows"
        )
    return subject_of(request.op)


def _check_function(request: Request, spec: str) -> Outcome:
    function = load_named(spec)
    if isinstance(function, Module) and request.backward is None:
        return check_module(function, spec, request.words, request.settings)
    begin = ["--function", spec, *(["--backward", request.backward] if request.backward else [])]
    subject = _subject_named(function, spec, request.backward)
    return check_subject(subject, request.words, request.settings, begin)


def _subject_named(function: Any, spec: str, backward: str | None) -> Subject:
    """What can be chosen for what was loaded from a user's file."""
    if backward is not None:
        return subject_of_pair(function, load_named(backward, "--backward"), spec)
    if inspect.isclass(function) and issubclass(function, Module):
        raise UsageError(
            f"--function {spec}: {function.__name__} is a class; write `net = {function.__name__}(...)` in "
            "the file, and name that: FILE.py:net"
        )
    return (
        subject_of_module(function, spec)
        if isinstance(function, Module)
        else subject_of_function(function, spec)
    )


def _mutate(request: Request, say: Callable[[str], object]) -> Outcome:
    """The mutation score, of one op if one is named."""
    mutants = [mutant for mutant in MUTANTS if request.op in ("", mutant.label)]
    if len(request.words) > 1 or request.model or request.function or not mutants:
        labels = sorted({mutant.label for mutant in MUTANTS})
        raise UsageError(f"--mutate plants bugs in all operations, or in one of {', '.join(labels)}")
    with progress_bar(len(mutants), request.settings.bar) as advance:
        score = mutation_score(mutants, say, advance)
    return Outcome(score.ok, "", score.to_json())


def _lesson(request: Request) -> Outcome:
    """The question of a lesson, or what is said to an answer; a wrong one ends with 1."""
    if request.lesson is None:
        raise UsageError("--answer needs --lesson N, what it answers")
    if request.words or request.mutate or request.model or request.function:
        raise UsageError("--lesson N stands alone, or with --answer")
    asked = lesson(request.lesson)
    if request.answer is None:
        question = {"lesson": asked.number, "title": asked.title, "question": asked.question()}
        return Outcome(True, asked.question(), {**question, "choices": list(asked.choices)})
    said = asked.check(request.answer)
    return Outcome(said.right, said.text, {"lesson": asked.number, **vars(said)}, failed=1)


def _require_plottable(request: Request, path: Path) -> None:
    """Raises: UsageError if there will be nothing to draw, or no place for it."""
    one = request.model is not None or request.function is not None or len(request.words) > 1
    if request.mutate or request.lesson is not None or not one:
        raise UsageError(
            "--plot draws the gradients of one operation with chosen shapes, of a function or of a model"
        )
    if path.suffix.lower() != ".png":
        raise UsageError(f"--plot takes a file ending in .png, got {path}")
    if not path.parent.is_dir():
        raise UsageError(f"--plot {path}: there is no folder {path.parent}")


# --------------------------------------------------------------------------------------------------- help


def help_for(words: Sequence[str]) -> str:
    """The options of the operation, the model or the function that the words name; "" if they name none."""
    try:
        subject = _subject_of_words(words)
    except MinialexError as error:
        return f"error: {error}\n"
    if subject is None:
        return ""
    rows = (
        f"Without options, its {_count(subject.name)} rows are checked.\n" if _has_rows(subject.name) else ""
    )
    documentation = (subject.function.__doc__ or "").strip().splitlines()
    first = f"{documentation[0]}\n\n" if documentation and not subject.foreign else ""
    if subject.name.startswith("--model"):
        first = "Without --x, one or two pictures of the model's size, made of shuffled numbers.\n\n"
    start = "--function " if subject.foreign else ""
    more = "Options of every check, such as --seed and --plot: minialex gradcheck --help"
    return f"Usage: minialex gradcheck {start}{subject.usage()}\n\n{first}{rows}{subject.help()}\n\n{more}\n"


def _subject_of_words(words: Sequence[str]) -> Subject | None:
    """What the words before --help name. Raises: UsageError for what there is not."""
    named: dict[str, str] = {}
    for i, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option in ("--model", "--function", "--backward"):
            named[option] = value if equals else "".join(words[i + 1 : i + 2])
    if "--function" in named:
        spec = named["--function"]
        return _subject_named(load_named(spec), spec, named.get("--backward"))
    if "--model" in named:
        return subject_of_net(named["--model"])
    op = next((word for word in words if word in known_ops()), "")
    op = op or (words[0] if words and not words[0].startswith("-") else "")
    return _subject(Request((op,))) if op else None


def _count(op: str) -> int:
    return sum(case.op.name == op for case in CASES)


def list_ops() -> str:
    """A line for every operation whose inputs can be chosen, and those that have rows only."""
    lines = [subject_of(name).usage() for name in known_ops()]
    others = sorted({case.op.name for case in CASES} - set(known_ops()))
    return "\n".join([*lines, *(f"{name}  (its rows only)" for name in others)])
