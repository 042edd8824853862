"""The options of a training run: one field an option, the course's recipe where nothing is said."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from minialex.backend import PRECISIONS
from minialex.data import parse_bytes
from minialex.errors import CheckpointError, UsageError
from minialex.train.schedule import ScheduleSpec

# What a run may be continued with: nothing here changes the numbers that are computed, epochs only how many.
MAY_CHANGE_ON_RESUME = frozenset(
    {"data", "device", "epochs", "workers", "cache", "cache_budget", "save_every", "on_bad_image", "out"}
)
# Not a property of the run: how this call was made, and on what machine.
_OF_THE_CALL = ("out", "resume", "overwrite", "given", "cache", "cache_budget")

# What each optimiser starts from: Adam as in the course's recipe, SGD as in the 2012 paper.
RECIPES: dict[str, dict[str, float]] = {
    "adam": {"lr": 2e-4, "weight_decay": 0.0, "momentum": 0.0},
    "sgd": {"lr": 0.01, "weight_decay": 5e-4, "momentum": 0.9},
}


@dataclass(frozen=True)
class TrainConfig:
    """How to train: `train(TrainConfig(data="photos", epochs=3))`.

    Args:
        data: a folder with one folder of pictures a class, "drawn", or None for the flowers.
        model: a name that `models.build` knows.
        device: "cpu", "cuda", "cuda:N", or "auto": the first GPU if one can be used, else the CPU;
            "cuda-emulated" runs the GPU's kernels on the CPU, ten to twenty times slower than the CPU's.
        precision: of matrix products on a GPU: "fp32", "tf32" or "bf16"; weights and sums are float32.
        epochs: passes over the training pictures.
        batch_size: pictures in a batch.
        optimizer: "adam" or "sgd". lr, weight_decay, momentum: None takes the optimiser's recipe.
        schedule: how lr falls, epoch by epoch: constant, step[:EPOCHS], multistep[:A,B,...],
            plateau[:PATIENCE] or cosine[:WARM-UP EPOCHS].
        accumulate: batches whose gradients are averaged, picture by picture, into one step.
        clip_norm: longest gradient over all weights, or None for no limit.
        augment: whether training pictures are cropped and flipped at random.
        crops: "scaled" takes parts of any size and scales them to the network's; "fixed" takes parts of the
            network's size out of pictures that are a seventh larger, as in the 2012 paper.
        crop_scale: for "scaled", the smallest part of a training picture's area that a crop takes.
        seed: decides the weights at the start, the split, the order, the crops and the dropout.
        split: percentages "train/validation/test", or "train/validation".
        limit: pictures to use in all, as many of each class as its share; None for all.
        workers: processes that load pictures; 0 loads them in the trainer's own threads, between the steps;
            None takes 0 for the CPU, and for a GPU the number of cores.
        cache: where decoded pictures are kept for the next epoch: "none", "memory", which is the trainer's
            own and so without workers, "disk", in the folder of caches, or "device", the GPU's memory, where
            they are cropped and flipped too (without augmentation or with crops "fixed"); None takes memory
            without workers and disk with them. cache_budget: the most that they may take, such as "500MB";
            None takes 2 GB, and of the memory at most a quarter of what is available; 4 GB of a device's.
        save_every: steps between two savings; None saves once a minute. Every epoch is saved anyway.
        out: the run's folder; None makes runs/MODEL-1, -2, ...
        resume: a run's folder, or the checkpoint in it, to go on from.
        overwrite: whether an older run in `out` may be replaced.
        on_bad_image: "stop" at a file that is no readable picture, or "skip" it and say so.
        given: the fields that the user set; those that differ from the default, unless said. On `resume`
            they are held against the run's own.
    """

    data: str | None = None
    model: str = "flowers"
    device: str = "auto"
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    epochs: int = 10
    batch_size: int = 32
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: float | None = None
    weight_decay: float | None = None
    momentum: float | None = None
    schedule: str = "constant"
    accumulate: int = 1
    clip_norm: float | None = None
    augment: bool = True
    crops: Literal["scaled", "fixed"] = "scaled"
    crop_scale: float = 0.08
    seed: int = 0
    split: str = "80/10/10"
    limit: int | None = None
    workers: int | None = None
    cache: Literal["none", "memory", "disk", "device"] | None = None
    cache_budget: str | None = None
    save_every: int | None = None
    out: str | None = None
    resume: str | None = None
    overwrite: bool = False
    on_bad_image: Literal["stop", "skip"] = "stop"
    given: frozenset[str] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.given is None:
            changed = {f.name for f in dataclasses.fields(self) if getattr(self, f.name) != f.default}
            object.__setattr__(self, "given", frozenset(changed - {"given"}))

    def checked(self) -> TrainConfig:
        """The same with every None that a recipe decides filled in. Raises: UsageError naming the option."""
        self._check_numbers()
        if self.optimizer not in RECIPES:
            raise UsageError(f"--optimizer must be adam or sgd, got {self.optimizer!r}")
        if self.crops not in ("scaled", "fixed"):
            raise UsageError(f"--crops must be scaled or fixed, got {self.crops!r}")
        if self.precision not in PRECISIONS:
            raise UsageError(f"--precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if self.on_bad_image not in ("stop", "skip"):
            raise UsageError(f"--on-bad-image must be stop or skip, got {self.on_bad_image!r}")
        self._check_cache()
        if self.optimizer == "adam" and self.momentum:
            raise UsageError("--momentum belongs to --optimizer sgd; Adam has its own running means")
        ScheduleSpec.parse(self.schedule)
        recipe = RECIPES[self.optimizer]
        missing = {name: value for name, value in recipe.items() if getattr(self, name) is None}
        return dataclasses.replace(self, **missing)  # type: ignore[arg-type]

    def _check_cache(self) -> None:
        if self.cache not in (None, "none", "memory", "disk", "device"):
            raise UsageError(f"--cache must be none, memory, disk or device, got {self.cache!r}")
        if self.cache == "device" and self.augment and self.crops == "scaled":
            raise UsageError(
                "--cache device keeps pictures of one size, which can be cropped and flipped there but not "
                "scaled; add --crops fixed or --no-augment, or use --cache memory"
            )
        if self.cache in ("memory", "device") and self.workers:
            raise UsageError(
                f"--cache {self.cache} is the trainer's own, and --workers {self.workers} asks for other "
                "processes; use --cache disk, which the system keeps in memory for all, or --workers 0"
            )
        if self.cache_budget is not None:
            try:
                parse_bytes(self.cache_budget)
            except UsageError as error:
                raise UsageError(f"--cache-budget {error}") from error

    def _check_numbers(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "limit", "save_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{flag(name)} must be at least 1, got {value}")
        if not 0 < self.crop_scale <= 1:
            raise UsageError(f"--crop-scale must be above 0 and at most 1, got {self.crop_scale}")
        for name in ("lr", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise UsageError(f"{flag(name)} must be a number above 0, got {value}")
        for name, limit in (("weight_decay", math.inf), ("momentum", 1.0)):
            value = getattr(self, name)
            if value is not None and not 0 <= value < limit:
                raise UsageError(
                    f"{flag(name)} must be at least 0{' and below 1' * (limit == 1)}, got {value}"
                )
        if self.workers is not None and self.workers < 0:
            raise UsageError(f"--workers must be at least 0, got {self.workers}")
        if not 0 <= self.seed < 2**64:
            raise UsageError(f"--seed must lie between 0 and 2**64 - 1, got {self.seed}")

    def to_dict(self) -> dict[str, Any]:
        """The run's options, for config.json and checkpoints: without those of this one call."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if name not in _OF_THE_CALL}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """The options kept in a checkpoint. Raises: CheckpointError if it has others than this version."""
        known = {f.name for f in dataclasses.fields(cls)} - set(_OF_THE_CALL)
        # Runs that were begun before there was a choice.
        values = {"precision": "fp32", "crops": "scaled", **values}
        if set(values) != known:
            raise CheckpointError(
                f"the run's options {sorted(set(values) ^ known)} are not those of this version of minialex; "
                "go on with the version that wrote the checkpoint"
            )
        return cls(**values)

    def resumed(self, saved: TrainConfig) -> TrainConfig:
        """The saved run's options with what this call may change.

        Raises: UsageError for an option that would make it another run.
        """
        given = self.given or frozenset()
        for name in sorted(given - set(_OF_THE_CALL)):
            mine, theirs = getattr(self, name), getattr(saved, name)
            if name not in MAY_CHANGE_ON_RESUME and mine != theirs:
                raise UsageError(
                    f"{flag(name)} {mine}: the run was begun with {theirs}, and resuming goes on with that; "
                    f"leave {flag(name)} out, or start a new run"
                )
        if "epochs" in given and self.epochs != saved.epochs:
            ScheduleSpec.parse(saved.schedule).check_more_epochs(saved.epochs, self.epochs)
        kept = {name: getattr(self, name) for name in given & MAY_CHANGE_ON_RESUME}
        return dataclasses.replace(saved, **kept, resume=self.resume, given=given)


def flag(name: str) -> str:
    """The command line's spelling of a field: batch_size -> --batch-size."""
    return "--no-augment" if name == "augment" else f"--{name.replace('_', '-')}"
