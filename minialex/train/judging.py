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
from minialex.train.metrics import Evaluation, wilson_interval
from minialex.train.predictor import Predictor
from minialex.train.reporter import Reporter

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
            validation part of a run without one.
    Raises: DataError if the folder's classes or pictures are not those that the checkpoint knows.
    """
    checkpoint = predictor.checkpoint
    part = part or ("test" if checkpoint.part_sizes[2] else "validation")
    if part not in PARTS:
        raise UsageError(f"--part must be one of {', '.join(PARTS)}, got {part!r}")
    config = TrainConfig.from_dict(checkpoint.config)
    folder = data if data is not None else config.data
    dataset, description = open_dataset(folder, on_bad_image=config.on_bad_image, say=reporter.say)
    if part == "all":
        known, indices = _known_labels(dataset, checkpoint), np.arange(len(dataset))
    else:
        known = np.arange(len(checkpoint.classes))
        indices = getattr(own_split(dataset, checkpoint, config, checkpoint_path), part)
    if not len(indices):
        raise UsageError(f"--part {part}: the run's split has no such part; it was --split {config.split}")
    loader = Loader(dataset, indices, predictor.transform, batch_size, workers=workers)
    with loader, reporter.bar(part, 0, len(loader)) as bar:
        evaluation = evaluate(predictor.model, loader.epoch(0), predictor.device, bar.update)
    evaluation = _relabelled(evaluation, known)
    return Judgement(evaluation, part, dataset, description, checkpoint.classes)


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
    manifest = path.parent / "split.json"
    if manifest.exists():
        try:
            split = Split.from_manifest(json.loads(manifest.read_text(encoding="utf-8")), dataset)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{manifest} cannot be read ({error}); restore it, or remove it") from error
    else:
        chosen = None if config.limit is None else subset(dataset, config.limit, config.seed)
        split = stratified_split(dataset, parse_fractions(config.split), config.seed, chosen)
    if split.digest != checkpoint.split_digest:
        raise DataError(
            f"the pictures in {dataset.root} are not those of the checkpoint's run, so that its parts "
            "cannot be told apart; --part all evaluates on every picture of the folder"
        )
    return split
