"""Pictures of one size that come in one array: MNIST, CIFAR-10, scikit-learn's digits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["PictureArray"]


class PictureArray:
    """Pictures in memory, as a data set.

    It says no `way` (see `Dataset`), so that no cache keeps what is in memory already. A loader's workers get
    a copy each, of CIFAR-10's 60,000 pictures 184 MB.

    Args:   root: the file or folder that they were read from. pixels: uint8, (N, H, W) grey or (N, H, W, 3)
            RGB. labels: (N,), class numbers. classes: their names. names: one a picture, all different.
            kind: what the data were recognised as, in words. test_indices: the pictures of the official test
            part, ascending; None if there is none.
    Attributes: as above.
    """

    def __init__(
        self,
        root: Path,
        pixels: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.int64],
        classes: Sequence[str],
        names: Sequence[str],
        *,
        kind: str = "",
        test_indices: npt.NDArray[np.int64] | None = None,
    ) -> None:
        assert pixels.dtype == np.uint8
        assert len(pixels) == len(labels) == len(names)
        self.root, self.kind, self.test_indices = root, kind, test_indices
        self.pixels = np.ascontiguousarray(pixels)
        self.labels = np.asarray(labels, dtype=np.int64)
        self.classes, self.names = list(classes), list(names)
        # The shape is hashed with the bytes: 2 x 8 pixels and 4 x 4 are different pictures.
        shape = repr(self.pixels.shape[1:]).encode()
        self._digests = [hashlib.sha256(shape + picture.tobytes()).hexdigest() for picture in self.pixels]

    def __len__(self) -> int:
        return len(self.names)

    def load(self, index: int) -> Image.Image:
        """Picture `index` as RGB, all three channels alike if it is grey."""
        return Image.fromarray(self.pixels[index]).convert("RGB")

    def digest(self, index: int) -> str:
        """SHA-256 of the picture's shape and bytes, in hexadecimal."""
        return self._digests[index]

    def path(self, index: int) -> Path:
        """What names picture `index` in messages; no file is there."""
        return self.root / self.names[index]

    def example_path(self, index: int) -> str | None:
        """A path under which other programs find picture `index`: none, as no file holds it alone."""
        return None

    def __repr__(self) -> str:
        return f"PictureArray({str(self.root)!r}): {len(self):,} pictures, {len(self.classes)} classes"
