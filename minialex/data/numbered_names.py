"""Pictures whose names say the class: cat.0.jpg, dog.0.jpg, as Kaggle's cats and dogs come."""

from __future__ import annotations

import os
import re
from pathlib import Path

from minialex.data.audit import Progress
from minialex.data.files import (
    OnBadImage,
    PictureFile,
    PictureFiles,
    is_hidden,
    is_picture,
    normalise,
    twice_message,
)
from minialex.data.folder import PART_NAMES
from minialex.data.images import PIXEL_LIMIT
from minialex.errors import DataError

__all__ = ["NumberedNames", "class_in_name", "find_numbered_names"]

NAME = re.compile(r"([^.]*[^.\d][^.]*)\.\d+")  # a class that is not a number itself, a dot, a number
TRAIN = "train"


def class_in_name(name: str) -> str | None:
    """cat for cat.0.jpg, None for other names."""
    stem, _ = os.path.splitext(name)
    match = NAME.fullmatch(stem)
    return match[1] if match and is_picture(name) else None


def find_numbered_names(folder: Path) -> Path | None:
    """The folder, this one or the train/ in it, in which every picture's name says its class; or None.

    Beside train/ there may be Kaggle's test1/, whose classes nobody knows, but no folder that might be a
    class.
    """
    inner = [path.name for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name)]
    if not inner:
        return folder if _all_named(folder) else None
    parts = [name.lower().rstrip("0123456789") for name in inner]
    if TRAIN in inner and all(part in PART_NAMES for part in parts) and _all_named(folder / TRAIN):
        return folder / TRAIN
    return None


def _all_named(folder: Path) -> bool:
    """Whether all pictures are named so, in two classes or more, and no folder is among them."""
    visible = [path for path in folder.iterdir() if not is_hidden(path.name)]
    classes = {class_in_name(path.name) for path in visible if is_picture(path.name)}
    return None not in classes and len(classes) > 1 and not any(path.is_dir() for path in visible)


class NumberedNames(PictureFiles):
    """The pictures in `root`, which `find_numbered_names` gave: CLASS.NUMBER.jpg.

    They are numbered by class, and within a class by their numbers: cat.9.jpg comes before cat.10.jpg.

    Args, Attributes: ImageFolder's.
    Raises: DataError for bad pictures and names that cannot be told apart.
    """

    way = ""

    def __init__(
        self,
        root: Path,
        on_bad_image: OnBadImage = "stop",
        pixel_limit: int = PIXEL_LIMIT,
        progress: Progress | None = None,
    ) -> None:
        found: dict[str, str] = {}
        extra = []
        for path in root.iterdir():
            name = normalise(path.name)
            if is_hidden(path.name) or not path.is_file():
                continue
            if not is_picture(path.name):
                extra.append(name)
            elif name in found:
                raise DataError(twice_message(root, found[name], path.name))
            else:
                found[name] = path.name
        classes = sorted({str(class_in_name(name)) for name in found})
        numbers = {name: label for label, name in enumerate(classes)}
        files = [PictureFile(numbers[str(class_in_name(name))], name, own) for name, own in found.items()]
        files.sort(key=lambda file: (file.label, int(file.name.split(".")[1]), file.name))
        kind = "classes by file names such as " + files[0].name
        super().__init__(root, classes, files, extra, on_bad_image, pixel_limit, progress, kind=kind)
