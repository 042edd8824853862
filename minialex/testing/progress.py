"""How far a long check has come: a bar on a terminal, nothing elsewhere. It goes to standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

__all__ = ["Advance", "progress_bar"]


class Advance(Protocol):
    """Called before each step with what it is about."""

    def __call__(self, what: str) -> None: ...


@contextmanager
def progress_bar(total: int | None, enabled: bool = True) -> Iterator[Advance]:
    """A bar that is gone when the block ends.

    Args: total: steps, None if nobody knows; enabled: whether there is a bar, if there is a terminal.
    """
    if not (enabled and sys.stderr.isatty()):
        yield lambda what: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    counts = [] if total is None else [MofNCompleteColumn()]
    columns = (BarColumn(), *counts, TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    # Rich would print standard output above the bar; what goes into a file must go there.
    printed_too = sys.stdout.isatty()
    with Progress(*columns, console=console, transient=True, redirect_stdout=printed_too) as bar:
        task = bar.add_task("", total=total)
        done = -1

        def advance(what: str) -> None:
            nonlocal done
            done += 1
            bar.update(task, completed=done, description=what)

        yield advance
