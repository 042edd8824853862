"""Files as torch.save writes them, made without PyTorch; and files that it never would write.

The pickles are put together opcode by opcode, so that a test can put a wrong one anywhere.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = Mapping[str, npt.NDArray[Any]]

STORAGES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


@dataclass(frozen=True)
class Global:
    """The opcode that asks for a name."""

    module: str
    name: str


@dataclass(frozen=True)
class Call:
    """A function called with arguments, and perhaps a state given to the result."""

    function: Any
    arguments: tuple[Any, ...]
    state: Any = None
    opcode: bytes = b"R"


@dataclass(frozen=True)
class Reference:
    """A persistent id."""

    key: Any


@dataclass(frozen=True)
class Raw:
    """Opcodes as they are."""

    code: bytes


ORDERED_DICT = Global("collections", "OrderedDict")
REBUILD = Global("torch._utils", "_rebuild_tensor_v2")


def pickled(value: Any) -> bytes:
    """A pickle of protocol 2."""
    return b"\x80\x02" + encoded(value) + b"."


def encoded(value: Any) -> bytes:
    """The opcodes that leave the value on the stack."""
    match value:
        case Raw():
            return value.code
        case Global():
            return f"c{value.module}\n{value.name}\n".encode()
        case Call():
            code = encoded(value.function) + encoded(value.arguments) + value.opcode
            return code if value.state is None else code + encoded(value.state) + b"b"
        case Reference():
            return encoded(value.key) + b"Q"
        case None | True | False:
            return {None: b"N", True: b"\x88", False: b"\x89"}[value]
        case int():
            size = value.bit_length() // 8 + 1
            return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case tuple():
            return b"(" + b"".join(map(encoded, value)) + b"t"
        case list():
            return b"](" + b"".join(map(encoded, value)) + b"e"
        case dict():
            items = b"".join(encoded(key) + encoded(item) for key, item in value.items())
            return b"}(" + items + b"u"
    raise TypeError(f"no opcodes for {value!r}")


def storage(array: npt.NDArray[Any], key: str) -> Reference:
    """All numbers of an array, by key, as in zip files."""
    return Reference(("storage", Global("torch", STORAGES[array.dtype.name]), key, "cpu", array.size))


def tensor(
    where: Any,
    shape: tuple[int, ...],
    strides: tuple[int, ...] | None = None,
    offset: Any = 0,
) -> Call:
    """A tensor on a storage; strides None: row by row."""
    steps = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape))) if strides is None else strides
    return Call(REBUILD, (where, offset, shape, steps, False, Call(ORDERED_DICT, ())))


def state_dict(arrays: Arrays) -> Raw:
    """An OrderedDict of tensors with a `_metadata`, as Module.state_dict() gives it."""
    tensors = {
        name: tensor(storage(array, str(i)), array.shape) for i, (name, array) in enumerate(arrays.items())
    }
    return ordered_dict(tensors)


def ordered_dict(items: Mapping[str, Any]) -> Raw:
    """An OrderedDict as Python 3 pickles it: made empty, filled, given its attributes."""
    filled = encoded(Call(ORDERED_DICT, ())) + b"("
    filled += b"".join(encoded(name) + encoded(item) for name, item in items.items()) + b"u"
    return Raw(filled + encoded({"_metadata": Call(ORDERED_DICT, ())}) + b"b")


# -------------------------------------------------------------------------------------------- the zip format


@dataclass
class Record:
    """A file in a zip file, and the lies that its headers tell about it."""

    name: str
    data: bytes
    flags: int = 0x0808
    method: int = 0
    crc: int | None = None
    size: int | None = None
    local_name: str | None = None
    header: int | None = None


def records(arrays: Arrays, pickle: bytes | None = None, folder: str = "archive") -> list[Record]:
    """What torch.save writes, in its order."""
    data = pickled(state_dict(arrays)) if pickle is None else pickle
    files = {"data.pkl": data, ".format_version": b"1", ".storage_alignment": b"64", "byteorder": b"little"}
    files |= {f"data/{i}": array.tobytes() for i, array in enumerate(arrays.values())}
    files |= {"version": b"3\n", ".data/serialization_id": b"0" * 40}
    return [Record(f"{folder}/{name}", content) for name, content in files.items()]


def zipped(files: list[Record], zip64: bool = True, comment: bytes = b"", count: int | None = None) -> bytes:
    """A zip file of stored records with its sizes after the data, as PyTorch's writer makes them."""
    body, directory = b"", b""
    for file in files:
        at = len(body) if file.header is None else file.header
        crc = zlib.crc32(file.data) if file.crc is None else file.crc
        size = len(file.data) if file.size is None else file.size
        name = file.name.encode()
        local_name = name if file.local_name is None else file.local_name.encode()
        padding = -(len(body) + 30 + len(local_name) + 4) % 64
        extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
        known = (0, 0, 0) if file.flags & 8 else (crc, size, size)
        if file.header is None:
            head = (0, file.flags, file.method, 0, 0, *known, len(local_name), len(extra))
            body += struct.pack("<4s5H3I2H", b"PK\x03\x04", *head) + local_name + extra + file.data
            body += struct.pack("<4s3I", b"PK\x07\x08", crc, size, size) if file.flags & 8 else b""
        entry = (0, 0, file.flags, file.method, 0, 0, crc, size, size, len(name), 0, 0, 0, 0, 0, at)
        directory += struct.pack("<4s6H3I5H2I", b"PK\x01\x02", *entry) + name
    number = len(files) if count is None else count
    end = b""
    if zip64:
        fields = (44, 0x031E, 45, 0, 0, number, number, len(directory), len(body))
        end += struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", *fields)
        end += struct.pack("<4sIQI", b"PK\x06\x07", 0, len(body) + len(directory), 1)
    last = (0, 0, number % 2**16, number % 2**16, len(directory), len(body), len(comment))
    end += struct.pack("<4s4H2IH", b"PK\x05\x06", *last)
    return body + directory + end + comment


def zip_file(arrays: Arrays, pickle: bytes | None = None) -> bytes:
    """The whole file of a state dict."""
    return zipped(records(arrays, pickle))


# ------------------------------------------------------------------------- the format of pickles in a row

MAGIC = 0x1950A86A20F9469CFC6C
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


def old_storage(array: npt.NDArray[Any], key: str, view: Any = None) -> Reference:
    """As `storage`, with a part of it that is meant: (key, offset, size)."""
    kind = Global("torch", STORAGES[array.dtype.name])
    return Reference(("storage", kind, key, "cpu", array.size, view))


def old_file(arrays: Arrays, checkpoint: Any = None, keys: list[str] | None = None) -> bytes:
    """The whole file of a state dict, or of another checkpoint on the same storages "0", "1", ..."""
    if checkpoint is None:
        checkpoint = ordered_dict(
            {name: tensor(old_storage(a, str(i)), a.shape) for i, (name, a) in enumerate(arrays.items())}
        )
    names = [str(i) for i in range(len(arrays))] if keys is None else keys
    pickles = [MAGIC, 1001, SYSTEM, checkpoint, names]
    return b"".join(map(pickled, pickles)) + b"".join(map(counted, arrays.values()))


def counted(array: npt.NDArray[Any]) -> bytes:
    """How many numbers there are, and the numbers."""
    return struct.pack("<q", array.size) + array.tobytes()


# ------------------------------------------------------------------------------------------- the tar format


def tar_file(arrays: Arrays, checkpoint: Any = None, views: Any = (), members: Any = ()) -> bytes:
    """The whole file of a state dict of Parameters, whose tensors have the keys 100, 101, ..."""
    storages, tensors = pickled(len(arrays)), pickled(len(arrays))
    for i, array in enumerate(arrays.values()):
        kind = STORAGES[array.dtype.name]
        storages += pickled((i, "cpu", Global("torch", kind))) + counted(array)
        tensors += pickled((100 + i, i, Global("torch", kind.replace("Storage", "Tensor"))))
        strides = [int(np.prod(array.shape[axis + 1 :])) for axis in range(array.ndim)]
        numbers = [*array.shape, *strides, 0]
        tensors += struct.pack(f"<ii{len(numbers)}q", array.ndim, 0, *numbers)
    storages += pickled(list(views))
    if checkpoint is None:
        parameter = Global("torch.nn.parameter", "Parameter")
        state = (True, False, None)
        checkpoint = ordered_dict(
            {
                name: Call(parameter, (Reference(str(100 + i)),), state, opcode=b"\x81")
                for i, name in enumerate(arrays)
            }
        )
    files = {"storages": storages, "tensors": tensors, "pickle": pickled(checkpoint)}
    return b"".join(
        [
            *(tar_member(name, data) for name, data in files.items()),
            *(tar_member(*member) for member in members),
            bytes(1024),
        ]
    )


def tar_member(name: str, data: bytes, kind: bytes = b"0", size: int | None = None) -> bytes:
    """A header and the data, filled up to whole blocks."""
    length = len(data) if size is None else size
    fields = name.encode().ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2
    fields += f"{length:011o}\0".encode() + b"00000000000\0"
    rest = (kind + bytes(100) + b"ustar\x0000").ljust(512 - 156, b"\0")
    total = sum(fields) + 8 * 32 + sum(rest)
    return fields + f"{total:06o}\0 ".encode() + rest + data + bytes(-len(data) % 512)
