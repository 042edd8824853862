"""A zip of pictures, read where it is: nothing is unpacked to a disk.

An archive comes from strangers. Names that lead out of it, links, two members under one name, members that
lie over each other and sizes that no pictures have are refused before a byte is unpacked; a member is
unpacked in memory, one at a time, and never to more bytes than the archive announces.
"""

from __future__ import annotations

import itertools
import stat
import threading
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

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
from minialex.data.images import PIXEL_LIMIT, PictureError
from minialex.data.numbered_names import class_in_name
from minialex.errors import DataError

__all__ = ["ZipPictures"]

METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}
MEMBER_LIMIT = 500_000_000  # bytes of one picture's file
# Photographs are compressed already: an archive of them does not unpack to more than this and so many times
# its size.
TOTAL_LIMIT, RATIO_LIMIT = 1_000_000_000, 20
ENCRYPTED = 0x1
NO_TRUST = "The archive is not to be trusted; get it from its source again."


class ZipPictures(PictureFiles):
    """The pictures of a zip of class folders: CLASS/NAME.jpg, below any number of folders around them.

    A folder train/ beside test/ (or val/) is an official division: `test_indices` are the latter's. Pictures
    named CLASS.NUMBER.jpg, as Kaggle's cats and dogs, need no folders.

    Args:   root: the archive. The others are ImageFolder's.
    Attributes: ImageFolder's.
    Raises: DataError for what is no zip, an archive that is not to be trusted, and pictures without classes.
    """

    way = ""

    def __init__(
        self,
        root: str | Path,
        on_bad_image: OnBadImage = "stop",
        pixel_limit: int = PIXEL_LIMIT,
        progress: Progress | None = None,
    ) -> None:
        root = Path(root).expanduser()
        self._lock = threading.Lock()
        self._archive: zipfile.ZipFile | None = None
        self._stamp = _stamp(root)
        members = _checked(root, self._open(root).infolist())
        classes, files, extra, kind = _arrange(root, members)
        super().__init__(root, classes, files, extra, on_bad_image, pixel_limit, progress, kind=kind)

    def _open(self, root: Path) -> zipfile.ZipFile:
        """The open archive; each process has one of its own."""
        with self._lock:
            if self._archive is None:
                if _stamp(root) != self._stamp:
                    raise DataError(f"{root} was changed while it was in use. Start again.")
                try:
                    self._archive = zipfile.ZipFile(root)
                except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
                    raise DataError(f"{root} is no sound zip archive: {error}. Get it again.") from error
            return self._archive

    def _read(self, path: str) -> bytes:
        archive = self._open(self.root)
        try:
            announced = archive.getinfo(path).file_size
            with archive.open(path) as file:
                # Asked for no number of bytes, the library unpacks all that is there, whatever is announced.
                return file.read(announced + 1)  # checks the member's sum
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, KeyError) as error:
            raise PictureError(f"damaged in the archive: {error}") from error

    def example_path(self, index: int) -> str | None:
        """A path under which other programs find picture `index`: none, as it is in an archive."""
        return None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_archive")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock(), _archive=None)


def _stamp(path: Path) -> tuple[int, int]:
    """By which a changed file is known. Raises: DataError if it cannot be read."""
    try:
        status = path.stat()
        return status.st_size, status.st_mtime_ns
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def _checked(root: Path, members: Sequence[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    """The members that systems did not leave there. Raises: DataError for an archive that lies."""
    seen: dict[str, str] = {}
    for member in members:
        _check_member(root, member)
        name = normalise(member.filename)
        if seen.get(name) == member.filename:
            raise DataError(f"{root} holds {member.filename!a} twice. {NO_TRUST}")
        if name in seen:
            raise DataError(twice_message(root, seen[name], member.filename))
        seen[name] = member.filename
    by_place = sorted(members, key=lambda member: member.header_offset)
    for first, second in itertools.pairwise(by_place):
        if first.header_offset + first.compress_size > second.header_offset:
            raise DataError(
                f"{root}: {first.filename!a} and {second.filename!a} lie over each other. {NO_TRUST}"
            )
    total, size = sum(member.file_size for member in members), root.stat().st_size
    if total > max(TOTAL_LIMIT, RATIO_LIMIT * size):
        raise DataError(
            f"{root} has {size:,} bytes and would unpack to {total:,}: pictures do not shrink so. {NO_TRUST}"
        )
    return [member for member in members if not any(map(is_hidden, PurePosixPath(member.filename).parts))]


def _check_member(root: Path, member: zipfile.ZipInfo) -> None:
    """Raises: DataError naming the member and what is wrong with it."""
    name, path = member.orig_filename, PurePosixPath(member.filename)
    reason = ""
    if not path.parts:
        reason = "a member without a name"
    elif path.is_absolute() or ".." in path.parts or "\\" in name or ":" in path.parts[0] or "\0" in name:
        reason = "a name that leads out of the archive"
    elif stat.S_ISLNK(member.external_attr >> 16):
        reason = "a link"
    elif member.flag_bits & ENCRYPTED:
        raise DataError(f"{root}: {name!a} is encrypted. Unpack the archive and give the folder.")
    elif member.compress_type not in METHODS:
        raise DataError(
            f"{root}: {name!a} is compressed by method {member.compress_type}, expected one of "
            f"{', '.join(f'{number} ({word})' for number, word in METHODS.items())}. Unpack the archive and "
            "give the folder."
        )
    elif member.file_size > MEMBER_LIMIT:
        reason = f"{member.file_size:,} bytes, more than the {MEMBER_LIMIT:,} that a picture may have"
    if reason:
        raise DataError(f"{root} holds {name!a}: {reason}. {NO_TRUST}")


Arranged = tuple[list[str], list[PictureFile], list[str], str]


def _arrange(root: Path, members: Sequence[zipfile.ZipInfo]) -> Arranged:
    """(classes, files, names of other files, the layout in words), the files by part, class and name."""
    names = sorted((normalise(member.filename), member.filename) for member in members)
    pictures = [pair for pair in names if is_picture(pair[0])]
    extra = [name for name, path in names if not is_picture(name) and not path.endswith("/")]
    if not pictures:
        inside = f", but {', '.join(extra[:10])}. Unpack it, and give what is inside." if extra else "."
        raise DataError(f"{root} holds no pictures{inside}")
    paths = [name.split("/") for name, _ in pictures]
    depth = _depth(paths)
    found, layout = _classes(root, [path[depth:] for path in paths])
    classes = sorted({label for label, _ in found})
    if len(classes) < 2:
        raise DataError(f"{root} holds one class only, {classes[0]}; a classifier needs two.")
    numbers = {name: label for label, name in enumerate(classes)}
    files = [
        PictureFile(numbers[label], name, path, test)
        for (label, test), (name, path) in zip(found, pictures, strict=True)
    ]
    return classes, sorted(files, key=lambda file: (file.test, file.label, file.name)), extra, layout


def _classes(root: Path, paths: Sequence[Sequence[str]]) -> tuple[list[tuple[str, bool]], str]:
    """Of each picture the class and whether it is to be tested on; and in words how that was known."""
    by_name = [class_in_name(path[-1]) if len(path) == 1 else None for path in paths]
    if None not in by_name and len(set(by_name)) > 1:
        return [(str(label), False) for label in by_name], "a zip, classes by file names"
    part = _test_part(root, {path[0] for path in paths if len(path) > 1})
    for path in paths:
        if len(path) < (2 if part is None else 3):
            raise DataError(
                f"{root}: {'/'.join(path)} is in no class folder. Expected CLASS/NAME.jpg, "
                "train/CLASS/NAME.jpg, or names such as cat.0.jpg and dog.0.jpg."
            )
    if part is None:
        return [(path[0], False) for path in paths], "a zip of class folders"
    found = [(path[1], path[0] == part) for path in paths]
    unknown = {label for label, test in found if test} - {label for label, test in found if not test}
    if unknown:
        raise DataError(
            f"{root}: {part} has classes of which there is nothing to train on: "
            f"{', '.join(sorted(unknown)[:10])}. Add pictures of them to train, or leave them out."
        )
    training = ({path[0] for path in paths} - {part}).pop()
    return found, f"a zip of class folders in {training} and {part}"


def _depth(paths: Sequence[Sequence[str]]) -> int:
    """How many folders lie around all that matters, one in the other."""
    depth = 0
    while len({path[depth] for path in paths}) == 1 and min(map(len, paths)) > depth + 2:
        depth += 1
    if len({path[depth] for path in paths}) == 1 and max(map(len, paths)) == depth + 2:
        depth += all(class_in_name(path[-1]) is not None for path in paths)  # train/cat.0.jpg
    return depth


def _test_part(root: Path, tops: set[str]) -> str | None:
    """The name of the part to test on, if these folders are not classes but parts of divided data."""
    if not tops or not all(name.lower() in PART_NAMES for name in tops):
        return None
    training = [name for name in tops if name.lower().startswith("train")]
    if len(training) != 1 or len(tops) != 2:
        raise DataError(
            f"{root} holds {', '.join(sorted(tops))}: this looks like data that are divided already. "
            "Understood are train and one other part, which is tested on; the pictures to choose by are "
            "taken from train (--split). Make an archive of those two, or of train alone."
        )
    return (tops - set(training)).pop()
