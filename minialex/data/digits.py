"""scikit-learn's digits: 1,797 handwritten digits of 8 x 8 pixels that need no network.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository;
scikit-learn's copy is the test part of that set.
"""

from __future__ import annotations

import gzip
import importlib.util
import zlib
from pathlib import Path

import numpy as np

from minialex.data.arrays import PictureArray
from minialex.errors import DataError

__all__ = ["FILE", "open_digits"]

FILE = "digits.csv.gz"
FOLDER = "datasets/data"  # below scikit-learn's package; a digit a line, 64 values and the label
SIZE = 8
TOP = 16  # a value says how many of the 4 x 4 dots behind a pixel are black


def open_digits(path: Path | None = None) -> PictureArray:
    """The digits as grey pictures: 0 .. 16 scaled to 0 .. 255 and rounded.

    The file is read, and scikit-learn itself not imported: that would take seconds for 57 KB.

    Args:   path: of the file, by which a run that is resumed knows it; None finds it.
    Raises: DataError if scikit-learn is not installed, or its file is damaged.
    """
    path = path or _find_file()
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            table = np.array([line.split(",") for line in file], dtype=np.float64)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}. Install scikit-learn again.") from error
    if (
        table.shape[1:] != (SIZE**2 + 1,)
        or table.min() < 0
        or table[:, :-1].max() > TOP
        or set(table[:, -1].tolist()) != set(range(10))
    ):
        raise DataError(
            f"{path} is not as expected, {SIZE**2} values from 0 to {TOP} and a digit in each line. Install "
            "scikit-learn again."
        )
    values, labels = table[:, :-1], table[:, -1].astype(np.int64)
    return PictureArray(
        path,
        np.floor(values * (255 / TOP) + 0.5).astype(np.uint8).reshape(-1, SIZE, SIZE),
        labels,
        [str(digit) for digit in range(10)],
        [f"digits/{index:04d}" for index in range(len(labels))],
        kind=f"scikit-learn's handwritten digits, {SIZE} x {SIZE}, grey",
    )


def _find_file() -> Path:
    package = importlib.util.find_spec("sklearn")
    for folder in (package and package.submodule_search_locations) or []:
        if (path := Path(folder, FOLDER, FILE)).is_file():
            return path
    raise DataError(
        "The digits are scikit-learn's, which is not installed, or without them: pip install scikit-learn."
    )
