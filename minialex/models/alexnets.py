"""AlexNet: every variant is a row of one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from minialex import nn, ops
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

    Args: channels: filters of the five convolutions; padding: zeros around the image at conv1; image_size:
          side of the images it is made for, pixels; hidden: width of the two hidden fully connected layers;
          lrn: local response normalisation after the ReLU of conv1 and conv2; groups: of conv2, conv4 and
          conv5; adaptive: an average pool to 6 x 6, so that images may have other sizes; init: first values;
          source: where it comes from.
    """

    channels: tuple[int, int, int, int, int]
    padding: int
    image_size: int
    hidden: int
    lrn: bool
    groups: int
    adaptive: bool
    init: Callable[[nn.Module], None]
    source: str


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
}


class AlexNet(nn.Module):
    """Five convolutions (`features`), and three fully connected layers (`classifier`) with dropout between.

    Shapes: x (N, 3, H, W) -> logits (N, num_classes).
    Args:   variant: a row of VARIANTS; name: what it is called in messages and checkpoints; num_classes:
            how many logits; image_size: side of the images, pixels.
    With `fused`, which can be set at any time, the layers of `features` run by fused operations (see
    `nn.run_fused`): less time and memory for the same numbers.
    Raises: ShapeError naming the layer that the images are too small for.
    """

    fused = True

    def __init__(self, variant: Variant, name: str, num_classes: int, image_size: int) -> None:
        super().__init__()
        self.name, self.num_classes, self.image_size, self.channels = name, num_classes, image_size, 3
        self.features = _features(variant, image_size)
        self.avgpool = nn.AdaptiveAvgPool2d(6) if variant.adaptive else None
        height, width = self._output_size((image_size, image_size))
        hidden = variant.hidden
        self.classifier = nn.Sequential(
            nn.Dropout(0.5),
            nn.Linear(variant.channels[-1] * height * width, hidden),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        self._check_images(x)
        x = nn.run_fused(self.features, x) if self.fused else self.features(x)
        if self.avgpool is not None:
            x = self.avgpool(x)
        return self.classifier(ops.flatten(x, 1))

    def _output_size(self, size: Pair) -> Pair:
        """(height, width) of what the classifier gets, in pixels, for images of `size`."""
        image = size
        for index, layer in enumerate(self.features):
            if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
                try:
                    size = layer.output_size(size)
                except ShapeError as error:
                    raise ShapeError(
                        f"{self.name}: images of {image[0]} x {image[1]} are too small: they are "
                        f"{size[0]} x {size[1]} at features.{index}, {layer!r}: {error}"
                    ) from None
        return self.avgpool.output_size(size) if self.avgpool is not None else size

    def _check_images(self, x: Tensor) -> None:
        """Say what is wrong with the images, before a fully connected layer speaks of 9216 features."""
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise ShapeError(f"{self.name}: images must be (N, {self.channels}, H, W), got shape {x.shape}")
        expected = self._output_size((self.image_size, self.image_size))
        height, width = self._output_size((x.shape[2], x.shape[3]))
        if (height, width) != expected:
            raise ShapeError(
                f"{self.name}: images of {x.shape[2]} x {x.shape[3]} leave {height} x {width} for "
                f"classifier.1, which expects {expected[0]} x {expected[1]}; resize them to "
                f"{self.image_size} x {self.image_size}, or build the model for their size with image_size="
            )


def _features(variant: Variant, image_size: int) -> nn.Sequential:
    c1, c2, c3, c4, c5 = variant.channels
    groups = variant.groups
    first_padding: int | Padding = variant.padding
    if variant.image_size == 227 and image_size == 224:
        first_padding = PADDING_FOR_224
    return nn.Sequential(
        nn.Conv2d(3, c1, kernel_size=11, stride=4, padding=first_padding),
        nn.ReLU(),
        *_normalisation(variant),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(c1, c2, kernel_size=5, padding=2, groups=groups),
        nn.ReLU(),
        *_normalisation(variant),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(c2, c3, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(c3, c4, kernel_size=3, padding=1, groups=groups),
        nn.ReLU(),
        nn.Conv2d(c4, c5, kernel_size=3, padding=1, groups=groups),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
    )


def _normalisation(variant: Variant) -> list[nn.Module]:
    return [nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0, dialect="paper")] if variant.lrn else []


def alexnet(
    variant: str,
    num_classes: int = 1000,
    image_size: int | None = None,
    weights: str | Path | None = None,
) -> AlexNet:
    """An AlexNet with logits for `num_classes` classes.

    "flowers": 14.6 million parameters with five classes, images of 224; "single": 62.4 million, 227, or
    224 with padding ((1, 2), (1, 2)); "grouped": 61.0 million, alike; "owt": torchvision's, 61.1 million,
    224, and any other size from 63 on. Names in the state dict are torchvision's: features.0.weight,
    classifier.1.weight. Dropout is inverted in all of them, which has the effect of the paper's scaling at
    test time.

    Args:   variant: a key of VARIANTS; image_size: side of the images in pixels, None for the variant's own;
            weights: a safetensors file of a state dict, or a checkpoint; None draws the variant's first
            values.
    Raises: ValueError for an unknown variant; ShapeError naming the layer that the images are too small for;
            CheckpointError if the weights cannot be read or are another model's.
    """
    if variant not in VARIANTS:
        raise ValueError(f"unknown AlexNet variant {variant!r}: expected one of {', '.join(VARIANTS)}")
    row = VARIANTS[variant]
    side = row.image_size if image_size is None else as_int(image_size, "alexnet: image_size")
    with init.without_init():
        model = AlexNet(row, variant, num_classes, side)
    if weights is not None:
        load_weights(model, weights)
    elif not init.is_skipped():
        row.init(model)
    return model
