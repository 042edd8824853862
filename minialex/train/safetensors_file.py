"""The safetensors format, written in one pass and read with every byte accounted for.

Eight bytes of header length, a JSON header {name: {dtype, shape, data_offsets}, "__metadata__": {str: str}},
then the tensors one after another. The file can be opened by anything that reads safetensors.

We write it ourselves: safetensors.numpy.save_file first copies every tensor, and puts a temporary file of a
random name of its own beside the file, which a killed run would leave behind for ever.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from minialex.errors import CheckpointError
from minialex.train.files import atomic_write

Arrays = dict[str, npt.NDArray[Any]]

DTYPES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "float16": "F16",
    "uint32": "U32",
    "int32": "I32",
    "float32": "F32",
    "uint64": "U64",
    "int64": "I64",
    "float64": "F64",
}
CHECKSUM = "checksum"
_ALIGNMENT = 8


def save_safetensors(path: Path, arrays: Arrays, metadata: Mapping[str, str]) -> None:
    """Write arrays and metadata to `path`, atomically, with a checksum over both in the metadata.

    Raises: OutputError if the place cannot be written to; TypeError for a dtype that the format lacks.
    """
    # Wide elements first: then every tensor starts at a multiple of its element size.
    ordered = sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    contiguous = {name: np.ascontiguousarray(a).reshape(a.shape) for name, a in ordered}
    complete = {**metadata, CHECKSUM: checksum(metadata, contiguous)}
    header = _header(contiguous, complete)

    def write(file: IO[bytes]) -> None:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        for array in contiguous.values():
            file.write(_bytes(array))

    atomic_write(path, write)


def _header(arrays: Arrays, metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, array in arrays.items():
        if array.dtype.name not in DTYPES:
            raise TypeError(f"{name}: safetensors files hold no {array.dtype}")
        end = offset + array.nbytes
        entries[name] = {
            "dtype": DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    return text + b" " * (-len(text) % _ALIGNMENT)


def checksum(metadata: Mapping[str, str], arrays: Arrays) -> str:
    """CRC-32 over metadata and arrays in the order of their names: finds bits that a disk turned over."""
    crc = 0
    for key, text in sorted(metadata.items()):
        if key != CHECKSUM:
            crc = zlib.crc32(f"{key}={text}\n".encode(), crc)
    for name, array in sorted(arrays.items()):
        crc = zlib.crc32(f"{name}{array.shape}{array.dtype.name}\n".encode(), crc)
        crc = zlib.crc32(_bytes(np.ascontiguousarray(array)), crc)
    return f"{crc:08x}"


def _bytes(array: npt.NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata alone, which is quick however large the file is.

    Raises: CheckpointError if there is no such file or it is not a whole safetensors file.
    """
    with _opened(path) as file:
        return dict(file.metadata() or {})


def read_arrays(path: Path, prefixes: Iterable[str]) -> Arrays:
    """The arrays whose names begin with one of the prefixes. Raises: CheckpointError as `read_metadata`."""
    wanted = tuple(prefixes)
    with _opened(path) as file:
        names = list(file.keys())
        return {name: file.get_tensor(name) for name in names if name.startswith(wanted)}


def _opened(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    if path.is_dir():
        raise CheckpointError(
            f"{path} is a folder, not a checkpoint; name the file in it, such as best.safetensors"
        )
    try:
        return safe_open(path, framework="numpy")
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no checkpoint at {path}; check the path") from error
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file ({error}): it is cut short, damaged, or something else; "
            "copy it again, or use another checkpoint of the run"
        ) from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
