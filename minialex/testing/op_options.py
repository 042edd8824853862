"""Options of one operation, taken from its function's signature: `conv2d --x 2,3,13,13 --stride 2`.

Every public function of ops/, and every operator of a Tensor, becomes a row of one table: its inputs are
options that take a shape, its parameters are options that take a value, all under the names that Python users
know, with - or _ between words.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minialex import ops
from minialex.backend import Array
from minialex.errors import UsageError
from minialex.shapes import Shape
from minialex.tensor import Tensor
from minialex.testing.cases import grid, positive
from minialex.testing.option_kinds import KIND_OF_ANNOTATION, KINDS

__all__ = ["Chosen", "Option", "Subject", "known_ops", "subject_of"]


@dataclass(frozen=True)
class Option:
    """One input or parameter of a function.

    Args: name: in Python; kind: of KINDS; required: whether it has no default; default: its value.
    """

    name: str
    kind: str
    required: bool
    default: Any = None

    @property
    def flag(self) -> str:
        """`--kernel-size`."""
        return "--" + self.name.replace("_", "-")

    @property
    def help(self) -> str:
        """A line of the help: `--stride     a whole number or two, such as 2 or 2,1  [default: 1]`."""
        note = "[required]" if self.required else f"[default: {_spelled(self.default)}]"
        if self.kind == "bool":
            return f"{_switched(self):20}  turns it {'off' if self.default is True else 'on'}"
        if self.kind in ("tensor", "labels") and not self.required:
            note = "[default: none]" if self.kind == "tensor" else "[default: one after another]"
        return f"{self.flag:20}  {KINDS[self.kind].what}  {note}"


@dataclass(frozen=True)
class Chosen:
    """A function with everything but its values chosen: fn(*inputs) is ready to be checked.

    Args: fn: of Tensors; inputs: float64 arrays; names: of the inputs.
    """

    fn: Callable[..., Tensor]
    inputs: list[Array]
    names: list[str]


@dataclass(frozen=True)
class Subject:
    """A function whose inputs and parameters can be chosen by options.

    Args: name: what messages call it; function: of Tensors and parameters; options: in their order;
          make: shuffled values for an input, make(name, shape, item); foreign: whether it is a user's;
          own_inputs: gives arrays for the inputs where no shape is chosen.
    """

    name: str
    function: Callable[..., Any]
    options: tuple[Option, ...]
    make: Callable[[str, Shape, int], Array]
    foreign: bool = False
    own_inputs: Callable[[], Sequence[Array]] | None = None

    def help(self) -> str:
        """What can be chosen, a line an option."""
        return "\n".join([f"{self.name}: options", *(f"  {option.help}" for option in self.options)])

    def usage(self) -> str:
        """`conv2d --x SHAPE --weight SHAPE [--bias SHAPE] [--stride N]`."""
        parts = [f"{_switched(o)} {KINDS[o.kind].metavar}".rstrip() for o in self.options]
        parts = [p if o.required else f"[{p}]" for o, p in zip(self.options, parts, strict=True)]
        return " ".join([self.name, *parts])

    def chosen(self, words: Sequence[str], seed: int) -> Chosen:
        """The function and its inputs as the words of a command line choose them.

        Args:   words: `--x 2,3 --axis=1 ...`; seed: picks the inputs' values.
        Raises: UsageError naming the option, what it takes and what was given.
        """
        values = self.values(words)
        tensors = [option for option in self.options if option.kind in ("tensor", "tensors")]
        if self.own_inputs is not None and not any(option.name in values for option in tensors):
            return self._bound(values, self._own(tensors))
        missing = [option for option in self.options if option.required and option.name not in values]
        if missing:
            needed = " and ".join(f"{option.flag}: {KINDS[option.kind].what}" for option in missing)
            raise UsageError(f"{self.name} needs {needed}; usage: {self.usage()}")
        return self._bound(values, self._drawn(tensors, values, seed))

    def values(self, words: Sequence[str]) -> dict[str, Any]:
        """What the options were given, by name. Raises: UsageError if a word belongs to no option."""
        values: dict[str, Any] = {}
        rest = list(words)
        while rest:
            word = rest.pop(0)
            option, attached = self._option(word)
            if option.kind == "bool":
                value = _flag_value(word, attached, rest)
            elif attached is not None:
                value = attached
            elif rest and not rest[0].startswith("--"):
                value = rest.pop(0)
            else:
                raise UsageError(f"{self.name}: {option.flag} needs {KINDS[option.kind].what}")
            read = self._read(option, value)
            if option.kind == "tensors":
                values.setdefault(option.name, []).append(read)
            elif option.name in values:
                raise UsageError(f"{self.name}: {option.flag} was given twice")
            else:
                values[option.name] = read
        return values

    def _option(self, word: str) -> tuple[Option, str | None]:
        """The option that a word names, and what follows its equals sign."""
        if not word.startswith("--"):
            raise UsageError(f"{self.name}: {word!r} belongs to no option; usage: {self.usage()}")
        name, equals, attached = word[2:].partition("=")
        name = name.replace("-", "_")
        by_name = {option.name: option for option in self.options}
        flags = {f"no_{option.name}": option for option in self.options if option.kind == "bool"}
        if name not in by_name and name not in flags:
            near = difflib.get_close_matches(name, by_name, n=1)
            hint = f"did you mean {by_name[near[0]].flag}? " if near else ""
            raise UsageError(f"{self.name} has no option {word}; {hint}usage: {self.usage()}")
        return by_name.get(name) or flags[name], attached if equals else None

    def _read(self, option: Option, text: str) -> Any:
        kind = KINDS[option.kind]
        try:
            return kind.read(text)
        except ValueError as error:
            why = f" ({error})" if option.kind == "tensor" else ""
            raise UsageError(f"{self.name}: {option.flag} takes {kind.what}, got {text!r}{why}") from None

    def _drawn(self, tensors: list[Option], values: dict[str, Any], seed: int) -> dict[str, list[Array]]:
        """Arrays of the shapes that were chosen, by the input's name."""
        arrays: dict[str, list[Array]] = {}
        item = 1000 * seed
        for option in tensors:
            given = values.get(option.name, [])
            for shape in given if option.kind == "tensors" or option.name not in values else [given]:
                arrays.setdefault(option.name, []).append(self.make(option.name, shape, item))
                item += 1
        return arrays

    def _own(self, tensors: list[Option]) -> dict[str, list[Array]]:
        """The arrays that came with the function, by the input's name."""
        arrays = list(self.own_inputs()) if self.own_inputs is not None else []
        several = any(option.kind == "tensors" for option in tensors)
        if len(arrays) < len(tensors) or (len(arrays) > len(tensors) and not several):
            raise UsageError(
                f"{self.name}: gradcheck_inputs gives {len(arrays)} arrays for {len(tensors)} inputs"
            )
        named = {option.name: [array] for option, array in zip(tensors, arrays, strict=False)}
        if several:  # Always the last one.
            named[tensors[-1].name] = arrays[len(tensors) - 1 :]
        return named

    def _bound(self, values: dict[str, Any], arrays: dict[str, list[Array]]) -> Chosen:
        """The parameters tied to the function, the arrays in a row."""
        several = {option.name for option in self.options if option.kind == "tensors"}
        params = {name: value for name, value in values.items() if name not in arrays}
        self._add_labels(params, arrays)
        names = [
            f"{name}[{i}]" if name in several else name
            for name, those in arrays.items()
            for i in range(len(those))
        ]

        def fn(*tensors: Tensor) -> Tensor:
            rest = list(tensors)
            arguments: dict[str, Any] = {}
            for name, those in arrays.items():
                mine, rest = rest[: len(those)], rest[len(those) :]
                arguments[name] = mine if name in several else mine[0]
            return self.function(**arguments, **params)

        return Chosen(fn, [array for those in arrays.values() for array in those], names)

    def _add_labels(self, params: dict[str, Any], arrays: dict[str, list[Array]]) -> None:
        """Class numbers for every row of the logits, where none were given."""
        for option in self.options:
            if option.kind == "labels" and option.name not in params:
                shape = arrays["logits"][0].shape
                rows = np.arange(shape[0] if shape else 0)
                params[option.name] = rows % max(1, shape[-1] if shape else 1)


def _flag_value(word: str, attached: str | None, rest: list[str]) -> str:
    """true for --flag, false for --no-flag; or what follows it."""
    if word.startswith(("--no-", "--no_")):
        return "false" if attached is None else attached
    if attached is not None:
        return attached
    return rest.pop(0) if rest and not rest[0].startswith("--") else "true"


def _switched(option: Option) -> str:
    """The flag that changes something: --no-flag for one that is set by default."""
    return option.flag.replace("--", "--no-", 1) if option.default is True else option.flag


def _spelled(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


# ------------------------------------------------------------------------------------------ the operations


def _add(a: Tensor, b: Tensor) -> Tensor:
    return a + b


def _sub(a: Tensor, b: Tensor) -> Tensor:
    return a - b


def _mul(a: Tensor, b: Tensor) -> Tensor:
    return a * b


def _div(a: Tensor, b: Tensor) -> Tensor:
    return a / b


def _pow(a: Tensor, b: Tensor) -> Tensor:
    return a**b


def _neg(x: Tensor) -> Tensor:
    return -x


SYMBOLS = {"add": _add, "sub": _sub, "mul": _mul, "div": _div, "pow": _pow, "neg": _neg}
# Where a function is not defined, or steep, at and below zero.
POSITIVE = {("log", "x"), ("div", "b"), ("pow", "a")}


# Parameters whose name says more than their type.
NAMED_KINDS = ("labels", "reduction", "dialect", "mode")


def known_ops() -> list[str]:
    """The names of operations whose shapes can be chosen, sorted."""
    functions = [name for name in ops.__all__ if inspect.isfunction(getattr(ops, name))]
    return sorted([*functions, *SYMBOLS])


def subject_of(name: str) -> Subject:
    """The operation of this name. Raises: UsageError with the known ones."""
    if name not in known_ops():
        near = difflib.get_close_matches(name, known_ops(), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UsageError(f"unknown operation {name!r}: {hint}the operations are {', '.join(known_ops())}")
    function: Any = SYMBOLS[name] if name in SYMBOLS else getattr(ops, name)

    def make(argument: str, shape: Shape, item: int) -> Array:
        return (positive if (name, argument) in POSITIVE else grid)(*shape, item=item)

    return Subject(name, function, tuple(_options(function)), make)


def _options(function: Callable[..., Any]) -> list[Option]:
    return [
        Option(
            p.name,
            p.name if p.name in NAMED_KINDS else KIND_OF_ANNOTATION[str(p.annotation)],
            p.default is p.empty and p.name != "labels",
            None if p.default is p.empty else p.default,
        )
        for p in inspect.signature(function).parameters.values()
    ]
