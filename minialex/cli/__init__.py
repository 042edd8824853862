"""The `minialex` command: options in, plain words and exit codes out. The work is done elsewhere."""

from __future__ import annotations

from typing import Annotated

import typer

# isort: off
# Importing a file of commands adds them to the application, in this order.
from minialex.cli import training, trained, features, networks, pictures, interchange, checking  # noqa: F401

# isort: on
from minialex.cli.shared import app
from minialex.cli.training import training_script
from minialex.version import __version__

__all__ = ["app", "main", "training_script"]


@app.callback(invoke_without_command=True)
def main_options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Train convolutional networks on photographs, and use what was trained."""
    if version:
        print(f"minialex {__version__}")
        raise typer.Exit()


def main() -> None:
    """The entry point of the `minialex` command and of `python -m minialex`."""
    app(prog_name="minialex")
