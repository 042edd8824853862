"""Everything a run needs before its first step, new or resumed: device, data, network, optimiser, folder."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minialex import models, optim
from minialex.data import Loader, PictureCache, Split, open_dataset, parse_fractions, stratified_split, subset
from minialex.data.transforms import transform_from_config
from minialex.errors import CheckpointError, DataError
from minialex.rng import random_scope
from minialex.train.checkpoint import (
    Best,
    Checkpoint,
    Position,
    load_checkpoint,
    save_checkpoint,
    split_state,
)
from minialex.train.config import TrainConfig
from minialex.train.device import check_precision, choose_device
from minialex.train.device_pictures import DevicePictures
from minialex.train.files import atomic_write
from minialex.train.history import EpochRecord
from minialex.train.input_pipeline import count_threads, count_workers, on_the_device, open_cache
from minialex.train.machine import differences, environment
from minialex.train.metrics import RunningMean
from minialex.train.preprocessing import preprocessing_config
from minialex.train.reporter import Reporter
from minialex.train.run_folder import (
    BEST,
    LAST,
    RunFolder,
    choose_folder,
    find_checkpoint,
    refuse_inside_data,
    refuse_older_run,
)
from minialex.train.schedule import ScheduleSpec


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
    preprocessing: dict[str, Any]
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
            preprocessing=self.preprocessing,
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
            transform_from_config(self.preprocessing["training" if training else "evaluation"]),
            self.config.batch_size,
            shuffle=training,
            seed=self.config.seed,
            workers=count_workers(self.config, self.device),
            threads=count_threads(),
            cache=self.cache,
        )
        return on_the_device(loader, self.config, self.device)


def prepare(config: TrainConfig, reporter: Reporter) -> Run:
    """A new run, or the one that config.resume names, ready for its next step.

    Raises: UsageError, DataError, CheckpointError, DeviceError, OutputError, each saying what to do.
    """
    if config.resume is None:
        run = _begin(config.checked(), reporter)
    else:
        path = find_checkpoint(config.resume)
        checkpoint = load_checkpoint(path)
        config = config.resumed(TrainConfig.from_dict(checkpoint.config)).checked()
        run = _go_on(config, path, checkpoint, reporter)
    dataset, split = run.parts.dataset, run.parts.split
    digests = (dataset.digest(int(i)) for part in (split.train, split.validation, split.test) for i in part)
    run.cache = open_cache(run.config, count_workers(run.config, run.device), digests)
    return run


def _begin(config: TrainConfig, reporter: Reporter) -> Run:
    parse_fractions(config.split)
    check_model(config.model)
    device = choose_device(config.device, reporter.say)
    check_precision(config.precision, device)
    # What can be refused without a look at thousands of pictures is refused first.
    out = choose_folder(config.out, config.model)
    if config.data is not None and config.data != "drawn":
        refuse_inside_data(out, Path(config.data))
    refuse_older_run(out, config.overwrite)
    parts = open_parts(config, reporter)
    refuse_inside_data(out, parts.dataset.root)
    config = _with_pictures_found(config, parts)
    model = build_model(config, len(parts.dataset.classes), device)
    optimizer, schedule = build_optimizer(config, model)
    preprocessing = preprocessing_config(
        model.image_size, model.channels, config.augment, config.crops, config.crop_scale
    )
    _check_cache(config, device, parts, preprocessing)
    # Made last: a start that fails leaves no folder behind.
    folder = RunFolder.create(config.out, model=config.model, overwrite=config.overwrite)
    try:
        run = Run(config, device, parts, model, optimizer, schedule, preprocessing, folder, reporter)
        # Saved before anything else: from here on a killed run can be resumed, and a full disk is known of.
        run.save(LAST)
    except BaseException:
        folder.close()
        raise
    return run


def _check_cache(config: TrainConfig, device: str, parts: Parts, preprocessing: dict[str, Any]) -> None:
    """Raises: UsageError if the pictures are to stay on the device, and that is a CPU or they do not fit."""
    if config.cache == "device":
        transform = transform_from_config(preprocessing["training"])
        kept = on_the_device(Loader(parts.dataset, parts.split.train, transform, 1), config, device)
        assert isinstance(kept, DevicePictures)
        kept.picture_shape()
        kept.close()


def _go_on(config: TrainConfig, path: Path, checkpoint: Checkpoint, reporter: Reporter) -> Run:
    device = choose_device(config.device, reporter.say)
    check_precision(config.precision, device)
    elsewhere = config.out is not None and Path(config.out).resolve() != path.parent.resolve()
    if elsewhere and config.data is not None and config.data != "drawn":
        refuse_inside_data(Path(str(config.out)), Path(config.data))
    folder = (
        RunFolder.create(config.out, model=config.model, overwrite=config.overwrite)
        if elsewhere
        else RunFolder.reopen(path.parent)
    )
    try:
        parts = open_parts(config, reporter)
        _check_same_data(parts, checkpoint)
        config = _with_pictures_found(config, parts)
        model = build_model(config, len(checkpoint.classes), device)
        optimizer, schedule = build_optimizer(config, model)
        run = Run(
            config, device, parts, model, optimizer, schedule, checkpoint.preprocessing, folder, reporter
        )
        _restore(run, path, checkpoint)
        _bring_best(run, path.parent)
    except BaseException:
        folder.close()
        raise
    changes = differences(checkpoint.environment, environment(device))
    if changes:
        reporter.warn(
            f"the run was begun elsewhere ({', '.join(changes)}): it goes on, but its last digits may differ "
            "from those of an unbroken run"
        )
    return run


def check_model(name: str) -> None:
    """Raises: UsageError listing the names, if `models.build` does not know this one."""
    if name not in models.MODEL_NAMES:
        models.build(name)  # Refuses, and knows which name was probably meant.


def open_parts(config: TrainConfig, reporter: Reporter) -> Parts:
    """Find the pictures and divide them as the options say. Raises: DataError, UsageError."""
    fractions = parse_fractions(config.split)
    dataset, description = open_dataset(config.data, on_bad_image=config.on_bad_image, say=reporter.say)
    chosen = None if config.limit is None else subset(dataset, config.limit, config.seed)
    split = stratified_split(dataset, fractions, config.seed, chosen)
    return Parts(dataset, split, description)


def _with_pictures_found(config: TrainConfig, parts: Parts) -> TrainConfig:
    """With the folder that was opened: resumed from another folder or shell, it must still be that one."""
    if config.data == "drawn":  # They can be drawn again, wherever the cache is then.
        return config
    return dataclasses.replace(config, data=str(Path(parts.dataset.root).resolve()))


def _check_same_data(parts: Parts, checkpoint: Checkpoint) -> None:
    if parts.split.digest != checkpoint.split_digest:
        raise DataError(
            f"the pictures in {parts.dataset.root} are not those that the run was begun with: it had "
            f"{sum(checkpoint.part_sizes):,} of {len(checkpoint.classes)} classes, and here are "
            f"{sum(parts.sizes):,} of {len(parts.dataset.classes)}, or other files under the same names; "
            "put them back as they were (split.json lists them), or start a new run"
        )


def build_model(config: TrainConfig, num_classes: int, device: str) -> Any:
    """The network with the weights that the seed gives it."""
    with random_scope(config.seed):
        model = models.build(config.model, num_classes)
    return model.to(device)


def build_optimizer(config: TrainConfig, model: Any) -> tuple[optim.Optimizer, Any]:
    """The optimiser and its schedule."""
    assert config.lr is not None, "options are checked first"
    assert config.weight_decay is not None
    assert config.momentum is not None
    parameters = list(model.parameters())
    optimizer: optim.Optimizer
    if config.optimizer == "adam":
        optimizer = optim.Adam(parameters, config.lr, weight_decay=config.weight_decay)
    else:
        optimizer = optim.SGD(
            parameters, config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
    return optimizer, ScheduleSpec.parse(config.schedule).build(optimizer, config.epochs)


def _restore(run: Run, path: Path, checkpoint: Checkpoint) -> None:
    load_weights(run.model, checkpoint, path)
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


def load_weights(model: Any, checkpoint: Checkpoint, path: Path) -> None:
    """Put a checkpoint's weights into a model. Raises: CheckpointError if they do not fit."""
    try:
        model.load_state_dict(checkpoint.weights)
    except CheckpointError as error:
        raise CheckpointError(
            f"{path}: the weights are not those of {checkpoint.model_name} in this version of minialex: "
            f"{error}\nUse the version that wrote the checkpoint."
        ) from error
