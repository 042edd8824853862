"""Where in the picture, at which size, and which way round: crops, scaling and flips."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from PIL import Image, ImageOps

from minialex.data.transforms.base import Size, Transform, as_pair, require, required_stream
from minialex.errors import DataError
from minialex.rng import Stream

__all__ = ["CenterCrop", "RandomCrop", "RandomHorizontalFlip", "RandomResizedCrop", "Resize"]

BILINEAR = Image.Resampling.BILINEAR


@dataclass(frozen=True)
class Resize(Transform):
    """Scale the picture. An int is the length of the shorter side; a pair is (height, width) exactly."""

    size: Size

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", self.size if isinstance(self.size, int) else as_pair(self.size))
        require(min(as_pair(self.size)) > 0, self, "size must be positive")

    def __call__(self, image: Image.Image, stream: Stream | None = None) -> Image.Image:
        if not isinstance(self.size, int):
            height, width = as_pair(self.size)
        elif image.width <= image.height:
            width, height = self.size, int(self.size * image.height / image.width)
        else:
            width, height = int(self.size * image.width / image.height), self.size
        return image.resize((width, height), BILINEAR)


@dataclass(frozen=True)
class CenterCrop(Transform):
    """The middle of the picture, `size` (an int, or (height, width)), with a black border if need be."""

    size: Size

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", as_pair(self.size))
        require(min(as_pair(self.size)) > 0, self, "size must be positive")

    def __call__(self, image: Image.Image, stream: Stream | None = None) -> Image.Image:
        height, width = as_pair(self.size)
        if image.width < width or image.height < height:
            across, down = max(0, width - image.width), max(0, height - image.height)
            image = ImageOps.expand(image, (across // 2, down // 2, (across + 1) // 2, (down + 1) // 2))
        left, top = round((image.width - width) / 2), round((image.height - height) / 2)
        return image.crop((left, top, left + width, top + height))


@dataclass(frozen=True)
class RandomResizedCrop(Transform):
    """A random rectangle of the picture, scaled to `size`.

    Its area is a uniform share of the picture's, its ratio of width to height is log-uniform. After ten
    rectangles that do not fit, the largest allowed one in the middle is taken.

    Args:   size: an int, or (height, width). scale: the least and the greatest share of the area.
            ratio: the least and the greatest width / height.
    Source: Szegedy et al., "Going deeper with convolutions", CVPR 2015; details as in torchvision, except
            that the scaling filter may look at pixels just outside the rectangle (one pass instead of two).
    """

    size: Size
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    TRIES = 10

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", as_pair(self.size))
        for name in ("scale", "ratio"):
            low, high = getattr(self, name)
            object.__setattr__(self, name, (float(low), float(high)))
            require(0 < low <= high, self, f"{name} must be (low, high) with 0 < low <= high")
        require(min(as_pair(self.size)) > 0, self, "size must be positive")

    def __call__(self, image: Image.Image, stream: Stream | None = None) -> Image.Image:
        height, width = as_pair(self.size)
        left, top, w, h = self.rectangle(image.width, image.height, required_stream(self, stream))
        return image.resize((width, height), BILINEAR, box=(left, top, left + w, top + h))

    def rectangle(self, width: int, height: int, stream: Stream) -> tuple[int, int, int, int]:
        """(left, top, width, height) of a random rectangle in a picture of width x height pixels."""
        tries = replace(stream)
        stream.block += 2 * self.TRIES  # what follows does not depend on how many tries it took
        for _ in range(self.TRIES):
            area, ratio, x, y = tries.uniform(shape=(4,)).tolist()  # eight words, two blocks
            target = width * height * (self.scale[0] + (self.scale[1] - self.scale[0]) * area)
            low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
            aspect = math.exp(low + (high - low) * ratio)
            w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
            if 0 < w <= width and 0 < h <= height:
                return int(x * (width - w + 1)), int(y * (height - h + 1)), w, h
        aspect = min(max(width / height, self.ratio[0]), self.ratio[1])
        w, h = min(width, max(1, round(height * aspect))), min(height, max(1, round(width / aspect)))
        return (width - w) // 2, (height - h) // 2, w, h


@dataclass(frozen=True)
class RandomCrop(Transform):
    """A random rectangle of `size` (an int, or (height, width)), after a black border of `padding` pixels."""

    size: Size
    padding: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", as_pair(self.size))
        require(min(as_pair(self.size)) > 0, self, "size must be positive")
        require(self.padding >= 0, self, "padding must not be negative")

    def __call__(self, image: Image.Image, stream: Stream | None = None) -> Image.Image:
        height, width = as_pair(self.size)
        if self.padding:
            image = ImageOps.expand(image, self.padding)
        if image.width < width or image.height < height:
            raise DataError(
                f"RandomCrop needs a picture of at least {height} x {width} pixels (height x width), got "
                f"{image.height} x {image.width}. Put a Resize before it, or give it padding."
            )
        left, top = self.corner(image.width, image.height, required_stream(self, stream))
        return image.crop((left, top, left + width, top + height))

    def corner(self, width: int, height: int, stream: Stream) -> tuple[int, int]:
        """(left, top) of a random rectangle in a picture of width x height pixels, its border included."""
        x, y = stream.uniform(shape=(2,)).tolist()
        return int(x * (width - as_pair(self.size)[1] + 1)), int(y * (height - as_pair(self.size)[0] + 1))


@dataclass(frozen=True)
class RandomHorizontalFlip(Transform):
    """Left and right exchanged with probability p."""

    p: float = 0.5

    def __post_init__(self) -> None:
        require(0 <= self.p <= 1, self, "p must lie between 0 and 1")

    def __call__(self, image: Image.Image, stream: Stream | None = None) -> Image.Image:
        flip = self.flips(required_stream(self, stream))
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else image

    def flips(self, stream: Stream) -> bool:
        """Whether this one is."""
        return bool(stream.uniform() < self.p)
