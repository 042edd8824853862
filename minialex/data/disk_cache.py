"""Decoded pictures in files, for several processes at once and for the next run.

One file a picture, with its shape and a checksum over all of it, under a name that says from which file and
in which way it was made. A file is written beside its place and moved there whole, so that nobody reads half
of one; whatever is damaged all the same is noticed by its checksum, removed, and made again. Any file may be
deleted at any time: clearing the cache is deleting its folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import struct
import threading
import time
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
from PIL import __version__ as pillow_version
from PIL import features

from minialex.data.picture_cache import DEFAULT_BUDGET, Pixels, in_words

__all__ = ["DiskCache"]

# magic, height, width, channels (0 for a greyscale picture without that axis), checksum
HEADER = struct.Struct("<8sIIII")
MAGIC = b"mxpixel1"
# To be raised when `images.decode` or a fixed transform changes what it makes of some picture.
DECODING = 1
PART_SUFFIX = ".part"
STALE_PART_SECONDS = 3600

# A process takes room in steps of a sixteenth of what is left, and looks into the folder between them: then
# several of them, each unaware of what the others are just writing, stay within the budget together, but for
# a picture or two.
SHARE = 16
FREE_BYTES, FREE_SHARE = 10**9, 0.05  # what is left free on the disk in any case


class DiskCache:
    """Pictures in files below `folder`, for any number of processes at once.

    Args: budget: bytes that the files may add up to, those of other data sets and earlier runs included. A
          disk is never filled: a twentieth of it, and at least 1 GB, stays free.
    """

    shared = True

    def __init__(self, folder: str | Path, budget: int = DEFAULT_BUDGET) -> None:
        self.folder = Path(folder)
        self.budget = budget
        self._room = 0  # bytes that may be written before the folder is looked at again
        self._full = False
        self._lock = threading.Lock()
        self._folders: dict[str, Path] = {}

    def __getstate__(self) -> tuple[Path, int]:
        return self.folder, self.budget

    def __setstate__(self, state: tuple[Path, int]) -> None:
        self.__init__(*state)  # type: ignore[misc]  # a worker begins with room and a lock of its own

    def read(self, digest: str, way: str) -> Pixels | None:
        """The picture, or None if it is missing or damaged; a damaged one is removed."""
        path = self.path(digest, way)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        pixels = _unpack(data, _name(path))
        if pixels is None:
            with contextlib.suppress(OSError):
                path.unlink()
        return pixels

    def keep(self, digest: str, way: str, pixels: Pixels) -> None:
        """Write the picture, if there is room. A disk that cannot be written to ends the keeping, no more."""
        path = self.path(digest, way)
        size = HEADER.size + pixels.nbytes
        if not self._take(size):
            return
        part = path.with_name(f"{digest[:8]}-{os.getpid()}-{secrets.token_hex(4)}{PART_SUFFIX}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                file.writelines(_pack(pixels, _name(path)))
            os.replace(part, path)
        except OSError:
            self._full = not path.exists()  # on Windows nothing can be moved over a file that is being read
            with contextlib.suppress(OSError):
                part.unlink()

    def path(self, digest: str, way: str) -> Path:
        """The file of a picture."""
        folder = self._folders.get(way)
        if folder is None:
            folder = self._folders[way] = self.folder / _way_name(way)
        return folder / digest[:2] / digest[2:]

    def used(self) -> int:
        """Bytes of all files in the folder."""
        return sum(size for _, size, _ in self._files())

    def trim(self, wanted: Collection[str]) -> None:
        """Make room for the files with the digests `wanted`: others keep at most half of the budget.

        The oldest go first; so do files that a process left half-written more than an hour ago.
        """
        others, total = [], 0
        for path, size, written in self._files():
            if path.suffix == PART_SUFFIX:
                if time.time() - written > STALE_PART_SECONDS:
                    _remove(path)
            elif path.parent.name + path.name not in wanted:
                others.append((written, size, path))
                total += size
        for _, size, path in sorted(others, key=lambda item: item[0]):
            if total <= self.budget // 2:
                break
            _remove(path)
            total -= size

    def _take(self, size: int) -> bool:
        """Whether `size` bytes may be written; they count as written then."""
        with self._lock:
            if self._full:  # without another look for every picture
                return False
            if self._room < size:
                left = self._left()
                self._room = max(left // SHARE, size)
                self._full = size > left
            if not self._full:
                self._room -= size
            return not self._full

    def _left(self) -> int:
        """Bytes that may still be written, by the budget and by the disk."""
        places = (self.folder, *self.folder.parents)
        place = next((folder for folder in places if folder.exists()), Path())
        try:
            disk = shutil.disk_usage(place)
        except OSError:
            return 0
        spare = disk.free - max(FREE_BYTES, int(disk.total * FREE_SHARE))
        return min(self.budget - self.used(), spare)

    def _files(self) -> Iterator[tuple[Path, int, float]]:
        """(path, bytes, time of writing) of every file; what vanishes meanwhile is passed over."""
        for parent, _, names in os.walk(self.folder):
            for name in names:
                path = Path(parent, name)
                with contextlib.suppress(OSError):
                    status = path.stat()
                    yield path, status.st_size, status.st_mtime

    def __repr__(self) -> str:
        return f"{in_words(self.used())} of {in_words(self.budget)} in {self.folder}"


def _way_name(way: str) -> str:
    """A folder's name for everything that the pixels depend on besides the file."""
    codecs = [f"{name} {features.version(name)}" for name in ("jpg", "libjpeg_turbo", "webp", "libtiff")]
    text = json.dumps([DECODING, pillow_version, codecs, way])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _name(path: Path) -> bytes:
    """The part of a path that says which picture it is; the checksum covers it."""
    return "/".join(path.parts[-3:]).encode()


def _pack(pixels: Pixels, name: bytes) -> tuple[bytes, memoryview]:
    flat = np.ascontiguousarray(pixels)
    shape = (*flat.shape, 0) if flat.ndim == 2 else flat.shape
    data = flat.reshape(-1).data
    return HEADER.pack(MAGIC, *shape, _checksum(shape, name, data)), data


def _unpack(data: bytes, name: bytes) -> Pixels | None:
    """The picture in a file's bytes; None unless every one of them is as it was written."""
    if len(data) < HEADER.size:
        return None
    magic, height, width, channels, checksum = HEADER.unpack_from(data)
    body = memoryview(data)[HEADER.size :]
    if magic != MAGIC or len(body) != height * width * max(channels, 1):
        return None
    if _checksum((height, width, channels), name, body) != checksum:
        return None
    shape = (height, width, channels) if channels else (height, width)
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)


def _checksum(shape: tuple[int, ...], name: bytes, data: memoryview) -> int:
    return zlib.crc32(data, zlib.crc32(b"%d %d %d " % shape + name))


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
