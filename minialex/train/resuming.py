"""A run that goes on: everything as its checkpoint says, and nothing that would make it another run."""

from __future__ import annotations

from pathlib import Path

from minialex.errors import CheckpointError, DataError
from minialex.train.checkpoint import Checkpoint, Position
from minialex.train.config import TrainConfig
from minialex.train.files import atomic_write
from minialex.train.machine import differences, environment
from minialex.train.metrics import RunningMean
from minialex.train.networks import freeze_modules, model_of
from minialex.train.optimization import build_optimizer
from minialex.train.preprocessing import Preprocessing
from minialex.train.reporter import Reporter
from minialex.train.run import Parts, Run
from minialex.train.run_folder import BEST, RunFolder

__all__ = ["check_same_data", "resumed_run"]


def resumed_run(
    config: TrainConfig,
    device: str,
    parts: Parts,
    checkpoint: Checkpoint,
    path: Path,
    folder: RunFolder,
    reporter: Reporter,
) -> Run:
    """The run of the checkpoint at `path`, as it stood then; from now on it is written to `folder`.

    Raises: CheckpointError if the checkpoint does not fit this version, or its best epoch's file is missing.
    """
    model = model_of(checkpoint, path, device)
    if config.freeze is not None:
        freeze_modules(model, config.freeze)
    optimizer, schedule = build_optimizer(config, model)
    preprocessing = Preprocessing(checkpoint.preprocessing, checkpoint.preprocessing_arrays)
    run = Run(config, device, parts, model, optimizer, schedule, preprocessing, folder, reporter)
    _restore(run, path, checkpoint)
    _bring_best(run, path.parent)
    changes = differences(checkpoint.environment, environment(device))
    if changes:
        reporter.warn(
            f"the run was begun elsewhere ({', '.join(changes)}): it goes on, but its last digits may differ "
            "from those of an unbroken run"
        )
    return run


def check_same_data(parts: Parts, checkpoint: Checkpoint) -> None:
    """Raises: DataError if these are not the pictures that the run was begun with."""
    if parts.split.digest != checkpoint.split_digest:
        raise DataError(
            f"the pictures in {parts.dataset.root} are not those that the run was begun with: it had "
            f"{sum(checkpoint.part_sizes):,} of {len(checkpoint.classes)} classes, and here are "
            f"{sum(parts.sizes):,} of {len(parts.dataset.classes)}, or other files under the same names; "
            "put them back as they were (split.json lists them), or start a new run"
        )


def _restore(run: Run, path: Path, checkpoint: Checkpoint) -> None:
    try:
        run.optimizer.load_state_dict(checkpoint.optimizer | checkpoint.optimizer_arrays)
        run.schedule.load_state_dict(checkpoint.schedule)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    run.position = checkpoint.position
    run.running = RunningMean(**checkpoint.running)
    run.history = list(checkpoint.history)
    run.best = checkpoint.best


def _bring_best(run: Run, source: Path) -> None:
    """See to it that the best epoch's file is in the run's folder; `source` is the checkpoint's.

    Raises: CheckpointError if it is in neither: the end of the run would miss it, hours later.
    """
    if run.best is None or (run.folder / BEST).exists():
        return
    if (source / BEST).exists():
        content = (source / BEST).read_bytes()
        atomic_write(run.folder / BEST, lambda file: file.write(content))
    elif run.position == Position(run.best.epoch + 1, 0, run.position.step):
        run.save(BEST)  # These are the best epoch's weights.
    else:
        raise CheckpointError(
            f"{source / BEST} is missing: it holds the network of epoch {run.best.epoch}, the best so far; "
            "put it back beside the checkpoint, or start a new run"
        )
