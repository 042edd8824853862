"""Optimisers, clipping and learning-rate schedules."""

from minialex.optim import lr_scheduler
from minialex.optim.adam import Adam
from minialex.optim.clipping import clip_grad_norm_
from minialex.optim.optimizer import Optimizer
from minialex.optim.sgd import SGD

__all__ = ["SGD", "Adam", "Optimizer", "clip_grad_norm_", "lr_scheduler"]
