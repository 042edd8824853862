"""The drawn flowers as a folder of pictures, and as a sheet to look at."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from minialex.data.drawn.picture import KINDS, draw_flower
from minialex.errors import OutputError
from minialex.rng import Stream

# What a folder was made with, and proof that it is whole. Hidden, so that ImageFolder passes it by.
MARKER = ".drawn.json"
# Raised when the drawing changes: folders of an older version are drawn again.
VERSION = 1
SIZE = 192
# Full colour resolution; a quarter of the bytes of a PNG and a third of the time to read it.
QUALITY = 90


def drawn_image(kind: str, number: int, seed: int = 0, size: int = SIZE) -> Image.Image:
    """Picture `number` of a kind: the same bits whatever was drawn before.

    Raises: ValueError for an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"drawn_image: kind must be one of {', '.join(KINDS)}, got {kind!r}")
    return draw_flower(kind, Stream(seed, "drawn", step=KINDS.index(kind), item=number), size)


def ensure_drawn(
    folder: Path, per_class: int = 250, seed: int = 0, say: Callable[[str], object] = print
) -> Path:
    """Draw `per_class` pictures of each kind into folder/KIND/NNNN.jpg, unless they are there.

    They are drawn into a temporary folder beside it and renamed at the end, so that the folder is
    whole or absent. One that was drawn with other settings is replaced; anything else is left alone.

    Args:   say: called with lines about what is happening, only when there is something to draw.
    Raises: ValueError if per_class is not positive; OutputError if the folder holds something that
            was not drawn, or cannot be written to.
    """
    if per_class < 1:
        raise ValueError(f"ensure_drawn: per_class must be at least 1, got {per_class}")
    folder = Path(folder)
    recipe = {"version": VERSION, "per_class": per_class, "seed": seed, "size": SIZE, "kinds": list(KINDS)}
    found = read_marker(folder)
    if found == recipe:
        return folder
    if found is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(
            f"{folder} is there, but was not drawn by minialex; name another folder or remove it"
        )
    say(f"drawing {per_class * len(KINDS)} pictures of flowers into {folder}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
            fresh = Path(scratch) / "new"
            draw_all(fresh, recipe)
            put_in_place(fresh, folder, recipe)
    except OSError as error:
        raise OutputError(f"cannot draw flowers into {folder}: {error}") from error
    return folder


def read_marker(folder: Path) -> Any:
    """What the folder was drawn with; None for a folder that was not drawn, or not to its end."""
    try:
        return json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def draw_all(folder: Path, recipe: dict[str, Any]) -> None:
    """Every picture of the recipe, and the marker last."""
    for kind in recipe["kinds"]:
        (folder / kind).mkdir(parents=True)
        for number in range(recipe["per_class"]):
            image = drawn_image(kind, number, recipe["seed"], recipe["size"])
            image.save(folder / kind / f"{number:04d}.jpg", quality=QUALITY, subsampling=0)
    (folder / MARKER).write_text(json.dumps(recipe, indent=1) + "\n", encoding="utf-8")


def put_in_place(fresh: Path, folder: Path, recipe: dict[str, Any]) -> None:
    """Rename the finished folder; if somebody else was quicker with the same recipe, keep theirs."""
    if read_marker(folder) == recipe:
        return
    if folder.exists():
        # Aside, not removed: the name is free for a moment only; the old one goes with the temporary folder.
        os.rename(folder, fresh.parent / "old")
    try:
        os.rename(fresh, folder)
    except OSError:
        if read_marker(folder) != recipe:
            raise


def contact_sheet(per_class: int = 8, seed: int = 0, size: int = SIZE) -> Image.Image:
    """A row of `per_class` pictures for each kind, in the order of KINDS, for a person to look at."""
    sheet = Image.new("RGB", (per_class * size, len(KINDS) * size))
    for row, kind in enumerate(KINDS):
        for column in range(per_class):
            sheet.paste(drawn_image(kind, column, seed, size), (column * size, row * size))
    return sheet
