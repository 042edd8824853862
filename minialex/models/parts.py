"""What the networks are put together from: activations, max-pooling, and the first values that suit them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

from minialex import nn
from minialex.errors import UsageError
from minialex.nn import init

__all__ = ["ACTIVATIONS", "POOLINGS", "activation_layer", "check_choice", "first_values", "max_pool"]

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
# (kernel_size, stride) of max-pooling. A window of 55 x 55 gives 27 x 27 either way, and so on down to 6 x 6:
# one can be put for the other and every other layer stays what it is.
POOLINGS = {"overlapping": (3, 2), "separate": (2, 2)}

_FIRST_VALUES: dict[str, Callable[[nn.Module], None]] = {
    "relu": init.kaiming_,
    "tanh": init.xavier_,
    "sigmoid": partial(init.xavier_, gain=4.0),  # The slope of a sigmoid at zero is 1/4.
}


def activation_layer(name: str) -> nn.Module:
    """A new layer of this activation. Raises: UsageError for a name that is not in ACTIVATIONS."""
    check_choice("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]()


def max_pool(pooling: str) -> nn.MaxPool2d:
    """Windows of 3 x 3, two pixels apart ("overlapping"), or of 2 x 2 ("separate").

    Raises: UsageError for another word.
    Source: Krizhevsky, Sutskever, Hinton 2012, section 3.4: with overlapping ones the error was lower.
    """
    check_choice("pooling", pooling, POOLINGS)
    kernel_size, stride = POOLINGS[pooling]
    return nn.MaxPool2d(kernel_size, stride=stride)


def first_values(activation: str) -> Callable[[nn.Module], None]:
    """What draws the first values of a network of these activations, so that signals keep their size.

    "relu": He's; "tanh": Xavier's; "sigmoid": Xavier's with a gain of 4.
    Raises: UsageError for a name that is not in ACTIVATIONS.
    """
    check_choice("activation", activation, ACTIVATIONS)
    return _FIRST_VALUES[activation]


def check_choice(option: str, value: str, choices: Collection[str]) -> None:
    """Raises: UsageError if the value of a network's option is none of its choices."""
    if value not in choices:
        raise UsageError(f"{option} must be one of {', '.join(choices)}, got {value!r}")
