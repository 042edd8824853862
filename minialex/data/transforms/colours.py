"""From bytes to the numbers a net sees: channels, colour jitter along principal components, normalisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from minialex.data.transforms.base import Arrays, Transform, require, required_stream
from minialex.errors import DataError
from minialex.rng import MASK32, PURPOSES, Stream, philox4x32, split_seed

__all__ = ["Greyscale", "Normalize", "PCAJitter"]

Floats = npt.NDArray[np.float32]
# The colour shift is drawn from here on in a picture's stream, far behind what any other transform draws.
FIRST_BLOCK = 1 << 31
# How far from orthonormal published eigenvectors may be: they are printed with three or four digits.
ORTHONORMAL = 0.01


@dataclass(frozen=True)
class Greyscale(Transform):
    """Colour to one channel of brightness, for nets such as LeNet-5."""

    def __call__(self, image: Image.Image, stream: Stream | None = None) -> Image.Image:
        return image.convert("L")


@dataclass(frozen=True)
class PCAJitter(Transform):
    """One colour added to all pixels of a picture, drawn along the principal components of the colours.

        value / 255 + shift,   shift[c] = sum(eigenvectors[c][i] * alpha[i] * eigenvalues[i] for each i),

    alpha[i] normal with mean 0 and deviation sigma, drawn once a picture and epoch. It stands right before
    the Normalize. The sum is neither rounded to bytes nor cut off at 0 and 1.

    Shapes: picture (H, W, C) of bytes -> (H, W, C) float32, where 1 is white.
    Args:   eigenvalues (C,), eigenvectors (C, C), whose columns are the components: of the covariance of the
            training set's pixels, where 255 counts as 1; `picture_statistics` finds them. sigma: of alpha.
    Raises: ValueError for other shapes, negative or infinite values, and eigenvectors that are not
            orthonormal within 0.01.
    Source: Krizhevsky, Sutskever, Hinton 2012, section 4.1. An eigenvalue is a variance, and so how far the
            paper's formula moves a colour depends on the unit of colours: 1 for white here, where sigma 0.1
            moves a channel by about one per cent. The first author's later program (cuda-convnet2) takes the
            square roots of the eigenvalues, the standard deviations, and so moves more; give those for that.
            (It also divides the sum by 1 + sigma, which is not done here.)
    """

    eigenvalues: Sequence[float]
    eigenvectors: Sequence[Sequence[float]]
    sigma: float = 0.1

    def __post_init__(self) -> None:
        values, vectors = np.asarray(self.eigenvalues, float), np.asarray(self.eigenvectors, float)
        object.__setattr__(self, "eigenvalues", tuple(values.reshape(-1).tolist()))
        object.__setattr__(self, "eigenvectors", tuple(map(tuple, np.atleast_2d(vectors).tolist())))
        object.__setattr__(self, "sigma", float(self.sigma))
        require(vectors.shape == 2 * values.shape, self, "eigenvalues must be (C,) and eigenvectors (C, C)")
        require(np.isfinite(values).all() and (values >= 0).all(), self, "eigenvalues must be 0 or more")
        # Written so that what is not a number fails.
        close = np.abs(vectors.T @ vectors - np.eye(len(values))) <= ORTHONORMAL
        require(close.all(), self, "the columns of eigenvectors must be orthonormal")
        require(0 <= self.sigma < math.inf, self, "sigma must be 0 or more")

    def __call__(self, image: Image.Image, stream: Stream | None = None) -> Floats:
        values = as_numbers(as_pixels(image))
        self.check_channels(values.shape[2])
        values += self.shift(required_stream(self, stream))
        return values

    def shift(self, stream: Stream) -> Floats:
        """What is added to the channels of the picture that the stream is for: (C,)."""
        return self.shifts(stream, [stream.item])[0]

    def shifts(self, stream: Stream, items: Sequence[int]) -> Floats:
        """(N, C): the shift of each of the pictures `items` in the stream's epoch.

        It follows from the address (seed, epoch, picture) alone: not from the other pictures, nor from what
        was drawn for crops and flips, which need not have been done.
        """
        alphas = _normal_deviates(stream, items, len(self.eigenvalues))
        alphas *= self.sigma
        alphas *= self.eigenvalues
        shifts = np.zeros(alphas.shape)
        for component, column in enumerate(np.array(self.eigenvectors).T):
            # In order, by single products and sums: no library's matrix product decides about last bits.
            shifts += alphas[:, component : component + 1] * column
        return shifts.astype(np.float32)

    def check_channels(self, channels: int) -> None:
        """Raises: DataError if the components are not those of so many channels."""
        if len(self.eigenvalues) != channels:
            raise DataError(
                f"PCAJitter has {len(self.eigenvalues)} eigenvalues, and the picture {channels} channels. "
                "Take the statistics of pictures with the same channels."
            )

    def to_config(self, arrays: Arrays | None = None) -> dict[str, Any]:
        config = super().to_config(arrays)
        return {**config, "eigenvectors": [list(row) for row in self.eigenvectors]}


def _normal_deviates(stream: Stream, items: Sequence[int], count: int) -> npt.NDArray[np.float64]:
    """(len(items), count) normal deviates, from block FIRST_BLOCK on of each picture's stream.

    Box and Muller's as in `Stream.normal`, but for many pictures at once, which is many times faster; and
    with functions of single numbers, as those of arrays might compute an element by its place in the array.
    """
    pairs = -(-count // 2)  # a pair of deviates takes two uniform numbers, four words, one block
    counter = np.empty((len(items), pairs, 4), np.uint32)
    counter[..., 0] = PURPOSES[stream.purpose]
    counter[..., 1] = stream.step & MASK32
    counter[..., 2] = np.array([item & MASK32 for item in items], np.uint32)[:, None]
    counter[..., 3] = np.arange(FIRST_BLOCK, FIRST_BLOCK + pairs)
    words = philox4x32(counter, split_seed(stream.seed)).astype(np.uint64).reshape(len(items), 2, pairs, 2)
    uniform = ((words[..., 0] << np.uint64(32) | words[..., 1]) >> np.uint64(11)) * 2.0**-53
    deviates = np.empty((len(items), 2 * pairs))
    for row, (lengths, angles) in enumerate(uniform.tolist()):
        for pair, (length, angle) in enumerate(zip(lengths, angles, strict=True)):
            radius = math.sqrt(-2.0 * math.log1p(-length))
            deviates[row, 2 * pair] = radius * math.cos(2.0 * math.pi * angle)
            deviates[row, 2 * pair + 1] = radius * math.sin(2.0 * math.pi * angle)
    return deviates[:, :count]


@dataclass(frozen=True, eq=False)
class Normalize(Transform):
    """Bytes to numbers: (value / 255 - mean) / std, as float32 in CHW order.

    Args:   mean: one number for all channels, one a channel, or a mean image (C, H, W), an array where 255
            counts as 1. std: one number for all channels, or one a channel.
    A mean image may be larger than the pictures: its central part is subtracted from every picture, wherever
    in a larger one this was cut out, and whether it is flipped or not. So does the 2012 paper's program
    (cuda-convnet); Caffe subtracts the part where the crop was made.
    """

    mean: float | Sequence[float] | npt.NDArray[Any] = 0.5
    std: float | Sequence[float] = 0.5

    def __post_init__(self) -> None:
        mean: Any = self.mean
        if isinstance(mean, np.ndarray) and mean.ndim == 3:
            image = np.array(mean, dtype=np.float32, order="C")
            image.flags.writeable = False
            object.__setattr__(self, "mean", image)
            require(image.size > 0 and np.isfinite(image).all(), self, "a mean image must be finite numbers")
        else:
            object.__setattr__(self, "mean", _float_or_floats(mean))
        object.__setattr__(self, "std", _float_or_floats(self.std))
        require((np.asarray(self.std) > 0).all(), self, "std must be positive")

    def __call__(self, image: Image.Image | npt.NDArray[Any], stream: Stream | None = None) -> Floats:
        return self.batch(as_pixels(image)[None])[0]

    def batch(self, pixels: npt.NDArray[Any], shifts: Floats | None = None) -> Floats:
        """A batch of pictures at once: (N, H, W, C) -> (N, C, H, W).

        Args: pixels: bytes, or floats where 1 is white; shifts (N, C): what is added to all pixels of each
              picture before the mean is subtracted, where 1 is white (see `PCAJitter`).
        """
        self.check(pixels.shape[1:])
        mean = self.mean_at(*pixels.shape[1:3])
        std = np.asarray(self.std, dtype=np.float32).reshape(-1, 1, 1)
        values = as_numbers(pixels.transpose(0, 3, 1, 2))
        if shifts is not None:
            values += shifts[:, :, None, None]
        values -= mean
        values /= std
        return values

    @property
    def mean_image(self) -> Floats | None:
        """The mean, if it is an image (C, H, W)."""
        return self.mean if isinstance(self.mean, np.ndarray) else None

    def mean_at(self, height: int, width: int) -> Floats:
        """What is subtracted from pictures of this size: (C, height, width), or (C or 1, 1, 1)."""
        if self.mean_image is None:
            return np.asarray(self.mean, dtype=np.float32).reshape(-1, 1, 1)
        H, W = self.mean_image.shape[1:]
        top, left = round((H - height) / 2), round((W - width) / 2)
        return self.mean_image[:, top : top + height, left : left + width]

    def check(self, shape: Sequence[int]) -> None:
        """Raises: DataError if pictures (H, W, C) of this shape cannot be normalised.

        There must be one mean and deviation in all or one a channel, or an image that is not smaller.
        """
        H, W, C = shape
        image = self.mean_image
        means, stds = np.size(self.mean) if image is None else len(image), np.size(self.std)
        if {means, stds} - {1, C} or (image is not None and means != C):
            raise DataError(
                f"Normalize has {means} means and {stds} standard deviations, but the picture has "
                f"{C} channels. Give one number, or one a channel."
            )
        if image is not None and (image.shape[1] < H or image.shape[2] < W):
            raise DataError(
                f"Normalize has a mean image of {image.shape[1]} x {image.shape[2]} pixels (height x width), "
                f"but the picture is larger, {H} x {W}. Take the mean of pictures of at least that size."
            )

    def to_config(self, arrays: Arrays | None = None) -> dict[str, Any]:
        if self.mean_image is None:
            return super().to_config(arrays)
        if arrays is None:
            raise ValueError(
                "JSON cannot hold a mean image: call to_config(arrays) with a dict that takes it"
            )
        name = _kept(arrays, "mean_image", self.mean_image)
        std = list(self.std) if isinstance(self.std, tuple) else self.std
        return {"name": "Normalize", "mean": {"array": name}, "std": std}

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self) or not isinstance(other, Normalize):
            return NotImplemented
        return self.std == other.std and (
            np.array_equal(self.mean, other.mean)
            if self.mean_image is not None and other.mean_image is not None
            else self.mean_image is other.mean_image and self.mean == other.mean
        )

    def __hash__(self) -> int:
        return hash((self.mean if self.mean_image is None else self.mean_image.shape, self.std))

    def __repr__(self) -> str:
        mean = self.mean if self.mean_image is None else f"<image {self.mean_image.shape}>"
        return f"{type(self).__name__}(mean={mean}, std={self.std})"


def as_pixels(image: Any) -> npt.NDArray[Any]:
    """The picture as an array (H, W, C)."""
    pixels = np.asarray(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def as_numbers(pixels: npt.NDArray[Any]) -> Floats:
    """A float32 copy, where 1 is white: what is not floating is divided by 255."""
    values = np.array(pixels, dtype=np.float32, order="C")
    if not np.issubdtype(pixels.dtype, np.floating):
        values /= np.float32(255)
    return values


def _float_or_floats(value: Any) -> float | tuple[float, ...]:
    return float(value) if isinstance(value, (int, float)) else tuple(float(item) for item in value)


def _kept(arrays: Arrays, name: str, array: npt.NDArray[Any]) -> str:
    """The name under which the array is among `arrays` from now on: a number is added if it is taken."""
    number, found = 1, name
    while found in arrays and not np.array_equal(arrays[found], array):
        number += 1
        found = f"{name}_{number}"
    arrays[found] = array
    return found
