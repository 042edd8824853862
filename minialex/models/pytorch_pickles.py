"""PyTorch's checkpoints from 2017 until version 1.5: five pickles in a row, and after them the storages.

There are no checksums: a bit that was flipped in a weight gives another weight.

Source: `_legacy_save` and `_legacy_load` in torch/serialization.py (PyTorch 2.13), read for the format.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from minialex.errors import CheckpointError
from minialex.models.pytorch_tensors import (
    LIMITS,
    NAMES,
    Arrays,
    Storage,
    StoragePart,
    arrays_of,
    native,
    part_of,
    state_dict_of,
    storage_of,
)
from minialex.safe_pickle import read_next_pickle, shown

__all__ = ["read_numbers", "read_pytorch_pickles", "skip_numbers"]

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001


def read_pytorch_pickles(file: IO[bytes], size: int) -> Arrays:
    """The state dict in such a file.

    The pickles: a magic number, a version, the machine it was written on, the checkpoint, and the keys of the
    storages in the order in which their numbers follow.

    Args:   file: open for reading bytes, at its beginning; size: its length in bytes.
    Raises: CheckpointError if it is damaged, hostile, or not a state dict.
    """
    head = file.read(min(size, LIMITS.size))
    storages: dict[str, Storage] = {}
    at = 0

    def following(persistent: Callable[[object], object] | None = None) -> object:
        nonlocal at
        value, at = read_next_pickle(head, at, NAMES, persistent, limits=LIMITS)
        return value

    if following() != MAGIC_NUMBER:
        raise CheckpointError("it is a pickle, but not a checkpoint of PyTorch")
    if following() != PROTOCOL_VERSION:
        raise CheckpointError(f"its protocol version is not {PROTOCOL_VERSION}, the only one there was")
    if not isinstance(following(), dict):  # Numbers are little-endian, whatever machine it was.
        raise CheckpointError("it does not say on what machine it was written")
    tensors = state_dict_of(following(lambda reference: _part(storages, reference)))
    places = _places(following(), storages, file, at, size)
    return arrays_of(tensors, lambda storage: read_numbers(file, places[storage.key], storage))


def _part(storages: dict[str, Storage], reference: object) -> StoragePart:
    if isinstance(reference, tuple) and reference[:1] == ("module",):
        raise CheckpointError("it is a whole model with its program; save model.state_dict() instead")
    if not isinstance(reference, tuple) or len(reference) != 6 or reference[0] != "storage":
        raise CheckpointError("it refers to something that is not a storage")
    _, kind, key, _, size, view = reference
    storage = storage_of(storages, kind, key, size)
    if view is None:
        return StoragePart(storage, 0, storage.size)
    if not isinstance(view, tuple) or len(view) != 3:
        raise CheckpointError("a part of a storage is not described by a key, an offset and a size")
    return part_of(storage, view[1], view[2])


def _places(
    keys: object, storages: dict[str, Storage], file: IO[bytes], at: int, size: int
) -> dict[str, int]:
    """{key: byte where the storage's numbers begin}, which fill the file to its end."""
    if not isinstance(keys, list) or len(keys) != len(storages) or not all(type(key) is str for key in keys):
        raise CheckpointError("it does not list the storages that its tensors use")
    places = {}
    for key in keys:
        if key not in storages or key in places:
            raise CheckpointError("it does not list the storages that its tensors use")
        places[key], at = skip_numbers(file, at, storages[key])
    if at != size:
        raise CheckpointError(f"it should have {at:,} bytes and has {size:,}; copy it again")
    return places


def skip_numbers(file: IO[bytes], at: int, storage: Storage) -> tuple[int, int]:
    """Where the numbers of a storage begin and end, whose own count, eight bytes, stands at byte `at`.

    Raises: CheckpointError if the count is another than the storage's.
    """
    file.seek(at)
    count = int.from_bytes(file.read(8), "little", signed=True)
    if count != storage.size:
        raise CheckpointError(
            f"storage {shown(storage.key)} has {count:,} numbers where {storage.size:,} are expected; "
            "copy the file again"
        )
    return at + 8, at + 8 + count * np.dtype(storage.kind.dtype).itemsize


def read_numbers(file: IO[bytes], at: int, storage: Storage) -> npt.NDArray[Any]:
    """The numbers of a storage, which the caller knows to lie within the file."""
    numbers = np.empty(storage.size, storage.kind.dtype)
    if numbers.size:
        file.seek(at)
        if file.readinto(numbers.view(np.uint8).data) != numbers.nbytes:  # type: ignore[attr-defined]
            raise CheckpointError("it was cut short while it was read")
    return native(numbers)
