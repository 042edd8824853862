"""Small kernels for the tests: compiled once for each file of tests, launched by name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from minialex.backend.sources import cuda_source_dir
from minialex.emulator import run

KERNELS = cuda_source_dir()

Launch = Callable[..., None]


@pytest.fixture(scope="session", autouse=True)
def compiler() -> str:
    """g++; without it nothing here can be tested."""
    found = shutil.which(os.environ.get("CXX") or "g++")
    if found is None:
        pytest.skip("g++ is missing: the emulator cannot compile kernels")
    return found


@pytest.fixture(scope="module")
def launch(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Launch:
    """launch(entry, grid, block, *args) for the kernels in the constant CUDA of the file of tests."""
    source = tmp_path_factory.mktemp("kernels") / "snippet.cu"
    source.write_text(request.module.CUDA, encoding="utf-8")
    return launcher(source)


@pytest.fixture
def launch_text(tmp_path: Path) -> Callable[[str], Launch]:
    """The same for a text."""

    def write(text: str) -> Launch:
        source = tmp_path / "snippet.cu"
        source.write_text(text, encoding="utf-8")
        return launcher(source)

    return write


def launcher(source: Path) -> Launch:
    def launch(entry: str, grid: int | Sequence[int], block: int | Sequence[int], *args: Any) -> None:
        run(source.stem, source, entry, grid, block, args, headers=KERNELS)

    return launch
