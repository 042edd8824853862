"""First values of weights: for one Tensor, and for a whole model.

Draws come from `rng.current_scope().stream("init")`, a stream for each Tensor: `manual_seed(seed)` repeats
them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import numpy as np

from minialex import rng
from minialex.backend import for_ranges, to_device
from minialex.kernels.philox import CompiledStream
from minialex.nn.module import Module
from minialex.nn.parameter import Parameter
from minialex.shapes import Shape, ShapeError, numel
from minialex.tensor import Tensor

__all__ = [
    "calculate_gain",
    "constant_",
    "course_",
    "fans",
    "is_skipped",
    "kaiming_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "paper_",
    "pytorch_",
    "reset_",
    "uniform_",
    "without_init",
    "xavier_",
    "xavier_uniform_",
    "zeros_",
]

# Elements a draw: small enough for a core's cache, and even, so that each draw uses whole blocks of the
# generator.
CHUNK = 1 << 15
# Elements for which the compiled generator pays, though Numba must be imported and its code be loaded.
MANY = 1 << 20

_skipping: ContextVar[bool] = ContextVar("minialex_without_init", default=False)


@contextmanager
def without_init() -> Iterator[None]:
    """Inside, new layers and models start at zero and draw nothing: their weights come from elsewhere.

    with init.without_init():
        model = models.build("single")     # 62 million numbers that nobody needs are not drawn
    model.load_state_dict(state_dict)
    """
    token = _skipping.set(True)
    try:
        yield
    finally:
        _skipping.reset(token)


def is_skipped() -> bool:
    """Whether `without_init` is in force here."""
    return _skipping.get()


# --------------------------------------------------------------------------------------- one Tensor


def constant_(tensor: Tensor, value: float) -> Tensor:
    """Every element `value`."""
    tensor.data[...] = value
    tensor.bump_version()
    return tensor


def zeros_(tensor: Tensor) -> Tensor:
    """Every element zero."""
    return constant_(tensor, 0.0)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Normal deviates. Args: std: the standard deviation, not the variance."""
    return _draw(tensor, lambda stream, count: stream.normal(mean, std, (count,)))


def uniform_(tensor: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Uniform in [low, high)."""
    return _draw(tensor, lambda stream, count: stream.uniform(low, high, (count,)))


def kaiming_normal_(
    tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Tensor:
    """N(0, gain**2 / fan): from layer to layer activations (fan_in) or gradients (fan_out) keep their scale.

    Args:   a: negative slope, for "leaky_relu" only; mode: "fan_in" or "fan_out"; nonlinearity: as in
            `calculate_gain`.
    Source: He, Zhang, Ren, Sun 2015; the argument order is PyTorch's.
    """
    return normal_(tensor, 0.0, calculate_gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode)))


def kaiming_uniform_(
    tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Tensor:
    """U(-b, b) with b = gain * sqrt(3 / fan), which has the variance of `kaiming_normal_`."""
    bound = calculate_gain(nonlinearity, a) * math.sqrt(3.0 / _fan(tensor, mode))
    return uniform_(tensor, -bound, bound)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """U(-b, b) with b = gain * sqrt(6 / (fan_in + fan_out)): for sigmoid and tanh.

    Source: Glorot, Bengio 2010.
    """
    bound = gain * math.sqrt(6.0 / sum(fans(tensor.shape)))
    return uniform_(tensor, -bound, bound)


def calculate_gain(nonlinearity: str, a: float = 0.0) -> float:
    """The factor by which a weight must be larger because of the nonlinearity after it; PyTorch's table.

    Raises: ValueError for a name that is not "linear", "sigmoid", "tanh", "relu" or "leaky_relu".
    """
    gains = {
        "linear": 1.0,
        "sigmoid": 1.0,
        "tanh": 5.0 / 3.0,
        "relu": math.sqrt(2.0),
        "leaky_relu": math.sqrt(2.0 / (1.0 + a * a)),
    }
    if nonlinearity not in gains:
        raise ValueError(f"unknown nonlinearity {nonlinearity!r}: expected one of {', '.join(gains)}")
    return gains[nonlinearity]


def fans(shape: Shape) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight: how many inputs an output sums, and outputs an input reaches.

    Shapes: Linear (out, in); Conv2d (F, C/groups, KH, KW). fan_out is F * KH * KW, also with groups, as in
            PyTorch.
    Raises: ShapeError for fewer than two axes or an extent of zero.
    """
    if len(shape) < 2 or 0 in shape:
        raise ShapeError(f"init: fans need a weight of two or more axes without zeros, got shape {shape}")
    window = numel(shape[2:])
    return shape[1] * window, shape[0] * window


def _fan(tensor: Tensor, mode: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode must be 'fan_in' or 'fan_out', got {mode!r}")
    return fans(tensor.shape)[0 if mode == "fan_in" else 1]


def _draw(tensor: Tensor, draw: Callable[[rng.Stream, int], Any]) -> Tensor:
    """Fill with draw(stream, count), chunk after chunk of one stream.

    Each chunk begins at an address of its own, so the values do not depend on the number of threads.
    """
    values = np.empty(tensor.size, dtype=tensor.dtype)
    stream = rng.current_scope().stream("init")
    if values.size >= MANY:
        stream = CompiledStream(**vars(stream))

    def work(first: int, last: int) -> None:
        for start in range(first * CHUNK, min(last * CHUNK, values.size), CHUNK):
            part = values[start : start + CHUNK]
            # Two 32-bit words an element, four words a block.
            part[...] = draw(replace(stream, block=start // 2), part.size)

    for_ranges(-(-values.size // CHUNK), work)
    tensor.data[...] = to_device(values.reshape(tensor.shape), tensor.device)
    tensor.bump_version()
    return tensor


# ------------------------------------------------------------------------------------ one layer, a model


def reset_(weight: Parameter, bias: Parameter | None) -> None:
    """PyTorch's default for one layer: weight and bias from U(-1/sqrt(fan_in), 1/sqrt(fan_in)).

    In PyTorch's words kaiming_uniform_(weight, a=sqrt(5)), which comes to the same bound. Inside
    `without_init` nothing is drawn.
    """
    if is_skipped():
        return
    kaiming_uniform_(weight, a=math.sqrt(5.0))
    if bias is not None:
        bound = 1.0 / math.sqrt(fans(weight.shape)[0])
        uniform_(bias, -bound, bound)


def pytorch_(model: Module) -> None:
    """PyTorch's default for every convolution and fully connected layer; see `reset_`."""
    for weight, bias in _layers(model):
        reset_(weight, bias)


def course_(model: Module) -> None:
    """The course's: convolutions kaiming_normal_(fan_out, relu), fully connected N(0, 0.01), biases 0."""
    for weight, bias in _layers(model):
        if weight.ndim == 4:
            kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
        else:
            normal_(weight, 0.0, 0.01)
        if bias is not None:
            zeros_(bias)


def paper_(model: Module) -> None:
    """The AlexNet paper's: weights N(0, 0.01); biases 1 in the second, fourth and fifth convolution and in
    the hidden fully connected layers, so that their ReLUs start with positive inputs; 0 elsewhere.

    A sixth convolution, of which the paper does not tell this, starts like the fourth and fifth.
    Source: Krizhevsky, Sutskever, Hinton 2012, section 5.
    """
    layers = list(_layers(model))
    convolutions = [bias for weight, bias in layers if weight.ndim == 4]
    connected = [bias for weight, bias in layers if weight.ndim == 2]
    ones = {id(bias) for i, bias in enumerate(convolutions) if i in (1, 3, 4, 5)}
    ones |= {id(bias) for bias in connected[:-1]}
    for weight, bias in layers:
        normal_(weight, 0.0, 0.01)
        if bias is not None:
            constant_(bias, 1.0 if id(bias) in ones else 0.0)


def xavier_(model: Module, gain: float = 1.0) -> None:
    """xavier_uniform_ weights and biases 0: for networks of sigmoids or tanhs.

    Args:   gain: for all layers but the last, which no nonlinearity follows: 1 for tanh; 4 for sigmoid, whose
            slope at zero is 1/4.
    Source: Glorot, Bengio 2010.
    """
    layers = list(_layers(model))
    for weight, bias in layers:
        xavier_uniform_(weight, 1.0 if weight is layers[-1][0] else gain)
        if bias is not None:
            zeros_(bias)


def kaiming_(model: Module, gain: float = math.sqrt(2.0)) -> None:
    """N(0, gain**2 / fan_in) weights and biases 0: for networks of ReLUs.

    Args:   gain: for all layers but the last, which no nonlinearity follows: sqrt(2) for ReLUs, which take
            half of a signal's energy.
    Source: He, Zhang, Ren, Sun 2015.
    """
    layers = list(_layers(model))
    for weight, bias in layers:
        own = 1.0 if weight is layers[-1][0] else gain
        normal_(weight, 0.0, own / math.sqrt(_fan(weight, "fan_in")))
        if bias is not None:
            zeros_(bias)


def _layers(model: Module) -> Iterator[tuple[Parameter, Parameter | None]]:
    """(weight, bias) of every layer that has a weight, in the order of the tree."""
    for module in model.modules():
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        if isinstance(weight, Parameter):
            yield weight, bias
