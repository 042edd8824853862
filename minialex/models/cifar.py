"""The four-layer network for 32 x 32 pictures, with which ReLU and tanh are compared."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from minialex import nn
from minialex.models.network import ConvNet
from minialex.models.parts import activation_layer, first_values, max_pool
from minialex.nn import init

__all__ = ["CifarNet", "cifar4"]

FILTERS = (16, 32, 64)
# A ReLU takes half of a signal's energy, and He's gain of sqrt(2) gives it back. Here the maximum of 3 x 3
# pixels, which comes after every ReLU, gives it back and more: with that gain the logits begin several times
# too large, and learning is slower.
RELU_FIRST_VALUES = partial(init.kaiming_, gain=1.0)


class CifarNet(ConvNet):
    """Three convolutions of 5 x 5, each with an activation and max-pooling (`features`), one fully connected
    layer (`classifier`): four layers with weights.

    Shapes: x (N, 3, image_size, image_size) -> logits (N, num_classes); 32 -> 15 -> 7 -> 3 pixels.
    Args:   activation: a key of ACTIVATIONS; image_size: side of the pictures, pixels; pooling: a key of
            POOLINGS.
    Raises: ShapeError naming the layer that the pictures are too small for; UsageError for another
            activation or pooling.
    Source: Krizhevsky, Sutskever, Hinton 2012, figure 1, says "a four-layer convolutional neural network" and
            no more of it. This one is after Krizhevsky's for CIFAR-10 in cuda-convnet (layers-80sec): three
            convolutions of 5 x 5 with pooling of 3 x 3 by 2, and one layer for the classes. His have 32, 32
            and 64 filters, and the later ones take means in place of maxima; 16 in the first save a third of
            the time of a step.
    """

    def __init__(
        self, num_classes: int, activation: str = "relu", image_size: int = 32, pooling: str = "overlapping"
    ) -> None:
        begin = RELU_FIRST_VALUES if activation == "relu" else first_values(activation)
        super().__init__("cifar-4", num_classes, image_size, 3, begin)
        layers: list[nn.Module] = []
        for inputs, filters in pairwise((3, *FILTERS)):
            conv = nn.Conv2d(inputs, filters, kernel_size=5, padding=2)
            layers += [conv, activation_layer(activation), max_pool(pooling)]
        self.features = nn.Sequential(*layers)
        height, width = self.output_size((image_size, image_size))
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(FILTERS[-1] * height * width, num_classes))


def cifar4(
    num_classes: int = 10,
    activation: str = "relu",
    image_size: int | None = None,
    *,
    pooling: str | None = None,
) -> CifarNet:
    """The four-layer network with logits for `num_classes` classes.

    First values suit the activation: normal with a variance of 1 / fan_in for "relu", Xavier's for "tanh",
    Xavier's with a gain of 4 for "sigmoid".

    Args, Raises: as CifarNet; None: 32 pixels, "overlapping".
    """
    with init.without_init():
        model = CifarNet(
            num_classes,
            activation,
            32 if image_size is None else image_size,
            "overlapping" if pooling is None else pooling,
        )
    if not init.is_skipped():
        model.first_values(model)
    return model
