"""`minialex export`: a network as a file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from minialex.cli.shared import PlainCommand, app, user_errors
from minialex.errors import OutputError, UsageError

__all__ = ["export"]

SUFFIXES = (".safetensors", ".onnx")


@app.command(cls=PlainCommand)
def export(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="A run's folder, a checkpoint in it, or a file of weights: safetensors, or PyTorch's .pth.",
            show_default=False,
        ),
    ],
    dest: Annotated[
        Path,
        typer.Argument(
            metavar="DEST", help="The file to write: NAME.safetensors or NAME.onnx.", show_default=False
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(help="Whose weights they are, where SOURCE is not a run's.", show_default=False),
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option(help="Number of classes. [default: as many as SOURCE has]", show_default=False),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Pixels a side. [default: the network's own]", show_default=False)
    ] = None,
    batch: Annotated[
        str, typer.Option(help="For .onnx: how many pictures at a time, dynamic for any number.")
    ] = "dynamic",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Write a network for other programs.

    .safetensors: the weights, under PyTorch's names. .onnx: the whole network, with the names of the classes
    and the preprocessing in its metadata; needs the package onnx.
    """
    from minialex.backend import keep_freed_memory
    from minialex.interchange import export_network, network_of
    from minialex.train.compiling import CompileNotice
    from minialex.train.reporter import SilentReporter
    from minialex.train.run_folder import find_network

    with user_errors(), CompileNotice(SilentReporter().note):
        _check_dest(find_network(source), dest, overwrite)
        pictures = _number_of_pictures(batch, dest)
        keep_freed_memory()
        network = network_of(source, model, classes, image_size)
        export_network(network, dest, pictures)
        print(f"wrote {dest}: {network}, {dest.stat().st_size / 1e6:,.1f} MB")


def _check_dest(source: Path, dest: Path, overwrite: bool) -> None:
    """What is wrong with the place of the new file, before a large file is read."""
    if dest.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{dest}: the name must end in {' or '.join(SUFFIXES)}, which says what is written")
    if not dest.parent.is_dir():
        raise OutputError(f"cannot write {dest}: there is no folder {dest.parent}")
    if dest.exists() and source.exists() and dest.samefile(source):
        raise UsageError(f"{dest} is the file that is read; give the new one another name")
    if dest.is_dir() or (dest.exists() and not overwrite):
        raise OutputError(f"{dest} is already there; --overwrite replaces a file, or choose another name")


def _number_of_pictures(batch: str, dest: Path) -> int | str:
    if batch == "dynamic":
        return batch
    if not batch.isdecimal() or int(batch) < 1:
        raise UsageError(f"--batch {batch}: expected dynamic, or a number of pictures from 1 on")
    if dest.suffix.lower() != ".onnx":
        raise UsageError(f"--batch is for .onnx files; {dest.name} holds weights alone")
    return int(batch)
