"""history.csv: one line an epoch."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from minialex.train.files import atomic_write_text

COLUMNS = 80


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
        """The line that is printed after the epoch: within 80 columns; history.csv has it all."""
        line = (
            f"[epoch {self.epoch}] train_loss: {_short(self.train_loss)} val_loss: {_short(self.val_loss)} "
            f"val_accuracy: {self.val_accuracy:.3f} lr: {_rate(self.lr)}"
        )
        timed = f"{line} {self.seconds:.0f} s"
        return timed if len(timed) <= COLUMNS else line


def _short(loss: float) -> str:
    """Three decimals, or four digits if there are more before the point."""
    return f"{loss:.3f}" if loss < 10 else f"{loss:.4g}"


def _rate(lr: float) -> str:
    """Two digits, in the shorter spelling: 0.01, 0.0002, 1.5e-4."""
    plain, power = f"{lr:.2g}", f"{lr:.1e}".replace("e-0", "e-").replace(".0e", "e")
    return plain if len(plain) <= 6 else power


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
