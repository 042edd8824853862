"""What every drawing shares: dice, colours, the canvas, and the outlines of petals.

Lengths on the canvas are pixels of the enlarged picture (twice the final size, reduced at the end);
lengths of a blossom are in units of its radius, in the plane of the blossom, x to the right and y down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from minialex.rng import Stream

Colour = tuple[float, float, float]
Point = tuple[float, float]
Points = npt.NDArray[np.float64]
T = TypeVar("T")

COLOURS: dict[str, Colour] = {
    "white": (246, 244, 240),
    "cream": (246, 233, 196),
    "lemon": (246, 228, 92),
    "yellow": (248, 205, 36),
    "gold": (243, 172, 28),
    "orange": (238, 128, 40),
    "peach": (246, 180, 140),
    "red": (205, 32, 42),
    "crimson": (146, 14, 42),
    "rust": (158, 66, 30),
    "pink": (236, 122, 160),
    "blush": (246, 194, 206),
    "magenta": (202, 48, 132),
    "purple": (124, 58, 158),
    "lilac": (186, 152, 214),
}
GREENS: tuple[Colour, ...] = ((58, 96, 40), (84, 130, 52), (112, 150, 70), (44, 84, 56), (96, 120, 48))


class Dice:
    """Single random numbers from one stream, fetched in bulk: a counter's ten rounds cost the same for
    one number as for hundreds, and a picture needs thousands."""

    BULK = 1024

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.pool: list[float] = []

    def number(self, low: float = 0.0, high: float = 1.0) -> float:
        """One uniform number in [low, high)."""
        if not self.pool:
            self.pool = self.stream.uniform(shape=(self.BULK,)).tolist()
        return low + (high - low) * self.pool.pop()

    def numbers(self, low: float, high: float, count: int) -> Points:
        """`count` uniform numbers in [low, high)."""
        return np.array([self.number(low, high) for _ in range(count)])

    def integer(self, low: int, high: int) -> int:
        """An integer in low .. high, both ends included."""
        return low + int(self.number() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.number() < probability

    def pick(self, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
        """One of the options, with these weights or all alike."""
        if weights is None:
            return options[int(self.number() * len(options))]
        mark = self.number(0.0, sum(weights))
        for option, weight in zip(options, weights, strict=True):
            mark -= weight
            if mark < 0:
                return option
        return options[-1]


def fill(colour: Colour, factor: float = 1.0) -> tuple[int, int, int]:
    """A colour for Pillow, made lighter or darker by a factor."""
    red, green, blue = (min(255, max(0, int(channel * factor))) for channel in colour)
    return red, green, blue


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """The colour between two: `share` of the second."""
    a, b, c = (x + (y - x) * share for x, y in zip(first, second, strict=True))
    return a, b, c


def varied(dice: Dice, colour: Colour, spread: float = 14.0) -> Colour:
    """The colour with each channel moved by up to `spread`."""
    a, b, c = (channel + dice.number(-spread, spread) for channel in colour)
    return a, b, c


class Canvas:
    """The enlarged picture, its two pens, and where the light comes from.

    `draw` paints solid colours, `glaze` takes a fourth number, the opacity (0 .. 255).
    """

    def __init__(self, image: Image.Image, dice: Dice) -> None:
        self.image = image
        self.side = image.width
        self.draw = ImageDraw.Draw(image)
        self.glaze = ImageDraw.Draw(image, "RGBA")
        self.light = dice.number(-math.pi, 0.0)

    def polygon(
        self, outline: Points, colour: Colour, factor: float = 1.0, edge: float | None = None
    ) -> None:
        """Fill an outline (V, 2); `edge` draws its border as well, that much lighter or darker."""
        border = None if edge is None else fill(colour, edge)
        self.draw.polygon(outline.ravel().tolist(), fill=fill(colour, factor), outline=border)

    def disc(self, centre: Point, radius: float, colour: Colour, factor: float = 1.0) -> None:
        """A filled circle."""
        x, y = centre
        self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill(colour, factor))


class Plane:
    """A blossom's plane seen from the side: unit circles become ellipses around `centre`."""

    def __init__(self, centre: Point, radius: float, turn: float = 0.0, squash: float = 1.0) -> None:
        self.centre = centre
        self.radius = radius
        cos, sin = math.cos(turn), math.sin(turn)
        turned = np.array([[cos, -sin], [sin, cos]])
        self.matrix = radius * turned @ np.diag([1.0, squash]) @ turned.T

    def __call__(self, points: Points) -> Points:
        """Points of the plane (..., 2) to pixels, rounded so that the last bit of a sine on another
        machine does not reach the picture."""
        return np.round(points @ self.matrix.T + np.asarray(self.centre), 2)

    def shifted(self, dx: float, dy: float) -> Plane:
        """The same plane around another centre, moved in units of the radius."""
        moved = Plane(self.centre, self.radius)
        moved.matrix = self.matrix
        moved.centre = (self.centre[0] + dx * self.radius, self.centre[1] + dy * self.radius)
        return moved


def width_profile(u: Points, rise: float, fall: float) -> Points:
    """Half width along a petal, 1 at its widest: u**rise * (1 - u)**fall, u from base 0 to tip 1.

    A small `fall` is a blunt tip, 1 or more a pointed one.
    """
    peak = rise / (rise + fall)
    highest = peak**rise * (1.0 - peak) ** fall
    return np.clip(u, 0.0, 1.0) ** rise * np.clip(1.0 - u, 0.0, 1.0) ** fall / highest


def petal_outlines(
    angles: Points,
    lengths: Points,
    widths: Points,
    bends: Points,
    *,
    shape: tuple[float, float],
    inner: float = 0.0,
    span: tuple[float, float] = (0.0, 1.0),
    fat: float = 1.0,
    steps: int = 9,
) -> Points:
    """Outlines of P petals around the origin, (P, 2 * steps, 2).

    Args: angles, lengths, widths (half), bends (sideways at the tip): (P,); shape: rise and fall of
          `width_profile`; inner: where the petals begin; span, fat: the part of the length and the
          share of the width to outline, for markings that follow a petal.
    """
    # Dense at both ends, where the outline turns.
    u = span[0] + (span[1] - span[0]) * (0.5 - 0.5 * np.cos(np.linspace(0.0, math.pi, steps)))
    half = fat * width_profile(u, *shape) * widths[:, None]
    along = inner + lengths[:, None] * u
    middle = bends[:, None] * u * u
    x = np.concatenate([along, along[:, ::-1]], axis=1)
    y = np.concatenate([middle + half, (middle - half)[:, ::-1]], axis=1)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    return np.stack([x * cos - y * sin, x * sin + y * cos], axis=-1)


def curve(start: Point, control: Point, end: Point, steps: int = 10) -> Points:
    """A quadratic Bezier curve, (steps, 2)."""
    t = np.linspace(0.0, 1.0, steps)[:, None]
    a, b, c = (np.asarray(point, dtype=np.float64) for point in (start, control, end))
    return np.round((1 - t) ** 2 * a + 2 * t * (1 - t) * b + t * t * c, 2)


def ribbon(middle: Points, half_width: Points) -> Points:
    """The outline of a band of varying half width (V,) along a curve (V, 2): (2V, 2)."""
    direction = np.gradient(middle, axis=0)
    direction /= np.maximum(np.hypot(direction[:, 0], direction[:, 1]), 1e-9)[:, None]
    normal = np.stack([-direction[:, 1], direction[:, 0]], axis=-1) * half_width[:, None]
    return np.round(np.concatenate([middle + normal, (middle - normal)[::-1]]), 2)
