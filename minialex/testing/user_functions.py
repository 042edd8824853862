"""A function of the user's, named on the command line: `--function homework.py:swish`.

Its parameters without a default are its inputs, in their order; those with one are parameters. Both become
options of the same names. An input is given by its shape; or the function, or else its file, has
`gradcheck_inputs`, a list of arrays or a function that gives one.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.util
import inspect
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from minialex.backend import Array
from minialex.errors import UsageError
from minialex.gradient_check.pairs import PairOp
from minialex.shapes import Shape
from minialex.tensor import Op, Tensor
from minialex.testing.cases import grid
from minialex.testing.op_options import Option, Subject

__all__ = ["failed_at", "load_named", "subject_of_function", "subject_of_pair", "user_frame"]

PACKAGE = Path(__file__).resolve().parents[1]
# The kinds of options that are no inputs.
PARAMETERS = ("literal", "bool")
# Of a file, in a message.
MOST_NAMES = 12


def load_named(spec: str, option: str = "--function") -> Any:
    """What `module:name` or `file.py:name` names; the working folder comes first on the path.

    Raises: UsageError if there is no such file, module or name, or importing it fails.
    """
    place, _, name = spec.rpartition(":")
    if not place or not name:
        raise UsageError(f"{option} takes MODULE:NAME or FILE.py:NAME, got {spec!r}")
    try:
        module = _from_file(Path(place)) if place.endswith(".py") else _from_path(place)
    except UsageError as error:
        raise UsageError(f"{option} {spec}: {error}") from error.__cause__
    except (Exception, SystemExit) as error:  # Whatever the user's file does when it is imported.
        raise UsageError(f"{option} {spec}: importing {place} fails: {failed_at(error)}") from error
    if not hasattr(module, name):
        own = _names_in(module)
        near = difflib.get_close_matches(name, own, n=1)
        hint = (
            f"did you mean {near[0]!r}?"
            if near
            else f"it has {', '.join(own[:MOST_NAMES]) or 'no functions'}"
        )
        raise UsageError(f"{option} {spec}: {place} has no {name!r}; {hint}")
    return getattr(module, name)


def _names_in(module: ModuleType) -> list[str]:
    """What can be called in a module, without what it imports."""
    return [
        name
        for name, value in vars(module).items()
        if callable(value)
        and not name.startswith("_")
        and getattr(value, "__module__", module.__name__) in (module.__name__, type(value).__module__)
    ]


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    sys.path.insert(0, str(path.parent.resolve()))  # What it imports from beside itself.
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    previous = sys.modules.get(path.stem)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    finally:
        if previous is not None:
            sys.modules[path.stem] = previous
    return module


def _from_path(name: str) -> ModuleType:
    sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name + ".").startswith(error.name + "."):
            raise  # It was found, and misses another.
        raise UsageError(f"there is no module {error.name!r} in this folder or on Python's path") from error


def failed_at(error: BaseException) -> str:
    """`IndexError: list index out of range (homework.py, line 12)`: the innermost line of the user's."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):
        return text  # It names the file and the line itself.
    frame = user_frame(error)
    return text if frame is None else f"{text} ({os.path.relpath(frame.filename)}, line {frame.lineno})"


def user_frame(error: BaseException) -> traceback.FrameSummary | None:
    """The innermost call that is in no library, or None if there is none."""
    libraries = (str(PACKAGE), sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), "<frozen")
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame for frame in reversed(frames) if not frame.filename.startswith(libraries)), None)


def subject_of_function(function: Any, spec: str) -> Subject:
    """A function of Tensors, or an Op class, with options made of its signature.

    Raises: UsageError if it cannot be called, or Python cannot tell its parameters.
    """
    if inspect.isclass(function) and issubclass(function, Op):
        options = [_as_input(option) for option in _options(function.forward, spec)[1:]]
        if function.__init__ is not object.__init__:
            options += [
                Option(o.name, "literal" if o.kind == "tensor" else o.kind, o.required, o.default)
                for o in _options(function.__init__, spec)[1:]
            ]
        inputs = {option.name for option in options if option.kind in ("tensor", "tensors")}

        def call(**values: Any) -> Tensor:
            params = {name: value for name, value in values.items() if name not in inputs}
            return function(**params)(*_in_order(options, values))

        return Subject(spec, call, tuple(options), _values, True, _own_inputs(function))
    if not callable(function):
        raise UsageError(f"--function {spec}: {type(function).__name__} cannot be called")
    options = _options(function, spec)

    def call_plainly(**values: Any) -> Tensor:
        several = [option.name for option in options if option.kind == "tensors"]
        if not several:
            return function(**values)
        params = {o.name: values[o.name] for o in options if o.kind in PARAMETERS and o.name in values}
        return function(*_in_order(options, values), **params)

    return Subject(spec, call_plainly, tuple(options), _values, True, _own_inputs(function))


def subject_of_pair(forward: Any, backward: Any, spec: str) -> Subject:
    """Two functions of NumPy arrays, forward and backward, as check_pair takes them.

    Raises: UsageError if one of them cannot be called, or Python cannot tell its parameters.
    """
    for name, function in (("--function", forward), ("--backward", backward)):
        if not callable(function):
            raise UsageError(f"{name}: {type(function).__name__} cannot be called")
        if inspect.isclass(function) and issubclass(function, Op):
            raise UsageError(
                f"{name}: {function.__name__} is an Op, which has its own backward; --backward is for two "
                "functions of NumPy arrays"
            )
    options = _options(forward, spec)
    known = set(inspect.signature(backward).parameters)

    def call(**values: Any) -> Tensor:
        params = {o.name: values.get(o.name, o.default) for o in options if o.kind in PARAMETERS}
        shared = {name: value for name, value in params.items() if name in known}
        # With its own name, for reports.
        tied = functools.update_wrapper(functools.partial(forward, **params), forward)
        return PairOp(tied, functools.partial(backward, **shared))(*_in_order(options, values))

    return Subject(spec, call, tuple(options), _values, True, _own_inputs(forward))


def _in_order(options: Sequence[Option], values: dict[str, Any]) -> list[Tensor]:
    """The inputs as they stand in the signature."""
    given = [(option, values[option.name]) for option in options if option.name in values]
    return [
        tensor
        for option, value in given
        if option.kind in ("tensor", "tensors")
        for tensor in (value if option.kind == "tensors" else [value])
    ]


def _options(function: Any, spec: str) -> list[Option]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise UsageError(f"--function {spec}: Python cannot tell its parameters ({error})") from error
    options = []
    for p in parameters:
        if p.kind is p.VAR_POSITIONAL:
            options.append(Option(p.name, "tensors", False))
        elif p.kind is not p.VAR_KEYWORD and (p.default is p.empty or "Tensor" in str(p.annotation)):
            options.append(Option(p.name, "tensor", p.default is p.empty))
        elif p.kind is not p.VAR_KEYWORD:
            kind = "bool" if isinstance(p.default, bool) else "literal"
            options.append(Option(p.name, kind, False, p.default))
    return options


def _as_input(option: Option) -> Option:
    """Whatever forward takes is an array, a bias that may be None as well."""
    return option if option.kind == "tensors" else Option(option.name, "tensor", option.required)


def _values(name: str, shape: Shape, item: int) -> Array:
    return grid(*shape, item=item)


def _own_inputs(function: Any) -> Callable[[], Sequence[Array]] | None:
    """What `gradcheck_inputs` of the function or of its file gives."""
    file = sys.modules.get(getattr(function, "__module__", ""))
    own = getattr(function, "gradcheck_inputs", None)
    if own is None:
        own = getattr(function, "__globals__", vars(file) if file else {}).get("gradcheck_inputs")
    if own is None:
        return None
    return lambda: list(own() if callable(own) else own)
