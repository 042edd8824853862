"""Training and what comes after: `train(TrainConfig(...))`, checkpoints, and networks that answer."""

from __future__ import annotations

from minialex.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from minialex.train.config import TrainConfig
from minialex.train.interrupt import Interrupted
from minialex.train.loop import train
from minialex.train.metrics import wilson_interval
from minialex.train.predictor import Prediction, Predictor, load
from minialex.train.report import TrainResult
from minialex.train.reporter import Reporter
from minialex.train.summary import Summary, summarize

__all__ = [
    "Checkpoint",
    "Interrupted",
    "Prediction",
    "Predictor",
    "Reporter",
    "Summary",
    "TrainConfig",
    "TrainResult",
    "load",
    "load_checkpoint",
    "save_checkpoint",
    "summarize",
    "train",
    "wilson_interval",
]
