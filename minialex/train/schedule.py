"""The words of --schedule, and the optimiser's schedule that each stands for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minialex.errors import UsageError
from minialex.optim import lr_scheduler as schedules

FORMS = (
    "constant, step[:EPOCHS], multistep[:A,B,...], plateau[:PATIENCE], plateau-error[:PATIENCE] or "
    "cosine[:WARM-UP EPOCHS]"
)
MOST_NUMBERS = {"constant": 0, "step": 1, "plateau": 1, "plateau-error": 1, "cosine": 1, "multistep": 1000}
GAMMA = 0.1  # Every fall divides by ten, as the 2012 paper's did.


@dataclass(frozen=True)
class ScheduleSpec:
    """A parsed --schedule: its kind, and its numbers, in epochs; empty numbers are chosen from --epochs."""

    kind: str
    numbers: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> ScheduleSpec:
        """'step:30' -> ScheduleSpec('step', (30,)). Raises: UsageError listing the forms."""
        kind, colon, rest = text.partition(":")
        parts = rest.split(",") if colon else []
        most = MOST_NUMBERS.get(kind, -1)
        if len(parts) > most or not all(part.strip().isdecimal() for part in parts):
            raise UsageError(f"--schedule {text!r} is not one of {FORMS}")
        numbers = tuple(int(part) for part in parts)
        rising = list(numbers) == sorted(set(numbers))
        if not rising or (kind in ("step", "multistep") and 0 in numbers):
            raise UsageError(f"--schedule {text!r}: epochs must be above 0 and rise from left to right")
        return cls(kind, numbers)

    @property
    def by_length(self) -> bool:
        """Whether it is laid out for the number of epochs, and cannot be stretched to more."""
        return self.kind == "cosine" or (self.kind in ("step", "multistep") and not self.numbers)

    def build(self, optimizer: Any, epochs: int) -> Any:
        """The schedule of minialex.optim for this many epochs.

        Raises: UsageError if a warm-up is longer than the run.
        """
        if self.kind == "step":
            every = self.numbers[0] if self.numbers else max(1, epochs // 3)
            return schedules.StepLR(optimizer, step_size=every, gamma=GAMMA)
        if self.kind == "multistep":
            milestones = self.numbers or tuple(sorted({max(1, epochs // 2), max(1, 3 * epochs // 4)}))
            return schedules.MultiStepLR(optimizer, milestones=list(milestones), gamma=GAMMA)
        if self.kind in ("plateau", "plateau-error"):
            patience = self.numbers[0] if self.numbers else 2
            return schedules.ReduceLROnPlateau(optimizer, factor=GAMMA, patience=patience)
        if self.kind == "cosine":
            warmup = self.numbers[0] if self.numbers else min(1, epochs - 1)
            if warmup >= epochs:
                raise UsageError(
                    f"--schedule cosine:{warmup}: the warm-up must be shorter than --epochs {epochs}"
                )
            return schedules.CosineWithWarmup(optimizer, total_epochs=epochs, warmup_epochs=warmup)
        return schedules.ConstantLR(optimizer)

    def figure(self, val_loss: float, val_accuracy: float) -> float:
        """What a plateau is one of: the validation loss, or for plateau-error the share of wrong answers."""
        return 1.0 - val_accuracy if self.kind == "plateau-error" else val_loss

    def check_more_epochs(self, before: int, now: int) -> None:
        """Raises: UsageError if a run laid out for `before` epochs cannot go on to `now`."""
        if self.by_length:
            raise UsageError(
                f"--epochs {now}: --schedule {self.kind} was laid out for {before} epochs and cannot be "
                "stretched; leave --epochs out, or start a new run"
            )
