"""A trained network against pictures: its own test part, or any folder with the same classes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minialex.data import Loader, MemoryCache, Split, divide, open_dataset, parse_fractions
from minialex.errors import CheckpointError, DataError, UsageError
from minialex.train.checkpoint import Checkpoint
from minialex.train.config import TrainConfig
from minialex.train.crops import TenCrops
from minialex.train.evaluation import evaluate, log_loss
from minialex.train.input_pipeline import count_threads
from minialex.train.metrics import Evaluation, wilson_interval
from minialex.train.predictor import Predictor
from minialex.train.reporter import Reporter
from minialex.train.run_folder import find_network

PARTS = ("test", "validation", "train", "all")
CROPS = (1, 10)
TOP = 5  # The classes that a top-5 answer names.


@dataclass(frozen=True)
class Judgement:
    """An evaluation, of which part of which pictures, from how many crops of each."""

    evaluation: Evaluation
    part: str
    dataset: Any
    description: str
    classes: tuple[str, ...]
    crops: int = 1

    def to_json(self) -> dict[str, Any]:
        """The figures for another program."""
        return {
            "part": self.part,
            "pictures": len(self.evaluation.labels),
            "classes": list(self.classes),
            "crops": self.crops,
            **figures_of(self.evaluation),
        }


def figures_of(evaluation: Evaluation) -> dict[str, Any]:
    """What an evaluation says, for another program. Top-5 is None where there are five classes or fewer."""
    low, high = wilson_interval(evaluation.correct, len(evaluation.labels))
    top5 = evaluation.probabilities.shape[1] > TOP
    return {
        "correct": evaluation.correct,
        "accuracy": evaluation.accuracy,
        "interval": [low, high],
        "top1_error": evaluation.error(),
        "top1_error_interval": list(evaluation.error_interval()),
        "top5_error": evaluation.error(TOP) if top5 else None,
        "top5_error_interval": list(evaluation.error_interval(TOP)) if top5 else None,
        "loss": evaluation.loss,
        "confusion": evaluation.confusion().tolist(),
    }


@dataclass(frozen=True)
class Questions:
    """The pictures that networks are asked about.

    Attributes: part: their name; indices: into the data set; known: for each class of the data set, its
                number in the checkpoint; description: of the data set.
    """

    dataset: Any
    part: str
    indices: Any
    known: Any
    description: str


def judge(
    predictor: Predictor,
    checkpoint_path: Path,
    reporter: Reporter,
    *,
    data: str | None = None,
    part: str | None = None,
    batch_size: int = 32,
    workers: int = 0,
    crops: int = 1,
) -> Judgement:
    """Evaluate a checkpoint's network.

    Args:   data: the folder; None takes the one that the run was trained on. part: "test", "validation" or
            "train" of the run's own split, or "all" pictures of the folder; None takes the test part, or the
            validation part of a run without one; and all of a `data` that is not the run's, saying so.
            crops: 1, or 10 for the mean answer to ten parts of each picture (`TenCrops`).
    Raises: DataError if the folder's classes or pictures are not those that the checkpoint knows.
    """
    check_options(part, batch_size, workers, crops)
    questions = choose_questions(
        predictor.checkpoint, find_network(checkpoint_path), reporter, data=data, part=part
    )
    evaluation = answers(predictor, questions, reporter, crops=crops, batch_size=batch_size, workers=workers)
    return Judgement(
        evaluation, questions.part, questions.dataset, questions.description, predictor.classes, crops
    )


def check_options(part: str | None, batch_size: int, workers: int, crops: int) -> None:
    """Raises: UsageError naming the option that makes no sense."""
    if part is not None:
        check_part(part)
    for name, value, least in (("--batch-size", batch_size, 1), ("--workers", workers, 0)):
        if value < least:
            raise UsageError(f"{name} must be at least {least}, got {value}")
    if crops not in CROPS:
        raise UsageError(f"--crops must be 1 or 10, got {crops}")


def check_part(part: str) -> None:
    """Raises: UsageError that lists the parts, if this is none."""
    if part not in PARTS:
        raise UsageError(f"--part must be one of {', '.join(PARTS)}, got {part!r}")


def choose_questions(
    checkpoint: Checkpoint, path: Path, reporter: Reporter, *, data: str | None, part: str | None
) -> Questions:
    """The pictures for a checkpoint. Args, errors: as `judge`; path: of the checkpoint's file."""
    config = TrainConfig.from_dict(checkpoint.config)
    folder = data if data is not None else config.data
    dataset, description = open_dataset(folder, on_bad_image=config.on_bad_image, say=reporter.say)
    known = _known_labels(dataset, checkpoint)
    part, indices = _choose(part, dataset, checkpoint, config, path, reporter, data is not None)
    return Questions(dataset, part, indices, known, description)


def answers(
    predictor: Predictor,
    questions: Questions,
    reporter: Reporter,
    *,
    crops: int = 1,
    batch_size: int = 32,
    workers: int = 0,
    cache: MemoryCache | None = None,
    title: str | None = None,
) -> Evaluation:
    """What a network answers, in batches.

    Args:   cache: of decoded pictures, where several networks are asked one after the other.
    Raises: UsageError if there is no way to take ten crops of the network's pictures.
    """
    ten = TenCrops.like(predictor.transform) if crops == 10 else None
    loader = Loader(
        questions.dataset,
        questions.indices,
        predictor.transform if ten is None else ten.larger,
        batch_size,
        workers=workers,
        threads=count_threads(),
        cache=cache,
    )
    with loader, reporter.bar(title or questions.part, 0, len(loader)) as bar:
        batches = loader.epoch(0) if ten is None else ten.batches(loader.epoch(0))
        evaluation = evaluate(predictor.model, batches, predictor.device, bar.update, views=crops)
    return _relabelled(evaluation, questions.known)


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
    wanted = part or ("test" if checkpoint.part_sizes[2] else "validation")
    try:
        return wanted, own_part(dataset, checkpoint, config, path, wanted)
    except DataError:
        if part is not None or not other_data:
            raise
    reporter.say(
        f"these are not the pictures of the run, which has no parts in {dataset.root}: "
        f"measuring all {len(dataset):,} of them"
    )
    seen = (digests_in_manifest(path) or {"train": set()})["train"]
    if count := sum(dataset.digest(index) in seen for index in range(len(dataset))):
        reporter.warn(
            f"the network was trained on {count:,} of these pictures: the accuracy on new ones will be lower"
        )
    return "all", np.arange(len(dataset))


def digests_of(dataset: Any, indices: Any) -> set[str]:
    """The SHA-256 of pictures."""
    return {dataset.digest(int(index)) for index in indices}


def digests_in_manifest(path: Path) -> dict[str, set[str]] | None:
    """For each part the SHA-256 of its pictures, out of split.json beside the checkpoint; None without."""
    manifest = path.parent / "split.json"
    if not manifest.exists():
        return None
    parts = _read_manifest(manifest)
    try:
        return {part: {entry["sha256"] for entry in parts["parts"][part]} for part in PARTS[:3]}
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{manifest} is no split ({error!r}); restore it, or remove it") from error


def _read_manifest(manifest: Path) -> Any:
    try:
        return json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{manifest} cannot be read ({error}); restore it, or remove it") from error


def _relabelled(evaluation: Evaluation, known: Any) -> Evaluation:
    """From the folder's class numbers to the checkpoint's: a folder may hold fewer classes."""
    labels = known[evaluation.labels]
    loss = log_loss(evaluation.probabilities, labels)
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
        split = divide(dataset, parse_fractions(config.split), config.seed_of_split, config.limit)
    if split.digest != checkpoint.split_digest:
        raise strange
    return split


def own_part(
    dataset: Any, checkpoint: Checkpoint, config: TrainConfig, path: Path, part: str
) -> npt.NDArray[np.int64]:
    """The numbers of the pictures in a part of the run's own split; "all" are all of the data set.

    Raises: UsageError for a part that the run's split does not have; DataError as `own_split`.
    """
    if part == "all":
        return np.arange(len(dataset))
    indices = getattr(own_split(dataset, checkpoint, config, path), part)
    if not len(indices):
        raise UsageError(f"--part {part}: the run's split has no such part; it was --split {config.split}")
    return np.asarray(indices, dtype=np.int64)


def _split_in(manifest: Path, dataset: Any) -> Split:
    try:
        return Split.from_manifest(_read_manifest(manifest), dataset)
    except DataError as error:
        raise DataError(f"{error}\n--part all evaluates on every picture of the folder.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{manifest} cannot be read ({error}); restore it, or remove it") from error
