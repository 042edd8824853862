"""Files of weights, made for each test; and a place on sys.path for what writes them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pytest

from minialex import models

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], dict[str, npt.NDArray[Any]]]:
    """The state dict in these bytes, read from a file whose name says nothing."""

    def of(data: bytes) -> dict[str, npt.NDArray[Any]]:
        path = tmp_path / "weights.bin"
        path.write_bytes(data)
        return models.read_state_dict(path)

    return of
