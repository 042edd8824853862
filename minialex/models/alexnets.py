"""AlexNet: every variant is a row of one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minialex import nn, ops
from minialex.errors import UsageError
from minialex.models.network import ConvNet
from minialex.models.parts import (
    ACTIVATIONS,
    POOLINGS,
    activation_layer,
    check_choice,
    first_values,
    max_pool,
)
from minialex.models.weights import load_weights
from minialex.nn import init
from minialex.shapes import Padding, Pair, ShapeError, as_int
from minialex.tensor import Tensor

__all__ = ["VARIANTS", "AlexNet", "Variant", "alexnet"]

# With these the window of conv1 meets every column of a 224 x 224 image; its 55 x 55 outputs are the paper's.
PADDING_FOR_224: Padding = ((1, 2), (1, 2))


@dataclass(frozen=True)
class Variant:
    """One AlexNet.

    Args:   channels: filters of the five convolutions; padding: zeros around the image at conv1; image_size:
            side of the images it is made for, pixels; hidden: width of the two hidden fully connected layers;
            lrn: local response normalisation after the activation of conv1 and conv2; groups: of conv2, conv4
            and conv5; adaptive: an average pool to 6 x 6, so that images may have other sizes; init: first
            values; source: where it comes from; sixth: another convolution, of as many filters as the fifth,
            after the last pooling; dropout: probability before both hidden layers; pooling: a key of
            POOLINGS; activation: of ACTIVATIONS.
    Raises: ShapeError naming the convolution whose channels `groups` does not divide; UsageError for a
            probability, pooling or activation that there is not.
    """

    channels: tuple[int, int, int, int, int]
    padding: int | Padding
    image_size: int
    hidden: int
    lrn: bool
    groups: int
    adaptive: bool
    init: Callable[[nn.Module], None]
    source: str
    sixth: bool = False
    dropout: float = 0.5
    pooling: str = "overlapping"
    activation: str = "relu"

    def __post_init__(self) -> None:
        for conv in (2, 4, 5):
            inputs, filters = self.channels[conv - 2 : conv]
            if self.groups < 1 or inputs % self.groups or filters % self.groups:
                raise ShapeError(
                    f"conv{conv}: groups={self.groups} must divide its {inputs} input channels and its "
                    f"{filters} filters"
                )
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout must be at least 0 and below 1, got {self.dropout}")
        check_choice("pooling", self.pooling, POOLINGS)
        check_choice("activation", self.activation, ACTIVATIONS)


VARIANTS = {
    "flowers": Variant(
        channels=(48, 128, 192, 192, 128),
        padding=2,
        image_size=224,
        hidden=2048,
        lrn=False,
        groups=1,
        adaptive=False,
        init=init.course_,
        source="half of AlexNet, as taught in a course on five kinds of flowers",
    ),
    "single": Variant(
        channels=(96, 256, 384, 384, 256),
        padding=0,
        image_size=227,
        hidden=4096,
        lrn=True,
        groups=1,
        adaptive=False,
        init=init.paper_,
        source="Krizhevsky, Sutskever, Hinton 2012, without the division between two GPUs",
    ),
    "grouped": Variant(
        channels=(96, 256, 384, 384, 256),
        padding=0,
        image_size=227,
        hidden=4096,
        lrn=True,
        groups=2,
        adaptive=False,
        init=init.paper_,
        source="Krizhevsky, Sutskever, Hinton 2012, the two GPUs as two groups",
    ),
    "owt": Variant(
        channels=(64, 192, 384, 256, 256),
        padding=2,
        image_size=224,
        hidden=4096,
        lrn=False,
        groups=1,
        adaptive=True,
        init=init.pytorch_,
        source="Krizhevsky 2014, 'One weird trick', as in torchvision",
    ),
    "flowers-tf": Variant(
        channels=(48, 128, 192, 192, 128),
        padding=PADDING_FOR_224,
        image_size=224,
        hidden=2048,
        lrn=False,
        groups=1,
        adaptive=False,
        init=init.xavier_,  # Keras' own: Glorot's uniform weights, zero biases.
        source="the same course in TensorFlow, where a layer of zeros before conv1 is what padding is here",
        dropout=0.2,
    ),
    "six-conv": Variant(
        channels=(96, 256, 384, 384, 256),
        padding=0,
        image_size=227,
        hidden=4096,
        lrn=True,
        groups=1,
        adaptive=False,
        init=init.paper_,
        source="Krizhevsky, Sutskever, Hinton 2012, '1 CNN*' in table 2, without the two GPUs",
        sixth=True,
    ),
}


class AlexNet(ConvNet):
    """Five convolutions (`features`), and three fully connected layers (`classifier`) with dropout between.

    Shapes: x (N, 3, H, W) -> logits (N, num_classes).
    Args:   variant: a row of VARIANTS; name: what it is called in messages and checkpoints; num_classes:
            how many logits; image_size: side of the images, pixels.
    Raises: ShapeError naming the layer that the images are too small for.
    """

    def __init__(self, variant: Variant, name: str, num_classes: int, image_size: int) -> None:
        super().__init__(name, num_classes, image_size, 3, variant.init)
        self.features = _features(variant, image_size)
        self.avgpool = nn.AdaptiveAvgPool2d(6) if variant.adaptive else None
        height, width = self.output_size((image_size, image_size))
        hidden = variant.hidden
        self.classifier = nn.Sequential(
            nn.Dropout(variant.dropout),
            nn.Linear(variant.channels[-1] * height * width, hidden),
            activation_layer(variant.activation),
            nn.Dropout(variant.dropout),
            nn.Linear(hidden, hidden),
            activation_layer(variant.activation),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolved(x)
        if self.avgpool is not None:
            x = self.avgpool(x)
        return self.classifier(ops.flatten(x, 1))

    def output_size(self, size: Pair) -> Pair:
        """(height, width) of what the classifier gets; see ConvNet."""
        size = super().output_size(size)
        return self.avgpool.output_size(size) if self.avgpool is not None else size


def _features(variant: Variant, image_size: int) -> nn.Sequential:
    c1, c2, c3, c4, c5 = variant.channels
    groups = variant.groups
    first_padding = variant.padding
    if variant.image_size == 227 and image_size == 224:
        first_padding = PADDING_FOR_224
    return nn.Sequential(
        nn.Conv2d(3, c1, kernel_size=11, stride=4, padding=first_padding),
        activation_layer(variant.activation),
        *_normalisation(variant),
        max_pool(variant.pooling),
        nn.Conv2d(c1, c2, kernel_size=5, padding=2, groups=groups),
        activation_layer(variant.activation),
        *_normalisation(variant),
        max_pool(variant.pooling),
        nn.Conv2d(c2, c3, kernel_size=3, padding=1),
        activation_layer(variant.activation),
        nn.Conv2d(c3, c4, kernel_size=3, padding=1, groups=groups),
        activation_layer(variant.activation),
        nn.Conv2d(c4, c5, kernel_size=3, padding=1, groups=groups),
        activation_layer(variant.activation),
        max_pool(variant.pooling),
        *_sixth_convolution(variant),
    )


def _normalisation(variant: Variant) -> list[nn.Module]:
    return [nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0, dialect="paper")] if variant.lrn else []


def _sixth_convolution(variant: Variant) -> list[nn.Module]:
    if not variant.sixth:
        return []
    filters = variant.channels[-1]
    return [nn.Conv2d(filters, filters, kernel_size=3, padding=1), activation_layer(variant.activation)]


def alexnet(
    variant: str,
    num_classes: int = 1000,
    image_size: int | None = None,
    weights: str | Path | None = None,
    *,
    dropout: float | None = None,
    lrn: bool | None = None,
    pooling: str | None = None,
    activation: str | None = None,
) -> AlexNet:
    """An AlexNet with logits for `num_classes` classes.

    "flowers": 14.6 million parameters with five classes, images of 224, and "flowers-tf" alike, but for the
    zeros around the image, less dropout and other first values; "single": 62.4 million, 227, or 224 with
    padding ((1, 2), (1, 2)); "grouped": 61.0 million, alike; "six-conv": 63.0 million, "single" with a sixth
    convolution; "owt": torchvision's, 61.1 million, 224, and any other size from 63 on. Names in the state
    dict are torchvision's: features.0.weight, classifier.1.weight. Dropout is inverted in all of them, which
    has the effect of the paper's scaling at test time.

    Args:   variant: a key of VARIANTS; image_size: side of the images in pixels, None for the variant's own;
            weights: a file of a state dict, or a checkpoint; None draws the variant's first values;
            dropout, lrn, pooling, activation: in place of the variant's own (see Variant). An activation
            other than the variant's has other first values, too: those of `first_values`.
    Raises: ValueError for an unknown variant; UsageError for an unknown option; ShapeError naming the layer
            that the images are too small for; CheckpointError if the weights cannot be read or are another
            model's.
    """
    if variant not in VARIANTS:
        raise ValueError(f"unknown AlexNet variant {variant!r}: expected one of {', '.join(VARIANTS)}")
    row = VARIANTS[variant]
    side = row.image_size if image_size is None else as_int(image_size, "alexnet: image_size")
    options: dict[str, Any] = {"dropout": dropout, "lrn": lrn, "pooling": pooling, "activation": activation}
    changes = {name: value for name, value in options.items() if value is not None}
    if activation not in (None, row.activation):
        changes["init"] = first_values(activation)
    row = replace(row, **changes)
    with init.without_init():
        model = AlexNet(row, variant, num_classes, side)
    if weights is not None:
        load_weights(model, weights)
    elif not init.is_skipped():
        model.first_values(model)
    return model
