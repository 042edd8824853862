"""A folder of photographs, one folder a class: the form in which most people have their pictures.

Class numbers follow the sorted names of the folders and photographs follow their sorted names, never the
order in which a file system lists them. Names are compared in Unicode's NFC form, so that a folder copied
from a Mac ("Gänseblümchen" as two characters for ä) has the same classes in the same order.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL import Image

from minialex.data.audit import Progress
from minialex.data.files import (
    OnBadImage,
    PictureFile,
    PictureFiles,
    files_in,
    is_hidden,
    is_picture,
    normalise,
    twice_message,
)
from minialex.data.images import PIXEL_LIMIT
from minialex.errors import DataError

__all__ = ["Dataset", "ImageFolder", "equal_files"]

# What the folders of data that somebody has divided already are called.
PART_NAMES = frozenset(["train", "training", "val", "valid", "validation", "dev", "test", "testing"])


@runtime_checkable
class Dataset(Protocol):
    """What splits and loaders ask of a data set. It must pickle, for the loader's workers.

    An attribute or property `way`, a string, may name how `load` makes a picture of its file, with every
    setting that matters: f"inverted {self.invert}". Then, and with an ImageFolder itself, a loader's cache
    keeps pictures, apart for each class and way; other data sets load each picture anew every time.
    An attribute `test_indices`, int64 and ascending, may name the pictures of an official test part: see
    `divide`. What `open_dataset` returns has more attributes, which it lists.
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


class ImageFolder(PictureFiles):
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
        root = Path(root).expanduser()
        folders, extra = _class_folders(root)
        files: list[PictureFile] = []
        for label, path in enumerate(folders.values()):
            found, others = files_in(root, path)
            files += [PictureFile(label, name, own) for name, own in found]
            extra += others
        super().__init__(root, list(folders), files, extra, on_bad_image, pixel_limit, progress)


def equal_files(dataset: Dataset, indices: Iterable[int] | None = None) -> list[list[int]]:
    """Groups of two or more pictures whose files are equal byte for byte, by their hashes."""
    groups: dict[str, list[int]] = {}
    for index in range(len(dataset)) if indices is None else indices:
        groups.setdefault(dataset.digest(int(index)), []).append(int(index))
    return [group for group in groups.values() if len(group) > 1]


def _class_folders(root: Path) -> tuple[dict[str, Path], list[str]]:
    """The classes' folders by NFC name, in sorted order, and the names of the files beside them."""
    advice = "Give the folder that holds one folder of pictures a class."
    if not root.exists():
        raise DataError(
            f"{root} does not exist (looked for from {Path.cwd()}). Give the path of a folder that "
            "holds one folder of pictures a class, or of other data that docs/data.md lists."
        )
    if not root.is_dir():
        raise DataError(f"{root} is a file, expected a folder. {advice}")
    folders: dict[str, Path] = {}
    extra = []
    for path in root.iterdir():
        if is_hidden(path.name):
            continue
        name = normalise(path.name)
        if not path.is_dir():
            extra.append(name)
        elif name in folders:
            raise DataError(twice_message(root, folders[name].name, path.name))
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
        normalise(path.name) for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name)
    )


def _has_pictures(folder: Path) -> bool:
    return any(is_picture(path.name) and path.is_file() for path in folder.iterdir())


def _one_class_message(root: Path, only: Path) -> str:
    inner = _inner_folders(only)
    message = f"The data folder {root} holds one class only, {normalise(only.name)}; a classifier needs two."
    if len(inner) > 1:
        return f"{message} {only} holds {len(inner)} folders: did you mean that one?"
    return f"{message} Add a folder for each further class."
