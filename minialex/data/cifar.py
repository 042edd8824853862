"""CIFAR-10 as it is distributed: the binary version and the python version, unpacked or as .tar.gz.

A picture is 3,072 bytes: 1,024 of red, 1,024 of green, 1,024 of blue, each row by row. In the binary version
its label stands before it. The python version is a pickle, which is read as data: of all that a pickle may
name, the three that make a NumPy array are known, and stand here for functions that make nothing else.

Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images";
https://www.cs.toronto.edu/~kriz/cifar.html describes both formats.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, cast

import numpy as np
import numpy.typing as npt

from minialex.data.arrays import PictureArray
from minialex.errors import CheckpointError, DataError
from minialex.safe_pickle import Buildable, read_pickle, shown

__all__ = ["CLASSES", "find_cifar", "open_cifar"]

Bytes = npt.NDArray[np.uint8]

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
SIZE = 32
PIXELS = 3 * SIZE * SIZE
BATCH = re.compile(r"(data_batch_[1-9]|test_batch)(\.bin)?")
TEST = "test_batch"
FOLDERS = ("", "cifar-10-batches-bin", "cifar-10-batches-py")
BATCH_LIMIT = 60_000_000  # bytes of one batch: the genuine ones have 31 million
GZIP = b"\x1f\x8b"
TAR_LIMIT = 1_000_000_000  # bytes of all that an archive holds: the genuine ones have 186 million
MEMBERS_LIMIT = 1000  # files and folders in an archive: the genuine ones have nine


def find_cifar(folder: Path) -> Path | None:
    """The folder, this one or one of the distributed name in it, that holds CIFAR-10's batches; or None.

    Raises: DataError if several do.
    """
    places = [folder / name for name in FOLDERS]
    found = [place for place in places if place.is_dir() and any(map(_is_batch, place.iterdir()))]
    if len(found) > 1:
        raise DataError(
            f"{folder} holds CIFAR-10 twice, in {' and '.join(place.name for place in found)}: give one "
            f"(--data {found[0]})."
        )
    return found[0] if found else None


def _is_batch(path: Path) -> bool:
    return BATCH.fullmatch(path.name) is not None and path.is_file()


def open_cifar(source: Path) -> PictureArray:
    """The pictures of the batches in a folder or a .tar.gz; test_batch is the official test part.

    Raises: DataError for batches that are missing, malformed or of both versions.
    """
    batches = _in_folder(source) if source.is_dir() else _in_archive(source)
    if not batches:
        raise DataError(
            f"{source} holds no batches of CIFAR-10 (data_batch_1 to 5 and test_batch, or these with .bin). "
            "An archive of pictures must be unpacked: give the folder of its class folders."
        )
    versions = {name.endswith(".bin") for name in batches}
    if len(versions) > 1:
        raise DataError(f"{source} holds batches of both versions, {', '.join(batches)}: keep one of them.")
    parts = {PurePosixPath(name).stem: (name, read) for name, read in sorted(batches.items())}
    decode = _from_binary if versions.pop() else _from_python
    decoded = {stem: decode(read(), f"{source}: {name}") for stem, (name, read) in parts.items()}
    labels = np.concatenate([own for _, own in decoded.values()])
    counts = [len(own) for _, own in decoded.values()]
    test = None
    if TEST in decoded and len(decoded) > 1:  # it comes last by its name
        test = np.arange(len(labels) - counts[-1], len(labels), dtype=np.int64)
    pixels = np.concatenate([own for own, _ in decoded.values()])
    return PictureArray(
        source,
        pixels.reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1),
        labels,
        CLASSES,
        [f"{stem}/{i:04d}" for stem, count in zip(decoded, counts, strict=True) for i in range(count)],
        kind=f"CIFAR-10's {_in_words(list(decoded))}, {SIZE} x {SIZE}",
        test_indices=test,
    )


def _in_words(stems: Sequence[str]) -> str:
    """5 data batches and test_batch."""
    count = len(stems) - (TEST in stems)
    data = f"{count} data batch{'es' if count > 1 else ''}" if count else ""
    return " and ".join(filter(None, (data, TEST if TEST in stems else "")))


Batches = dict[str, Callable[[], bytes]]  # file name -> what reads its bytes


def _in_folder(folder: Path) -> Batches:
    found: Batches = {}
    for path in filter(_is_batch, folder.iterdir()):
        if path.stat().st_size > BATCH_LIMIT:
            raise DataError(f"{path} has {path.stat().st_size:,} bytes: no batch of CIFAR-10 is so long.")
        found[path.name] = path.read_bytes
    return found


class _Bounded:
    """Never asked for more at a time than a batch may have: a header can announce a name of any length."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= BATCH_LIMIT:
            raise tarfile.ReadError(f"a header announces more than {BATCH_LIMIT:,} bytes")
        return cast(bytes, super().read(size))  # type: ignore[misc]


class _Gzip(_Bounded, gzip.GzipFile):
    """A packed file."""


class _File(_Bounded, io.FileIO):
    """A file as it is."""


def _unpacked(archive: Path) -> IO[bytes]:
    """What reads a .tar, or the tar in a .tar.gz: the content tells which it is."""
    with archive.open("rb") as file:
        packed = file.read(len(GZIP)) == GZIP
    return cast(IO[bytes], _Gzip(archive) if packed else _File(archive))


# What the library's tar reader raises for headers that lie: sizes of 80 bits, names for names for names.
DAMAGE = (tarfile.TarError, EOFError, OSError, zlib.error, ValueError, OverflowError, RecursionError)


def _in_archive(archive: Path) -> Batches:
    """The batches in a tar, read into memory: nothing is unpacked to a disk, whatever the names are."""
    found: dict[str, bytes] = {}
    total = 0
    try:
        with _unpacked(archive) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for number, member in enumerate(tar):
                total += member.size
                _check_member(archive, member, number, total, found)
                content = tar.extractfile(member) if _is_batch_member(member) else None
                if content is not None:
                    found[PurePosixPath(member.name).name] = content.read()
    except DAMAGE as error:
        raise DataError(f"{archive} cannot be unpacked: {error}. Get it again.") from error
    return {name: lambda data=data: data for name, data in found.items()}  # type: ignore[misc]


def _is_batch_member(member: tarfile.TarInfo) -> bool:
    return member.isreg() and BATCH.fullmatch(PurePosixPath(member.name).name) is not None


def _check_member(
    archive: Path, member: tarfile.TarInfo, number: int, total: int, found: Mapping[str, bytes]
) -> None:
    """Raises: DataError for what is in no archive of CIFAR-10. `total`: bytes of it and all before it."""
    what = ""
    if PurePosixPath(member.name).name in found:
        what = "there twice"
    elif (
        not 0 <= member.size <= (BATCH_LIMIT if _is_batch_member(member) else TAR_LIMIT) or total > TAR_LIMIT
    ):
        what = "too long"
    elif number >= MEMBERS_LIMIT:
        what = "one file too many"
    if what:
        raise DataError(
            f"{archive}: {member.name!a} is {what} for CIFAR-10. The archive is not to be trusted; get it "
            "from its source again."
        )


def _from_binary(data: bytes, where: str) -> tuple[Bytes, npt.NDArray[np.int64]]:
    """(N, 3072) pixels and (N,) labels of a batch of the binary version."""
    if not data or len(data) % (1 + PIXELS):
        raise DataError(
            f"{where} has {len(data):,} bytes, expected a multiple of {1 + PIXELS:,}: one for the label and "
            f"{PIXELS:,} for each picture. It is damaged or cut; get it again."
        )
    rows = np.frombuffer(data, dtype=np.uint8).reshape(-1, 1 + PIXELS)
    return rows[:, 1:], _checked_labels(rows[:, 0].astype(np.int64), where)


def _checked_labels(labels: npt.NDArray[np.int64], where: str) -> npt.NDArray[np.int64]:
    wrong = np.flatnonzero((labels < 0) | (labels >= len(CLASSES)))
    if len(wrong):
        raise DataError(
            f"{where}: picture {wrong[0]:,} has the label {labels[wrong[0]]}, expected 0 to "
            f"{len(CLASSES) - 1}. It is damaged, or of another data set."
        )
    return labels


class _Type(Buildable):
    """What stands for numpy.dtype: its name, which must be that of bytes."""

    def __init__(self, code: object, align: object = False, copy: object = True) -> None:
        if not isinstance(code, str) or code not in ("u1", "|u1"):
            # Only a text is shown: a container may be nested so deep, or so often, that its repr never ends.
            kind = shown(code)[:20] if isinstance(code, str) else type(code).__name__
            raise CheckpointError(f"an array of {kind}, expected bytes (u1)")

    def set_state(self, state: object) -> None:
        """Byte order and the like, which say nothing about single bytes."""


class _Array(Buildable):
    """What stands for numpy.ndarray: rows of bytes, once it has its state."""

    def __init__(self, kind: object, shape: object, code: object) -> None:
        self.rows: Bytes | None = None

    def set_state(self, state: object) -> None:
        """(version, shape, type, whether in Fortran's order, bytes), as NumPy has it."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise CheckpointError("an array whose state is not (version, shape, type, order, bytes)")
        _, shape, kind, fortran, data = state
        raw = data.encode("latin-1") if isinstance(data, str) else data  # Python 2 wrote bytes as a string
        if not isinstance(kind, _Type) or fortran is not False or not isinstance(raw, bytes):
            raise CheckpointError("an array that is not of bytes, row by row")
        if not isinstance(shape, tuple) or {type(length) for length in shape} != {int} or len(shape) > 32:
            raise CheckpointError(f"an array without a shape, expected (pictures, {PIXELS:,})")
        if len(shape) != 2:
            raise CheckpointError(f"an array of shape {shape!r:.40}, expected (pictures, {PIXELS:,})")
        if shape[1] != PIXELS or shape[0] < 1 or shape[0] * PIXELS != len(raw):
            raise CheckpointError(
                f"an array of shape {shape!r:.40} and {len(raw):,} bytes, expected (pictures, {PIXELS:,})"
            )
        self.rows = np.frombuffer(raw, dtype=np.uint8).reshape(shape)


def _encode(text: object, encoding: object) -> bytes:
    """What stands for _codecs.encode, by which Python 3 writes bytes for Python 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise CheckpointError("bytes that are not written as Latin-1")
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError as error:
        raise CheckpointError("bytes with values above 255") from error


# All that a batch may name, with what it gets for it.
NAMES: dict[str, Callable[..., object] | object] = {
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy._core.multiarray._reconstruct": _Array,
    "numpy.ndarray": "numpy.ndarray",
    "numpy.dtype": _Type,
    "_codecs.encode": _encode,
}


def _from_python(data: bytes, where: str) -> tuple[Bytes, npt.NDArray[np.int64]]:
    """(N, 3072) pixels and (N,) labels of a batch of the python version."""
    try:
        batch = read_pickle(data, NAMES)
    except CheckpointError as error:
        raise DataError(f"{where} is no batch of CIFAR-10's python version: {error}.") from error
    if not isinstance(batch, dict):
        raise DataError(f"{where} holds {type(batch).__name__}, expected a dict with data and labels.")
    pixels, labels = (batch.get(key, batch.get(key.encode())) for key in ("data", "labels"))
    rows = pixels.rows if isinstance(pixels, _Array) else None
    if rows is None or not isinstance(labels, list) or {type(label) for label in labels} != {int}:
        keys = ", ".join(repr(key)[:30] for key in list(batch)[:10])
        raise DataError(
            f"{where} holds {keys or 'nothing'}, expected data (an array) and labels (a list of numbers)."
        )
    if len(labels) != len(rows):
        raise DataError(f"{where} has {len(rows):,} pictures and {len(labels):,} labels. Get it again.")
    if not all(0 <= label < len(CLASSES) for label in labels):
        wrong = next(label for label in labels if not 0 <= label < len(CLASSES))
        raise DataError(f"{where} has the label {wrong}, expected 0 to {len(CLASSES) - 1}.")
    return rows, np.array(labels, dtype=np.int64)
