"""LeNet-5, and the same with the activation and the pooling of later networks."""

from __future__ import annotations

from dataclasses import dataclass

from minialex import nn
from minialex.errors import UsageError
from minialex.models.network import ConvNet
from minialex.models.parts import activation_layer, first_values
from minialex.nn import init
from minialex.shapes import ShapeError
from minialex.tensor import Tensor

__all__ = ["LENETS", "LeNet", "LeNetVariant", "lenet5"]


@dataclass(frozen=True)
class LeNetVariant:
    """One LeNet-5. Args: activation: a key of ACTIVATIONS; pool: the layer, of 2 x 2 windows."""

    activation: str
    pool: type[nn.AvgPool2d] | type[nn.MaxPool2d]


LENETS = {
    "lenet5": LeNetVariant("sigmoid", nn.AvgPool2d),
    "lenet5-relu": LeNetVariant("relu", nn.MaxPool2d),
}


class LeNet(ConvNet):
    """Two convolutions (`features`) and three fully connected layers (`classifier`).

    The form that is taught today: 28 x 28 images with padding 2 in place of 32 x 32, average pooling without
    weights (or max-pooling), every filter of the second convolution connected to all maps of the first,
    logits instead of radial basis functions.

    Shapes: x (N, 1, 28, 28) -> logits (N, num_classes).
    Args:   activation: a key of ACTIVATIONS; pool: nn.AvgPool2d or nn.MaxPool2d; name: as of ConvNet.
    Source: LeCun, Bottou, Bengio, Haffner 1998.
    """

    def __init__(
        self,
        num_classes: int,
        activation: str = "sigmoid",
        pool: type[nn.AvgPool2d] | type[nn.MaxPool2d] = nn.AvgPool2d,
        name: str = "lenet5",
    ) -> None:
        super().__init__(name, num_classes, 28, 1, first_values(activation))
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, kernel_size=5, padding=2),
            activation_layer(activation),
            pool(2),
            nn.Conv2d(6, 16, kernel_size=5),
            activation_layer(activation),
            pool(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(16 * 5 * 5, 120),
            activation_layer(activation),
            nn.Linear(120, 84),
            activation_layer(activation),
            nn.Linear(84, num_classes),
        )

    def _check_images(self, x: Tensor) -> None:
        expected = (self.channels, self.image_size, self.image_size)
        if x.shape[1:] != expected or x.ndim != 4:
            raise ShapeError(
                f"{self.name}: images must be (N, {', '.join(map(str, expected))}), got shape {x.shape}"
            )


def lenet5(num_classes: int = 10, variant: str = "lenet5", *, activation: str | None = None) -> LeNet:
    """LeNet-5 with logits for `num_classes` classes: 61,706 parameters with ten.

    "lenet5" has sigmoids and average pooling; their weights start from Xavier's uniform distribution with the
    gain of sigmoids, 4. With a gain of 1, or with PyTorch's default, stacked sigmoids hardly pass a gradient
    and the loss stays at ln(classes) for hundreds of steps. "lenet5-relu" has ReLUs, He's first values and
    max-pooling.

    Args:   variant: a key of LENETS; activation: in place of the variant's own, with first values for it.
    Raises: UsageError for an unknown variant or activation.
    """
    if variant not in LENETS:
        raise UsageError(f"unknown LeNet {variant!r}: expected one of {', '.join(LENETS)}")
    row = LENETS[variant]
    with init.without_init():
        model = LeNet(num_classes, row.activation if activation is None else activation, row.pool, variant)
    if not init.is_skipped():
        model.first_values(model)
    return model
