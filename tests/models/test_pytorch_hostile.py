"""Files that were made to harm: each is refused with words, and nothing in it is run."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pytorch_writer import (
    ORDERED_DICT,
    REBUILD,
    Call,
    Global,
    Raw,
    Record,
    Reference,
    counted,
    encoded,
    old_file,
    old_storage,
    ordered_dict,
    pickled,
    records,
    state_dict,
    storage,
    tar_file,
    tensor,
    zip_file,
    zipped,
)

from minialex.errors import CheckpointError
from minialex.models import pytorch_tar, stored_zip
from minialex.safe_pickle import UnsafePickle

Read = Callable[[bytes], dict[str, npt.NDArray[Any]]]

FLAT = np.arange(12, dtype=np.float32)
WHERE = storage(FLAT, "0")


def refused(read: Read, data: bytes, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        read(data)


def of(value: Any) -> bytes:
    """A zip file with one storage of twelve numbers, and this in its pickle."""
    return zip_file({"": FLAT}, pickled(value))


# ------------------------------------------------------------------------------------- foreign callables

ASKED = {
    "reduce": Call(Global("os", "system"), ("touch pwned",)),
    "newobj": Call(Global("subprocess", "Popen"), (["touch", "pwned"],), opcode=b"\x81"),
    "stack_global": Call(Raw(encoded("builtins") + encoded("eval") + b"\x93"), ("1",)),
    "inst": Raw(b"(X\x01\0\0\0aibuiltins\nexec\n"),
    "near": Call(Global("torch._utils", "_rebuild_tensor_v3"), ()),
    "inside": Call(Global("torch", "_utils._rebuild_tensor_v2.__globals__"), ()),
    "escape": Call(Global("torch\x1b[31m", "load"), ()),
}
NAMES = {
    "reduce": r"os\.system",
    "newobj": r"subprocess\.Popen",
    "stack_global": r"builtins\.eval",
    "inst": r"builtins\.exec",
    "near": r"torch\._utils\._rebuild_tensor_v3",
    "inside": r"torch\._utils\._rebuild_tensor_v2\.__globals__",
    "escape": r"torch\\x1b\[31m\.load",
}


@pytest.mark.parametrize("way", ASKED)
def test_foreign_names_are_named(way: str, read: Read) -> None:
    for data in (of({"w": ASKED[way]}), old_file({}, {"w": ASKED[way]}), tar_file({}, {"w": ASKED[way]})):
        with pytest.raises(UnsafePickle, match=NAMES[way]):
            read(data)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Call("os.system", ("touch pwned",)), "calls an object of type str"),
        (Call(Call(ORDERED_DICT, ()), ()), "calls an object of type dict"),
        (Call(tensor(WHERE, (2,)), ()), "calls an object of type StoredTensor"),
        (Call(Global("torch", "FloatStorage"), ()), "calls an object of type StorageType"),
        (Call(REBUILD, (1,)), "calls torch._utils._rebuild_tensor_v2 with 1 arguments"),
        (Call(ORDERED_DICT, (1, 2, 3)), "calls collections.OrderedDict with 3 arguments"),
        (Call(ORDERED_DICT, ([("a", 1, 2)],)), "made of pairs"),
        (Call(ORDERED_DICT, (5,)), "made of pairs"),
        (Call(REBUILD, (), "state"), "with 0 arguments"),
        (Raw(encoded(tensor(WHERE, (2,))) + encoded({"x": 1}) + b"b"), "gives a state to"),
        (Call(Global("torch.nn.parameter", "Parameter"), (), (1,)), "a state that is not one of PyTorch's"),
        (Raw(encoded("x") + b"P0\n"), "opcode PERSID"),
    ],
)
def test_calls_that_make_no_sense(value: Any, words: str, read: Read) -> None:
    refused(read, of({"w": value}), words)


# ----------------------------------------------------------------------------------- tensors and storages


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (tensor(WHERE, (13,)), "beyond its storage"),
        (tensor(WHERE, (2,), offset=11), "beyond its storage"),
        (tensor(WHERE, (2, 2), (11, 1)), "beyond its storage"),
        (tensor(WHERE, (), offset=12), "beyond its storage"),
        (tensor(WHERE, (2**40,)), "beyond its storage"),
        (tensor(WHERE, (10**6, 10**6), (0, 0)), "same numbers more than once"),
        (tensor(WHERE, (3, 3), (1, 1)), "same numbers more than once"),
        (tensor(WHERE, (3, 3), (2, 1)), "same numbers more than once"),
        (tensor(WHERE, (2,), (-1,), offset=5), "whole numbers"),
        (tensor(WHERE, (2,), offset=-1), "whole numbers"),
        (tensor(WHERE, (-2,)), "whole numbers"),
        (tensor(WHERE, (True,), (1,)), "whole numbers"),
        (tensor(WHERE, (2.0,), (1,)), "whole numbers"),
        (tensor(WHERE, (2**64,), (1,)), "whole numbers"),
        (tensor(WHERE, (2, 3), (1,)), "2 axes and 1 strides"),
        (tensor(WHERE, (1,) * 40), "40 axes"),
        (tensor(WHERE, (0, 2**62, 2**62), (1, 1, 1)), "empty tensor"),
        (tensor("storage", (2,)), "no storage"),
        (tensor(tensor(WHERE, (2,)), (2,)), "no storage"),
        (Call(REBUILD, (WHERE, 0, [2], [1], False, None)), "whole numbers"),
        (Call(REBUILD, (WHERE, 0, (2,), (1,), False, None, {"conj": True})), "conjugate"),
        (Call(Global("torch._utils", "_rebuild_parameter"), (5, True, None)), "no tensor"),
        (WHERE, "not a tensor"),
        (Reference(("storage", "FloatStorage", "0", "cpu", 12)), "not described by"),
        (Reference(("storage", Global("torch", "FloatStorage"), 0, "cpu", 12)), "not described by"),
        (Reference(("storage", Global("torch", "FloatStorage"), "0", "cpu", -1)), "not described by"),
        (Reference(("file", "/etc/passwd")), "not a storage"),
        (Reference("0"), "not a storage"),
        (tensor(storage(FLAT, "../../etc/passwd"), (2,)), "no record archive/data/../../etc/passwd"),
        (tensor(storage(FLAT, "1"), (2,)), "no record archive/data/1"),
        (tensor(storage(np.zeros(2**20), "0"), (2,)), "48 bytes, and 1,048,576 numbers of 8 bytes belong"),
        (tensor(storage(FLAT.astype("f8"), "0"), (2,)), "48 bytes, and 12 numbers of 8 bytes belong"),
    ],
)
def test_tensors_that_cannot_be(value: Any, words: str, read: Read) -> None:
    refused(read, of({"w": value}), words)


def test_storages_of_two_kinds(read: Read) -> None:
    both = {"w": tensor(WHERE, (2,)), "v": tensor(storage(FLAT.view(np.int32), "0"), (2,))}
    refused(read, of(both), "storage 0 is described in two ways")


def test_tensors_that_share_some_of_their_numbers(read: Read) -> None:
    refused(read, of({"w": tensor(WHERE, (6,)), "v": tensor(WHERE, (6,), offset=5)}), "shares some")
    # Ten thousand names for nearly all of a storage would be a large state dict from a small file.
    many = {f"w{i}": tensor(WHERE, (11 - i % 2,)) for i in range(100)}
    refused(read, of(many), "shares some of its numbers, but not all")


# --------------------------------------------------------------------------------------- pickles that grow


def test_bombs(read: Read) -> None:
    refused(read, of(Raw(b"]" + b"\x85" * 100_000)), "more than 32 deep")
    refused(read, of(Raw(b"N" * 1_000_001)), "more than 1,000,000 opcodes")
    refused(read, of(Raw(b"]q\0h\0a")), "holds itself")
    refused(read, of(Raw(b"X\xff\xff\xff\xff")), "wants 4,294,967,295 more bytes")
    refused(read, of(Raw(b"\x8d" + b"\xff" * 8)), "wants 18,446,744,073,709,551,615 more bytes")
    refused(read, of(Raw(b"\x95" + b"\xff" * 8)), "frame")
    refused(read, of(Raw(b"c" + b"a" * 10_000)), "name that does not end")
    # A list of 1,000 pairs, made into a dict again and again.
    pairs = encoded([("a", 1)] * 1000) + b"\x85q\1"
    calls = encoded(ORDERED_DICT) + b"q\0" + pairs + b"(" + b"h\0h\1R" * 50_000 + b"t"
    refused(read, of(Raw(b"(" + calls + b"t")), "which is too much")


def test_lists_of_lists_of_the_same_take_no_time(read: Read) -> None:
    """2**30 paths through 30 tuples; and keys that all have one hash."""
    refused(read, of(Raw(b"]" + b"q\0h\0\x86" * 30)), "no state dict")
    keys = {i * (2**61 - 1): None for i in range(5, 50)}
    refused(read, of(keys), "as a key; keys are texts and whole numbers")
    refused(read, of(Raw(b"}(N" + encoded(1) + b"u")), "as a key")


# --------------------------------------------------------------------------------------------- the zip file


def changed(ending: str, **lies: Any) -> bytes:
    files = records({"w": FLAT})
    for file in files:
        if file.name.endswith(ending):
            for field, lie in lies.items():
                setattr(file, field, lie)
    return zipped(files)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (changed("data/0", method=8), "compressed or encrypted"),
        (changed("data/0", flags=0x0809), "compressed or encrypted"),
        (changed("data/0", crc=1), r"checksum of archive/data/0 does not match"),
        (changed("data.pkl", crc=1), r"checksum of archive/data.pkl"),
        (changed("data/0", size=52), "overlaps|listed otherwise|bytes belong there"),
        (changed("data/0", size=2**31), "outside of it"),
        (changed("/version", header=64), "listed otherwise|overlaps"),
        (changed("/version", header=2**31), "outside of it"),
        (changed("/version", local_name="archive/versiom"), "listed otherwise"),
        (changed("/version", name="../../version"), "leads out of"),
        (changed("/version", name="/etc/passwd"), "leads out of"),
        (changed("/version", name="archive\\version"), "leads out of"),
        (changed("/version", name="archive/./version"), "leads out of"),
        (changed("/version", name="archive/ver\x1bsion"), "leads out of"),
        (changed("/version", name="archive/data/0"), "two records archive/data/0"),
        (changed("/version", name="other/data.pkl"), "one data.pkl"),
        (changed("data.pkl", name="data.pkl"), "one data.pkl"),
        (changed("byteorder", data=b"middle"), "its byte order is b'middle'"),
        (changed("byteorder", data=b"big" * 10), "30 bytes, more than the 16"),
        (zipped(records({"w": FLAT}), comment=b"PK\x05\x06"), "cut short"),
        (zipped(records({"w": FLAT}), count=2**40), "more than is read"),
        (zipped(records({"w": FLAT}), count=8), "cut short"),
        (zipped(records({"w": FLAT}), count=6), "longer than the records"),
        (zipped(records({"w": FLAT}))[:-30], "cut short"),
        (b"PK" + zipped(records({"w": FLAT})), "not where it should be"),
        (b"PK\x03\x04", "too short for a zip file"),
    ],
)
def test_zip_files_that_lie(data: bytes, words: str, read: Read) -> None:
    refused(read, data, words)


def test_records_that_share_bytes(read: Read) -> None:
    """The trick of zip bombs: a record in the middle of another, with a header of its own there."""
    files = records({"w": FLAT})
    name = b"archive/data/1"
    inner = struct.pack("<4s5H3I2H", b"PK\x03\x04", 0, 0x0808, 0, 0, 0, 0, 0, 0, len(name), 0) + name
    files.append(Record("archive/big", bytes(100) + inner + bytes(200)))
    at = zipped(files).index(inner)
    files.append(Record(name.decode(), bytes(100), header=at))
    refused(read, zipped(files), "overlaps another record")


def test_more_records_than_are_read(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_zip, "MAX_RECORDS", 5)
    refused(read, zip_file({"w": FLAT}), "lists 7 records")


def test_a_pickle_that_is_too_long(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(read, of({"w": "x" * (2**24 + 1)}), "more than the 16,777,216 that are read")


# ------------------------------------------------------------------------------------- the older formats


def old(value: Any, keys: list[str] | None = None) -> bytes:
    return old_file({"": FLAT}, value, keys)


def test_storages_that_are_not_there(read: Read) -> None:
    good = {"w": tensor(old_storage(FLAT, "0"), (2,))}
    assert list(read(old(good))) == ["w"]
    refused(read, old(good, []), "does not list the storages")
    refused(read, old(good, ["0", "0"]), "does not list the storages")
    refused(read, old(good, ["1"]), "does not list the storages")
    refused(read, old(good)[:-1], "it should have .* bytes and has")
    refused(read, old(good) + b"x", "it should have .* bytes and has")
    refused(read, old(good).replace(counted(FLAT)[:8], struct.pack("<q", 13)), "13 numbers where 12 are")
    huge = Reference(("storage", Global("torch", "FloatStorage"), "0", "cpu", 2**60, None))
    refused(read, old({"w": tensor(huge, (2,))}), "12 numbers where 1,152,921,504,606,846,976 are expected")


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (("1", 10, 3), "reaches beyond it"),
        (("1", -1, 3), "reaches beyond it"),
        (("1", 2**63, 3), "reaches beyond it"),
        (("1", 1), "a key, an offset and a size"),
        (5, "a key, an offset and a size"),
        (("1", 4, 2), "beyond its storage"),
    ],
)
def test_parts_that_cannot_be(view: Any, words: str, read: Read) -> None:
    refused(read, old({"w": tensor(old_storage(FLAT, "0", view), (3,))}), words)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (tar_file({"w": FLAT}, members=[("../evil", b"x")] * 2), "two members"),
        (tar_file({"w": FLAT}, members=[("link", b"", b"2")]), "not a plain file"),
        (tar_file({"w": FLAT}, members=[("long", b"x" * 600, b"L")]), "not a plain file"),
        (tar_file({"w": FLAT}, members=[("huge", b"", b"0", 8**11 - 1)]), "beyond the end"),
        (tar_file({"w": FLAT}, members=[("x", b"20 size=100\n", b"x")]), "another name or size"),
        (tar_file({"w": FLAT}, members=[("x", b"m" * 600, b"x")]), "another name or size"),
        (tar_file({"w": FLAT}, members=[(f"m{i}", b"") for i in range(70)]), "more than 64 members"),
        (tar_file({"w": FLAT}, {"w": Reference("101")}), "not one of its tensors"),
        (tar_file({"w": FLAT}, {"w": Reference(100)}), "not one of its tensors"),
        (tar_file({"w": FLAT}, views=[(7, 0, 10, 3)]), "reaches beyond it"),
        (tar_file({"w": FLAT}, views=[(0, 0, 1, 3)]), "a key that it cannot have"),
        (tar_file({"w": FLAT}, views=[(7, 8, 1, 3)]), "a key that it cannot have"),
        (tar_file({"w": FLAT}, views=[(7, 0, 1)]), "two keys, an offset and a size"),
        (tar_file({"w": FLAT}, {"w": 5}), "not a tensor"),
        (tar_file({"w": FLAT})[:512], "without storages, tensors, pickle|beyond the end"),
        (tar_file({"w": FLAT}).replace(pickled(1), pickled(2), 1), "announced|ends too early|pickle"),
        (
            tar_file({"w": FLAT}).replace(pickled(1), b"\x80\x02J\xff\xff\xff\x7f.", 1),
            "how many|checksum|header",
        ),
    ],
)
def test_tar_files_that_lie(data: bytes, words: str, read: Read) -> None:
    refused(read, data, words)


def test_counts_and_sizes_in_tar_files(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tar_file({"w": FLAT})
    for count in (13, 2**60, -1):
        lie = data.replace(counted(FLAT)[:8], struct.pack("<q", count), 1)
        refused(read, lie, "beyond the end|the pickle|not described by")
    shape = struct.pack("<iiqqq", 1, 0, 12, 1, 0)
    assert shape in data
    for other in ((2, 0, 12, 1, 0), (-1, 0, 12, 1, 0), (33, 0, 12, 1, 0), (1, 0, 13, 1, 0), (1, 0, 12, 1, 1)):
        refused(
            read,
            data.replace(shape, struct.pack("<iiqqq", *other)),
            "beyond|axes|whole numbers|too early|once",
        )
    monkeypatch.setattr(pytorch_tar, "MAX_OBJECTS", 0)
    refused(read, data, "how many storages and tensors")


def test_good_files_are_good(read: Read) -> None:
    """The files above differ from these by one thing each."""
    for data in (of(state_dict({"w": FLAT})), changed("none"), tar_file({"w": FLAT}), old_file({"w": FLAT})):
        np.testing.assert_array_equal(read(data)["w"], FLAT)
    assert list(read(of(ordered_dict({"w": tensor(WHERE, (2,))})))) == ["w"]
