"""`minialex predict` and `minialex evaluate`: what a trained network is good for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from minialex.cli.shared import (
    CheckpointArgument,
    DeviceOption,
    JsonOption,
    PlainCommand,
    app,
    show_error,
    user_errors,
)
from minialex.errors import DataError

__all__ = ["evaluate", "predict"]

# Figures for another program, and lines to read.
Answer = tuple[dict[str, Any], list[str]]


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
                show_error(str(error))
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
    checkpoints: Annotated[
        list[Path],
        typer.Argument(
            metavar="CHECKPOINT",
            help="Runs' folders, or best.safetensors in them; several are judged alone and averaged.",
            show_default=False,
        ),
    ],
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
    crops: Annotated[
        int,
        typer.Option(
            help="10 averages the answers to ten parts of each picture: the corners, the centre, mirrored."
        ),
    ] = 1,
    device: DeviceOption = "auto",
    batch_size: Annotated[int, typer.Option(help="Pictures in a batch.")] = 32,
    workers: Annotated[int, typer.Option(help="Processes that load pictures.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Measure trained networks.

    On the test part of their own split, on another part, or on a whole folder of pictures. With several
    networks or with 10 crops: a table of top-1 and top-5 errors, and whether crops and averaging help.
    """
    from minialex.train.compiling import CompileNotice
    from minialex.train.reporter import SilentReporter, default_reporter

    reporter = SilentReporter() if as_json else default_reporter()
    options = {"data": data, "part": part, "batch_size": batch_size, "workers": workers}
    with user_errors(), CompileNotice(reporter.note):
        if len(checkpoints) == 1 and crops == 1:
            figures, lines = _one_network(checkpoints[0], device, reporter, options)
        else:
            figures, lines = _several(checkpoints, device, reporter, {**options, "crops": crops})
        if as_json:
            print(json.dumps(figures, indent=2, ensure_ascii=False))
            return
        for line in lines:
            reporter.say(line)


def _one_network(checkpoint: Path, device: str, reporter: Any, options: dict[str, Any]) -> Answer:
    """The figures, and the lines that say them."""
    from minialex.train import load
    from minialex.train.error_tables import error_lines
    from minialex.train.judging import judge
    from minialex.train.report import accuracy_lines

    predictor = load(checkpoint, device, reporter.say)
    result = judge(predictor, checkpoint, reporter, **options)
    accuracy, *others = accuracy_lines(result.evaluation, predictor.classes, result.part)
    errors = error_lines(result.evaluation, result.part)
    lines = [f"data: {result.description}", accuracy, *errors, *others]
    return result.to_json(), lines


def _several(checkpoints: list[Path], device: str, reporter: Any, options: dict[str, Any]) -> Answer:
    """The figures, and the lines that say them."""
    from minialex.train.ensembles import judge_together, load_networks
    from minialex.train.error_tables import comparison_lines

    networks = load_networks(checkpoints, device, reporter.say)
    result = judge_together(networks, reporter, **options)
    return result.to_json(), [f"data: {result.description}", *comparison_lines(result)]
