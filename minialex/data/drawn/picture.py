"""One picture: a ground, one to four blossoms of a kind on their stems, something in front, a camera."""

from __future__ import annotations

import math

from PIL import Image

from minialex.data.drawn.blossoms import BLOSSOMS, petal_colour
from minialex.data.drawn.pen import GREENS, Canvas, Dice, Plane, Point, varied
from minialex.data.drawn.scenery import draw_foreground, draw_leaf, draw_stem, ground, photograph
from minialex.rng import Stream

KINDS: tuple[str, ...] = ("daisy", "dandelion", "roses", "sunflowers", "tulips")
LEAVES = {
    "daisy": "toothed",
    "dandelion": "toothed",
    "roses": "oval",
    "sunflowers": "oval",
    "tulips": "lance",
}
STEMS = {"daisy": 0.009, "dandelion": 0.011, "roses": 0.012, "sunflowers": 0.016, "tulips": 0.016}
ENLARGED = 2


def draw_flower(kind: str, stream: Stream, size: int) -> Image.Image:
    """A picture of one kind of flower, RGB, `size` x `size` pixels.

    Args:   kind: one of KINDS; stream: where all its random choices come from: the same stream, the
            same bits.
    Raises: ValueError for an unknown kind or a size below 32.
    """
    if kind not in KINDS:
        raise ValueError(f"draw_flower: kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if size < 32:
        raise ValueError(f"draw_flower: size must be at least 32 pixels, got {size}")
    dice = Dice(stream)
    canvas = Canvas(ground(dice, ENLARGED * size), dice)
    colour, green = petal_colour(dice, kind), varied(dice, dice.pick(GREENS), 18)
    style = LEAVES[kind] if dice.chance(0.6) else dice.pick(("lance", "oval", "toothed"))
    for centre, radius in places(dice, canvas.side):
        turn, squash = dice.number(0, math.pi), dice.number(0.68, 1.0)
        thick = canvas.side * STEMS[kind] * dice.number(0.8, 1.3)
        joint = draw_stem(canvas, dice, centre, thick, green)
        for _ in range(dice.integer(0, 2)):
            draw_leaf(canvas, dice, joint, style, green, radius * dice.number(0.7, 1.4))
        shade = colour if dice.chance(0.6) else petal_colour(dice, kind)
        BLOSSOMS[kind](canvas, dice, Plane(centre, radius, turn, squash), shade)
    draw_foreground(canvas, dice)
    return photograph(canvas.image, dice, size)


def places(dice: Dice, side: int) -> list[tuple[Point, float]]:
    """Centres and radii of the blossoms, the farthest (smallest) first: they may overlap, but not hide."""
    count = dice.pick((1, 2, 3, 5), (5, 2, 2, 1.5))
    low, high = {1: (0.48, 0.7), 2: (0.38, 0.5), 3: (0.32, 0.42), 5: (0.26, 0.34)}[count]
    found: list[tuple[Point, float]] = []
    for _ in range(count * 12):
        radius = side * dice.number(low, high)
        margin = min(0.65 * radius, 0.27 * side)
        x, y = dice.number(margin, side - margin), dice.number(margin, side - margin)
        if all(math.hypot(x - cx, y - cy) > 0.75 * (radius + r) for (cx, cy), r in found):
            found.append(((x, y), radius))
        if len(found) == count:
            break
    return sorted(found, key=lambda place: place[1])
