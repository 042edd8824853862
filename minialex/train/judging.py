"""A trained network against pictures: its own test part, or any folder with the same classes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minialex.data import Loader, Split, open_dataset, parse_fractions, stratified_split, subset
from minialex.errors import CheckpointError, DataError, UsageError
from minialex.train.checkpoint import Checkpoint
from minialex.train.config import TrainConfig
from minialex.train.evaluation import evaluate
from minialex.train.input_pipeline import count_threads
from minialex.train.metrics import Evaluation, wilson_interval
from minialex.train.predictor import Predictor
from minialex.train.reporter import Reporter
from minialex.train.run_folder import find_network

PARTS = ("test", "validation", "train", "all")


@dataclass(frozen=True)
class Judgement:
    """An evaluation, of which part of which pictures."""

    evaluation: Evaluation
    part: str
    dataset: Any
    description: str
    classes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The figures for another program."""
        evaluation = self.evaluation
        low, high = wilson_interval(evaluation.correct, len(evaluation.labels))
        return {
            "part": self.part,
            "pictures": len(evaluation.labels),
            "correct": evaluation.correct,
            "accuracy": evaluation.accuracy,
            "interval": [low, high],
            "loss": evaluation.loss,
            "classes": list(self.classes),
            "confusion": evaluation.confusion().tolist(),
        }


def judge(
    predictor: Predictor,
    checkpoint_path: Path,
    reporter: Reporter,
    *,
    data: str | None = None,
    part: str | None = None,
    batch_size: int = 32,
    workers: int = 0,
) -> Judgement:
    """Evaluate a checkpoint's network.

    Args:   data: the folder; None takes the one that the run was trained on. part: "test", "validation" or
            "train" of the run's own split, or "all" pictures of the folder; None takes the test part, or the
            validation part of a run without one; and all of a `data` that is not the run's, saying so.
    Raises: DataError if the folder's classes or pictures are not those that the checkpoint knows.
    """
    checkpoint, checkpoint_path = predictor.checkpoint, find_network(checkpoint_path)
    if part not in (None, *PARTS):
        raise UsageError(f"--part must be one of {', '.join(PARTS)}, got {part!r}")
    for name, value, least in (("--batch-size", batch_size, 1), ("--workers", workers, 0)):
        if value < least:
            raise UsageError(f"{name} must be at least {least}, got {value}")
    config = TrainConfig.from_dict(checkpoint.config)
    folder = data if data is not None else config.data
    dataset, description = open_dataset(folder, on_bad_image=config.on_bad_image, say=reporter.say)
    known = _known_labels(dataset, checkpoint)
    part, indices = _choose(part, dataset, checkpoint, config, checkpoint_path, reporter, data is not None)
    if not len(indices):
        raise UsageError(f"--part {part}: the run's split has no such part; it was --split {config.split}")
    loader = Loader(
        dataset, indices, predictor.transform, batch_size, workers=workers, threads=count_threads()
    )
    with loader, reporter.bar(part, 0, len(loader)) as bar:
        evaluation = evaluate(predictor.model, loader.epoch(0), predictor.device, bar.update)
    evaluation = _relabelled(evaluation, known)
    return Judgement(evaluation, part, dataset, description, checkpoint.classes)


def _choose(
    part: str | None,
    dataset: Any,
    checkpoint: Checkpoint,
    config: TrainConfig,
    path: Path,
    reporter: Reporter,
    other_data: bool,
) -> tuple[str, Any]:
    """The part to evaluate, and its pictures' numbers."""
    everything = np.arange(len(dataset))
    if part == "all":
        return part, everything
    usual = "test" if checkpoint.part_sizes[2] else "validation"
    try:
        return part or usual, getattr(own_split(dataset, checkpoint, config, path), part or usual)
    except DataError:
        if part is not None or not other_data:
            raise
    reporter.say(
        f"these are not the pictures of the run, which has no parts in {dataset.root}: "
        f"measuring all {len(dataset):,} of them"
    )
    if count := _trained_on(dataset, path.parent / "split.json"):
        reporter.warn(
            f"the network was trained on {count:,} of these pictures: the accuracy on new ones will be lower"
        )
    return "all", everything


def _trained_on(dataset: Any, manifest: Path) -> int:
    """How many of the pictures are in the training part of the run's manifest; 0 where there is none."""
    if not manifest.exists():
        return 0
    seen = {entry["sha256"] for entry in _read_manifest(manifest)["parts"]["train"]}
    return sum(dataset.digest(index) in seen for index in range(len(dataset)))


def _read_manifest(manifest: Path) -> Any:
    try:
        return json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{manifest} cannot be read ({error}); restore it, or remove it") from error


def _relabelled(evaluation: Evaluation, known: Any) -> Evaluation:
    """From the folder's class numbers to the checkpoint's: a folder may hold fewer classes."""
    labels = known[evaluation.labels]
    right = evaluation.probabilities[np.arange(len(labels)), labels]
    # The logarithm of a probability that float32 has rounded to zero would be infinite.
    loss = float(-np.log(np.maximum(right.astype(np.float64), 1e-38)).mean())
    return Evaluation(loss, evaluation.probabilities, labels, evaluation.indices)


def _known_labels(dataset: Any, checkpoint: Checkpoint) -> Any:
    """For each class of the folder, its number in the checkpoint. Raises: DataError for unknown classes."""
    unknown = [name for name in dataset.classes if name not in checkpoint.classes]
    if unknown:
        raise DataError(
            f"{dataset.root} has classes that the network does not know: {', '.join(unknown[:5])}; "
            f"it knows {', '.join(checkpoint.classes[:20])}"
        )
    return np.array([checkpoint.classes.index(name) for name in dataset.classes])


def own_split(dataset: Any, checkpoint: Checkpoint, config: TrainConfig, path: Path) -> Split:
    """The split that the run was made with: from split.json beside the checkpoint, else made again.

    Raises: DataError if the pictures are not the run's.
    """
    strange = DataError(
        f"the pictures in {dataset.root} are not those of the checkpoint's run, so that its parts "
        "cannot be told apart; --part all evaluates on every picture of the folder"
    )
    manifest = path.parent / "split.json"
    if tuple(dataset.classes) != checkpoint.classes:
        raise strange
    if manifest.exists():
        split = _split_in(manifest, dataset)
    else:
        chosen = None if config.limit is None else subset(dataset, config.limit, config.seed)
        split = stratified_split(dataset, parse_fractions(config.split), config.seed, chosen)
    if split.digest != checkpoint.split_digest:
        raise strange
    return split


def _split_in(manifest: Path, dataset: Any) -> Split:
    try:
        return Split.from_manifest(_read_manifest(manifest), dataset)
    except DataError as error:
        raise DataError(f"{error}\n--part all evaluates on every picture of the folder.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{manifest} cannot be read ({error}); restore it, or remove it") from error
