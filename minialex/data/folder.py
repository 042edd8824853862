"""A folder of photographs, one folder a class: the form in which most people have their pictures.

Class numbers follow the sorted names of the folders and photographs follow their sorted names, never the
order in which a file system lists them. Names are compared in Unicode's NFC form, so that a folder copied
from a Mac ("Gänseblümchen" as two characters for ä) has the same classes in the same order.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL import Image

from minialex.data.audit import BadImage, Finding, Progress, audit_files, report
from minialex.data.images import FORMATS, OTHER_PICTURE_SUFFIXES, PIXEL_LIMIT, SUFFIXES, load_image
from minialex.errors import DataError

__all__ = ["Dataset", "ImageFolder", "equal_files"]

OnBadImage = Literal["stop", "skip"]

# What the folders of data that somebody has divided already are called.
PART_NAMES = frozenset(["train", "training", "val", "valid", "validation", "dev", "test", "testing"])

# What operating systems leave in folders; with names that begin with a dot, passed over without a word.
SYSTEM_NAMES = frozenset(
    ["__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "system volume information"]
)


@runtime_checkable
class Dataset(Protocol):
    """What splits and loaders ask of a data set. It must pickle, for the loader's workers.

    An attribute or property `way`, a string, may name how `load` makes a picture of its file, with every
    setting that matters: f"inverted {self.invert}". Then, and with an ImageFolder itself, a loader's cache
    keeps pictures, apart for each class and way; other data sets load each picture anew every time.
    """

    root: Path
    classes: list[str]
    labels: npt.NDArray[np.int64]
    names: list[str]

    def __len__(self) -> int: ...

    def load(self, index: int) -> Image.Image:
        """Picture `index`, upright, RGB."""

    def digest(self, index: int) -> str:
        """SHA-256 of the picture's file, in hexadecimal."""


class ImageFolder:
    """The pictures under `root`, in one folder a class; folders inside a class belong to it.

    Args:   root: the folder that holds the classes' folders.
            on_bad_image: "stop" raises an error that names the bad files, "skip" leaves them out.
            pixel_limit: pictures with more pixels are bad.
            progress: called with (files done, files in all) during the audit.
    Attributes: classes, labels (int64, one a picture), names (relative POSIX paths in NFC), skipped (the bad
            pictures left out), extra (names of files that are no pictures, passed over).
    Raises: DataError for a missing folder, fewer than two classes, a class without pictures, bad pictures,
            or what looks like train/ and val/, each with folders for the same classes.
    """

    def __init__(
        self,
        root: str | Path,
        on_bad_image: OnBadImage = "stop",
        pixel_limit: int = PIXEL_LIMIT,
        progress: Progress | None = None,
    ) -> None:
        if on_bad_image not in ("stop", "skip"):
            raise ValueError(f'on_bad_image must be "stop" or "skip", got {on_bad_image!r}')
        self.root = Path(root).expanduser()
        self.pixel_limit = pixel_limit
        folders, self.extra = _class_folders(self.root)
        self.classes = list(folders)
        files = [(label, *file) for label, path in enumerate(folders.values()) for file in self._scan(path)]
        _require_pictures(self.root, self.classes, [label for label, _, _ in files])
        findings = audit_files([self.root / path for _, _, path in files], pixel_limit, progress)
        self.skipped = [
            BadImage(name, finding.reason)
            for (_, name, _), finding in zip(files, findings, strict=True)
            if finding.reason is not None
        ]
        if self.skipped and on_bad_image == "stop":
            raise DataError(_stop_message(self.root, self.skipped, len(files)))
        self._keep(files, findings)
        _require_pictures(self.root, self.classes, self.labels.tolist())

    def _scan(self, folder: Path) -> list[tuple[str, str]]:
        """(name, path) of the pictures of a class, both relative to root, sorted by name."""
        found: dict[str, str] = {}
        for parent, folders, files in os.walk(folder):
            folders[:] = [name for name in folders if not _is_hidden(name)]
            for file in files:
                path = Path(parent, file)
                if _is_hidden(file) or not path.is_file():  # a broken link, a pipe
                    continue
                relative = path.relative_to(self.root).as_posix()
                name = normalise(relative)
                if path.suffix.lower() not in SUFFIXES | OTHER_PICTURE_SUFFIXES:
                    self.extra.append(name)
                elif name in found:
                    raise DataError(_twice_message(self.root, found[name], relative))
                else:
                    found[name] = relative
        return sorted(found.items())

    def _keep(self, files: Sequence[tuple[int, str, str]], findings: Sequence[Finding]) -> None:
        kept = [(*file, finding.digest) for file, finding in zip(files, findings, strict=True)
                if finding.reason is None]  # fmt: skip
        self.labels = np.array([label for label, _, _, _ in kept], dtype=np.int64)
        self.names = [name for _, name, _, _ in kept]
        self._paths = [path for _, _, path, _ in kept]  # as the file system spells them
        self._digests = [digest for _, _, _, digest in kept]
        self.extra.sort()

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> Path:
        """The file of picture `index`."""
        return self.root / self._paths[index]

    def load(self, index: int) -> Image.Image:
        """Picture `index`, upright, RGB. Raises: DataError naming the file if it cannot be read any more."""
        return load_image(self.path(index), self.pixel_limit)

    def digest(self, index: int) -> str:
        """SHA-256 of the file of picture `index`, in hexadecimal, as the audit found it."""
        return self._digests[index]

    def is_unchanged(self, index: int) -> bool:
        """Whether the file of picture `index` is still the one that the audit found."""
        try:
            return hashlib.sha256(self.path(index).read_bytes()).hexdigest() == self.digest(index)
        except OSError:
            return False

    def __repr__(self) -> str:
        return f"ImageFolder({str(self.root)!r}): {len(self):,} pictures, {len(self.classes)} classes"


def normalise(name: str) -> str:
    """A name in NFC; bytes that are no UTF-8 become visible escapes, so that it can be printed and stored."""
    return unicodedata.normalize("NFC", name).encode("utf-8", "backslashreplace").decode("utf-8")


def equal_files(dataset: Dataset, indices: Iterable[int] | None = None) -> list[list[int]]:
    """Groups of two or more pictures whose files are equal byte for byte, by their hashes."""
    groups: dict[str, list[int]] = {}
    for index in range(len(dataset)) if indices is None else indices:
        groups.setdefault(dataset.digest(int(index)), []).append(int(index))
    return [group for group in groups.values() if len(group) > 1]


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def _class_folders(root: Path) -> tuple[dict[str, Path], list[str]]:
    """The classes' folders by NFC name, in sorted order, and the names of the files beside them."""
    advice = "Give the folder that holds one folder of pictures a class."
    if not root.exists():
        raise DataError(f"The data folder {root} does not exist. {advice}")
    if not root.is_dir():
        raise DataError(f"{root} is a file, expected a folder. {advice}")
    folders: dict[str, Path] = {}
    extra = []
    for path in root.iterdir():
        if _is_hidden(path.name):
            continue
        name = normalise(path.name)
        if not path.is_dir():
            extra.append(name)
        elif name in folders:
            raise DataError(_twice_message(root, folders[name].name, path.name))
        else:
            folders[name] = path
    if not folders:
        raise DataError(f"The data folder {root} holds no folders, expected one for each class. {advice}")
    if len(folders) == 1:
        raise DataError(_one_class_message(root, next(iter(folders.values()))))
    _refuse_parts(root, dict(sorted(folders.items())))
    return dict(sorted(folders.items())), extra


def _refuse_parts(root: Path, folders: dict[str, Path]) -> None:
    """Raises: DataError if these are not classes but parts: a network would learn "train" against "val"."""
    called_parts = all(name.lower() in PART_NAMES for name in folders)
    inside = [_inner_folders(path) for path in folders.values()]
    shared = sorted(set.intersection(*map(set, inside)))
    only_folders = not any(_has_pictures(path) for path in folders.values())
    if not called_parts and not (only_folders and len(shared) > 1):
        return
    classes = shared or sorted({name for names in inside for name in names})
    first = next((path for name, path in folders.items() if name.lower().startswith("train")), None)
    first = first or next(iter(folders.values()))
    seems = f"its classes seem to be {', '.join(classes[:10])}; give --data {shlex.quote(str(first))}"
    if not classes:
        seems = "and its parts hold no classes; give the folder that holds one folder of pictures a class"
    message = f"{root} holds {', '.join(folders)}: this looks like a folder that is already split: {seems}"
    if not called_parts:
        message += f", or, if {', '.join(folders)} are the classes, put their pictures directly into them"
    raise DataError(
        f"{message}. The parts to train on, to choose by and to test on are made from it (--split)."
    )


def _inner_folders(folder: Path) -> list[str]:
    return sorted(
        normalise(path.name) for path in folder.iterdir() if path.is_dir() and not _is_hidden(path.name)
    )


def _has_pictures(folder: Path) -> bool:
    return any(
        path.suffix.lower() in SUFFIXES | OTHER_PICTURE_SUFFIXES and path.is_file()
        for path in folder.iterdir()
    )


def _one_class_message(root: Path, only: Path) -> str:
    inner = _inner_folders(only)
    message = f"The data folder {root} holds one class only, {normalise(only.name)}; a classifier needs two."
    if len(inner) > 1:
        return f"{message} {only} holds {len(inner)} folders: did you mean that one?"
    return f"{message} Add a folder for each further class."


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


def _twice_message(root: Path, first: str, second: str) -> str:
    return (
        f"{first!a} and {second!a} in {root} are the same name in Unicode's NFC form, "
        "so pictures could not be told apart. Rename or merge one of them."
    )
