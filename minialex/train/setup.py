"""Everything a run needs before its first step, new or resumed: device, data, network, optimiser, folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from minialex.data import NAMED_DATA, Loader, PictureCache, divide, open_dataset, parse_fractions
from minialex.data.recipe import way_of_loading
from minialex.data.statistics import Statistics, picture_statistics
from minialex.data.transforms import Transform
from minialex.train.checkpoint import Checkpoint, load_checkpoint
from minialex.train.config import TrainConfig
from minialex.train.device import check_precision, choose_device
from minialex.train.device_pictures import DevicePictures
from minialex.train.input_pipeline import count_threads, count_workers, on_the_device, open_cache
from minialex.train.networks import build_model, check_model, check_network, load_weights, model_of
from minialex.train.optimization import build_optimizer
from minialex.train.preprocessing import Preprocessing, preprocessing_for
from minialex.train.reporter import Reporter
from minialex.train.resuming import check_same_data, resumed_run
from minialex.train.run import Parts, Run
from minialex.train.run_folder import (
    LAST,
    RunFolder,
    choose_folder,
    find_checkpoint,
    refuse_inside_data,
    refuse_older_run,
)

__all__ = ["Parts", "Run", "check_model", "load_weights", "model_of", "open_parts", "prepare"]


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
    if run.cache is None:
        run.cache = _cache(run.config, run.device, run.parts)
    return run


def _cache(config: TrainConfig, device: str, parts: Parts) -> PictureCache | None:
    dataset, split = parts.dataset, parts.split
    if way_of_loading(dataset) is None:  # Nothing of it would be kept: see `Dataset`.
        return None
    digests = (dataset.digest(int(i)) for part in (split.train, split.validation, split.test) for i in part)
    return open_cache(config, count_workers(config, device), digests)


def _begin(config: TrainConfig, reporter: Reporter) -> Run:
    parse_fractions(config.split)
    # What can be refused without a look at thousands of pictures is refused first.
    check_network(config)
    device = choose_device(config.device, reporter.say)
    check_precision(config.precision, device)
    out = choose_folder(config.out, config.model)
    if config.data not in (None, *NAMED_DATA):
        refuse_inside_data(out, Path(str(config.data)))
    refuse_older_run(out, config.overwrite)
    parts = open_parts(config, reporter)
    refuse_inside_data(out, parts.dataset.root)
    config = _with_pictures_found(config, parts)
    model = build_model(config, len(parts.dataset.classes), device, reporter.say)
    optimizer, schedule = build_optimizer(config, model)
    cache = _cache(config, device, parts)
    preprocessing = preprocessing_for(config, model, _measuring(config, parts, cache, reporter))
    _check_cache(config, device, parts, preprocessing)
    # Made last: a start that fails leaves no folder behind.
    folder = RunFolder.create(config.out, model=config.model, overwrite=config.overwrite)
    try:
        run = Run(
            config, device, parts, model, optimizer, schedule, preprocessing, folder, reporter, cache=cache
        )
        # Saved before anything else: from here on a killed run can be resumed, and a full disk is known of.
        run.save(LAST)
    except BaseException:
        folder.close()
        raise
    return run


def _measuring(
    config: TrainConfig, parts: Parts, cache: PictureCache | None, reporter: Reporter
) -> Callable[[Transform], Statistics]:
    """Measures the training pictures, and says so: every one of them is decoded."""

    def measure(transform: Transform) -> Statistics:
        indices = parts.split.train
        for_what = [f"--normalize {config.normalize}"] * config.normalize.startswith("mean-")
        for_what += [f"--pca-jitter {config.pca_jitter}"] * bool(config.pca_jitter)
        reporter.say(f"measuring the {len(indices):,} training pictures for {' and '.join(for_what)}")
        return picture_statistics(parts.dataset, indices, transform, threads=count_threads(), cache=cache)

    return measure


def _check_cache(config: TrainConfig, device: str, parts: Parts, preprocessing: Preprocessing) -> None:
    """Raises: UsageError if the pictures are to stay on the device, and that is a CPU or they do not fit."""
    if config.cache == "device":
        loader = Loader(parts.dataset, parts.split.train, preprocessing.training, 1)
        kept = on_the_device(loader, config, device)
        assert isinstance(kept, DevicePictures)
        kept.picture_shape()
        kept.close()


def _go_on(config: TrainConfig, path: Path, checkpoint: Checkpoint, reporter: Reporter) -> Run:
    device = choose_device(config.device, reporter.say)
    check_precision(config.precision, device)
    elsewhere = config.out is not None and Path(config.out).resolve() != path.parent.resolve()
    if elsewhere and config.data not in (None, *NAMED_DATA):
        refuse_inside_data(Path(str(config.out)), Path(str(config.data)))
    folder = (
        RunFolder.create(config.out, model=config.model, overwrite=config.overwrite)
        if elsewhere
        else RunFolder.reopen(path.parent)
    )
    try:
        parts = open_parts(config, reporter)
        check_same_data(parts, checkpoint)
        config = _with_pictures_found(config, parts)
        return resumed_run(config, device, parts, checkpoint, path, folder, reporter)
    except BaseException:
        folder.close()
        raise


def open_parts(config: TrainConfig, reporter: Reporter) -> Parts:
    """Find the pictures and divide them as the options say. Raises: DataError, UsageError."""
    fractions = parse_fractions(config.split)
    dataset, description = open_dataset(config.data, on_bad_image=config.on_bad_image, say=reporter.say)
    return Parts(dataset, divide(dataset, fractions, config.seed_of_split, config.limit), description)


def _with_pictures_found(config: TrainConfig, parts: Parts) -> TrainConfig:
    """With the folder that was opened: resumed from another folder or shell, it must still be that one."""
    if config.data in NAMED_DATA:  # Found again by its name, wherever it is then.
        return config
    return dataclasses.replace(config, data=str(Path(parts.dataset.root).resolve()))
