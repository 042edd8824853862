"""PyTorch's checkpoints since version 1.6: a zip file with a pickle and a record for each storage."""

from __future__ import annotations

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
    state_dict_of,
    storage_of,
)
from minialex.models.stored_zip import StoredZip
from minialex.safe_pickle import read_pickle

__all__ = ["read_pytorch_zip"]


def read_pytorch_zip(file: IO[bytes], size: int) -> Arrays:
    """The state dict in a zip file of torch.save.

    Its records lie in a folder of any name: data.pkl, byteorder (since 2.0), data/0, data/1, ... and others
    that are of no use here.

    Args:   file: open for reading bytes; size: its length in bytes.
    Raises: CheckpointError if it is damaged, hostile, or not a state dict.
    """
    archive = StoredZip(file, size)
    folder = _folder(archive)
    swapped = _is_big_endian(archive, f"{folder}byteorder")
    storages: dict[str, Storage] = {}

    def persistent(reference: object) -> StoragePart:
        if not isinstance(reference, tuple) or len(reference) != 5 or reference[0] != "storage":
            raise CheckpointError("it refers to something that is not a storage")
        storage = storage_of(storages, reference[1], reference[2], reference[4])
        return StoragePart(storage, 0, storage.size)

    def read(storage: Storage) -> npt.NDArray[Any]:
        record = archive[f"{folder}data/{storage.key}"]
        dtype = np.dtype(storage.kind.dtype)
        if record.size != storage.size * dtype.itemsize:
            raise CheckpointError(
                f"{record.name} has {record.size:,} bytes, and {storage.size:,} numbers of "
                f"{dtype.itemsize} bytes belong there"
            )
        numbers = np.empty(storage.size, dtype.newbyteorder(">") if swapped else dtype)
        archive.read_into(record, numbers)
        return native(numbers)

    pickle = archive.read(archive[f"{folder}data.pkl"], LIMITS.size)
    return arrays_of(state_dict_of(read_pickle(pickle, NAMES, persistent, limits=LIMITS)), read)


def _folder(archive: StoredZip) -> str:
    """The folder that the records lie in, with a slash at its end."""
    folders = [name.removesuffix("data.pkl") for name in archive.records if name.endswith("/data.pkl")]
    if len(folders) != 1:
        raise CheckpointError(
            "it is a zip file, but not one of torch.save: these hold one data.pkl, in a folder"
        )
    if f"{folders[0]}constants.pkl" in archive.records:
        raise CheckpointError("it is a TorchScript program; save model.state_dict() with torch.save")
    return folders[0]


def _is_big_endian(archive: StoredZip, name: str) -> bool:
    if name not in archive.records:  # Written before PyTorch 2.0.
        return False
    order = archive.read(archive[name], limit=16)
    if order not in (b"little", b"big"):
        raise CheckpointError(f"its byte order is {order!a}; expected little or big")
    return order == b"big"
