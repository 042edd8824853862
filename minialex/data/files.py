"""Pictures that are files, in a folder or in an archive: what all such data sets have in common.

Whoever finds the files says which class each is of; here they are audited, and then read one by one.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from minialex.data.audit import BadImage, Finding, Progress, audit_files, report
from minialex.data.images import (
    FORMATS,
    OTHER_PICTURE_SUFFIXES,
    PIXEL_LIMIT,
    SUFFIXES,
    PictureError,
    decode,
)
from minialex.errors import DataError

__all__ = [
    "OnBadImage",
    "PictureFile",
    "PictureFiles",
    "files_in",
    "is_hidden",
    "is_picture",
    "normalise",
    "twice_message",
]

OnBadImage = Literal["stop", "skip"]

# What operating systems leave in folders; with names that begin with a dot, passed over without a word.
SYSTEM_NAMES = frozenset(
    ["__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "system volume information"]
)


@dataclass(frozen=True)
class PictureFile:
    """One file: its class number, its name for people (NFC, with /), its path below the data set's root as
    the file system or the archive spells it, and whether it belongs to an official test part."""

    label: int
    name: str
    path: str
    test: bool = False


class PictureFiles:
    """Pictures below `root`, each of a class that is known already; those that cannot be used are found here.

    Args:   files: in the order in which they are to be numbered. extra: names of files that are no pictures.
            on_bad_image: "stop" raises an error that names the bad files, "skip" leaves them out.
            pixel_limit: pictures with more pixels are bad. kind: what the data were recognised as, in words.
            progress: called with (files done, files in all) during the audit.
    Attributes: classes, labels (int64, one a picture), names, test_indices (the numbers of the official test
            part's pictures, ascending; None where there is none), skipped (the bad pictures left out), extra,
            kind.
    Raises: DataError for a class without pictures, and for bad pictures.
    """

    def __init__(
        self,
        root: Path,
        classes: Sequence[str],
        files: Sequence[PictureFile],
        extra: Sequence[str] = (),
        on_bad_image: OnBadImage = "stop",
        pixel_limit: int = PIXEL_LIMIT,
        progress: Progress | None = None,
        *,
        kind: str = "",
    ) -> None:
        if on_bad_image not in ("stop", "skip"):
            raise ValueError(f'on_bad_image must be "stop" or "skip", got {on_bad_image!r}')
        self.root, self.classes, self.extra, self.kind = root, list(classes), sorted(extra), kind
        self.pixel_limit = pixel_limit
        _require_pictures(root, self.classes, [file.label for file in files])
        findings = audit_files([file.path for file in files], self._read, pixel_limit, progress)
        self.skipped = [
            BadImage(file.name, finding.reason)
            for file, finding in zip(files, findings, strict=True)
            if finding.reason is not None
        ]
        if self.skipped and on_bad_image == "stop":
            raise DataError(_stop_message(root, self.skipped, len(files)))
        self._keep(files, findings)
        _require_pictures(root, self.classes, self.labels.tolist())

    def _keep(self, files: Sequence[PictureFile], findings: Sequence[Finding]) -> None:
        kept = [pair for pair in zip(files, findings, strict=True) if pair[1].reason is None]
        self.labels = np.array([file.label for file, _ in kept], dtype=np.int64)
        self.names = [file.name for file, _ in kept]
        self._paths = [file.path for file, _ in kept]
        self._digests = [finding.digest for _, finding in kept]
        test = np.flatnonzero([file.test for file, _ in kept]).astype(np.int64)
        self.test_indices: npt.NDArray[np.int64] | None = test if len(test) else None

    def _read(self, path: str) -> bytes:
        """The bytes of the file with this path below the root. Raises: OSError, PictureError."""
        return (self.root / path).read_bytes()

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> Path:
        """The file of picture `index`; in an archive, where it would be if that were a folder."""
        return self.root / self._paths[index]

    def example_path(self, index: int) -> str | None:
        """A path under which other programs find picture `index`; None if there is none."""
        return str(self.path(index))

    def load(self, index: int) -> Image.Image:
        """Picture `index`, upright, RGB. Raises: DataError naming the file if it cannot be read any more."""
        path = self.path(index)
        try:
            return decode(self._read(self._paths[index]), self.pixel_limit)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}. Check the path.") from error
        except PictureError as error:
            raise DataError(f"{path} cannot be used: {error}. Replace or remove it.") from error

    def digest(self, index: int) -> str:
        """SHA-256 of the file of picture `index`, in hexadecimal, as the audit found it."""
        return self._digests[index]

    def is_unchanged(self, index: int) -> bool:
        """Whether the file of picture `index` is still the one that the audit found."""
        try:
            return hashlib.sha256(self._read(self._paths[index])).hexdigest() == self.digest(index)
        except (OSError, PictureError):
            return False

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"{name}({str(self.root)!r}): {len(self):,} pictures, {len(self.classes)} classes"


def normalise(name: str) -> str:
    """A name in NFC; bytes that are no UTF-8 become visible escapes, so that it can be printed and stored."""
    return unicodedata.normalize("NFC", name).encode("utf-8", "backslashreplace").decode("utf-8")


def is_hidden(name: str) -> bool:
    """Whether a name is one that systems make for themselves."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def is_picture(name: str) -> bool:
    """Whether a name ends as a picture's does, also of a format that is not read here."""
    return os.path.splitext(name)[1].lower() in SUFFIXES | OTHER_PICTURE_SUFFIXES


def files_in(root: Path, folder: Path) -> tuple[list[tuple[str, str]], list[str]]:
    """The pictures in `folder` and below, and the names of its other files.

    A picture is (name, path), both relative to root; they are sorted by name.

    Raises: DataError for two names that are the same in NFC.
    """
    found: dict[str, str] = {}
    extra = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        for file in files:
            path = Path(parent, file)
            if is_hidden(file) or not path.is_file():  # a broken link, a pipe
                continue
            relative = path.relative_to(root).as_posix()
            name = normalise(relative)
            if not is_picture(file):
                extra.append(name)
            elif name in found:
                raise DataError(twice_message(root, found[name], relative))
            else:
                found[name] = relative
    return sorted(found.items()), extra


def twice_message(root: Path, first: str, second: str) -> str:
    """What is said about two names that cannot be told apart."""
    return (
        f"{first!a} and {second!a} in {root} are the same name in Unicode's NFC form, "
        "so pictures could not be told apart. Rename or merge one of them."
    )


def _require_pictures(root: Path, classes: Sequence[str], labels: Sequence[int]) -> None:
    present = set(labels)
    empty = [name for label, name in enumerate(classes) if label not in present]
    if empty:
        raise DataError(
            f"{len(empty)} of the {len(classes)} classes in {root} "
            f"{'holds' if len(empty) == 1 else 'hold'} no usable picture: "
            f"{', '.join(empty[:20])}. Expected at least one {'/'.join(FORMATS)} file in each. "
            f"Add pictures or remove the folder{'s' * (len(empty) > 1)}."
        )


def _stop_message(root: Path, bad: Sequence[BadImage], count: int) -> str:
    return (
        f"{len(bad):,} of the {count:,} pictures in {root} cannot be used:\n{report(bad)}\n"
        "Replace or remove them, or leave them out with --on-bad-image skip."
    )
