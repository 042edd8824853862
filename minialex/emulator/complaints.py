"""What g++ says of a file, in few words and in terms of the .cu file.

g++ compiles a text in which macros are expanded, behind the emulator's headers: its columns are those of that
text, and the place where it gives up may be in a header. So errors are shown with the line of the file that
they come from, and without the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from minialex.emulator.translation import place_of

SHOWN_ERRORS = 4
PERMISSIVE = " [-fpermissive]"  # Which option of g++ would let it pass.
SHOWN_LINES = 8  # Of a text in which nothing looks like an error.
_MESSAGE = re.compile(
    r"(?P<file>[^:\s][^:]*):(?P<line>\d+)(?::\d+)?:\s+(?P<kind>(?:fatal )?error|note|)(?P<text>.*)$"
)
# Literals, in which braces are text; then braces.
_BRACE = re.compile(r'"(?:\\.|[^"\\\n])*"|\b\d[\w.\']*|\'(?:\\.|[^\'\\\n])*\'|^#.*|[{}]', flags=re.MULTILINE)


def shortened(source: Path, own: Path, errors: str, text: str = "") -> str:
    """The errors, a line or two for each.

    Args:
        source: the .cu file; own: the folder of the emulator's headers.
        errors: what the compiler wrote; text: what it was given.
    """
    if open_brace := _open_brace(text):
        return _shown(source, open_brace, "error: this { is never closed")
    found = list(dict.fromkeys(_errors(source, own, errors)))
    if not found:
        return "\n".join(errors.strip().splitlines()[-SHOWN_LINES:])
    more = f"\n... and {len(found) - SHOWN_ERRORS} more" if len(found) > SHOWN_ERRORS else ""
    return "\n".join(found[:SHOWN_ERRORS]) + more


def _errors(source: Path, own: Path, errors: str) -> Iterator[str]:
    """Each error. One in a header of the emulator is shown where the file asked for it: g++ says that before
    the error, in a line "required from here", and Clang after it, in a note."""
    user, waiting = "", ""
    for line in errors.splitlines():
        found = _MESSAGE.match(line)
        if found is None:
            continue
        ours = Path(found["file"]).parent == own
        place = f"{found['file']}:{found['line']}"
        if "error" in found["kind"]:
            if waiting:
                yield waiting
            message = (
                f"error{found['text'].replace(' static assertion failed:', '').removesuffix(PERMISSIVE)}"
            )
            waiting = message if ours and not user else ""
            if user and not ours:
                message += f" (asked for at {Path(user).name})"
            if not waiting:
                yield _shown(source, user if ours else place, message)
            user = ""
        elif not ours and re.search(r"\b(?:required|requested)\b", found["text"]):
            if waiting:
                yield _shown(source, place, waiting)
                waiting = ""
            else:
                user = place
    if waiting:
        yield waiting


def _shown(source: Path, place: str, message: str) -> str:
    """An error with the line that it is in. The compiler may know a file by its name alone."""
    name, _, number = place.rpartition(":")
    try:
        lines = (source.parent / name).read_text(encoding="utf-8").splitlines()
        line = lines[int(number) - 1].strip()
    except (OSError, IndexError):
        line = ""
    return f"{Path(name).name}:{number}: {message}" + (f"\n    {line}" if line else "")


def _open_brace(text: str) -> str:
    """Where the first { stands that is never closed; empty if all are."""
    open_ones: list[int] = []
    for match in _BRACE.finditer(text):
        if match[0] == "{":
            open_ones.append(match.start())
        elif match[0] == "}" and not open_ones:
            return ""  # One too many: the compiler says where.
        elif match[0] == "}":
            open_ones.pop()
    return place_of(text, open_ones[0]) if open_ones else ""
