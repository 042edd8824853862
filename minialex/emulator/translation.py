"""What of CUDA C++ no header can turn into C++: `__shared__` declarations, and which functions are kernels.

The text is what the preprocessor gives, so that macros are expanded and comments gone; it keeps its lines,
and with them the lines that errors name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from minialex.errors import KernelError

_QUALIFIERS = re.compile(r"\b(?:static|volatile|const)\b|(?:__align__|alignas)\s*\([^()]*\)")
_DECLARATOR = re.compile(r"\s*(?P<name>[A-Za-z_]\w*)\s*(?P<extents>(?:\[[^\]]*\]\s*)*)$")
_SHARED = re.compile(r"(?P<before>(?:\b(?:extern|static|volatile)\s+)*)\b__shared__\b(?P<declaration>[^;]*);")
_OPENING, _CLOSING = "([{<", ")]}>"


@dataclass(frozen=True)
class Entry:
    """One kernel of a file. Args: bound: the block size in its __launch_bounds__, as C++, or "0"."""

    name: str
    parameters: tuple[str, ...]
    bound: str


def translate(text: str) -> tuple[str, tuple[Entry, ...]]:
    """C++ for g++, and the kernels in it.

    Raises: KernelError for shared memory whose size is not constant.
    """
    entries = find_entries(text)
    text = _SHARED.sub(_declare, text)
    calls = "".join(f"MINIALEX_ENTRY({entry.name}, ({entry.bound}))\n" for entry in entries)
    return f'#include "emulator.hpp"\n{text}\n{calls}', entries


def _declare(match: re.Match[str]) -> str:
    """`__shared__ T tile[A][B];` as storage that outlives the block, and a checked view of it."""
    whole, declaration = match.group(0), _QUALIFIERS.sub(" ", match["declaration"])
    if "extern" in match["before"] or "[]" in declaration.replace(" ", ""):
        raise KernelError(
            f"`{' '.join(whole.split())}`: the emulator has no dynamic shared memory; give the array a "
            "constant size"
        )
    type_name, declared = "", []
    for i, part in enumerate(split(declaration)):
        found = _DECLARATOR.search(part)
        if found is None:
            raise KernelError(f"`{' '.join(whole.split())}`: the emulator does not understand this")
        if i == 0:
            type_name = part[: found.start()].strip()
        extents = re.findall(r"\[([^\]]*)\]", found["extents"])
        arguments = ", ".join([type_name, *(f"({extent.strip()})" for extent in extents)])
        name = found["name"]
        declared.append(
            f"static ::minialex::SharedStorage<{arguments}> minialex_{name}; "
            f'::minialex::Shared<{arguments}> {name}(minialex_{name}, "{name}");'
        )
    return " ".join(declared) + "\n" * whole.count("\n")


def find_entries(text: str) -> tuple[Entry, ...]:
    """The kernels in the text, templates left out: only their instances can be launched."""
    entries = []
    for match in re.finditer(r"\b__global__\b", text):
        if re.search(r"\btemplate\s*<[^;{}]*>\s*(?:static\s+|inline\s+)*$", text[: match.start()]):
            continue
        place, bound = match.end(), "0"
        while True:
            word = re.compile(r"\s*(\w+)\s*").match(text, place)
            if word is None:
                break
            place = word.end()
            if text[place : place + 1] != "(":
                continue
            inside = _balanced(text, place)
            if word[1] != "__launch_bounds__":
                names = [re.sub(r"\[.*", "", part).split()[-1].lstrip("*&") for part in split(inside)]
                entries.append(Entry(word[1], tuple(names), bound))
                break
            bound = split(inside)[0].strip()
            place += len(inside) + 2
    return tuple(entries)


def split(text: str) -> list[str]:
    """The parts between commas that stand in no brackets."""
    parts, depth, start = [], 0, 0
    for i, character in enumerate(text):
        depth += (character in _OPENING) - (character in _CLOSING)
        if character == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    parts.append(text[start:])
    return [part for part in parts if part.strip()]


def _balanced(text: str, start: int) -> str:
    """What stands in the parentheses that open at `start`."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return text[start + 1 : i]
    raise KernelError(f"no closing parenthesis after `{text[start : start + 40]}`")
