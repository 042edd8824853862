"""`minialex predict` and `minialex evaluate`: what a trained network is good for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

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
