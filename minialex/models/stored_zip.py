"""The zip files that PyTorch writes, and no others: records stored as they are, one after another.

What a zip file may be besides is refused: compressed or encrypted records (and with them zip bombs: what is
read is never larger than the file), records that share bytes, two of one name, names that lead out of a
folder. Nothing is ever unpacked onto the disk.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from minialex.errors import CheckpointError
from minialex.safe_pickle import shown

__all__ = ["Record", "StoredZip"]

MAX_RECORDS = 50_000
MAX_DIRECTORY = 8 * 2**20  # Bytes.
MAX_NAME = 1000  # Characters.

_END = struct.Struct("<4s4H2IH")
_END_64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR_64 = struct.Struct("<4sIQI")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")

_SIZES_FOLLOW, _UTF8 = 0x0008, 0x0800
_IN_ZIP64 = 0xFFFFFFFF


@dataclass(frozen=True)
class Record:
    """A file in the archive. Args: name; crc: CRC-32 of its bytes; header, start, size: bytes."""

    name: str
    crc: int
    header: int
    start: int
    size: int

    @property
    def end(self) -> int:
        """The byte after its last one."""
        return self.start + self.size


class StoredZip:
    """The records of an open file by name, after everything about their places was checked.

    Args:   file: open for reading bytes; size: its length.
    Raises: CheckpointError for anything but a whole zip file of stored records.
    """

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        start, length, count = self._directory(size)
        self.records = self._entries(self._bytes(start, length), count, start)
        self._check_places()
        # torch.serialization.set_crc32_options(False) leaves all of them zero.
        self._has_checksums = any(record.crc for record in self.records.values())

    # -------------------------------------------------------------------------------- the directory

    def _directory(self, size: int) -> tuple[int, int, int]:
        """Where the list of records begins, its length, and how many it lists."""
        end = size - _END.size
        if end < 0:
            raise _damaged("it is too short for a zip file")
        magic, disk, disk_of_list, here, count, length, start, comment = _END.unpack(
            self._bytes(end, _END.size)
        )
        if magic != b"PK\x05\x06" or comment:
            raise _damaged("its last bytes are not the end of a zip file; it is probably cut short")
        if (disk, disk_of_list) != (0, 0) or here != count:
            raise _damaged("it is one of several parts")
        before = end
        at = end - _LOCATOR_64.size
        if at >= 0 and self._bytes(at, 4) == b"PK\x06\x07":
            before, length, start, count = self._directory_64(at)
        if count > MAX_RECORDS or length > MAX_DIRECTORY:
            raise _damaged(f"it lists {count:,} records in {length:,} bytes, more than is read")
        if start + length != before:
            raise _damaged("its list of records is not where it should be")
        return start, length, count

    def _directory_64(self, locator: int) -> tuple[int, int, int, int]:
        _, disk, place, disks = _LOCATOR_64.unpack(self._bytes(locator, _LOCATOR_64.size))
        if place != locator - _END_64.size or (disk, disks) != (0, 1):
            raise _damaged("the end of its list of records is not where it should be")
        fields = _END_64.unpack(self._bytes(place, _END_64.size))
        magic, own_size, _, _, disk, disk_of_list, here, count, length, start = fields
        if (
            magic != b"PK\x06\x06"
            or own_size != _END_64.size - 12
            or (disk, disk_of_list, here) != (0, 0, count)
        ):
            raise _damaged("the end of its list of records is wrong")
        return place, length, start, count

    def _entries(self, directory: bytes, count: int, limit: int) -> dict[str, Record]:
        records: dict[str, Record] = {}
        at = 0
        for _ in range(count):
            if at + _ENTRY.size > len(directory):
                raise _damaged("its list of records is cut short")
            fields = _ENTRY.unpack_from(directory, at)
            magic, flags, method, crc, packed, size = (fields[i] for i in (0, 3, 4, 7, 8, 9))
            name_length, extra_length, comment_length, disk = fields[10:14]
            if magic != b"PK\x01\x02" or disk:
                raise _damaged("its list of records is wrong")
            name_at = at + _ENTRY.size
            extra_at = name_at + name_length
            at = extra_at + extra_length + comment_length
            if at > len(directory):
                raise _damaged("its list of records is cut short")
            name = _name(directory[name_at:extra_at])
            sizes = _sizes(directory[extra_at : extra_at + extra_length], size, packed, fields[16])
            record = self._record(name, flags, method, crc, *sizes, limit)
            if name in records:
                raise _damaged(f"it has two records {name}")
            if not (name.endswith("/") and record.size == 0):  # A folder, as other programs write them.
                records[name] = record
        if at != len(directory):
            raise _damaged("its list of records is longer than the records")
        return records

    def _record(
        self, name: str, flags: int, method: int, crc: int, size: int, packed: int, header: int, limit: int
    ) -> Record:
        """The record, whose own header must agree with the list. `limit`: where the list begins."""
        if method or packed != size or flags & ~(_SIZES_FOLLOW | _UTF8):
            raise CheckpointError(
                f"{name} is compressed or encrypted, as nothing is that torch.save writes; load the file in "
                "PyTorch and save it anew"
            )
        if header + _LOCAL.size > limit:
            raise _damaged(f"{name} lies outside of it")
        fields = _LOCAL.unpack(self._bytes(header, _LOCAL.size))
        magic, own_flags, own_method, own_crc, own_packed, own_size = (fields[i] for i in (0, 2, 3, 6, 7, 8))
        name_at = header + _LOCAL.size
        start = name_at + fields[9] + fields[10]
        agrees = magic == b"PK\x03\x04" and (own_flags, own_method) == (flags, method)
        if not flags & _SIZES_FOLLOW and own_size != _IN_ZIP64:
            agrees = agrees and (own_crc, own_packed, own_size) == (crc, size, size)
        if not agrees or self._bytes(name_at, fields[9]) != name.encode():
            raise _damaged(f"{name} is listed otherwise than it is stored")
        if start + size > limit:
            raise _damaged(f"{name} lies outside of it")
        return Record(name, crc, header, start, size)

    def _check_places(self) -> None:
        """No byte belongs to two records: else a small file could hold a large one many times."""
        end = 0
        for record in sorted(self.records.values(), key=lambda r: r.header):
            if record.header < end:
                raise _damaged(f"{record.name} overlaps another record")
            end = record.end

    # ---------------------------------------------------------------------------------- the records

    def read(self, record: Record, limit: int) -> bytes:
        """The bytes of a small record. Raises: CheckpointError if it is damaged or above `limit`."""
        if record.size > limit:
            raise CheckpointError(
                f"{record.name} has {record.size:,} bytes, more than the {limit:,} that are read"
            )
        data = self._bytes(record.start, record.size)
        self._check(record, zlib.crc32(data))
        return data

    def read_into(self, record: Record, array: npt.NDArray[Any]) -> None:
        """Fill a flat array of the record's size. Raises: CheckpointError if it is damaged."""
        if record.size:
            self._file.seek(record.start)
            if self._file.readinto(array.view(np.uint8).data) != record.size:  # type: ignore[attr-defined]
                raise _damaged(f"{record.name} is cut short")
        self._check(record, zlib.crc32(array.data))

    def __getitem__(self, name: str) -> Record:
        if name not in self.records:
            raise CheckpointError(f"there is no record {shown(name)} in it")
        return self.records[name]

    def _check(self, record: Record, crc: int) -> None:
        if self._has_checksums and crc != record.crc:
            raise _damaged(f"the checksum of {record.name} does not match what is in it")

    def _bytes(self, start: int, count: int) -> bytes:
        self._file.seek(start)
        data = self._file.read(count)
        if len(data) != count:
            raise _damaged("it is cut short")
        return data


def _name(encoded: bytes) -> str:
    try:
        name = encoded.decode()
    except UnicodeDecodeError:
        raise _damaged("a record's name is not UTF-8") from None
    parts = name.removesuffix("/").split("/")
    if (
        not name.isprintable()
        or len(name) > MAX_NAME
        or "\\" in name
        or any(part in ("", ".", "..") for part in parts)
    ):
        raise CheckpointError(
            f"the record's name {shown(name)} leads out of the file's folder, or is no name"
        )
    return name


def _sizes(extra: bytes, size: int, packed: int, header: int) -> tuple[int, int, int]:
    """The three numbers with those that do not fit in 32 bits taken from the field for them."""
    wanted = [size, packed, header]
    large = [i for i, number in enumerate(wanted) if number == _IN_ZIP64]
    at = 0
    while large and at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        at += 4 + length
        if kind == 1 and length >= 8 * len(large) and at <= len(extra):
            for i, number in zip(
                large, struct.unpack_from(f"<{len(large)}Q", extra, at - length), strict=True
            ):
                wanted[i] = number
            break
    return wanted[0], wanted[1], wanted[2]


def _damaged(what: str) -> CheckpointError:
    return CheckpointError(f"{what}; copy the file again")
