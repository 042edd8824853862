"""history.csv: one line an epoch."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from minialex.train.files import atomic_write_text


@dataclass(frozen=True)
class EpochRecord:
    """One epoch's figures: losses in nats a picture, accuracies between 0 and 1, seconds of training."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    lr: float
    seconds: float

    def line(self) -> str:
        """The line that is printed after the epoch."""
        return (
            f"[epoch {self.epoch}] train_loss: {self.train_loss:.3f}  train_accuracy: "
            f"{self.train_accuracy:.3f}  "
            f"val_loss: {self.val_loss:.3f}  val_accuracy: {self.val_accuracy:.3f}  "
            f"lr: {self.lr:.3g}  {self.seconds:.1f} s"
        )


def write_history(path: Path, history: Sequence[EpochRecord]) -> None:
    """Write all epochs, six digits each. Raises: OutputError if the place cannot be written to."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([f.name for f in fields(EpochRecord)])
    for record in history:
        values = asdict(record)
        seconds = values.pop("seconds")
        epoch = values.pop("epoch")
        writer.writerow([epoch, *(f"{value:.6g}" for value in values.values()), f"{seconds:.1f}"])
    atomic_write_text(path, text.getvalue())
