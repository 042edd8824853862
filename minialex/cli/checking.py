"""`minialex gradcheck`, `doctor` and `parity`: are gradients, a machine and a device right?"""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from minialex.cli.shared import JsonOption, PlainCommand, app, user_errors

__all__ = ["doctor", "gradcheck", "parity"]


@app.command()
def doctor(
    device: Annotated[
        str,
        typer.Option(
            help="cpu, cuda, cuda:N, cuda-emulated (CUDA kernels run on the CPU), or auto, which means a GPU."
        ),
    ] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Find out whether kernels run on a device, and what is missing if not.

    Prints versions, what was found, and the command that mends it. The exit code is 0 only if
    kernels ran on the device that was asked for and gave the right answers; for auto, that is a
    GPU. 5: the device cannot be used. 6: a kernel gave a wrong answer.
    """
    from minialex.train.compiling import CompileNotice
    from minialex.train.doctor import diagnosis_json, diagnosis_text, examine
    from minialex.train.reporter import SilentReporter

    with user_errors(), CompileNotice(SilentReporter().note):
        diagnosis = examine(device)
        print(json.dumps(diagnosis_json(diagnosis), indent=2) if as_json else diagnosis_text(diagnosis))
        if diagnosis.exit_code:
            raise typer.Exit(diagnosis.exit_code)


@app.command(cls=PlainCommand)
def parity(
    network: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT|MODEL", help="A checkpoint, or a model's name.", show_default=False
        ),
    ],
    data: Annotated[
        str | None, typer.Option(help="Pictures, as `minialex train` takes them. [default: random numbers]")
    ] = None,
    device: Annotated[
        str, typer.Option(help="cpu, cuda, cuda:N, cuda-emulated, or auto: a GPU if one can be used.")
    ] = "auto",
    batch_size: Annotated[int, typer.Option(help="Pictures in the batch.")] = 4,
    seed: Annotated[int, typer.Option(help="Decides weights, pictures and dropout.")] = 0,
    precision: Annotated[str, typer.Option(help="Of matrix products on a GPU: fp32, tf32 or bf16.")] = "fp32",
    as_json: JsonOption = False,
) -> None:
    """Find the first layer in which a device computes something else.

    One batch, forward and backward, in float64 and in float32 on the CPU and in float32 on the
    device. Every op is held against the same op in float64, from the same inputs; it may be off
    by 16 times what NumPy's rounding in float32 makes of it. The exit code is 6 if one is off by
    more. Without a GPU, the CPU's float32 is held against float64.
    """
    from minialex.errors import NumericalError
    from minialex.train.compiling import CompileNotice
    from minialex.train.device import check_precision, choose_device
    from minialex.train.parity import compare
    from minialex.train.parity_input import open_experiment
    from minialex.train.parity_report import parity_json, parity_text
    from minialex.train.reporter import SilentReporter, default_reporter

    reporter = SilentReporter() if as_json else default_reporter()
    with user_errors(), CompileNotice(reporter.note):
        place = choose_device(device, reporter.say)
        check_precision(precision, place)
        experiment, name, pictures = open_experiment(network, data, batch_size, seed, precision, reporter.say)
        result = compare(experiment, place, name, pictures, reporter.say)
        print(json.dumps(parity_json(result), indent=2) if as_json else f"\n{parity_text(result)}")
        if not result.agrees:
            raise typer.Exit(NumericalError.exit_code)


class GradcheckCommand(PlainCommand):
    """`minialex gradcheck conv2d --help` tells the options of conv2d."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep the words for get_help, which is asked before they are understood."""
        ctx.meta["minialex.words"] = list(args)
        return super().parse_args(ctx, args)

    def get_help(self, ctx: Any) -> str:
        """The help of the operation that is named, or of the command."""
        from minialex.testing.commands import help_for

        listed = "<list[str]>"
        text = super().get_help(ctx).replace(listed, " " * len(listed))
        return help_for(ctx.meta.get("minialex.words", [])) or text


@app.command(cls=GradcheckCommand, context_settings={"ignore_unknown_options": True})
def gradcheck(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="OP",
            help="One operation, by its rows (shapes and settings that come with it) or with shapes of "
            "your own: conv2d --x 2,3,13,13 --weight 8,3,5,5 --stride 2. Its own --help tells its options. "
            "[default: the rows of all operations]",
            show_default=False,
        ),
    ] = None,
    list_ops: Annotated[bool, typer.Option("--list", help="List the operations and their options.")] = False,
    model: Annotated[
        str | None,
        typer.Option(
            help="A whole network: flowers, single, grouped, owt, flowers-tf, six-conv, lenet5, "
            "lenet5-relu or cifar-4."
        ),
    ] = None,
    function: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:NAME",
            help="A function of Tensors, an Op, or a module; a shape for each input: --x 2,3.",
        ),
    ] = None,
    backward: Annotated[
        str | None,
        typer.Option(metavar="FILE.py:NAME", help="Its backward pass, where both are bare NumPy functions."),
    ] = None,
    variant: Annotated[
        str | None, typer.Option(help="Of the kernels: reference, array, numba or cuda. [default: the usual]")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or cuda-emulated.")] = "cpu",
    seed: Annotated[int, typer.Option(help="Decides cotangents and values.")] = 0,
    eps: Annotated[float | None, typer.Option(help="Step of the differences. [default: 1e-6]")] = None,
    atol: Annotated[
        float | None, typer.Option(help="Error allowed to an element. [default: 1e-5; rows 1e-7]")
    ] = None,
    rtol: Annotated[
        float | None, typer.Option(help="The same, in units of the gradient. [default: 1e-3; rows 1e-5]")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="A picture: errors over the input, and against eps.", show_default=False),
    ] = None,
    mutate: Annotated[
        bool,
        typer.Option(
            "--mutate", help="Plant typical bugs, one at a time, and tell what notices each: a minute."
        ),
    ] = False,
    lesson: Annotated[
        int | None, typer.Option(help="Show the report of a hidden bug, from 1: which is it?")
    ] = None,
    answer: Annotated[str | None, typer.Option(help="To the lesson: a letter or the fault's name.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check gradients against finite differences.

    In double precision, with random cotangents; of every operation, of one, of a network or of a
    function of your own. The exit code is 6 if a gradient is wrong.
    """
    from minialex.testing import commands
    from minialex.testing.check_settings import CheckSettings
    from minialex.train.compiling import ALL_KERNELS, USUAL_SECONDS, CompileNotice
    from minialex.train.reporter import SilentReporter

    everything = not words and model is None and function is None and lesson is None
    with user_errors(), CompileNotice(SilentReporter().note, ALL_KERNELS if everything else USUAL_SECONDS):
        if list_ops:
            print(commands.list_ops())
            return
        settings = CheckSettings(seed, eps, atol, rtol, variant, device, bar=not as_json)
        request = commands.Request(
            tuple(words or ()), model, function, backward, plot, mutate, lesson, answer, settings
        )
        # What a user's function prints must not get into the document.
        with redirect_stdout(sys.stderr) if as_json else nullcontext():
            outcome = commands.run(request, SilentReporter().say if as_json else print)
        if as_json:
            print(json.dumps(outcome.data, indent=2, ensure_ascii=False))
        elif outcome.text:
            print(outcome.text)
        if not outcome.ok:
            raise typer.Exit(outcome.exit_code)
