"""The options of a training run: one field an option, the course's recipe where nothing is said."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from minialex.errors import CheckpointError, UsageError
from minialex.train.config_checks import check_options, flag
from minialex.train.recipes import OPTIMIZER_DEFAULTS, recipe_values
from minialex.train.schedule import ScheduleSpec

# What a run may be continued with: nothing here changes the numbers that are computed, epochs only how many.
MAY_CHANGE_ON_RESUME = frozenset(
    {"data", "device", "epochs", "workers", "cache", "cache_budget", "save_every", "on_bad_image", "out"}
)
# Not a property of the run: how this call was made, and on what machine.
_OF_THE_CALL = ("out", "resume", "overwrite", "given", "cache", "cache_budget")

# Options that came later: a run that was begun before does what their defaults say.
_ADDED_LATER = (
    "precision",
    "crops",
    "recipe",
    "split_seed",
    "dropout",
    "lrn",
    "pooling",
    "activation",
    "init",
    "sgd_rule",
    "normalize",
    "pca_jitter",
    "weights",
    "freeze",
)


@dataclass(frozen=True)
class TrainConfig:
    """How to train: `train(TrainConfig(data="photos", epochs=3))`.

    Args:
        data: a folder with one folder of pictures a class, "drawn", or None for the flowers.
        recipe: "paper", "course", "course-tf" or "scratch": values for whatever is not `given` (see
            train/recipes.py).
        model: a name that `models.build` knows. dropout, lrn, pooling, activation: as there; None leaves
            them as the network has them.
        init: how weights begin: "paper", "course", "pytorch" or "xavier"; None takes the network's own.
        weights: a file that `models.load_weights` reads, or a run's folder, to start from; of another number
            of classes, all but the classifier's last layer. freeze: names of modules, with commas between,
            that are not trained.
        device: "cpu", "cuda", "cuda:N", or "auto": the first GPU if one can be used, else the CPU;
            "cuda-emulated" runs the GPU's kernels on the CPU, ten to twenty times slower than the CPU's.
        precision: of matrix products on a GPU: "fp32", "tf32" or "bf16"; weights and sums are float32.
        epochs: passes over the training pictures.
        batch_size: pictures in a batch.
        optimizer: "adam" or "sgd". lr, weight_decay, momentum: None takes the optimiser's recipe.
        sgd_rule: what weight decay and momentum mean, "torch" or "paper" (see `optim.SGD`).
        schedule: how lr falls, epoch by epoch: constant, step[:EPOCHS], multistep[:A,B,...],
            plateau[:PATIENCE], plateau-error[:PATIENCE] or cosine[:WARM-UP EPOCHS].
        accumulate: batches whose gradients are averaged, picture by picture, into one step.
        clip_norm: longest gradient over all weights, or None for no limit.
        augment: whether training pictures are cropped, flipped and coloured at random.
        crops: "scaled" takes parts of any size and scales them to the network's; "fixed" takes parts of the
            network's size out of whole pictures scaled to a square that is a seventh larger; "paper" out of
            their middle squares, and evaluates on the middle; "whole" takes all of a picture, and only flips.
        crop_scale: for "scaled", the smallest part of a training picture's area that a crop takes.
        pca_jitter: the standard deviation of the paper's colour jitter; 0 for none.
        normalize: what pixels become: "half" -1 to 1; "unit" 0 to 1; "mean-colour" and "mean-image" 0 to 255
            less the training pictures' mean; "imagenet" as torchvision's networks take them.
        seed: decides the weights at the start, the order, the crops and the dropout, and the split.
        split_seed: decides the split and which pictures `limit` takes; None takes `seed`.
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
        given: the fields that the user set; those that differ from the default, unless said: a recipe must
            be told of a field that is set to its default. On `resume` they are held against the run's own.
    """

    data: str | None = None
    model: str = "flowers"
    recipe: str | None = None
    dropout: float | None = None
    lrn: bool | None = None
    pooling: Literal["overlapping", "separate"] | None = None
    activation: Literal["relu", "tanh", "sigmoid"] | None = None
    init: Literal["paper", "course", "pytorch", "xavier"] | None = None
    weights: str | None = None
    freeze: str | None = None
    device: str = "auto"
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    epochs: int = 10
    batch_size: int = 32
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: float | None = None
    weight_decay: float | None = None
    momentum: float | None = None
    sgd_rule: Literal["torch", "paper"] = "torch"
    schedule: str = "constant"
    accumulate: int = 1
    clip_norm: float | None = None
    augment: bool = True
    crops: Literal["scaled", "fixed", "paper", "whole"] = "scaled"
    crop_scale: float = 0.08
    pca_jitter: float = 0.0
    normalize: Literal["half", "unit", "mean-colour", "mean-image", "imagenet"] = "half"
    seed: int = 0
    split_seed: int | None = None
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
        """The same with everything filled in that a recipe or the optimiser decides.

        Raises: UsageError naming the option.
        """
        config = self
        if self.recipe is not None and self.resume is None:  # A resumed run has had its recipe.
            config = dataclasses.replace(self, **recipe_values(self))
        check_options(config)
        usual = OPTIMIZER_DEFAULTS[config.optimizer]
        missing = {name: value for name, value in usual.items() if getattr(config, name) is None}
        return dataclasses.replace(config, **missing)  # type: ignore[arg-type]

    @property
    def seed_of_split(self) -> int:
        """What the pictures are divided by."""
        return self.seed if self.split_seed is None else self.split_seed

    def to_dict(self) -> dict[str, Any]:
        """The run's options, for config.json and checkpoints: without those of this one call."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if name not in _OF_THE_CALL}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """The options kept in a checkpoint. Raises: CheckpointError if it has others than this version."""
        known = {f.name for f in dataclasses.fields(cls)} - set(_OF_THE_CALL)
        values = {f.name: f.default for f in dataclasses.fields(cls) if f.name in _ADDED_LATER} | values
        if set(values) != known:
            raise CheckpointError(
                f"the run's options {sorted(set(values) ^ known)} are not those of this version of minialex; "
                "go on with the version that wrote the checkpoint"
            )
        return cls(**values, given=frozenset(known))

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
