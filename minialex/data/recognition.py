"""Which kind of data a path is: found out by what lies there, one kind or an error, never a guess."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minialex.data.archives import ZipPictures
from minialex.data.audit import Progress
from minialex.data.cifar import GZIP, find_cifar, open_cifar
from minialex.data.digits import FILE as DIGITS_FILE
from minialex.data.digits import open_digits
from minialex.data.files import OnBadImage, is_hidden, is_picture
from minialex.data.folder import ImageFolder
from minialex.data.imagenet import ImageNet, find_imagenet
from minialex.data.images import PIXEL_LIMIT
from minialex.data.mnist import find_mnist, is_mnist_name, open_mnist
from minialex.data.numbered_names import NumberedNames, find_numbered_names
from minialex.errors import DataError

__all__ = ["UNDERSTOOD", "open_path"]

UNDERSTOOD = """What is understood as data:
  a folder with one folder of pictures a class
  a folder of pictures named CLASS.NUMBER.jpg, such as Kaggle's cat.0.jpg and dog.0.jpg (train/ too)
  a .zip of either
  a folder with MNIST's files (train-images-idx3-ubyte, t10k-images-idx3-ubyte and their labels; .gz too)
  cifar-10-batches-bin or cifar-10-batches-py, or the .tar.gz of one
  ImageNet's folders: train/ with n01440764 and so on, val/ with its ground truth or in such folders too
  digits: scikit-learn's; drawn: flowers drawn by code"""

ZIP = (b"PK\3\4", b"PK\5\6")  # how an archive begins, an empty one too
TAR_MAGIC = slice(257, 262)
MNIST, CIFAR, IMAGENET = "MNIST's files", "CIFAR-10's files", "ImageNet's folders"
# Of every kind but the plain folder, what finds it in a folder.
FINDERS: dict[str, Callable[[Path], Path | None]] = {
    MNIST: find_mnist,
    CIFAR: find_cifar,
    IMAGENET: find_imagenet,
    "pictures with their classes in their names": find_numbered_names,
}


def open_path(
    path: Path,
    on_bad_image: OnBadImage = "stop",
    pixel_limit: int = PIXEL_LIMIT,
    progress: Progress | None = None,
) -> Any:
    """The data set at `path`, whatever it is; what it was recognised as is its attribute `kind`.

    Args: see ImageFolder.
    Raises: DataError for a path that is none of what is understood, or could be several, and for data of a
            known kind that cannot be used.
    """
    audited = (on_bad_image, pixel_limit, progress)
    try:
        if path.is_file():
            return _open_file(path, *audited)
        if not path.is_dir():
            return ImageFolder(path, *audited)  # refuses, and says what is expected
        found = {kind: place for kind, find in FINDERS.items() if (place := find(path)) is not None}
    except PermissionError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}.") from error
    if path in (found.get(MNIST), found.get(CIFAR)) and _pictures_in_folders(path):
        found["folders with pictures"] = path
    if len(found) > 1:
        raise DataError(
            f"{path} holds {' and '.join(found)}: which is meant? Give a folder with one of them."
        )
    if not found:
        _check_folder(path)
        return ImageFolder(path, *audited)
    kind, place = found.popitem()
    if kind == MNIST:
        return open_mnist(place)
    if kind == CIFAR:
        return open_cifar(place)
    if kind == IMAGENET:
        return ImageNet(place, *audited)
    return NumberedNames(place, *audited)


def _open_file(path: Path, *audited: Any) -> Any:
    with path.open("rb") as file:
        beginning = file.read(TAR_MAGIC.stop)
    if beginning.startswith(ZIP) or zipfile.is_zipfile(path):
        return ZipPictures(path, *audited)
    if path.name == DIGITS_FILE:
        return open_digits(path)
    if is_mnist_name(path.name):
        raise DataError(
            f"{path} is one of MNIST's files, pictures or labels: give their folder (--data {path.parent})."
        )
    if beginning.startswith(GZIP) or beginning[TAR_MAGIC] == b"ustar":
        return open_cifar(path)  # refuses others
    raise DataError(f"{path} is a file of no kind that is read as data.\n{UNDERSTOOD}")


def _pictures_in_folders(path: Path) -> bool:
    """Whether there are folders here that look like classes."""
    folders = [folder for folder in path.iterdir() if folder.is_dir() and not is_hidden(folder.name)]
    return any(is_picture(item.name) for folder in folders for item in folder.iterdir())


def _check_folder(path: Path) -> None:
    """Raises: DataError for a folder without folders, in which no class can be."""
    inside = sorted(item.name for item in path.iterdir() if not is_hidden(item.name))
    if any((path / name).is_dir() for name in inside):
        return
    archives = [name for name in inside if name.lower().endswith((".zip", ".tar.gz", ".tgz", ".tar"))]
    pictures = sum(map(is_picture, inside))
    if archives:
        what = f"but {', '.join(archives[:5])}: give that (--data {path / archives[0]})"
    elif pictures:
        first = next(filter(is_picture, inside))
        what = f"but {pictures:,} pictures such as {first}, whose classes nobody knows"
    else:
        what = f"but {', '.join(inside[:5])}{', ...' * (len(inside) > 5)}" if inside else "and nothing else"
    raise DataError(f"The data folder {path} holds no folders, {what}.\n{UNDERSTOOD}")
