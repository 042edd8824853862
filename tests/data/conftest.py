"""Folders of small pictures, made for each test; and a place on sys.path for what loader workers import."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minialex.rng import Stream

sys.path.insert(0, str(Path(__file__).parent))  # a worker must be able to import loader_datasets

MakeFolder = Callable[..., Path]


def noise(number: int, size: tuple[int, int] = (24, 16)) -> Image.Image:
    """A picture (width, height) of its own for every number."""
    pixels = Stream(0, "test", item=number).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """A function that writes {class: number of pictures} as PNG files and gives the folder."""

    def make(counts: Mapping[str, int], name: str = "data", first: int = 0) -> Path:
        root = tmp_path / name
        number = first
        for folder, count in counts.items():
            (root / folder).mkdir(parents=True, exist_ok=True)
            for position in range(count):
                noise(number, (20 + number % 7, 16 + number % 5)).save(root / folder / f"{position:03d}.png")
                number += 1
        return root

    return make
