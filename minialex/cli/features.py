"""`minialex features`: what a layer of a trained network makes of each picture, in a file of numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from minialex.cli.shared import CheckpointArgument, DeviceOption, PlainCommand, app, user_errors
from minialex.errors import OutputError, UsageError

__all__ = ["extract"]


@app.command("features", cls=PlainCommand)
def extract(
    checkpoint: CheckpointArgument,
    data: Annotated[
        str | None,
        typer.Argument(metavar="DATA", help="The pictures. [default: what the run was trained on]"),
    ] = None,
    out: Annotated[Path, typer.Option(help="The file of numbers, one row a picture.")] = Path("features.npy"),
    layer: Annotated[
        str | None,
        typer.Option(
            help="A layer such as classifier.5 or features.0; a wrong one lists them. [default: the last "
            "hidden one: of an AlexNet the second hidden fully connected layer, after its ReLU]"
        ),
    ] = None,
    part: Annotated[
        str, typer.Option(help="test, validation or train of the run's own split, or all.")
    ] = "all",
    device: DeviceOption = "auto",
    batch_size: Annotated[int, typer.Option(help="Pictures in a batch.")] = 32,
) -> None:
    """Write what a layer makes of each picture.

    One row of numbers a picture into a .npy file, which numpy.load reads. The pictures' names and classes go
    into a .json file beside it.
    """
    from minialex.data import Loader, open_dataset
    from minialex.train import load
    from minialex.train.compiling import CompileNotice
    from minialex.train.config import TrainConfig
    from minialex.train.features import Notes, choose_layer, extract_features, part_indices, save_features
    from minialex.train.input_pipeline import count_threads
    from minialex.train.reporter import default_reporter
    from minialex.train.run_folder import find_network

    reporter = default_reporter()
    with user_errors(), CompileNotice(reporter.note):
        _check_out(out)
        if batch_size < 1:
            raise UsageError(f"--batch-size must be at least 1, got {batch_size}")
        predictor, path = load(checkpoint, device, reporter.say), find_network(checkpoint)
        # What can be refused without a look at thousands of pictures is refused first.
        layer = choose_layer(predictor.model, layer)
        config = TrainConfig.from_dict(predictor.checkpoint.config)
        dataset, description = open_dataset(
            config.data if data is None else data, on_bad_image=config.on_bad_image, say=reporter.say
        )
        reporter.say(f"data: {description}")
        indices = part_indices(predictor, path, dataset, part)
        loader = Loader(dataset, indices, predictor.transform, batch_size, threads=count_threads())
        with loader:
            names, rows = extract_features(predictor, loader, layer, Notes(reporter.note))
        what = {"checkpoint": str(path.resolve()), "model": predictor.checkpoint.model_name, "layer": layer}
        which = {"data": str(dataset.root), "part": part, "shape": list(rows.shape)}
        labels = dataset.labels[indices].tolist()
        each = {"classes": list(dataset.classes), "labels": labels, "names": names}
        save_features(out, rows, what | which | each)
        reporter.say(f"{layer}: {rows.shape[0]:,} pictures, {rows.shape[1]:,} numbers each")
        reporter.say(f"written to {out}; names and classes to {out.with_suffix('.json')}")


def _check_out(out: Path) -> None:
    """Raises: UsageError, OutputError: now, and not when the work is done."""
    if out.suffix != ".npy":
        raise UsageError(f"--out must end in .npy, got {out}; the names go into a .json file beside it")
    if not out.parent.is_dir():
        raise OutputError(f"cannot write {out}: there is no folder {out.parent}; make it, or choose another")
