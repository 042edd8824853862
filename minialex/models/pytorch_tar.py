"""PyTorch's first checkpoints, until early in 2017: a tar file of storages, tensors and a pickle.

torchvision's first weights are from that time. There are no checksums over the numbers.

Source: `legacy_load` in torch/serialization.py (PyTorch 2.13), read for the format.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import IO

from minialex.errors import CheckpointError
from minialex.models.pytorch_pickles import read_numbers, skip_numbers
from minialex.models.pytorch_tensors import (
    LIMITS,
    NAMES,
    STORAGE_TYPES,
    Arrays,
    Storage,
    StoragePart,
    StoredTensor,
    arrays_of,
    is_size,
    part_of,
    rebuild_tensor,
    state_dict_of,
    storage_of,
)
from minialex.safe_pickle import Limits, read_next_pickle, read_pickle

__all__ = ["is_tar", "read_pytorch_tar"]

BLOCK = 512
MAX_MEMBERS = 64
MAX_OBJECTS = 20_000
# One storage or tensor is announced in some fifty bytes; the list of views may be long.
ANNOUNCEMENT = Limits(size=4096, opcodes=1000, calls=0)

# Tensors say their class, too, which follows from their storage.
_CLASSES = [kind.name.replace("Storage", "Tensor") for kind in STORAGE_TYPES]
TAR_NAMES = NAMES | {f"{module}.{name}": None for module in ("torch", "torch.cuda") for name in _CLASSES}


@dataclass(frozen=True)
class Member:
    """A file in the tar file. Args: start, end: bytes."""

    start: int
    end: int


def is_tar(head: bytes) -> bool:
    """Whether a file that begins so is a tar file."""
    return head[257:262] == b"ustar"


def read_pytorch_tar(file: IO[bytes], size: int) -> Arrays:
    """The state dict in such a file.

    `storages`: how many, then for each a pickle (key, location, class), a count and the numbers; then views,
    a list of (key, key of the whole, offset, size). `tensors`: how many, then for each a pickle (key, key of
    the storage, class) and its geometry. `pickle`: the checkpoint, whose tensors are references by key.

    Args:   file: open for reading bytes; size: its length in bytes.
    Raises: CheckpointError if it is damaged, hostile, or not a state dict.
    """
    members = _members(file, size)
    missing = [name for name in ("storages", "tensors", "pickle") if name not in members]
    if missing:
        raise CheckpointError(f"it is a tar file without {', '.join(missing)}, and so not one of PyTorch's")
    parts, places = _Storages(file, members["storages"]).read()
    tensors = _Tensors(file, members["tensors"]).read(parts)
    member = members["pickle"]
    if member.end - member.start > LIMITS.size:
        raise CheckpointError(f"its pickle has {member.end - member.start:,} bytes, too many")
    file.seek(member.start)
    data = file.read(member.end - member.start)

    def persistent(key: object) -> StoredTensor:
        if not isinstance(key, str) or key not in tensors:
            raise CheckpointError("it refers to something that is not one of its tensors")
        return tensors[key]

    state_dict = state_dict_of(read_pickle(data, NAMES, persistent, limits=LIMITS))
    return arrays_of(state_dict, lambda storage: read_numbers(file, places[storage.key], storage))


class _Stream:
    """A member that is read from front to back, pickles and plain numbers in turn."""

    def __init__(self, file: IO[bytes], member: Member) -> None:
        self.file, self.at, self.end = file, member.start, member.end

    def bytes(self, count: int) -> bytes:
        if count > self.end - self.at:
            raise CheckpointError("it ends too early; copy it again")
        self.file.seek(self.at)
        data = self.file.read(count)
        if len(data) != count:
            raise CheckpointError("it is cut short; copy it again")
        self.at += count
        return data

    def pickle(self, limits: Limits = ANNOUNCEMENT) -> object:
        self.file.seek(self.at)
        data = self.file.read(min(limits.size, self.end - self.at))
        value, length = read_next_pickle(data, 0, TAR_NAMES, limits=limits)
        self.at += length
        return value

    def count(self) -> int:
        count = self.pickle()
        if not is_size(count) or count > MAX_OBJECTS:
            raise CheckpointError("it does not say how many storages and tensors it has")
        return count

    def announced(self) -> tuple[str, object, object]:
        """(key, ., .), where the key is a number: where the object was in memory once."""
        value = self.pickle()
        if not isinstance(value, tuple) or len(value) != 3 or type(value[0]) is not int:
            raise CheckpointError("a storage or tensor in it is not announced as it should be")
        return str(value[0]), value[1], value[2]


class _Storages(_Stream):
    """The member `storages`."""

    def read(self) -> tuple[dict[str, StoragePart], dict[str, int]]:
        """Storages and views by key, and where the numbers of the former begin."""
        storages: dict[str, Storage] = {}
        places: dict[str, int] = {}
        for _ in range(self.count()):
            key, _, kind = self.announced()
            size = int.from_bytes(self.bytes(8), "little", signed=True)
            if key in storages:
                raise CheckpointError(f"it has two storages {key}")
            storage = storage_of(storages, kind, key, size)
            places[key], self.at = skip_numbers(self.file, self.at - 8, storage)
            if self.at > self.end:
                raise CheckpointError(f"storage {key} reaches beyond the end; copy the file again")
        parts = {key: StoragePart(storage, 0, storage.size) for key, storage in storages.items()}
        views = self.pickle(LIMITS)
        if not isinstance(views, list):
            raise CheckpointError("its parts of storages are not a list")
        for view in views:
            if (
                not isinstance(view, tuple)
                or len(view) != 4
                or type(view[0]) is not int
                or type(view[1]) is not int
            ):
                raise CheckpointError(
                    "a part of a storage is not described by two keys, an offset and a size"
                )
            if str(view[0]) in parts or str(view[1]) not in storages:
                raise CheckpointError("a part of a storage has a key that it cannot have")
            parts[str(view[0])] = part_of(storages[str(view[1])], view[2], view[3])
        return parts, places


class _Tensors(_Stream):
    """The member `tensors`."""

    def read(self, parts: dict[str, StoragePart]) -> dict[str, StoredTensor]:
        """Tensors by key."""
        tensors: dict[str, StoredTensor] = {}
        for _ in range(self.count()):
            key, storage_key, _ = self.announced()
            if key in tensors or type(storage_key) is not int or str(storage_key) not in parts:
                raise CheckpointError(f"tensor {key} comes twice, or has no storage")
            axes = int.from_bytes(self.bytes(8)[:4], "little", signed=True)
            if not 0 <= axes <= 32:
                raise CheckpointError(f"tensor {key} has {axes} axes")
            numbers = struct.unpack(f"<{2 * axes + 1}q", self.bytes(8 * (2 * axes + 1)))
            shape, strides, offset = numbers[:axes], numbers[axes : 2 * axes], numbers[-1]
            tensors[key] = rebuild_tensor(parts[str(storage_key)], offset, shape, strides)
        return tensors


def _members(file: IO[bytes], size: int) -> dict[str, Member]:
    """The members by name. Plain files alone, and extended headers, whose dates nobody needs."""
    members: dict[str, Member] = {}
    at = 0
    for _ in range(MAX_MEMBERS):
        file.seek(at)
        header = file.read(BLOCK)
        if len(header) < BLOCK or header == bytes(BLOCK):
            return members
        length, kind, name = _parsed(header)
        start = at + BLOCK
        if start + length > size:
            raise CheckpointError(f"{name} reaches beyond the end of the file; copy it again")
        if kind == b"x":
            _check_extended(file.read(min(length, BLOCK)), length)
        elif name in members:
            raise CheckpointError(f"it has two members {name}")
        else:
            members[name] = Member(start, start + length)
        at = start + -(-length // BLOCK) * BLOCK
    raise CheckpointError(f"it has more than {MAX_MEMBERS} members")


def _parsed(header: bytes) -> tuple[int, bytes, str]:
    """(length, kind, name) of a member, after its header's checksum."""
    name = header[:100].split(b"\0")[0]
    kind = header[156:157]
    try:
        length, total = (
            int(header[at:end].rstrip(b"\0 ") or b"0", 8) for at, end in ((124, 136), (148, 156))
        )
    except ValueError:
        raise CheckpointError("a member's header is damaged; copy the file again") from None
    if not is_tar(header) or total != sum(header[:148]) + sum(header[156:]) + 8 * ord(" ") or length < 0:
        raise CheckpointError("a member's header is damaged; copy the file again")
    if kind not in (b"0", b"\0", b"x") or not name.isascii() or not name.decode("ascii").isprintable():
        raise CheckpointError("it has a member that is not a plain file")
    return length, kind, name.decode()


def _check_extended(data: bytes, length: int) -> None:
    """Raises: CheckpointError for an extended header that changes more than dates and owners."""
    if len(data) < length or any(word in data for word in (b"size=", b"path=", b"GNU.")):
        raise CheckpointError("it has a member with another name or size than its header says")
