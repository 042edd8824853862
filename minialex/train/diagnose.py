"""Training that goes wrong, noticed and explained: what is seen, what it usually means, what to do.

Each finding rests on something measured in this very run. The thresholds are wide on purpose: a warning that
comes with healthy runs is soon read by nobody.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minialex import nn, ops
from minialex.backend import Array, array_module, to_device
from minialex.rng import random_scope
from minialex.tensor import Event, Tensor, no_grad, observe
from minialex.train.spans import LayerSpans, place_of

# A loss above this share of what guessing gives is no progress; and how long that is normal.
STUCK_SHARE, STUCK_EPOCHS, STUCK_STEPS = 0.98, 2, 60
# A ReLU layer of which so many units answer zero to every picture of a batch passes nothing on.
DEAD_SHARE = 0.95
# A step that changes weights by more than this share of their length forgets what was learnt.
# A healthy one changes about 0.001.
UPDATE_HIGH, UPDATE_LOW = 0.2, 1e-6
# Steps between two looks at the updates, which need a copy of the weights.
UPDATE_EVERY = 20
# Two answers of a network that differ by no more than this in every logit are the same answer.
SAME_ANSWER = 1e-3


def guessing_loss(labels: Any) -> float:
    """The loss of a network that knows how frequent the classes are and nothing else: their entropy in nats.

    For classes of equal size it is ln(classes), 1.609 for five.
    """
    counts = np.bincount(labels)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


@dataclass(frozen=True)
class Advice:
    """Learning rates to try instead of `lr`, when `usual` is the optimiser's usual one."""

    lr: float
    usual: float

    @property
    def lower(self) -> str:
        """A tenth, or the usual rate if that is lower still."""
        return f"--lr {min(self.lr / 10, self.usual):.1g}"

    @property
    def higher(self) -> str:
        """Ten times as much, or the usual rate if that is higher still."""
        return f"--lr {max(self.lr * 10, self.usual):.1g}"


class Monitor:
    """Watches a run and tells `warn` once for each kind of trouble."""

    def __init__(self, model: Any, labels: Any, advice: Advice, warn: Callable[[str], object]) -> None:
        self._model = model
        self._advice = advice
        self._warn = warn
        self._told: set[str] = set()
        self._high_before = False
        self.guessing = guessing_loss(labels)
        self.largest_update = math.nan

    def _tell(self, kind: str, text: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            self._warn(text)

    def weights_before(self, step: int) -> dict[str, Array] | None:
        """Copies of the weights at the steps whose update is measured; biases begin at zero: left out."""
        if step % UPDATE_EVERY:
            return None
        weights = ((name, p) for name, p in self._model.named_parameters() if p.ndim > 1 and p.requires_grad)
        return {name: p.data.copy() for name, p in weights}

    def update_done(self, before: dict[str, Array] | None) -> None:
        """Measure |change| / |weights| of each layer, the step after `weights_before`."""
        if before is None:
            return
        ratios = {
            name: euclidean(p.data - before[name]) / max(euclidean(before[name]), 1e-30)
            for name, p in self._model.named_parameters()
            if name in before
        }
        name = max(ratios, key=lambda key: ratios[key])
        self.largest_update = ratios[name]
        high = not self.largest_update <= UPDATE_HIGH
        if high and self._high_before:  # Once may be the first steps' large gradients.
            self._tell("updates", self._updates_text(name))
        self._high_before = high

    def epoch_done(self, epoch: int, step: int, train_loss: float, batch: Any) -> None:
        """Look for dead ReLUs, and for a loss that never left that of guessing, with a batch of pictures."""
        shares, spread = self._inspect(batch)
        dead = {place: share for place, share in shares.items() if share >= DEAD_SHARE}
        if dead:
            self._tell("dead", self._dead_text(dead))
        stuck = not train_loss < STUCK_SHARE * self.guessing
        if stuck and epoch >= STUCK_EPOCHS and step >= STUCK_STEPS:
            self._tell("stuck", self._stuck_text(epoch, train_loss, dead, spread))

    def _inspect(self, images: Any) -> tuple[dict[str, float], float]:
        """(share of units that are zero for all pictures, by ReLU; largest difference of two answers)."""
        spans = LayerSpans(self._model)
        shares: dict[int, float] = {}

        def look(event: Event) -> None:
            spans.see(event)
            if event.op.name == "relu":
                shares[event.op.order] = float((event.outputs[0].data.max(axis=0) <= 0).mean())

        was_training = self._model.training
        self._model.eval()
        device = next(iter(self._model.parameters())).device
        with no_grad(), observe(look), nn.unfused(self._model):
            logits = self._model(Tensor(images, device=device)).data
        if was_training:
            self._model.train()
        layers = spans.resolve()
        places = {place_of("relu", layers[order]): share for order, share in shares.items()}
        return places, float((logits.max(axis=0) - logits.min(axis=0)).max())

    def _updates_text(self, name: str) -> str:
        return (
            f"exploding updates: one step changed {name} by {100 * self.largest_update:.0f} % of its length "
            "(about 0.1 % is usual), so that each step undoes the one before. "
            f"Try {self._advice.lower}, or --clip-norm 1."
        )

    def _dead_text(self, dead: dict[str, float]) -> str:
        listed = ", ".join(f"{place} ({100 * share:.0f} %)" for place, share in dead.items())
        return (
            f"dead ReLUs: units that are zero for every picture of a batch, in {listed}. "
            "They pass no gradient back and cannot recover by themselves. "
            f"Start again with a lower rate, {self._advice.lower}, or smaller initial weights."
        )

    def _stuck_text(self, epoch: int, loss: float, dead: dict[str, float], spread: float) -> str:
        lower, higher = self._advice.lower, self._advice.higher
        if dead:
            cause = f"The dead ReLUs are the likely cause: start again with {lower}."
        elif self.largest_update > UPDATE_HIGH:
            cause = f"The steps are too large for the weights: start again with {lower}."
        elif self.largest_update < UPDATE_LOW:
            cause = f"The steps hardly move the weights: start again with {higher}."
        elif spread < SAME_ANSWER:
            cause = (
                "The network gives every picture the same answer: a layer passes nothing on, or the pictures "
                f"all look alike after preprocessing. Try {lower}, and look at a few pictures."
            )
        else:
            cause = (
                "Its answers differ from picture to picture, and the steps are of a usual size. Look at the "
                "labels first: is each picture in the folder of its class? "
                f"Then try {lower} and {higher}."
            )
        return (
            f"nothing is being learnt: after {epoch} epochs the training loss is {loss:.3f}, and guessing by "
            f"how frequent the classes are gives {self.guessing:.3f}. {cause}"
        )


def euclidean(array: Array) -> float:
    """The Euclidean length, in float64 so that large numbers do not overflow on the way."""
    with np.errstate(over="ignore", invalid="ignore"):
        return math.sqrt(float(((wide := array.astype(np.float64)) * wide).sum()))


# ---------------------------------------------------------------------------------------------------- NaN


def explain_breakdown(model: Any, images: Any, labels: Any, *, seed: int, step: int, batches: int = 1) -> str:
    """Where the first number that is not finite comes from: this batch run once more under observation.

    Args:   images, labels: the batch; seed, step: of its random scope, so that dropout is the same;
            batches: whose gradients were added up, of which this is the last.
    """
    if not np.isfinite(images).all():
        return "The pictures themselves hold numbers that are not finite."
    for name, parameter in model.named_parameters():
        if not _finite(parameter.data):
            return f"The weights {name} were no longer finite: an earlier step was far too large."
    found = _first_not_finite(model, images, labels, seed, step)
    if found is not None:
        return found
    if batches > 1:
        return (
            f"Run again, this batch gives finite numbers: it was another, or the sum, of {batches} batches."
        )
    return "Run again, this batch gives finite numbers: what went wrong did not come back."


def _first_not_finite(model: Any, images: Any, labels: Any, seed: int, step: int) -> str | None:
    spans = LayerSpans(model)
    found: list[tuple[int, str, str]] = []

    def look(event: Event) -> None:
        if event.phase == "forward":
            spans.see(event)
        arrays = [v.data if isinstance(v, Tensor) else v for v in event.outputs if v is not None]
        if not found and not all(_finite(array) for array in arrays):
            found.append((event.op.order, event.op.name, event.phase))

    device = next(iter(model.parameters())).device
    model.zero_grad()
    with observe(look), random_scope(seed, step), nn.unfused(model):
        logits = model(Tensor(images, device=device))
        ops.cross_entropy(logits, to_device(labels, device)).backward()
    model.zero_grad()
    layers = spans.resolve()
    for order, op, phase in found:
        place = place_of(op, layers.get(order, ""))
        return f"The first number that is not finite came out of {place} ({phase} pass)."
    return None


def _finite(array: Array) -> bool:
    return array.dtype.kind != "f" or bool(array_module(array).isfinite(array).all())
