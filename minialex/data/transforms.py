"""From a photograph to the numbers a net sees: crops, flips, scaling, normalisation.

The conventions are torchvision's. A transform is called with an image and a stream of random numbers, and its
random choices come from that stream alone, whose address is (seed, epoch, image): whichever worker prepares
the picture, and whatever was prepared before, the result is the same. Pictures are scaled with Pillow's
bilinear filter, which averages when it shrinks (antialiasing).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from minialex.errors import DataError
from minialex.rng import Stream

__all__ = [
    "CenterCrop",
    "Compose",
    "Greyscale",
    "Normalize",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "Resize",
    "Transform",
    "transform_from_config",
]

BILINEAR = Image.Resampling.BILINEAR
Size = int | Sequence[int]


class Transform:
    """What all transforms share: they are called with (image, stream) and can be written as JSON."""

    def __call__(self, image: Any, stream: Stream | None = None) -> Any:
        """The changed image. The stream may be left out where nothing is random."""
        raise NotImplementedError

    def to_config(self) -> dict[str, Any]:
        """The transform as JSON can hold it; `transform_from_config` is the way back."""
        arguments = {
            name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()
        }
        return {"name": type(self).__name__, **arguments}


class Compose(Transform):
    """Transforms one after another, all drawing from one stream."""

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = list(transforms)

    def __call__(self, image: Any, stream: Stream | None = None) -> Any:
        for transform in self.transforms:
            image = transform(image, stream)
        return image

    def to_config(self) -> dict[str, Any]:
        return {"name": "Compose", "transforms": [transform.to_config() for transform in self.transforms]}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Compose) and self.transforms == other.transforms

    def __repr__(self) -> str:
        return f"Compose({self.transforms!r})"


@dataclass(frozen=True)
class Resize(Transform):
    """Scale the picture. An int is the length of the shorter side; a pair is (height, width) exactly."""

    size: Size

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", self.size if isinstance(self.size, int) else _pair(self.size))
        _require(min(_pair(self.size)) > 0, self, "size must be positive")

    def __call__(self, image: Image.Image, stream: Stream | None = None) -> Image.Image:
        if not isinstance(self.size, int):
            height, width = _pair(self.size)
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
        object.__setattr__(self, "size", _pair(self.size))
        _require(min(_pair(self.size)) > 0, self, "size must be positive")

    def __call__(self, image: Image.Image, stream: Stream | None = None) -> Image.Image:
        height, width = _pair(self.size)
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
        object.__setattr__(self, "size", _pair(self.size))
        for name in ("scale", "ratio"):
            low, high = getattr(self, name)
            object.__setattr__(self, name, (float(low), float(high)))
            _require(0 < low <= high, self, f"{name} must be (low, high) with 0 < low <= high")
        _require(min(_pair(self.size)) > 0, self, "size must be positive")

    def __call__(self, image: Image.Image, stream: Stream | None = None) -> Image.Image:
        height, width = _pair(self.size)
        left, top, w, h = self.rectangle(image.width, image.height, _random(self, stream))
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
        object.__setattr__(self, "size", _pair(self.size))
        _require(min(_pair(self.size)) > 0, self, "size must be positive")
        _require(self.padding >= 0, self, "padding must not be negative")

    def __call__(self, image: Image.Image, stream: Stream | None = None) -> Image.Image:
        height, width = _pair(self.size)
        if self.padding:
            image = ImageOps.expand(image, self.padding)
        if image.width < width or image.height < height:
            raise DataError(
                f"RandomCrop needs a picture of at least {height} x {width} pixels (height x width), got "
                f"{image.height} x {image.width}. Put a Resize before it, or give it padding."
            )
        left, top = self.corner(image.width, image.height, _random(self, stream))
        return image.crop((left, top, left + width, top + height))

    def corner(self, width: int, height: int, stream: Stream) -> tuple[int, int]:
        """(left, top) of a random rectangle in a picture of width x height pixels, its border included."""
        x, y = stream.uniform(shape=(2,)).tolist()
        return int(x * (width - _pair(self.size)[1] + 1)), int(y * (height - _pair(self.size)[0] + 1))


@dataclass(frozen=True)
class RandomHorizontalFlip(Transform):
    """Left and right exchanged with probability p."""

    p: float = 0.5

    def __post_init__(self) -> None:
        _require(0 <= self.p <= 1, self, "p must lie between 0 and 1")

    def __call__(self, image: Image.Image, stream: Stream | None = None) -> Image.Image:
        flip = self.flips(_random(self, stream))
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else image

    def flips(self, stream: Stream) -> bool:
        """Whether this one is."""
        return bool(stream.uniform() < self.p)


@dataclass(frozen=True)
class Greyscale(Transform):
    """Colour to one channel of brightness, for nets such as LeNet-5."""

    def __call__(self, image: Image.Image, stream: Stream | None = None) -> Image.Image:
        return image.convert("L")


@dataclass(frozen=True)
class Normalize(Transform):
    """Bytes to numbers: (value / 255 - mean) / std, as float32 in CHW order.

    Args: mean, std: one number for all channels, or one a channel.
    """

    mean: float | Sequence[float] = 0.5
    std: float | Sequence[float] = 0.5

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            value = getattr(self, name)
            tuples = float(value) if isinstance(value, (int, float)) else tuple(float(item) for item in value)
            object.__setattr__(self, name, tuples)
        _require(bool(np.all(np.asarray(self.std) > 0)), self, "std must be positive")

    def __call__(self, image: Image.Image, stream: Stream | None = None) -> npt.NDArray[np.float32]:
        pixels = np.asarray(image)
        if pixels.ndim == 2:
            pixels = pixels[:, :, None]
        return self.batch(pixels[None])[0]

    def batch(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """A batch of pictures at once: (N, H, W, C) -> (N, C, H, W)."""
        self.check_channels(pixels.shape[3])
        mean, std = (np.asarray(value, dtype=np.float32).reshape(-1, 1, 1) for value in (self.mean, self.std))
        values = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), dtype=np.float32)
        values /= np.float32(255)
        values -= mean
        values /= std
        return values

    def check_channels(self, channels: int) -> None:
        """Raises: DataError if there is neither one mean and deviation in all nor one a channel."""
        means, stds = np.size(self.mean), np.size(self.std)
        if {means, stds} - {1, channels}:
            raise DataError(
                f"Normalize has {means} means and {stds} standard deviations, but the picture has "
                f"{channels} channels. Give one number, or one a channel."
            )


KNOWN: dict[str, Callable[..., Transform]] = {
    cls.__name__: cls
    for cls in (
        Resize,
        CenterCrop,
        RandomResizedCrop,
        RandomCrop,
        RandomHorizontalFlip,
        Greyscale,
        Normalize,
    )
}


def transform_from_config(config: Mapping[str, Any]) -> Transform:
    """The transform that `to_config` wrote.

    Raises: DataError for a name or an argument that no transform here has.
    """
    arguments = dict(config)
    name = arguments.pop("name", None)
    try:
        if name == "Compose":
            return Compose([transform_from_config(item) for item in arguments["transforms"]])
        return KNOWN[str(name)](**arguments)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"No transform can be made from {dict(config)!r} ({error!r}). Expected a name among "
            f"{', '.join(['Compose', *KNOWN])} with its arguments."
        ) from error


def _pair(size: Size) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    height, width = size
    return int(height), int(width)


def _require(condition: bool, transform: Transform, expected: str) -> None:
    if not condition:
        raise ValueError(f"{expected}, got {transform!r}")


def _random(transform: Transform, stream: Stream | None) -> Stream:
    if stream is None:
        raise ValueError(f"{type(transform).__name__} is random: call it with a Stream as second argument")
    return stream
