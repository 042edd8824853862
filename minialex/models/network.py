"""What the networks share: convolutions, fully connected layers, and words for pictures that do not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from minialex import nn
from minialex.models.geometry import SIZE_RULE, size_by_rule
from minialex.shapes import Pair, ShapeError
from minialex.tensor import Tensor

__all__ = ["ConvNet"]

Window = nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d
# Where the search for the smallest pictures ends, pixels: far above the 63 of the AlexNets.
LARGEST_SIDE = 512


class ConvNet(nn.Module):
    """Convolutions with activations and pooling (`features`), then fully connected layers (`classifier`).

    Shapes: x (N, channels, H, W) -> logits (N, num_classes).
    Args:   name: what it is called in messages and checkpoints; num_classes: how many logits; image_size:
            side of the pictures, pixels; channels: of the pictures; first_values: draws the weights of this
            network, or of a new last layer.
    With `fused`, which can be set at any time, the layers of `features` run by fused operations (see
    `nn.run_fused`): less time and memory for the same numbers.
    """

    fused = True
    features: nn.Sequential
    classifier: nn.Sequential

    def __init__(
        self,
        name: str,
        num_classes: int,
        image_size: int,
        channels: int,
        first_values: Callable[[nn.Module], None],
    ) -> None:
        super().__init__()
        if image_size < 1:
            raise ShapeError(f"{name}: image_size must be at least 1, got {image_size}")
        self.name, self.num_classes, self.image_size, self.channels = name, num_classes, image_size, channels
        self.first_values = first_values

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.convolved(x))

    def convolved(self, x: Tensor) -> Tensor:
        """The pictures through `features`. Raises: ShapeError if they are not of this network's shape."""
        self._check_images(x)
        return nn.run_fused(self.features, x) if self.fused else self.features(x)

    def output_size(self, size: Pair) -> Pair:
        """(height, width) of what the classifier gets, in pixels, for pictures of `size`.

        Raises: ShapeError naming the layer that they are too small for, and the smallest that are not.
        """
        image = size
        for index, layer in self._windows():
            try:
                size = layer.output_size(size)
            except ShapeError:
                raise ShapeError(
                    f"{self.name}: images of {_by(image)} are too small: they are {_by(size)} at "
                    f"features.{index}, {layer!r}: {_rule(layer, size)}: no window fits{self._hint(image)}"
                ) from None
        return size

    def _windows(self) -> Iterator[tuple[int, Window]]:
        """(index in `features`, layer) of what changes the size."""
        for index, layer in enumerate(self.features):
            if isinstance(layer, Window):
                yield index, layer

    def _hint(self, image: Pair) -> str:
        """The smallest pictures that fit, for a message."""
        layers = [layer for _, layer in self._windows()]
        for side in range(max(1, min(image)), LARGEST_SIDE + 1):
            if _fits(layers, side):
                return f"; the smallest that fit are {side} x {side}"
        return ""

    def _check_images(self, x: Tensor) -> None:
        """Say what is wrong with the images, before a fully connected layer speaks of 9216 features."""
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise ShapeError(f"{self.name}: images must be (N, {self.channels}, H, W), got shape {x.shape}")
        expected = self.output_size((self.image_size, self.image_size))
        got = self.output_size((x.shape[2], x.shape[3]))
        if got != expected:
            raise ShapeError(
                f"{self.name}: images of {_by(x.shape[2:])} leave {_by(got)} for the classifier, which "
                f"expects {_by(expected)}; resize them to {self.image_size} x {self.image_size}, or build "
                "the model for their size with image_size="
            )


def _fits(layers: list[Window], side: int) -> bool:
    size = (side, side)
    try:
        for layer in layers:
            size = layer.output_size(size)
    except ShapeError:
        return False
    return True


def _rule(layer: Window, size: Pair) -> str:
    """The rule of sizes with the numbers of the shorter side, for which no window fits."""
    axis = size.index(min(size))
    dilation = layer.dilation[axis] if isinstance(layer, nn.Conv2d) else 1
    numbers = size_by_rule(
        size[axis], layer.kernel_size[axis], layer.stride[axis], layer.padding[axis], dilation
    )
    return f"{SIZE_RULE} = {numbers}"


def _by(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))
