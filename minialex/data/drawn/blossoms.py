"""The five blossoms. Colours overlap between kinds: what tells them apart is form.

daisies       long narrow blunt petals with gaps, a small domed centre
dandelions    a head of fringed straps without a centre, or a white seed clock
roses         broad petals wound around each other, shaded into a spiral
sunflowers    a large seeded disc, a short dense crown of pointed petals
tulips        a cup seen from the side, few tall smooth petals on a stout stem
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minialex.data.drawn.pen import (
    COLOURS,
    GREENS,
    Canvas,
    Colour,
    Dice,
    Plane,
    Points,
    fill,
    mix,
    petal_outlines,
    varied,
)

GOLDEN_ANGLE = math.pi * (3.0 - math.sqrt(5.0))
TURN = 2.0 * math.pi

PETAL_COLOURS: dict[str, dict[str, float]] = {
    "daisy": {
        "white": 5, "cream": 1, "blush": 1, "pink": 1, "magenta": 0.7, "purple": 0.7, "lilac": 1,
        "yellow": 0.7, "lemon": 0.5, "orange": 0.4, "red": 0.3,
    },
    "dandelion": {"yellow": 4, "lemon": 2, "gold": 2, "orange": 0.3, "cream": 0.2},
    "roses": {
        "red": 2.5, "crimson": 1.5, "pink": 1.5, "blush": 1.2, "magenta": 1, "white": 1.2, "cream": 0.6,
        "yellow": 0.8, "gold": 0.4, "orange": 0.8, "peach": 1, "lilac": 0.4,
    },
    "sunflowers": {
        "yellow": 4, "gold": 3, "lemon": 1.5, "orange": 1, "rust": 0.4, "cream": 0.4, "crimson": 0.2,
    },
    "tulips": {
        "red": 1.8, "crimson": 0.8, "pink": 1.4, "blush": 0.6, "magenta": 1.2, "purple": 1.6, "white": 1,
        "yellow": 1.4, "lemon": 0.6, "orange": 1.4, "peach": 0.6, "lilac": 1,
    },
}  # fmt: skip


def petal_colour(dice: Dice, kind: str) -> Colour:
    """A colour that gardens have for this kind."""
    choices = PETAL_COLOURS[kind]
    return varied(dice, COLOURS[dice.pick(list(choices), list(choices.values()))])


@dataclass(frozen=True)
class Ring:
    """A ring of petals: from `inner` to `reach`, of half width `width`, all in radii of the blossom.

    `shape` is the rise and fall of `width_profile`; `base` the colour that the foot turns to.
    """

    count: int
    inner: float
    reach: float
    width: float
    shape: tuple[float, float]
    base: Colour


def draw_ring(canvas: Canvas, dice: Dice, plane: Plane, colour: Colour, ring: Ring) -> None:
    """The petals of a ring, each with a darker foot, a light middle and two furrows."""
    count, inner, reach = ring.count, ring.inner, ring.reach
    angles = (
        dice.number(0, TURN) + np.arange(count) * TURN / count + dice.numbers(-0.5, 0.5, count) * 2 / count
    )
    lengths = (reach - inner) * dice.numbers(0.86, 1.0, count)
    widths, bends = ring.width * dice.numbers(0.8, 1.1, count), dice.numbers(-0.06, 0.06, count)

    def part(span: tuple[float, float], fat: float) -> Points:
        return plane(
            petal_outlines(angles, lengths, widths, bends, shape=ring.shape, inner=inner, span=span, fat=fat)
        )

    whole, middle, foot = part((0, 1), 1.0), part((0.25, 0.95), 0.55), part((0, 0.5), 0.75)
    furrows = [part((0.1, 0.85), 0.35)[:, half] for half in (slice(0, 9), slice(9, 18))]
    lit = 1.0 + 0.13 * np.cos(angles - canvas.light) + dice.numbers(-0.09, 0.06, count)
    order = np.argsort(dice.numbers(0, 1, count), kind="stable")
    for i in order:
        canvas.polygon(whole[i], colour, 0.9 * lit[i], edge=0.55 * lit[i])
        canvas.polygon(foot[i], mix(colour, ring.base, 0.6), 0.88 * lit[i])
        canvas.polygon(middle[i], colour, 1.04 * lit[i])
        for line in furrows:
            canvas.draw.line(line[i].ravel().tolist(), fill=fill(colour, 0.78 * lit[i]))


def seeded_disc(
    canvas: Canvas, dice: Dice, plane: Plane, radius: float, colours: tuple[Colour, Colour], seeds: int
) -> None:
    """A disc of florets in the golden-angle spiral, from the inner colour to the outer one."""
    inner, outer = colours
    ring = np.linspace(0, TURN, 28, endpoint=False)
    circle = np.stack([np.cos(ring), np.sin(ring)], axis=-1)
    canvas.polygon(plane(circle * radius * 1.04), outer, 0.45)
    canvas.polygon(plane(circle * radius), outer, 0.75)
    canvas.polygon(plane(circle * radius * 0.55), mix(inner, outer, 0.3), 0.8)
    number = np.arange(seeds)
    r = radius * np.sqrt((number + 0.5) / seeds) * 0.98
    turn = number * GOLDEN_ANGLE + dice.number(0, TURN)
    spots = plane(np.stack([r * np.cos(turn), r * np.sin(turn)], axis=-1))
    size = max(0.8, plane.radius * radius / math.sqrt(seeds) * 0.72)
    bright = 1.0 + 0.25 * np.cos(turn - canvas.light) * (r / radius) + dice.numbers(-0.25, 0.25, seeds)
    for i in range(seeds):
        canvas.disc((spots[i, 0], spots[i, 1]), size, mix(inner, outer, float(r[i] / radius)), bright[i])


def draw_daisy(canvas: Canvas, dice: Dice, plane: Plane, colour: Colour) -> None:
    """Long narrow petals with gaps between them, in one or two rings, and a small dome."""
    disc = dice.number(0.2, 0.3)
    count = dice.integer(13, 21)
    base = mix(colour, COLOURS[dice.pick(("white", "lemon", "crimson", "purple"))], dice.number(0, 0.3))
    for reach in (1.0, 0.93)[: dice.integer(1, 2)]:
        ring = Ring(count, disc * 0.7, reach, dice.number(1.45, 1.85) / count, (0.55, 0.28), base)
        draw_ring(canvas, dice, plane, colour, ring)
    hearts: tuple[Colour, ...] = ((246, 196, 30), (232, 150, 24), (214, 196, 60), (92, 56, 26), (60, 36, 34))
    heart = dice.pick(hearts, (4, 3, 1, 0.5, 0.3))
    seeded_disc(canvas, dice, plane, disc, (heart, mix(heart, (120, 70, 10), 0.35)), 55)


def draw_sunflower(canvas: Canvas, dice: Dice, plane: Plane, colour: Colour) -> None:
    """A disc half as wide as the blossom, two or three rings of short pointed petals."""
    disc = dice.number(0.44, 0.58)
    count = dice.integer(17, 24)
    base = mix(colour, COLOURS[dice.pick(("rust", "orange", "crimson", "gold"))], dice.number(0, 1))
    for reach in (1.0, 0.95, 0.86)[: dice.integer(2, 3)]:
        ring = Ring(count, disc * 0.85, reach, dice.number(1.9, 2.5) / count, (0.5, 0.85), base)
        draw_ring(canvas, dice, plane, colour, ring)
    hearts: tuple[Colour, ...] = ((70, 42, 22), (44, 28, 24), (110, 66, 24), (150, 140, 50), (190, 140, 30))
    heart, rim = dice.pick(hearts, (4, 4, 2, 0.5, 0.5)), dice.pick(hearts[:4])
    seeded_disc(canvas, dice, plane, disc, (heart, mix(heart, rim, 0.7)), 190)


def draw_dandelion(canvas: Canvas, dice: Dice, plane: Plane, colour: Colour) -> None:
    """The yellow head, or the clock."""
    if dice.chance(0.4):
        draw_clock(canvas, dice, plane)
    else:
        draw_head(canvas, dice, plane, colour)


def draw_head(canvas: Canvas, dice: Dice, plane: Plane, colour: Colour) -> None:
    """Straps with notched ends in shrinking rings, from the rim to the middle: no disc."""
    pencil = max(2, round(plane.radius * 0.05))
    for reach, count in ((1.0, 44), (0.9, 40), (0.76, 36), (0.62, 30), (0.47, 24), (0.31, 18), (0.17, 10)):
        angles = np.arange(count) * TURN / count + dice.numbers(-0.1, 0.1, count)
        ends = reach * dice.numbers(0.82, 1.06, count)
        starts = ends - dice.numbers(0.3, 0.5, count).clip(max=ends)
        ray = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
        near, far = plane(ray * starts[:, None]), plane(ray * ends[:, None])
        lit = (
            (1.02 - 0.12 * reach)
            * (1 + 0.1 * np.cos(angles - canvas.light))
            * dice.numbers(0.62, 1.12, count)
        )
        for i in range(count):
            strap = (*near[i].tolist(), *far[i].tolist())
            canvas.draw.line(strap, fill=fill(colour, 0.62 * lit[i]), width=pencil + 2)
            canvas.draw.line(strap, fill=fill(colour, lit[i]), width=pencil)


def draw_clock(canvas: Canvas, dice: Dice, plane: Plane) -> None:
    """A globe of seeds: rays from a core, each ending in a star of fine hairs; some are blown away."""
    x, y = plane.centre
    pale = mix(
        COLOURS["white"], dice.pick(((200, 190, 170), (190, 200, 215), (230, 215, 180))), dice.number(0, 0.8)
    )
    gone, width = dice.number(0, TURN), dice.number(0.3, 0.8) if dice.chance(0.3) else 0.0
    if width == 0.0:
        box = (x - plane.radius, y - plane.radius, x + plane.radius, y + plane.radius)
        canvas.glaze.ellipse(box, fill=(*fill(pale), 46))
    count = 84
    turn = np.arange(count) * GOLDEN_ANGLE + dice.numbers(-0.2, 0.2, count)
    r = np.sqrt((np.arange(count) + 0.5) / count) * 0.9
    kept = np.cos(turn - gone) < 1.0 - width
    tips = np.stack([r * np.cos(turn), r * np.sin(turn)], axis=-1) * plane.radius + np.asarray(plane.centre)
    spokes = np.linspace(0, TURN, 9, endpoint=False)
    thin = max(1, round(plane.radius * 0.012))
    for i in np.flatnonzero(kept):
        tip = np.round(tips[i], 2)
        canvas.glaze.line((x, y, *tip.tolist()), fill=(*fill(pale, 0.85), 120), width=thin)
        hair = plane.radius * (0.2 - 0.06 * r[i]) * dice.number(0.8, 1.1)
        star = np.repeat(tip[None], 18, axis=0)
        star[1::2] += np.stack([np.cos(spokes + turn[i]), np.sin(spokes + turn[i])], axis=-1) * hair
        canvas.glaze.line(np.round(star, 2).ravel().tolist(), fill=(*fill(pale), 170), width=thin)
    canvas.disc((x, y), plane.radius * 0.12, (120, 100, 64), dice.number(0.6, 1.2))


def draw_rose(canvas: Canvas, dice: Dice, plane: Plane, colour: Colour) -> None:
    """Petals from the rim to the heart: each a broad scallop with a light rim and a shaded inside."""
    layers = dice.integer(6, 8)
    lean, way = dice.number(0.0, 0.2), dice.number(0, TURN)
    phase = dice.number(0, TURN)
    deep = mix(colour, COLOURS[dice.pick(("crimson", "rust", "magenta", "gold"))], dice.number(0.05, 0.35))
    for layer in range(layers):
        share = layer / layers
        radius = (1.0 - share) ** 0.85
        count = 5 if share < 0.35 else 4 if share < 0.6 else 3
        here = plane.shifted(lean * share * math.cos(way), lean * share * math.sin(way))
        phase += 0.5 * TURN / count + dice.number(-0.25, 0.25)
        tone = mix(colour, deep, share)
        for k in range(count):
            scallop(
                canvas,
                dice,
                here,
                tone,
                phase + k * TURN / count,
                radius,
                TURN / count * dice.number(0.62, 0.8),
            )
    t = np.linspace(0.0, 1.0, 20)
    coil = np.stack([np.cos(t * 9 + phase), np.sin(t * 9 + phase)], axis=-1) * (0.02 + 0.13 * t)[:, None]
    line = here(coil).ravel().tolist()
    canvas.draw.line(line, fill=fill(deep, 0.45), width=max(1, round(plane.radius * 0.03)))


def scallop(
    canvas: Canvas, dice: Dice, plane: Plane, colour: Colour, angle: float, radius: float, half: float
) -> None:
    """One rose petal: a sector of half angle `half`, dark at its border, light at its rim."""
    phi = np.linspace(-1.0, 1.0, 13)
    rim = radius * (1.0 - 0.42 * np.abs(phi) ** 3.5) * dice.numbers(0.975, 1.015, 13)
    rim[6] *= dice.number(0.96, 1.07)
    turn = angle + phi * half
    ray = np.stack([np.cos(turn), np.sin(turn)], axis=-1) * rim[:, None]
    lit = (1.0 + 0.14 * math.cos(angle - canvas.light)) * dice.number(0.92, 1.06)
    for factor, tone in ((1.03, 0.38), (1.0, 1.1), (0.91, 0.96), (0.8, 0.78), (0.68, 0.58)):
        canvas.polygon(plane(np.concatenate([ray * factor, [[0.0, 0.0]]])), colour, tone * lit)


def draw_tulip(canvas: Canvas, dice: Dice, plane: Plane, colour: Colour) -> None:
    """A cup: dark petals behind, one at each side, a broad one in front, all from one foot."""
    lean = dice.number(-0.6, 0.6)
    foot = plane.shifted(-0.9 * math.sin(lean), 0.9 * math.cos(lean))
    up = lean - math.pi / 2
    openness = dice.number(0.12, 0.42)
    edge = mix(colour, COLOURS[dice.pick(("white", "yellow", "red", "purple"))], dice.number(0, 0.55))
    girth = dice.number(0.42, 0.52)
    for turn, length, width, lit in (
        (-0.5 * openness, 1.75, girth * 0.8, 0.62),
        (0.5 * openness, 1.78, girth * 0.8, 0.66),
        (-1.15 * openness, 1.7, girth * 0.92, 0.86),
        (1.15 * openness, 1.7, girth * 0.92, 0.9),
        (dice.number(-0.25, 0.25) * openness, 1.62, girth, 1.02),
    ):
        bend = -0.6 * turn * dice.number(0.4, 1.4)
        cup_petal(
            canvas, dice, foot, colour, edge, up + turn, length * dice.number(0.94, 1.04), width, bend, lit
        )


def cup_petal(
    canvas: Canvas, dice: Dice, foot: Plane, colour: Colour, edge: Colour,
    angle: float, length: float, width: float, bend: float, lit: float,
) -> None:  # fmt: skip
    """One tall smooth petal: a border, a light stripe, and fine lines from foot to tip."""

    def part(span: tuple[float, float], fat: float, share: float = 1.0) -> Points:
        one = (np.array([angle]), np.array([length * share]), np.array([width]), np.array([bend * share]))
        return foot(petal_outlines(*one, shape=(0.5, 0.6), span=span, fat=fat, steps=14))[0]

    lit *= 1.0 + 0.12 * math.cos(angle - canvas.light)
    canvas.polygon(part((0, 1), 1.05), colour, 0.45 * lit)
    canvas.polygon(part((0, 1), 1.0), edge, 0.96 * lit)
    canvas.polygon(part((0, 0.96), 0.84), colour, 0.93 * lit)
    canvas.polygon(part((0.05, 0.9), 0.5), colour, 1.05 * lit)
    canvas.polygon(part((0, 1), 0.6, 0.4), mix(colour, GREENS[2], 0.2), 0.88 * lit)
    canvas.polygon(part((0, 1), 0.35, 0.25), mix(colour, GREENS[2], 0.35), 0.85 * lit)
    for fat in (-0.85, -0.6, -0.35, -0.1, 0.15, 0.4, 0.65, 0.85):
        line = part((0.06, dice.number(0.6, 0.95)), fat)[:14]
        canvas.draw.line(line.ravel().tolist(), fill=fill(colour, dice.number(0.88, 0.95) * lit))


BLOSSOMS: dict[str, Callable[[Canvas, Dice, Plane, Colour], None]] = {
    "daisy": draw_daisy,
    "dandelion": draw_dandelion,
    "roses": draw_rose,
    "sunflowers": draw_sunflower,
    "tulips": draw_tulip,
}
