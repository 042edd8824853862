"""Folders of small pictures, made for each test; and a place on sys.path for what loader workers import."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # a worker must be able to import loader_datasets
from noise_pictures import noise

MakeFolder = Callable[..., Path]


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
