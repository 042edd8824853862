"""minialex: a from-scratch deep-learning engine that trains AlexNet.

import minialex as mx
from minialex import nn, ops, optim, models
"""

from minialex.backend import DTypeError, empty_cache, use_precision, use_variant, use_winograd
from minialex.errors import (
    CheckpointError,
    DataError,
    DeviceError,
    KernelError,
    MinialexError,
    NumericalError,
    OutputError,
    UsageError,
)
from minialex.gradient_check import GradcheckError, gradcheck
from minialex.rng import manual_seed, random_scope
from minialex.shapes import ShapeError
from minialex.tensor import GraphError, Op, Tensor, anomaly_mode, no_grad, observe, tape
from minialex.version import __version__

__all__ = [
    "CheckpointError",
    "DTypeError",
    "DataError",
    "DeviceError",
    "GradcheckError",
    "GraphError",
    "KernelError",
    "MinialexError",
    "NumericalError",
    "Op",
    "OutputError",
    "ShapeError",
    "Tensor",
    "UsageError",
    "__version__",
    "anomaly_mode",
    "empty_cache",
    "gradcheck",
    "load",
    "manual_seed",
    "no_grad",
    "observe",
    "random_scope",
    "tape",
    "use_precision",
    "use_variant",
    "use_winograd",
]


def __getattr__(name: str) -> object:
    # Loading a checkpoint needs Pillow; `import minialex` must not.
    if name == "load":
        from minialex.train.predictor import load

        return load
    raise AttributeError(f"module 'minialex' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
