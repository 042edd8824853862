"""A run between its first and its last step: all of it that a checkpoint keeps."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from minialex.data import Loader, PictureCache, Split
from minialex.train.checkpoint import Best, Checkpoint, Position, save_checkpoint, split_state
from minialex.train.config import TrainConfig
from minialex.train.device_pictures import DevicePictures
from minialex.train.history import EpochRecord
from minialex.train.input_pipeline import count_threads, count_workers, on_the_device
from minialex.train.machine import environment
from minialex.train.metrics import RunningMean
from minialex.train.preprocessing import Preprocessing
from minialex.train.reporter import Reporter
from minialex.train.run_folder import RunFolder

__all__ = ["Parts", "Run"]


@dataclass
class Parts:
    """The data set, how it was divided, and what it is called."""

    dataset: Any
    split: Split
    description: str

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Pictures to train on, to choose by, and to test on."""
        return len(self.split.train), len(self.split.validation), len(self.split.test)


@dataclass
class Run:
    """A run between its first and its last step; `checkpoint()` is all of it that must not be lost."""

    config: TrainConfig
    device: str
    parts: Parts
    model: Any
    optimizer: Any
    schedule: Any
    preprocessing: Preprocessing
    folder: RunFolder
    reporter: Reporter
    position: Position = field(default_factory=Position)
    running: RunningMean = field(default_factory=RunningMean)
    history: list[EpochRecord] = field(default_factory=list)
    best: Best | None = None
    cache: PictureCache | None = None

    def checkpoint(self) -> Checkpoint:
        """The run as it stands, on the host."""
        optimizer, arrays = split_state(self.optimizer.state_dict())
        return Checkpoint(
            model_name=self.config.model,
            image_size=self.model.image_size,
            channels=self.model.channels,
            classes=tuple(self.parts.dataset.classes),
            preprocessing=self.preprocessing.config,
            config=self.config.to_dict(),
            seed=self.config.seed,
            split_digest=self.parts.split.digest,
            part_sizes=self.parts.sizes,
            position=self.position,
            running=dataclasses.asdict(self.running),
            history=tuple(self.history),
            best=self.best,
            environment=environment(self.device),
            optimizer=optimizer,
            schedule=self.schedule.state_dict(),
            weights=self.model.state_dict(),
            optimizer_arrays=arrays,
            preprocessing_arrays=self.preprocessing.arrays,
        )

    def save(self, name: str) -> None:
        """Write the checkpoint `name` into the run's folder. Raises: OutputError, NumericalError."""
        save_checkpoint(self.folder / name, self.checkpoint())

    def loader(self, part: str) -> Loader | DevicePictures:
        """The pictures of "train" (shuffled, augmented), "validation" or "test"."""
        training = part == "train"
        loader = Loader(
            self.parts.dataset,
            getattr(self.parts.split, part),
            self.preprocessing.training if training else self.preprocessing.evaluation,
            self.config.batch_size,
            shuffle=training,
            seed=self.config.seed,
            workers=count_workers(self.config, self.device),
            threads=count_threads(),
            cache=self.cache,
        )
        return on_the_device(loader, self.config, self.device)
