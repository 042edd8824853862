"""`minialex train`, and its options for scripts that train in their own way."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from minialex.cli.shared import DeviceOption, app, user_errors

if TYPE_CHECKING:
    from minialex.train import TrainConfig

__all__ = ["training_script", "with_training_flags"]


def with_training_flags(run: Callable[[TrainConfig], None]) -> Callable[..., None]:
    """A command with all options of a training run, which calls `run` with them as a TrainConfig."""

    def command(
        context: typer.Context,
        data: Annotated[
            str | None,
            typer.Option(
                help="A folder with one folder of pictures a class, or a zip of it; MNIST, CIFAR-10 or "
                "ImageNet as they come; 'digits'; or 'drawn', which are flowers. See docs/data.md. "
                "[default: photographs of flowers, from MINIALEX_DATA, the cache, or the network]"
            ),
        ] = None,
        model: Annotated[
            str,
            typer.Option(
                help="flowers, flowers-tf, single, grouped, owt or six-conv, which are AlexNets, or "
                "lenet5, lenet5-relu or cifar-4."
            ),
        ] = "flowers",
        recipe: Annotated[
            str | None,
            typer.Option(
                help="paper, course, course-tf or scratch: its values for the options that are not given, "
                "instead of the defaults that stand here."
            ),
        ] = None,
        dropout: Annotated[
            float | None,
            typer.Option(
                help="Share of units dropped in all its dropout layers. [default: the network's own]"
            ),
        ] = None,
        lrn: Annotated[
            bool | None,
            typer.Option(
                "--lrn/--no-lrn", help="Local response normalisation. [default: as the network has it]"
            ),
        ] = None,
        pooling: Annotated[
            str | None,
            typer.Option(
                help="overlapping (3 x 3, stride 2) or separate (2 x 2). [default: the network's own]"
            ),
        ] = None,
        activation: Annotated[
            str | None, typer.Option(help="relu, tanh or sigmoid. [default: the network's own]")
        ] = None,
        init: Annotated[
            str | None,
            typer.Option(
                help="First weights: paper, course, pytorch or xavier. [default: the network's own]"
            ),
        ] = None,
        weights: Annotated[
            str | None,
            typer.Option(
                metavar="FILE",
                help="Start from these: a run's folder, a checkpoint, safetensors or .pth; without the last "
                "layer if that is for another number of classes.",
            ),
        ] = None,
        freeze: Annotated[
            str | None,
            typer.Option(
                metavar="NAMES", help="Parts that are not trained, such as features; commas between several."
            ),
        ] = None,
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
            float | None, typer.Option(help="How weights shrink. [default: 0 for adam, 5e-4 for sgd]")
        ] = None,
        momentum: Annotated[float | None, typer.Option(help="For sgd. [default: 0.9]")] = None,
        sgd_rule: Annotated[
            str, typer.Option(help="What momentum and weight decay mean in sgd: torch or paper.")
        ] = "torch",
        schedule: Annotated[
            str,
            typer.Option(
                help="How lr falls: constant, step[:EPOCHS], multistep[:A,B,...], plateau[:PATIENCE] of the "
                "validation loss, plateau-error[:PATIENCE] of the validation error, or "
                "cosine[:WARM-UP EPOCHS]."
            ),
        ] = "constant",
        accumulate: Annotated[int, typer.Option(help="Batches whose gradients make one step.")] = 1,
        clip_norm: Annotated[float | None, typer.Option(help="Longest gradient. [default: no limit]")] = None,
        augment: Annotated[
            bool,
            typer.Option(
                "--augment/--no-augment", help="Change training pictures at random: crops, flips, colours."
            ),
        ] = True,
        crops: Annotated[
            str,
            typer.Option(
                help="scaled: parts of any size, scaled to the network's. fixed: parts of the network's "
                "size, out of whole pictures a seventh larger. paper: out of their middle squares. whole: "
                "all of a picture."
            ),
        ] = "scaled",
        crop_scale: Annotated[
            float,
            typer.Option(help="Smallest part of a training picture's area that a scaled crop takes."),
        ] = 0.08,
        pca_jitter: Annotated[
            float, typer.Option(help="Sigma of the paper's colour jitter, which has 0.1; 0 for none.")
        ] = 0.0,
        normalize: Annotated[
            str,
            typer.Option(
                help="What pixels become: half (-1 to 1), unit (0 to 1), mean-colour or mean-image (0 to 255 "
                "less the training pictures' mean), or imagenet (torchvision's)."
            ),
        ] = "half",
        seed: Annotated[int, typer.Option(help="Decides weights, split, order, crops and dropout.")] = 0,
        split_seed: Annotated[
            int | None, typer.Option(help="Decides the split alone. [default: --seed's number]")
        ] = None,
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
                "memory and takes no --crops scaled. [default: memory; disk with --workers]"
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


def _train(config: TrainConfig) -> None:
    """Train a network, or go on with a run."""
    from minialex.train import train

    train(config)


app.command("train")(with_training_flags(_train))
