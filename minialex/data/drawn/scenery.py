"""What surrounds a blossom: grounds, stems, leaves, things in front, and the camera. None of it knows
the kind, except for the leaves, and those are borrowed between kinds as well."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from minialex.data.drawn.pen import (
    COLOURS,
    GREENS,
    Canvas,
    Colour,
    Dice,
    Point,
    curve,
    fill,
    mix,
    ribbon,
    varied,
)

GROUNDS = ("meadow", "sky", "bokeh", "dark", "soil", "wall", "foliage")
SOIL: tuple[Colour, ...] = ((92, 68, 48), (122, 96, 70), (70, 52, 40), (146, 124, 98))
WALLS: tuple[Colour, ...] = (
    (200, 190, 175),
    (150, 90, 70),
    (120, 125, 135),
    (225, 220, 210),
    (90, 110, 130),
    (170, 150, 100),
)


def clouds(dice: Dice, side: int, first: Colour, second: Colour, cells: int) -> Image.Image:
    """Two colours in soft patches, about `cells` of them across."""
    share = dice.numbers(0, 1, cells * cells).reshape(cells, cells, 1)
    pixels = np.asarray(first) * (1 - share) + np.asarray(second) * share
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )


def ground(dice: Dice, side: int) -> Image.Image:
    """A background, `side` pixels square: painted at a quarter of the size, since it is out of focus."""
    kind = dice.pick(GROUNDS)
    small = side // 4
    green, other = varied(dice, dice.pick(GREENS), 20), varied(dice, dice.pick(GREENS), 20)
    if kind == "sky":
        blue = varied(
            dice, dice.pick(((110, 160, 215), (160, 190, 220), (205, 210, 215), (225, 180, 150))), 15
        )
        image = clouds(dice, small, blue, mix(blue, (255, 255, 255), dice.number(0, 0.7)), dice.integer(3, 5))
    elif kind == "dark":
        image = clouds(dice, small, (10, 12, 12), varied(dice, (50, 50, 50), 35), 4)
    elif kind == "soil":
        image = clouds(dice, small, dice.pick(SOIL), dice.pick(SOIL), small // 3)
    elif kind == "wall":
        image = wall(dice, small)
    elif kind == "bokeh":
        image = clouds(dice, small, fill(green, 0.7), other, 4)
        spots(dice, image, 16, (*GREENS, *GREENS, *COLOURS.values()), (0.03, 0.11))
    elif kind == "foliage":
        image = clouds(dice, small, fill(green, 0.5), fill(other, 0.8), 6)
        spots(dice, image, 40, GREENS, (0.03, 0.12))
    else:
        image = clouds(dice, small, green, other, 7)
        blades(dice, image, 60, (green, other, mix(green, (200, 200, 90), 0.5)))
    if dice.chance(0.25):
        spots(dice, image, dice.integer(2, 6), tuple(COLOURS.values()), (0.04, 0.12))
    image = image.filter(ImageFilter.GaussianBlur(small / 96 * dice.number(2.0, 4.5)))
    return image.resize((side, side), Image.Resampling.BICUBIC)


def spots(
    dice: Dice, image: Image.Image, count: int, colours: tuple[Colour, ...], size: tuple[float, float]
) -> None:
    """Ellipses anywhere: lights, leaves, or blossoms far away."""
    draw, side = ImageDraw.Draw(image), image.width
    for _ in range(count):
        x, y, r = dice.number(0, side), dice.number(0, side), side * dice.number(*size)
        flat = dice.number(0.6, 1.0)
        draw.ellipse(
            (x - r, y - r * flat, x + r, y + r * flat), fill=fill(dice.pick(colours), dice.number(0.5, 1))
        )


def blades(dice: Dice, image: Image.Image, count: int, colours: tuple[Colour, ...]) -> None:
    """Grass: leaning strokes from below."""
    draw, side = ImageDraw.Draw(image), image.width
    for _ in range(count):
        x, y, reach = dice.number(0, side), dice.number(0.1, 1.2) * side, side * dice.number(0.2, 0.6)
        tip = (x + reach * dice.number(-0.4, 0.4), y - reach)
        draw.line(
            (x, y, *tip), fill=fill(dice.pick(colours), dice.number(0.6, 1.2)), width=dice.integer(1, 3)
        )


def wall(dice: Dice, side: int) -> Image.Image:
    """Plaster, planks, or bricks."""
    colour = varied(dice, dice.pick(WALLS), 15)
    image = clouds(dice, side, fill(colour, 0.9), fill(colour, 1.08), 6)
    draw, pattern = ImageDraw.Draw(image), dice.integer(0, 2)
    pitch, joint = dice.number(0.1, 0.25) * side, fill(colour, dice.number(0.6, 1.2))
    for row in range(math.ceil(side / pitch) * (pattern > 0)):
        at = row * pitch
        draw.line((0, at, side, at) if pattern == 1 else (at, 0, at, side), fill=joint, width=2)
        for brick in range(4 if pattern == 1 else 0):
            x = (brick + 0.5 * (row % 2)) * side / 3
            draw.line((x, at, x, at + pitch), fill=joint, width=2)
    return image


def draw_stem(canvas: Canvas, dice: Dice, top: Point, thick: float, green: Colour) -> Point:
    """A stem from the blossom to below the frame; gives a point on it where leaves can grow."""
    x, y = top
    foot = (x + dice.number(-0.3, 0.3) * canvas.side, canvas.side * 1.1)
    middle = curve(top, (x + dice.number(-0.05, 0.05) * canvas.side, (y + foot[1]) / 2), foot)
    half = np.full(len(middle), thick)
    canvas.polygon(ribbon(middle, half), green, 0.85, edge=0.5)
    canvas.polygon(ribbon(middle - [thick * 0.25, 0], half * 0.4), green, 1.1)
    place = dice.integer(3, len(middle) - 2)
    return float(middle[place, 0]), float(middle[place, 1])


def draw_leaf(canvas: Canvas, dice: Dice, base: Point, style: str, green: Colour, reach: float) -> None:
    """A leaf from `base`: a broad "lance", a "toothed" one, or an "oval" one with side veins."""
    angle = -math.pi / 2 + dice.number(0.35, 1.5) * dice.pick((-1, 1))
    end = (base[0] + reach * math.cos(angle), base[1] + reach * math.sin(angle))
    bow = (end[0] - base[0], base[1] - 0.9 * reach) if style == "lance" else end
    control = (base[0] + 0.3 * (bow[0] - base[0]), base[1] + 0.6 * (bow[1] - base[1]))
    middle = curve(base, control, end, 15)
    u = np.linspace(0, 1, 15)
    half = reach * {"lance": 0.11, "toothed": 0.13, "oval": 0.24}[style] * np.sin(math.pi * u**0.8) ** 0.8
    if style == "toothed":
        half[1::2] *= 0.4
    canvas.polygon(ribbon(middle, half), green, 0.8, edge=0.45)
    canvas.polygon(ribbon(middle, half * [0.55]), green, 1.0)
    canvas.draw.line(middle.ravel().tolist(), fill=fill(green, 1.3), width=2)


def draw_foreground(canvas: Canvas, dice: Dice) -> None:
    """Now and then something in front: blades of grass, or a leaf that enters from a side."""
    side, green = canvas.side, varied(dice, dice.pick(GREENS), 18)
    for _ in range(dice.integer(2, 6) if dice.chance(0.2) else 0):
        x, lean = dice.number(0, side), dice.number(-0.3, 0.3) * side
        top = side * dice.number(0.2, 0.8)
        middle = curve((x, side * 1.02), (x, (top + side) / 2), (x + lean, top))
        half = side * dice.number(0.004, 0.012) * np.linspace(1.0, 0.1, len(middle))
        canvas.polygon(ribbon(middle, half), green, dice.number(0.7, 1.2), edge=0.5)
    if dice.chance(0.15):
        corner = (dice.pick((-0.05, 1.05)) * side, dice.number(0.3, 1.1) * side)
        draw_leaf(
            canvas, dice, corner, dice.pick(("lance", "oval", "toothed")), green, side * dice.number(0.3, 0.5)
        )


def photograph(image: Image.Image, dice: Dice, size: int) -> Image.Image:
    """The camera: focus, reduction to `size`, the colour and the slope of the light, exposure, grain."""
    image = image.reduce(image.width // size)
    if dice.chance(0.4):
        image = image.filter(ImageFilter.GaussianBlur(dice.number(0.2, 0.8) * size / 192))
    pixels = np.asarray(image, dtype=np.float32) / np.float32(255)
    tint = dice.numbers(0.9, 1.1, 3) * dice.number(0.88, 1.12)
    slope, across = dice.numbers(-0.28, 0.28, 2)
    ramp = np.linspace(-0.5, 0.5, size)
    light = (1.0 + slope * ramp[:, None] + across * ramp[None, :])[:, :, None] * tint
    pixels = (pixels - 0.5) * np.float32(dice.number(0.9, 1.2)) + np.float32(0.5 + dice.number(-0.05, 0.05))
    pixels = pixels * light.astype(np.float32)
    grain = dice.stream.bits(size * size // 4 + 1).view(np.uint8)[: size * size].reshape(size, size, 1)
    pixels += (grain.astype(np.float32) - np.float32(127.5)) * np.float32(dice.number(0.0, 0.03) / 127.5)
    return Image.fromarray((pixels.clip(0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8))
