"""A script that takes a trained network, with options and messages like those of the `minialex` command."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from minialex.cli.shared import PlainCommand, user_errors

__all__ = ["NetworkArgument", "OutOption", "plain_script"]

NetworkArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="CHECKPOINT",
        help="A run's folder, or best.safetensors or last.safetensors in it.",
        show_default=False,
    ),
]
OutOption = Annotated[Path | None, typer.Option(help="The picture's file. [default: in the run's folder]")]


def plain_script(run: Callable[..., None]) -> Callable[[], None]:
    """Turn a function into a script's main: its arguments are the options, its docstring the help, and what
    a user can mend ends it with a message and an exit code."""
    from minialex.train.compiling import CompileNotice
    from minialex.train.reporter import Reporter

    @functools.wraps(run)
    def main(*args: Any, **options: Any) -> None:
        with user_errors(), CompileNotice(Reporter().note):
            run(*args, **options)

    script = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    script.command(cls=PlainCommand)(main)
    return script
