"""The optimiser of a run and the schedule of its learning rate, as the options say."""

from __future__ import annotations

from typing import Any

from minialex import optim
from minialex.train.config import TrainConfig
from minialex.train.schedule import ScheduleSpec

__all__ = ["build_optimizer"]


def build_optimizer(config: TrainConfig, model: Any) -> tuple[optim.Optimizer, Any]:
    """The optimiser, of all parameters that are trained, and its schedule."""
    assert config.lr is not None, "options are checked first"
    assert config.weight_decay is not None
    assert config.momentum is not None
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer: optim.Optimizer
    if config.optimizer == "adam":
        optimizer = optim.Adam(parameters, config.lr, weight_decay=config.weight_decay)
    else:
        optimizer = optim.SGD(
            parameters,
            config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            rule=config.sgd_rule,
        )
    return optimizer, ScheduleSpec.parse(config.schedule).build(optimizer, config.epochs)
