"""minialex: a from-scratch deep-learning engine that trains AlexNet.

import minialex as mx
from minialex import nn, ops, optim, models
"""

from minialex.backend import DTypeError, use_variant
from minialex.rng import manual_seed, random_scope
from minialex.shapes import ShapeError
from minialex.tensor import (
    GraphError,
    Op,
    Tensor,
    anomaly_mode,
    no_grad,
    observe,
    tape,
)
