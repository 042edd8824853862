"""Several trained networks against the same pictures, each alone and all together.

Every network answers about one picture as a whole, or about ten crops of it, and the answers are averaged:
over the crops first, then over the networks. None of them may have been trained on the pictures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minialex.data import MemoryCache, memory_budget
from minialex.errors import DataError, UsageError
from minialex.train.config import TrainConfig
from minialex.train.crops import TenCrops
from minialex.train.evaluation import averaged
from minialex.train.judging import (
    Questions,
    answers,
    check_options,
    choose_questions,
    digests_in_manifest,
    digests_of,
    figures_of,
    own_split,
)
from minialex.train.metrics import Evaluation
from minialex.train.paired import PairedDifference, paired_difference
from minialex.train.predictor import Predictor, load
from minialex.train.reporter import Reporter
from minialex.train.run_folder import find_network

__all__ = [
    "Comparison",
    "Effect",
    "Network",
    "Row",
    "average_row",
    "crops_text",
    "judge_each",
    "judge_together",
    "load_networks",
]


@dataclass(frozen=True)
class Network:
    """A trained network: what the user called it, the file, and what answers."""

    name: str
    path: Path
    predictor: Predictor


@dataclass(frozen=True)
class Row:
    """The answers of one network, or the mean of those of several, to so many crops of each picture."""

    names: tuple[str, ...]
    crops: int
    evaluation: Evaluation

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether the most probable class is the true one, picture by picture."""
        return self.evaluation.predictions == self.evaluation.labels


@dataclass(frozen=True)
class Effect:
    """What a technique changes in the accuracy, and of what."""

    change: str
    of: str
    difference: PairedDifference


@dataclass(frozen=True)
class Comparison:
    """Rows of the table: each network with its numbers of crops, then the average of all with each.

    Attributes: part, dataset, description, classes: as in `Judgement`.
    """

    rows: tuple[Row, ...]
    part: str
    dataset: Any
    description: str
    classes: tuple[str, ...]

    @property
    def crops(self) -> list[int]:
        """The numbers of crops that were tried."""
        return sorted({row.crops for row in self.rows})

    def singles(self, crops: int) -> list[Row]:
        """The networks each alone."""
        return [row for row in self.rows if row.crops == crops and len(row.names) == 1]

    def average(self, crops: int) -> Row | None:
        """The average of all; None for one network."""
        return next((row for row in self.rows if row.crops == crops and len(row.names) > 1), None)

    def effects(self) -> list[Effect]:
        """What ten crops change, and what the average does with the most crops that were tried."""
        most = self.crops[-1]
        alone, average = [row.correct for row in self.singles(most)], self.average(most)
        whole = self.average(1)
        found = []
        if most > 1:
            change = f"{most} crops instead of 1"
            of = "one network" if len(alone) == 1 else f"{len(alone)} networks, each alone"
            before = [row.correct for row in self.singles(1)]
            found.append(Effect(change, of, paired_difference(before, alone)))
            if average is not None and whole is not None:
                difference = paired_difference(whole.correct, average.correct)
                found.append(Effect(change, f"the average of {len(alone)}", difference))
        if average is not None:
            change = f"the average of {len(alone)} networks instead of one of them, on average"
            found.append(Effect(change, crops_text(most), paired_difference(alone, average.correct)))
        return found

    def to_json(self) -> dict[str, Any]:
        """The figures for another program."""
        return {
            "part": self.part,
            "pictures": len(self.rows[0].evaluation.labels),
            "classes": list(self.classes),
            "results": [
                {"checkpoints": list(row.names), "crops": row.crops, **figures_of(row.evaluation)}
                for row in self.rows
            ],
            "effects": [
                {"change": effect.change, "of": effect.of, **effect.difference.to_json()}
                for effect in self.effects()
            ],
        }


def crops_text(crops: int) -> str:
    """1 -> "1 crop", 10 -> "10 crops"."""
    return f"{crops} crop{'s' * (crops > 1)}"


def load_networks(
    checkpoints: Sequence[str | Path], device: str = "cpu", say: Callable[[str], object] = print
) -> list[Network]:
    """The networks of checkpoints that are to be judged together; of each only the weights stay in memory.

    Raises: UsageError if one is named twice or the classes differ; CheckpointError, DeviceError as `load`.
    """
    networks: list[Network] = []
    for checkpoint in checkpoints:
        path = find_network(checkpoint)
        if any(path.resolve() == other.path.resolve() for other in networks):
            raise UsageError(f"{checkpoint} is named twice; an average of one network with itself is itself")
        # What "auto" chose for the first is said once, and holds for all.
        predictor = load(path, networks[0].predictor.device if networks else device, say)
        # Adam remembers two numbers for every weight, and the model has the weights already.
        predictor.checkpoint = dataclasses.replace(predictor.checkpoint, weights={}, optimizer_arrays={})
        networks.append(Network(str(checkpoint), path, predictor))
        first, classes = networks[0], predictor.classes
        if classes != first.predictor.classes:
            raise UsageError(
                f"{checkpoint} answers with the classes {_listed(classes)}, and {first.name} with "
                f"{_listed(first.predictor.classes)}; judge networks of the same classes together"
            )
    return networks


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f", ... ({len(names)})" if len(names) > 8 else "")


def judge_together(networks: Sequence[Network], reporter: Reporter, **options: Any) -> Comparison:
    """Evaluate each network, and the average of all. Args, errors: as `judge_each`."""
    result = judge_each(networks, reporter, **options)
    if len(networks) == 1:
        return result
    averages = [average_row(result.singles(crops)) for crops in result.crops]
    return dataclasses.replace(result, rows=(*result.rows, *averages))


def average_row(rows: Sequence[Row]) -> Row:
    """The networks of several rows as one. They have the same number of crops."""
    names = tuple(name for row in rows for name in row.names)
    return Row(names, rows[0].crops, averaged([row.evaluation for row in rows]))


def judge_each(
    networks: Sequence[Network],
    reporter: Reporter,
    *,
    data: str | None = None,
    part: str | None = None,
    batch_size: int = 32,
    workers: int = 0,
    crops: int = 1,
) -> Comparison:
    """Evaluate each network with one crop, and with 10 too if `crops` is.

    Args:   data, part: as in `judge`, for the first network, whose pictures all are asked about.
            crops: 1 or 10.
    Raises: UsageError if one network was trained on pictures that another is tested on; else as `judge`.
    """
    check_options(part, batch_size, workers, crops)
    if crops == 10:
        for network in networks:
            TenCrops.like(network.predictor.transform)  # Refuses before anything takes time.
    first = networks[0]
    questions = choose_questions(first.predictor.checkpoint, first.path, reporter, data=data, part=part)
    if part != "all":
        for network in networks[1:]:
            _check_unseen(network, first, questions, reporter)
    # Pictures are decoded once for all networks of one size, as far as the memory reaches.
    cache = MemoryCache(memory_budget(None)) if len(networks) > 1 and not workers else None
    loading: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "cache": cache}
    rows = []
    for number, network in enumerate(networks, 1):
        for count in sorted({1, crops}):
            title = f"network {number}/{len(networks)}, {crops_text(count)}"
            asked = answers(network.predictor, questions, reporter, crops=count, title=title, **loading)
            rows.append(Row((network.name,), count, asked))
    return Comparison(
        tuple(rows), questions.part, questions.dataset, questions.description, first.predictor.classes
    )


def _check_unseen(network: Network, first: Network, questions: Questions, reporter: Reporter) -> None:
    """Raises: UsageError if the network was trained on pictures that are to be new to all."""
    asked = digests_of(questions.dataset, questions.indices)
    seen = _pictures_of(network, questions.dataset)
    if seen is None:
        reporter.warn(
            f"nothing tells on which pictures {network.name} was trained: if these are among them, its "
            "figures are too good, and so are those of the average"
        )
        return
    trained, chosen = seen
    both = len(asked & trained)
    if questions.part == "train":
        if both < len(asked):
            reporter.warn(f"{network.name} was trained on {both:,} of these {len(asked):,} pictures only")
    elif both and questions.part == "all":
        reporter.warn(f"{network.name} was trained on {both:,} of these pictures: its accuracy is too good")
    elif both:
        raise UsageError(
            f"{network.name} was trained on {both:,} of the {len(asked):,} {questions.part} pictures of "
            f"{first.name}, so that it would remember instead of recognise them. Networks that are judged "
            "together must have divided the pictures alike: train them with the same --split-seed (without "
            "it, each --seed divides them otherwise), or judge them on new pictures (--data)"
        )
    elif questions.part == "test" and asked & chosen:
        reporter.warn(
            f"the best epoch of {network.name} was chosen by {len(asked & chosen):,} of these pictures: it "
            "does a little better on them than on new ones"
        )


def _pictures_of(network: Network, dataset: Any) -> tuple[set[str], set[str]] | None:
    """The SHA-256 of what a network was trained on, and of what its epoch was chosen by; None if unknown."""
    if (manifest := digests_in_manifest(network.path)) is not None:
        return manifest["train"], manifest["validation"]
    checkpoint = network.predictor.checkpoint
    try:
        split = own_split(dataset, checkpoint, TrainConfig.from_dict(checkpoint.config), network.path)
    except DataError:
        return None
    return digests_of(dataset, split.train), digests_of(dataset, split.validation)
