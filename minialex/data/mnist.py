"""Handwritten digits as MNIST's files hold them, and whatever else comes in files of those names.

An idx file is a header and an array: two zero bytes, a byte for the type (8: bytes), a byte for the number of
axes, the length of each axis as four bytes, the highest first, and then the values. Pictures and labels are
in files of their own, in the same order.

Source: http://yann.lecun.com/exdb/mnist (the format is described there).
"""

from __future__ import annotations

import gzip
import itertools
import math
import re
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from minialex.data.arrays import PictureArray
from minialex.errors import DataError

__all__ = ["find_mnist", "is_mnist_name", "open_mnist", "read_idx"]

Bytes = npt.NDArray[np.uint8]

NAME = re.compile(r"(train|t10k)-(images|labels)[-.]idx[13]-ubyte(\.gz)?")
PARTS = ("train", "t10k")
WHAT = {"images": 3, "labels": 1}  # the number of axes
UNSIGNED_BYTE = 0x08
TYPES = {0x09: "signed bytes", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}
LIMIT = 2_000_000_000  # values in a file: MNIST's largest relatives have a third of that
GZIP = b"\x1f\x8b"
DEFLATE_RATIO = 1032  # a byte of a packed file gives no more bytes than that
# Where torchvision puts the files, below the folder that it is given.
INSIDE = ("", "raw", "MNIST/raw")


def find_mnist(folder: Path) -> Path | None:
    """The folder, this one or one that torchvision would make in it, that holds MNIST's files; or None."""
    for place in (folder / inside for inside in INSIDE):
        if place.is_dir() and any(NAME.fullmatch(path.name) for path in place.iterdir()):
            return place
    return None


def is_mnist_name(name: str) -> bool:
    """Whether one of MNIST's files is called so."""
    return NAME.fullmatch(name) is not None


def open_mnist(folder: Path) -> PictureArray:
    """The pictures of train-images-idx3-ubyte and t10k-images-idx3-ubyte with their labels, .gz or not.

    Either half is enough. If both are there, t10k is the official test part.

    Raises: DataError for a file that is missing or malformed, or halves that do not fit together.
    """
    halves = {part: _read_half(folder, part) for part in PARTS if _files(folder, part, WHAT)}
    sizes = {pixels.shape[1:] for pixels, _ in halves.values()}
    if len(sizes) > 1:
        raise DataError(
            f"The pictures in {folder} differ in size: "
            f"{' and '.join(f'{h} x {w}' for h, w in sorted(sizes))}. Give a folder with one "
            "data set."
        )
    labels = np.concatenate([own for _, own in halves.values()])
    values, numbers = np.unique(labels, return_inverse=True)
    if len(values) < 2:
        raise DataError(f"{folder} holds one class only, {values[0]}; a classifier needs two.")
    names = itertools.chain(*([f"{part}/{i:05d}" for i in range(len(own))]
                              for part, (_, own) in halves.items()))  # fmt: skip
    test = None
    if len(halves) == len(PARTS):
        test = np.arange(len(halves["train"][1]), len(labels), dtype=np.int64)
    kind = f"{' and '.join(halves)} in MNIST's idx format, {' x '.join(map(str, sizes.pop()))}, grey"
    return PictureArray(
        folder,
        np.concatenate([pixels for pixels, _ in halves.values()]),
        numbers.astype(np.int64),
        [str(value) for value in values],
        list(names),
        kind=kind,
        test_indices=test,
    )


def _files(folder: Path, part: str, what: Iterable[str]) -> list[Path]:
    """The files of a part, unpacked ones first."""
    stems = [f"{part}-{name}{mark}idx{WHAT[name]}-ubyte" for name in what for mark in "-."]
    paths = [folder / f"{stem}{suffix}" for suffix in ("", ".gz") for stem in stems]
    return [path for path in paths if path.is_file()]


def _read_half(folder: Path, part: str) -> tuple[Bytes, Bytes]:
    """(N, H, W) pictures and (N,) labels of a part."""
    paths = []
    for what, axes in WHAT.items():
        found = _files(folder, part, [what])
        if not found:
            raise DataError(
                f"{folder} holds {_files(folder, part, WHAT)[0].name}, but no {part}-{what}-idx{axes}-ubyte "
                "or .gz of it: MNIST's format keeps pictures and labels in two files. Put it there."
            )
        paths.append(found[0])
    pixels, labels = read_idx(paths[0], axes=3), read_idx(paths[1], axes=1)
    if len(pixels) != len(labels):
        raise DataError(
            f"{paths[0]} has {len(pixels):,} pictures, but {paths[1].name} has {len(labels):,} labels. "
            "Get both files again."
        )
    return pixels, labels


def read_idx(path: Path, axes: int) -> Bytes:
    """The array in an idx file of bytes, packed with gzip or not: its content tells, not its name.

    Args:   axes: how many axes it must have.
    Raises: DataError naming the file and what is wrong with it.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(2) == GZIP
            file.seek(0)
            size = path.stat().st_size
            if not packed:
                return _read_array(file, path, axes, size)
            with gzip.GzipFile(fileobj=file) as unpacked:
                return _read_array(unpacked, path, axes, DEFLATE_RATIO * size)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} cannot be unpacked: {error}. Get the file again.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def _read_array(file: IO[bytes] | gzip.GzipFile, path: Path, axes: int, most: int) -> Bytes:
    """`most`: bytes that can be in the file; what a header announces beyond that gets no memory."""
    shape = _read_header(file, path, axes)
    count = math.prod(shape)
    # One more, which must not be there; never more, whatever gzip would give.
    data = file.read(min(count, most) + 1)
    if len(data) != count:
        found = f"{len(data):,}" if len(data) < count else "more"
        raise DataError(
            f"{path}: the header announces {' x '.join(f'{length:,}' for length in shape)} = {count:,} "
            f"bytes, but {found} follow. The file is damaged or cut; get it again."
        )
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _read_header(file: IO[bytes] | gzip.GzipFile, path: Path, axes: int) -> tuple[int, ...]:
    """The array's shape, once all of the header is as expected."""
    size = 4 * (1 + axes)
    header = file.read(size)
    if len(header) < 4:
        raise DataError(f"{path} has {len(header)} bytes, expected an idx file, which begins with four.")
    zeros, kind, found = struct.unpack(">HBB", header[:4])
    if zeros or (kind != UNSIGNED_BYTE and kind not in TYPES):
        raise DataError(
            f"{path} begins with the bytes {header[:4].hex(' ')}, expected 00 00 08 {axes:02x}: it is no idx "
            "file of bytes. Get the file again."
        )
    if kind != UNSIGNED_BYTE:
        raise DataError(
            f"{path} holds {TYPES[kind]} (type {kind:#04x}), expected bytes (type 0x08), 0 to 255."
        )
    if found != axes:
        raise DataError(
            f"{path} holds an array with axes: {found}, expected {axes}: "
            f"{'pictures, rows, columns' if axes == 3 else 'labels'}. Is it under another file's name?"
        )
    if len(header) < size:
        raise DataError(f"{path} ends within its header: {len(header)} bytes of {size}. Get it again.")
    shape = struct.unpack(f">{axes}I", header[4:])
    if not 0 < math.prod(shape) <= LIMIT:
        raise DataError(
            f"{path}: the header announces {' x '.join(f'{length:,}' for length in shape)} values, expected "
            f"between 1 and {LIMIT:,}. The file is damaged; get it again."
        )
    return shape
