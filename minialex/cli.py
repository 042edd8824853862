"""The `minialex` command: options in, plain words and exit codes out. The work is done elsewhere."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from minialex.errors import DataError, DeviceError, MinialexError, UsageError
from minialex.version import __version__

if TYPE_CHECKING:
    from minialex.train import TrainConfig


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
ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="flowers, single, grouped, owt or lenet5.")
]
ClassesOption = Annotated[int | None, typer.Option(help="Number of classes. [default: the network's own]")]
ImageSizeOption = Annotated[int | None, typer.Option(help="Pixels a side. [default: the network's own]")]


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
        _show_error(str(error))
        raise typer.Exit(error.exit_code) from None
    except MemoryError as error:  # CuPy's own out-of-memory error is one, too.
        _show_error(f"out of memory ({error}); smaller batches need less")
        raise typer.Exit(DeviceError.exit_code) from None
    except BrokenPipeError:  # `minialex summary flowers | head`: typer knows what to do.
        raise
    except OSError as error:  # A folder that may not be read, a name that is too long, a disk that went away.
        _show_error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        raise typer.Exit(DataError.exit_code) from None
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        raise typer.Exit(130) from None


def _show_error(text: str) -> None:
    from minialex.train.reporter import for_stream

    print(for_stream(f"error: {text}", sys.stderr), file=sys.stderr)


def with_training_flags(run: Callable[[TrainConfig], None]) -> Callable[..., None]:
    """A command with all options of a training run, which calls `run` with them as a TrainConfig."""

    def command(
        context: typer.Context,
        data: Annotated[
            str | None,
            typer.Option(
                help="A folder with one folder of pictures a class, or 'drawn'. [default: the flowers, from "
                "MINIALEX_DATA, the cache, or the network]"
            ),
        ] = None,
        model: Annotated[
            str,
            typer.Option(help="The network: flowers, single, grouped or owt, which are AlexNets, or lenet5."),
        ] = "flowers",
        device: DeviceOption = "auto",
        precision: Annotated[
            str, typer.Option(help="Of matrix products on a GPU: fp32, tf32 or bf16.")
        ] = "fp32",
        epochs: Annotated[int, typer.Option(help="Passes over the training pictures.")] = 10,
        batch_size: Annotated[int, typer.Option(help="Pictures in a batch.")] = 32,
        optimizer: Annotated[str, typer.Option(help="adam or sgd.")] = "adam",
        lr: Annotated[
            float | None, typer.Option(help="Learning rate. [default: 2e-4 for adam, 0.01 for sgd]")
        ] = None,
        weight_decay: Annotated[
            float | None, typer.Option(help="[default: 0 for adam, 5e-4 for sgd]")
        ] = None,
        momentum: Annotated[float | None, typer.Option(help="For sgd. [default: 0.9]")] = None,
        schedule: Annotated[
            str,
            typer.Option(
                help="How lr falls: constant, step[:EPOCHS], multistep[:A,B,...], plateau[:PATIENCE] or "
                "cosine[:WARM-UP EPOCHS]."
            ),
        ] = "constant",
        accumulate: Annotated[int, typer.Option(help="Batches whose gradients make one step.")] = 1,
        clip_norm: Annotated[float | None, typer.Option(help="Longest gradient. [default: no limit]")] = None,
        augment: Annotated[
            bool, typer.Option("--augment/--no-augment", help="Crop and flip training pictures at random.")
        ] = True,
        crops: Annotated[
            str,
            typer.Option(
                help="scaled: parts of any size, scaled to the network's. fixed: parts of the network's "
                "size, out of pictures a seventh larger."
            ),
        ] = "scaled",
        crop_scale: Annotated[
            float,
            typer.Option(help="Smallest part of a training picture's area that a scaled crop takes."),
        ] = 0.08,
        seed: Annotated[int, typer.Option(help="Decides weights, split, order, crops and dropout.")] = 0,
        split: Annotated[
            str,
            typer.Option(help="Per cent to train on, to choose by and to test on; 90/10 keeps no test part."),
        ] = "80/10/10",
        limit: Annotated[
            int | None, typer.Option(help="Pictures to use in all, each class by its share. [default: all]")
        ] = None,
        workers: Annotated[
            int | None,
            typer.Option(help="Processes that load pictures. [default: 0 on a CPU, by the cores for a GPU]"),
        ] = None,
        cache: Annotated[
            str | None,
            typer.Option(
                help="Where decoded pictures are kept: none, memory, disk, or device, which is a GPU's "
                "memory and takes --crops fixed or --no-augment. [default: memory; disk with --workers]"
            ),
        ] = None,
        cache_budget: Annotated[
            str | None,
            typer.Option(
                metavar="SIZE",
                help="The most that they may take, such as 500MB. [default: 2GB; 4GB of a device's]",
            ),
        ] = None,
        save_every: Annotated[
            int | None,
            typer.Option(
                metavar="STEPS",
                help="Save so often within an epoch. [default: every minute]",
            ),
        ] = None,
        out: Annotated[
            str | None, typer.Option(help="The run's folder. [default: runs/MODEL-1, -2, ...]")
        ] = None,
        resume: Annotated[
            str | None, typer.Option(help="Go on with a run: its folder, or the checkpoint in it.")
        ] = None,
        overwrite: Annotated[bool, typer.Option(help="Replace an older run in --out.")] = False,
        on_bad_image: Annotated[
            str, typer.Option(help="stop, or skip: at files that are no readable pictures.")
        ] = "stop",
    ) -> None:
        with user_errors():
            run(_config(context))

    command.__doc__ = run.__doc__
    return command


def _config(context: typer.Context) -> TrainConfig:
    from minialex.train import TrainConfig

    known = {f.name for f in dataclasses.fields(TrainConfig)}
    values = {name: value for name, value in context.params.items() if name in known}
    given = {name for name in values if _was_given(context, name)}
    return TrainConfig(**values, given=frozenset(given))


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def training_script(run: Callable[[TrainConfig], None]) -> Callable[[], None]:
    """Turn `run(config)` into a script's main function with the options of `minialex train`."""
    script = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    script.command()(with_training_flags(run))
    return script


@app.callback(invoke_without_command=True)
def main_options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Train convolutional networks on photographs, and use what was trained."""
    if version:
        print(f"minialex {__version__}")
        raise typer.Exit()


def _train(config: TrainConfig) -> None:
    """Train a network, or go on with a run."""
    from minialex.train import train

    train(config)


app.command("train")(with_training_flags(_train))


@app.command(cls=PlainCommand)
def predict(
    checkpoint: CheckpointArgument,
    pictures: Annotated[
        list[Path],
        typer.Argument(help="Picture files, or folders of them.", metavar="IMAGE", show_default=False),
    ],
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Say what is on pictures.

    Every class with its probability, the most probable first.
    """
    from minialex.train import load
    from minialex.train.arguments import picture_files, refuse_swapped
    from minialex.train.compiling import CompileNotice
    from minialex.train.reporter import SilentReporter

    with user_errors(), CompileNotice(SilentReporter().note):
        refuse_swapped(checkpoint)
        files = picture_files(pictures)
        predictor = load(checkpoint, device)
        answers, failed = [], False
        for file in files:
            try:
                prediction = predictor.predict(file)
            except DataError as error:
                # One bad file among many must not hide the answers to the others.
                _show_error(str(error))
                failed = True
                continue
            classes = [{"class": name, "probability": probability} for name, probability in prediction]
            answers.append({"image": str(file), "predictions": classes})
            if not as_json:
                print(f"{file}\n{_indented(str(prediction))}")
        if as_json:
            print(json.dumps(answers, indent=2, ensure_ascii=False))
        if failed:
            raise typer.Exit(DataError.exit_code)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


@app.command(cls=PlainCommand)
def evaluate(
    checkpoint: CheckpointArgument,
    data: Annotated[
        str | None, typer.Option(help="A folder of pictures. [default: what the run was trained on]")
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(
            help="test, validation or train of the run's own split, or all. [default: test; all for a --data "
            "that is not the run's]"
        ),
    ] = None,
    device: DeviceOption = "auto",
    batch_size: Annotated[int, typer.Option(help="Pictures in a batch.")] = 32,
    workers: Annotated[int, typer.Option(help="Processes that load pictures.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Measure a trained network.

    On the test part of its own split, on another part, or on a whole folder of pictures.
    """
    from minialex.train import load
    from minialex.train.compiling import CompileNotice
    from minialex.train.judging import judge
    from minialex.train.report import accuracy_lines
    from minialex.train.reporter import SilentReporter, default_reporter

    reporter = SilentReporter() if as_json else default_reporter()
    with user_errors(), CompileNotice(reporter.note):
        predictor = load(checkpoint, device, reporter.say)
        result = judge(
            predictor, checkpoint, reporter, data=data, part=part, batch_size=batch_size, workers=workers
        )
        if as_json:
            print(json.dumps(result.to_json(), indent=2, ensure_ascii=False))
            return
        reporter.say(f"data: {result.description}")
        for line in accuracy_lines(result.evaluation, predictor.classes, result.part):
            reporter.say(line)


@app.command(cls=PlainCommand)
def summary(
    model: ModelArgument,
    classes: ClassesOption = None,
    image_size: ImageSizeOption = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", "--batch", help="Pictures in the batch that is counted.")
    ] = 1,
) -> None:
    """List a network's layers and what they cost.

    Output shape, parameters, FLOPs and bytes of outputs, in all too, and the memory of a training step.
    """
    from minialex.train import summarize
    from minialex.train.compiling import CompileNotice
    from minialex.train.footprint import footprint_of
    from minialex.train.reporter import SilentReporter

    with user_errors(), CompileNotice(SilentReporter().note):
        net = _built(model, classes, image_size, {"--batch-size": batch_size})
        try:
            text = str(summarize(net, model, batch_size))
        except ValueError as error:  # NumPy's refusal of an array beyond all bounds.
            raise UsageError(str(error)) from error
        print(text)
        print(f"\n{footprint_of(net, batch_size)}")


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


def _built(model: str, classes: int | None, image_size: int | None, counts: dict[str, int]) -> Any:
    """The network. Raises: UsageError for an unknown one, and for options below 1 or that do not fit."""
    from minialex import models
    from minialex.train.setup import check_model

    check_model(model)
    for name, value in {"--classes": classes, "--image-size": image_size, **counts}.items():
        if value is not None and value < 1:
            raise UsageError(f"{name} must be at least 1, got {value}")
    try:
        return models.build(model, classes, image_size)
    except ValueError as error:  # A ShapeError.
        raise UsageError(str(error)) from error


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
        str | None, typer.Option(help="A folder of pictures, or 'drawn'. [default: random numbers]")
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
            help="One operation, by its rows or with shapes of your own: conv2d --x 2,3,13,13 --weight "
            "8,3,5,5 --stride 2. Its own --help tells its options. [default: the rows of all operations]",
            show_default=False,
        ),
    ] = None,
    list_ops: Annotated[bool, typer.Option("--list", help="List the operations and their options.")] = False,
    model: Annotated[
        str | None, typer.Option(help="A whole network: flowers, single, grouped, owt or lenet5.")
    ] = None,
    function: Annotated[
        str | None, typer.Option(metavar="FILE.py:NAME", help="A function of Tensors, an Op, or a module.")
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
        typer.Option("--mutate", help="Plant typical bugs, one at a time, and tell what notices each."),
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

    everything = not words and model is None and function is None
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


def main() -> None:
    """The entry point of the `minialex` command and of `python -m minialex`."""
    app(prog_name="minialex")
