"""What of CUDA C++ no header can turn into C++: `__shared__` declarations, and which functions are kernels.

The text is what the preprocessor gives, so that macros are expanded and comments gone; it keeps its lines,
and with them the lines that errors name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from minialex.errors import KernelError

_QUALIFIERS = re.compile(r"\b(?:static|volatile|const)\b|(?:__align__|alignas)\s*\([^()]*\)")
_DECLARATOR = re.compile(r"\s*(?P<name>[A-Za-z_]\w*)\s*(?P<extents>(?:\[[^\]]*\]\s*)*)$")
_SHARED = re.compile(r"(?P<before>(?:\b(?:extern|static|volatile)\s+)*)\b__shared__\b(?P<declaration>[^;]*);")
_OPENING, _CLOSING = "([{<", ")]}>"


@dataclass(frozen=True)
class Entry:
    """One kernel of a file.

    Args: bound: the block size in its __launch_bounds__, as C++, or "0"; marker: the preprocessor's line that
          says where the kernel is.
    """

    name: str
    parameters: tuple[str, ...]
    bound: str
    marker: str = ""


def translate(text: str) -> tuple[str, tuple[Entry, ...]]:
    """C++ for g++, and the kernels in it.

    Raises: KernelError for shared memory whose size is not constant, and for a kernel without extern "C".
    """
    entries = find_entries(text)
    text = _SHARED.sub(_declare, text)
    # What does not fit in a call is told of the line of the kernel.
    calls = "".join(f"{entry.marker}MINIALEX_ENTRY({entry.name}, ({entry.bound}))\n" for entry in entries)
    return f'#include "emulator.hpp"\n{text}\n{calls}', entries


def _declare(match: re.Match[str]) -> str:
    """`__shared__ T tile[A][B];` as storage that outlives the block, and a checked view of it."""
    whole, declaration = match.group(0), _QUALIFIERS.sub(" ", match["declaration"])
    written = f"{place_of(match.string, match.start())}: `{' '.join(whole.split())}`"
    if "extern" in match["before"] or "[]" in declaration.replace(" ", ""):
        raise KernelError(
            f"{written}: the emulator has no dynamic shared memory; give the array a constant size"
        )
    type_name, declared = "", []
    for i, part in enumerate(split(declaration)):
        found = _DECLARATOR.search(part)
        if found is None:
            raise KernelError(f"{written}: the emulator does not understand this")
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
    """The kernels in the text, templates left out: only their instances can be launched.

    Raises: KernelError for a kernel without extern "C".
    """
    entries, with_c_names = [], set()
    blocks = _blocks_of_c(text)
    for match in re.finditer(r"\b__global__\b", text):
        before = text[: match.start()]
        if re.search(r"\btemplate\s*<[^;{}]*>\s*(?:static\s+|inline\s+)*$", before):
            continue
        found = _entry_at(text, match.end())
        if found is None:
            continue
        entry, end = found
        if re.search(r'\bextern\s*"C"[^;{}()"]*$', before) or any(match.start() in each for each in blocks):
            with_c_names.add(entry.name)
        if entry.name not in with_c_names:
            raise KernelError(
                f'{place_of(text, match.start())}: kernel {entry.name} needs extern "C" in front of '
                "__global__: without it C++ gives the kernel another name, and no launch on a GPU finds it"
            )
        if not re.compile(r"\s*;").match(text, end):  # A mere declaration.
            name, _, line = place_of(text, match.start()).rpartition(":")
            entries.append(replace(entry, marker=f'# {line} "{name}"\n' if name else ""))
    return tuple(entries)


def _blocks_of_c(text: str) -> list[range]:
    """Where `extern "C" { ... }` reaches from and to."""
    starts = (match.end() - 1 for match in re.finditer(r'\bextern\s*"C"\s*\{', text))
    return [range(start, start + len(_balanced(text, start, "{}"))) for start in starts]


def _entry_at(text: str, place: int) -> tuple[Entry, int] | None:
    """The kernel whose declaration goes on at `place`, behind __global__, and where its parameters end."""
    bound = "0"
    while word := re.compile(r"\s*(\w+)\s*").match(text, place):
        place = word.end()
        if text[place : place + 1] != "(":
            continue
        inside = _balanced(text, place)
        place += len(inside) + 2
        if word[1] != "__launch_bounds__":
            names = [re.sub(r"\[.*", "", part).split()[-1].lstrip("*&") for part in split(inside)]
            return Entry(word[1], tuple(names), bound), place
        bound = split(inside)[0].strip()
    return None


def place_of(text: str, at: int) -> str:
    """The file and line that position `at` of the preprocessor's text comes from, "name.cu:12"."""
    markers = list(re.finditer(r'^# (\d+) "([^"]*)".*\n', text[:at], flags=re.MULTILINE))
    if not markers:
        return f":{1 + text.count(chr(10), 0, at)}"
    last = markers[-1]
    return f"{last[2]}:{int(last[1]) + text.count(chr(10), last.end(), at)}"


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


def _balanced(text: str, start: int, pair: str = "()") -> str:
    """What stands between the bracket that opens at `start` and the one that closes it; without one, the rest
    of the text, so that the compiler may say what is wrong with it."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == pair[0]) - (text[i] == pair[1])
        if depth == 0:
            return text[start + 1 : i]
    return text[start + 1 :]
