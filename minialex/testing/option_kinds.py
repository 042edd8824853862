"""How values are written on the command line: shapes, sizes, padding, axes."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minialex.backend import Array
from minialex.shapes import Shape, numel

__all__ = ["KINDS", "KIND_OF_ANNOTATION", "Kind"]

# A shape of more elements is a slip of the finger: the arrays of float64 alone would take gigabytes.
MOST_ELEMENTS = 10**8


@dataclass(frozen=True)
class Kind:
    """How a value is written: what: in words, with an example; metavar: for the usage; read: from text."""

    what: str
    metavar: str
    read: Callable[[str], Any]


def _whole(text: str) -> int:
    return int(text.strip())


def _numbers(text: str) -> tuple[int, ...]:
    """(1, 2) from `1,2`, `1x2` or `(1, 2)`."""
    inner = text.strip().strip("()[]").replace("x", ",").rstrip(",")
    return tuple(_whole(part) for part in inner.split(",")) if inner else ()


def _shape(text: str) -> Shape:
    shape = _numbers(text)
    if any(extent < 0 for extent in shape):
        raise ValueError("an extent is below 0")
    if numel(shape) > MOST_ELEMENTS:
        raise ValueError(f"{numel(shape):,} elements are more than {MOST_ELEMENTS:,}")
    return shape


def _one_or_two(text: str) -> int | tuple[int, ...]:
    numbers = _numbers(text)
    if len(numbers) not in (1, 2):
        raise ValueError(text)
    return numbers[0] if len(numbers) == 1 else numbers


def _padding(text: str) -> Any:
    numbers = _numbers(text.replace("(", "").replace(")", ""))
    if len(numbers) == 4:
        return numbers[:2], numbers[2:]
    return _one_or_two(text)


def _axes(text: str) -> int | tuple[int, ...] | None:
    if text.lower() in ("none", "all"):
        return None
    numbers = _numbers(text)
    return numbers[0] if len(numbers) == 1 else numbers


def _switch(text: str) -> bool:
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in known:
        raise ValueError(text)
    return known[text.lower()]


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _labels(text: str) -> Array:
    return np.array(_numbers(text), dtype=np.int64)


KINDS = {
    "tensor": Kind("a shape, such as 2,3,13,13", "SHAPE", _shape),
    "tensors": Kind("a shape, such as 2,3, once for each input", "SHAPE", _shape),
    "labels": Kind("class numbers, such as 2,0,4", "NUMBERS", _labels),
    "size": Kind("a whole number or a pair, such as 2 or 2,1", "N|H,W", _one_or_two),
    "padding": Kind(
        "a whole number, a pair, or top,bottom,left,right, such as 1,2,1,2", "N|H,W|T,B,L,R", _padding
    ),
    "axes": Kind("axes, such as 1 or 0,2, or none", "AXES", _axes),
    "numbers": Kind("whole numbers, such as 6,4", "NUMBERS", _numbers),
    "int": Kind("a whole number", "N", _whole),
    "float": Kind("a number", "X", float),
    "bool": Kind("true or false", "", _switch),
    "text": Kind("a word", "WORD", str),
    # One of a few, where a function takes no others.
    "reduction": Kind("mean, sum or none", "WORD", str),
    "dialect": Kind("paper or torch", "WORD", str),
    "mode": Kind("inverted or paper", "WORD", str),
    "literal": Kind("a value as in Python, such as 2, 0.5, (1,2) or a word", "VALUE", _literal),
}

# What the functions of ops/ say of their parameters.
KIND_OF_ANNOTATION = {
    "Tensor": "tensor",
    "Tensor | None": "tensor",
    "Sequence[Tensor]": "tensors",
    "IntOrPair": "size",
    "IntOrPair | None": "size",
    "PaddingLike": "padding",
    "int | Sequence[int] | None": "axes",
    "Sequence[int] | None": "numbers",
    "Sequence[int]": "numbers",
    "tuple[int, int, int] | None": "numbers",
    "int": "int",
    "float": "float",
    "bool": "bool",
    "str": "text",
}
