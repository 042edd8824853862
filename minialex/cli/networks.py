"""`minialex summary` and `minialex profile`: what a network is made of, and what it costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from minialex.cli.shared import JsonOption, PlainCommand, app, user_errors
from minialex.errors import UsageError

__all__ = ["profile", "summary"]


ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="flowers, single, grouped, owt, flowers-tf or six-conv, which are AlexNets, lenet5, lenet5-relu "
        "or cifar-4.",
    ),
]
ClassesOption = Annotated[int | None, typer.Option(help="Number of classes. [default: the network's own]")]
ImageSizeOption = Annotated[int | None, typer.Option(help="Pixels a side. [default: the network's own]")]


@app.command(cls=PlainCommand)
def summary(
    model: ModelArgument,
    classes: ClassesOption = None,
    image_size: ImageSizeOption = None,
    lrn: Annotated[
        bool | None,
        typer.Option("--lrn/--no-lrn", help="Local response normalisation. [default: the network's own]"),
    ] = None,
    pooling: Annotated[
        str | None,
        typer.Option(help="overlapping (3 x 3, stride 2) or separate (2 x 2). [default: the network's own]"),
    ] = None,
    activation: Annotated[
        str | None, typer.Option(help="relu, tanh or sigmoid. [default: the network's own]")
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", "--batch", help="Pictures in the batch that is counted.")
    ] = 1,
) -> None:
    """List a network's layers, and what they cost.

    First the tables of the lectures: kernels, sizes and parameters, worked out in numbers. Then
    output shape, parameters, FLOPs and bytes of outputs, in all too, and the memory of a training step.
    """
    from minialex.train import summarize
    from minialex.train.compiling import CompileNotice
    from minialex.train.footprint import footprint_of
    from minialex.train.reporter import SilentReporter

    with user_errors(), CompileNotice(SilentReporter().note):
        options = {"lrn": lrn, "pooling": pooling, "activation": activation}
        net = _built(model, classes, image_size, {"--batch-size": batch_size}, **options)
        try:
            found = summarize(net, model, batch_size)
        except ValueError as error:  # NumPy's refusal of an array beyond all bounds.
            raise UsageError(str(error)) from error
        # The memory of a step takes a while to find out, and kernels may have to be compiled for it.
        print(f"{found.layer_tables}\n\n{found}\n", flush=True)
        print(footprint_of(net, batch_size))


@app.command(cls=PlainCommand)
def profile(
    model: ModelArgument,
    classes: ClassesOption = None,
    image_size: ImageSizeOption = None,
    batch_size: Annotated[int, typer.Option(help="Pictures in a batch.")] = 32,
    steps: Annotated[int, typer.Option(help="Steps that are measured, after two that are not.")] = 5,
    device: Annotated[str, typer.Option(help="cpu.")] = "cpu",
    trace: Annotated[
        Path | None, typer.Option(help="A file for chrome://tracing or ui.perfetto.dev.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show where the time of a training step goes.

    Each layer's forward and backward pass beside what this machine can do at most, on random pictures.
    """
    from minialex.backend import keep_freed_memory
    from minialex.train.compiling import CompileNotice
    from minialex.train.files import atomic_write_text
    from minialex.train.profile_report import chrome_trace, profile_json, profile_text
    from minialex.train.profiling import profile_step
    from minialex.train.reporter import SilentReporter

    with user_errors(), CompileNotice(SilentReporter().note):
        if device != "cpu":
            raise UsageError(f"--device {device}: only steps on the CPU can be profiled in this version")
        net = _built(model, classes, image_size, {"--batch-size": batch_size, "--steps": steps})
        keep_freed_memory()  # As training does.
        result = profile_step(net, model, batch_size, steps)
        if trace is not None:
            atomic_write_text(trace, json.dumps(chrome_trace(result)))
        print(json.dumps(profile_json(result), indent=2) if as_json else profile_text(result))


def _built(
    model: str, classes: int | None, image_size: int | None, counts: dict[str, int], **options: Any
) -> Any:
    """The network. Raises: UsageError for an unknown one, and for options below 1 or that do not fit."""
    from minialex import models
    from minialex.train.setup import check_model

    check_model(model)
    for name, value in {"--classes": classes, "--image-size": image_size, **counts}.items():
        if value is not None and value < 1:
            raise UsageError(f"{name} must be at least 1, got {value}")
    try:
        return models.build(model, classes, image_size, **options)
    except ValueError as error:  # A ShapeError.
        raise UsageError(str(error)) from error
