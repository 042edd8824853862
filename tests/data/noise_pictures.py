"""Pictures that are all different."""

from __future__ import annotations

import numpy as np
from PIL import Image

from minialex.rng import Stream


def noise(number: int, size: tuple[int, int] = (24, 16)) -> Image.Image:
    """A picture (width, height) of its own for every number."""
    pixels = Stream(0, "test", item=number).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    return Image.fromarray(pixels)
