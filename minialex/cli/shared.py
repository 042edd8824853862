"""What all commands share: the application they belong to, options, and errors without tracebacks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from minialex.errors import DataError, DeviceError, MinialexError

__all__ = [
    "CheckpointArgument",
    "DeviceOption",
    "JsonOption",
    "PlainCommand",
    "app",
    "show_error",
    "user_errors",
]


class PlainCommand(typer.core.TyperCommand):
    """A command whose help speaks of files: Typer writes {CHECKPOINT}, and <list[Path]> for some of them."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The words of the usage line."""
        return [piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)]

    def get_help(self, ctx: Any) -> str:
        """The whole help."""
        listed = "<list[Path]>"
        return super().get_help(ctx).replace(listed, "<path>".ljust(len(listed)))


app = typer.Typer(
    help="Train convolutional networks on photographs, and use what was trained.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

DeviceOption = Annotated[
    str,
    typer.Option(
        help="cpu, cuda, cuda:N, or auto: a GPU if one can be used. cuda-emulated: its kernels on the CPU, "
        "slowly."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
CheckpointArgument = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT",
        help="A run's folder, or best.safetensors or last.safetensors in it.",
        show_default=False,
    ),
]


@contextmanager
def user_errors() -> Iterator[None]:
    """Inside, what a user can mend ends the command with its message and exit code, no traceback."""
    from minialex.train.interrupt import Interrupted

    try:
        yield
    except Interrupted as stop:
        print(f"\n{stop}", file=sys.stderr)
        raise typer.Exit(stop.exit_code) from None
    except MinialexError as error:
        show_error(str(error))
        raise typer.Exit(error.exit_code) from None
    except MemoryError as error:  # CuPy's own out-of-memory error is one, too.
        show_error(f"out of memory ({error}); smaller batches need less")
        raise typer.Exit(DeviceError.exit_code) from None
    except BrokenPipeError:  # `minialex summary flowers | head`: typer knows what to do.
        raise
    except OSError as error:  # A folder that may not be read, a name that is too long, a disk that went away.
        show_error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        raise typer.Exit(DataError.exit_code) from None
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        raise typer.Exit(130) from None


def show_error(text: str) -> None:
    from minialex.train.reporter import for_stream

    print(for_stream(f"error: {text}", sys.stderr), file=sys.stderr)
