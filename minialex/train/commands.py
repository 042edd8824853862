"""How a message spells a command that the user can type back: the Python and the script that run now."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path


def python_command() -> str:
    """This Python, for a shell in the working folder: `.venv/bin/python`, or `python` where that is it.

    Not resolved: an environment's Python is a link, and what it links to knows nothing of the environment.
    """
    return _shown(sys.executable)


def script_command() -> str:
    """The script that runs now, as it was called, with its Python: `.venv/bin/python examples/x.py`."""
    return f"{python_command()} {shlex.quote(sys.argv[0])}"


def minialex_command() -> str:
    """The `minialex` command: as it was called, else that of this environment, else `python -m minialex`."""
    called = Path(sys.argv[0])
    if called.stem == "minialex":
        return "minialex" if _is_on_path("minialex", sys.argv[0]) else shlex.quote(sys.argv[0])
    beside = Path(sys.executable).with_name("minialex")
    if called.parts[-2:] != ("minialex", "__main__.py") and beside.exists():
        return _shown(str(beside))
    return f"{python_command()} -m minialex"


def _shown(program: str) -> str:
    path, here = Path(program), Path.cwd()
    if path.is_relative_to(here):
        # A name without a folder would be looked up on PATH.
        inside = path.relative_to(here)
        return shlex.quote(str(inside) if len(inside.parts) > 1 else f"./{inside}")
    return path.name if _is_on_path(path.name, program) else shlex.quote(program)


def _is_on_path(name: str, program: str) -> bool:
    """Whether a shell that is told `name` runs this very program."""
    found = shutil.which(name)
    return found is not None and os.path.abspath(found) == os.path.abspath(program)
