"""CIFAR-10's binary and python versions, unpacked and as archives, and pickles that want to do something."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minialex.data import divide, open_dataset
from minialex.data.cifar import CLASSES, open_cifar
from minialex.errors import DataError
from minialex.rng import Stream


def batch(number: int, count: int = 20) -> tuple[np.ndarray, list[int]]:
    """(count, 3072) bytes and the labels 0, 1, ... 9, 0, ..."""
    pixels = Stream(3, "test", item=number).integers(0, 256, (count, 3072)).astype(np.uint8)
    return pixels, [i % 10 for i in range(count)]


def binary(number: int, count: int = 20) -> bytes:
    pixels, labels = batch(number, count)
    return np.concatenate([np.array(labels, np.uint8)[:, None], pixels], axis=1).tobytes()


def python2(number: int, count: int = 20) -> bytes:
    """A batch as Python 2 and its NumPy wrote them (protocol 2): all texts and bytes are strings."""
    pixels, labels = batch(number, count)

    def text(value: str) -> bytes:
        return b"U" + bytes([len(value)]) + value.encode()

    def integer(value: int) -> bytes:
        return b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\1cnumpy\nndarray\nq\2K\0\x85U\1b\x87Rq\3"
        + b"(K\1"
        + integer(count) + integer(3072) + b"\x86"
        + b"cnumpy\ndtype\nq\4U\2u1K\0K\1\x87Rq\5(K\3U\1|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
        + b"\x89T" + struct.pack("<I", pixels.size) + pixels.tobytes() + b"tb"
    )  # fmt: skip
    return (
        b"\x80\2}q\0("
        + text("batch_label") + text("testing batch 1 of 1")
        + text("labels") + b"](" + b"".join(map(integer, labels)) + b"e"
        + text("data") + array
        + text("filenames") + b"](" + b"".join(text(f"{i}.png") for i in range(count)) + b"e"
        + b"u."
    )  # fmt: skip


def python3(number: int, count: int = 20, protocol: int = 2, **changes: Any) -> bytes:
    """A batch as a Python 3 of today writes it."""
    pixels, labels = batch(number, count)
    return pickle.dumps({"data": pixels, "labels": labels, **changes}, protocol)


def write(folder: Path, batches: Mapping[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in batches.items():
        (folder / name).write_bytes(content)
    return folder


def pack(path: Path, members: Mapping[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


NAMES = ["data_batch_1", "data_batch_2", "test_batch"]
VERSIONS: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "binary": (".bin", binary),
    "python 2": ("", python2),
    "python 3, protocol 2": ("", python3),
    "python 3, protocol 4": ("", lambda number: python3(number, protocol=4)),
}


def batches_of(version: str) -> dict[str, bytes]:
    suffix, make = VERSIONS[version]
    return {f"{name}{suffix}": make(number) for number, name in enumerate(NAMES)}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("version", VERSIONS)
def test_all_versions_hold_the_same(tmp_path: Path, version: str, packed: bool) -> None:
    batches = {**batches_of(version), "readme.html": b"x", "batches.meta": b"y"}
    if packed:
        source = pack(tmp_path / "cifar.tar.gz", {f"cifar-10/{name}": own for name, own in batches.items()})
    else:
        source = write(tmp_path / "cifar", batches)
    dataset, description = open_dataset(source)
    assert dataset.classes == CLASSES
    assert dataset.names[21] == "data_batch_2/0001"
    assert dataset.labels.tolist() == [i % 10 for i in range(20)] * 3
    assert dataset.test_indices.tolist() == list(range(40, 60))
    pixels = np.asarray(dataset.load(21))
    assert pixels[2, 5].tolist() == [int(batch(1)[0][1][plane * 1024 + 2 * 32 + 5]) for plane in range(3)]
    assert description == (
        f"60 pictures in 10 classes from {source} (CIFAR-10's 2 data batches and test_batch, 32 x "
        "32; 20 of them are the official test part)"
    )
    assert divide(dataset, (0.5, 0.25, 0.25), seed=2).digest == (
        "959cdd78b73d7e9a46e203ff9d2006fa031ca4649fa1c64aab453a596d651ba2"
    )


def test_python_2s_pickle_is_what_python_reads() -> None:
    """The writer of this file's own against Python itself."""
    theirs = pickle.loads(python2(1), encoding="latin1")
    assert np.array_equal(theirs["data"], batch(1)[0])
    assert theirs["labels"] == batch(1)[1]
    assert theirs["filenames"][3] == "3.png"


@pytest.mark.parametrize("inside", ["cifar-10-batches-bin", "cifar-10-batches-py"])
def test_the_folder_around_it_will_do(tmp_path: Path, inside: str) -> None:
    version = "binary" if inside.endswith("bin") else "python 2"
    write(tmp_path / inside, batches_of(version))
    assert open_dataset(tmp_path)[0].root == tmp_path / inside


def test_one_batch_is_enough(tmp_path: Path) -> None:
    dataset = open_cifar(write(tmp_path, {"test_batch.bin": binary(0)}))
    assert (len(dataset), dataset.test_indices) == (20, None)


def test_two_versions_are_one_too_many(tmp_path: Path) -> None:
    write(tmp_path, {"test_batch.bin": binary(0), "test_batch": python2(0)})
    with pytest.raises(DataError, match="both versions"):
        open_dataset(tmp_path)
    for inside in ("cifar-10-batches-bin", "cifar-10-batches-py"):
        write(tmp_path / "around" / inside, {"test_batch.bin": binary(0)})
    with pytest.raises(DataError, match="CIFAR-10 twice"):
        open_dataset(tmp_path / "around")


class Evil:
    def __init__(self, name: Any, *arguments: Any) -> None:
        self.call = (name, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(Evil(os.system, "touch evil"), 2), "system"),
        (pickle.dumps(Evil(eval, "1"), 4), "eval"),
        (pickle.dumps({"data": Evil(np.fromfile, "evil"), "labels": [1]}, 2), "fromfile"),
        (
            pickle.dumps({"data": np.array([Evil(os.getcwd)], dtype=object), "labels": [1]}, 2),
            "expected bytes",
        ),
        (b"\x80\2cnumpy\nndarray\n(K\1tR.", "numpy.ndarray|call"),
        (python3(0, data=np.zeros((20, 3072), np.float32)), "expected bytes"),
        (python3(0, data=np.zeros((20, 3072), np.int8)), "expected bytes"),
        (python3(0, data=np.zeros((20, 3072), np.dtype("u1,u1"))), "expected bytes"),
        (python3(0, data=np.zeros((20, 3071), np.uint8)), "shape .20, 3071.*expected .pictures, 3,072."),
        (python3(0, data=np.zeros((20, 32, 96), np.uint8)), "shape .20, 32, 96."),
        (python3(0, data=np.asfortranarray(np.ones((20, 3072), np.uint8))), "row by row"),
        (python3(0, data=[1, 2]), "expected data .an array. and labels .a list of numbers."),
        (python3(0, labels=np.arange(20)), "expected bytes"),
        (python3(0, labels=["cat"] * 20), "labels .a list of numbers."),
        (python3(0, labels=[True] * 20), "labels .a list of numbers."),
        (python3(0, labels=[1] * 19), "20 pictures and 19 labels"),
        (python3(0, labels=[1] * 19 + [10]), "label 10, expected 0 to 9"),
        (python3(0, labels=[1] * 19 + [10**30]), "label 10+, expected 0 to 9"),
        (python3(0, labels=[1] * 19 + [-1]), "label -1, expected 0 to 9"),
        (pickle.dumps([1, 2], 2), "holds list, expected a dict"),
        (pickle.dumps({"fine_labels": [1]}, 2), "holds 'fine_labels', expected data"),
        (python3(0)[:-100], "no batch of CIFAR-10's python version"),
        (python3(0) + b"x", "no batch of CIFAR-10's python version"),
        (b"", "no batch of CIFAR-10's python version"),
    ],
)
def test_pickles_that_are_no_batches(
    tmp_path: Path, content: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "cifar", {"data_batch_1": content})
    with pytest.raises(DataError, match=message) as caught:
        open_dataset("cifar")
    assert "cifar: data_batch_1" in str(caught.value)
    assert not (tmp_path / "evil").exists()


NESTED = 5000  # far beyond what Python's repr bears
SHARED = 60  # a tuple of twice the same, and so on: 2**60 ends in its repr
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\1b\x87R"


@pytest.mark.parametrize(
    "inside", [b")" + b"\x85" * NESTED, b")" + b"q\0h\0\x86" * SHARED], ids=["deep", "shared"]
)
@pytest.mark.parametrize(
    "around",
    [
        (b"cnumpy\ndtype\n", b"\x85R."),
        (b"cnumpy\ndtype\nU\2u1", b"K\0\x87R."),
        (RECONSTRUCT + b"(K\1", b"cnumpy\ndtype\nU\2u1\x85R\x89U\0tb."),
        (RECONSTRUCT + b"(K\1K\1", b"\x86cnumpy\ndtype\nU\2u1\x85R\x89U\0tb."),
        (b"}U\6labels(", b"lsU\4dataNs."),
        (b"}U\6labels", b"sU\4dataNs."),
    ],
    ids=["type", "type's align", "shape", "extent", "old list", "labels"],
)
def test_structures_without_an_end_are_refused_unprinted(
    tmp_path: Path, inside: bytes, around: tuple[bytes, bytes]
) -> None:
    (tmp_path / "data_batch_1").write_bytes(b"\x80\2" + around[0] + inside + around[1])
    with pytest.raises(DataError, match=r"data_batch_1 (is no batch|holds)"):
        open_cifar(tmp_path)


def test_hundreds_of_damaged_pickles_give_a_batch_or_a_data_error(tmp_path: Path) -> None:
    whole = python2(0, count=2)
    places = [*range(120), *range(6240, len(whole))]  # the program around the pixels
    path = write(tmp_path, {"data_batch_1": whole}) / "data_batch_1"
    refused = 0
    for number in range(400):
        stream = Stream(4, "test", item=number)
        content = bytearray(whole)
        for i in stream.integers(0, len(places), (2,)):
            content[places[int(i)]] = int(stream.integers(0, 256))
        path.write_bytes(content)
        try:
            open_cifar(tmp_path)
        except DataError:
            refused += 1
    assert 200 < refused < 400


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has 0 bytes, expected a multiple of 3,073"),
        (binary(0)[:-1], "has 61,459 bytes, expected a multiple of 3,073"),
        (b"\x0a" + binary(0)[1:], "picture 0 has the label 10, expected 0 to 9"),
    ],
)
def test_damaged_binary_batches(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        open_cifar(write(tmp_path, {"data_batch_1.bin": content}))
    assert "data_batch_1.bin" in str(caught.value)


def test_archives_that_are_not_to_be_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cifar.tar.gz"
    monkeypatch.setattr("minialex.data.cifar.BATCH_LIMIT", 70_000)
    monkeypatch.setattr("minialex.data.cifar.TAR_LIMIT", 100_000)
    good = {"c/data_batch_1.bin": binary(0)}
    assert len(open_cifar(pack(path, good))) == 20
    for members, message in [
        ({**good, "d/data_batch_1.bin": binary(1)}, "'d/data_batch_1.bin' is there twice"),
        ({**good, "c/more": bytes(10**5)}, "'c/more' is too long"),
        ({"c/data_batch_1.bin": bytes(70_001)}, "'c/data_batch_1.bin' is too long"),
        ({"c/1.jpg": b"x"}, "holds no batches of CIFAR-10.*must be unpacked"),
    ]:
        with pytest.raises(DataError, match=message):
            open_cifar(pack(path, members))
    pack(path, good)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match="cannot be unpacked"):
        open_cifar(path)
    # Nothing is unpacked: a name that leads out is a name like any other.
    assert len(open_cifar(pack(path, {"../../data_batch_1.bin": binary(0)}))) == 20
    assert not list(tmp_path.parent.glob("data_batch*"))


def test_a_name_of_a_gigabyte_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GNU's long names are read whole by Python's tarfile, whatever their length."""
    monkeypatch.setattr("minialex.data.cifar.BATCH_LIMIT", 70_000)
    path = tmp_path / "cifar.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("././@LongLink")
        member.type, member.size = tarfile.GNUTYPE_LONGNAME, 80_000
        archive.addfile(member, io.BytesIO(bytes(80_000)))
        archive.addfile(tarfile.TarInfo("x"))
    with pytest.raises(DataError, match="cannot be unpacked: a header announces more than 70,000 bytes"):
        open_dataset(path)


def tar_header(kind: bytes, size: bytes) -> bytes:
    """A member's header with these 12 bytes for its size, and a sum that fits."""
    header = bytearray(tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT))
    header[124:136], header[156:157], header[148:156] = size, kind, b" " * 8
    header[148:155] = b"%06o\0" % sum(header)
    return bytes(header)


NEGATIVE, ENORMOUS, NONE = b"\xff" * 10 + b"\xfe\0", b"\x80\0" + b"\xff" * 10, b"00000000000\0"
ANNOUNCED = b"%011o\0" % (2 * 10**9)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tar_header(b"x", NEGATIVE), "header"),
        (tar_header(b"L", ENORMOUS), "header"),
        (tar_header(b"L", ANNOUNCED), "header"),
        (tar_header(b"0", NEGATIVE), "too long for CIFAR-10"),
        (tar_header(b"0", ENORMOUS), "cannot be unpacked|too long"),
        (tar_header(b"x", NONE) * 2000, "cannot be unpacked"),
        (tar_header(b"0", NONE) * 1001, "one file too many"),
        (tar_header(b"x", b"%011o\0" % 30) + b"99999999999999999999 path=a\n".ljust(512, b"\0"), "unpacked"),
        (tar_header(b"x", b"%011o\0" % 28) + b"28 GNU.sparse.map=1,x,3,4,,\n".ljust(512, b"\0"), "unpacked"),
    ],
)  # fmt: skip
def test_headers_that_lie(tmp_path: Path, content: bytes, message: str, packed: bool) -> None:
    """Python's tarfile raises ValueError, OverflowError, RecursionError and MemoryError for such."""
    content += tar_header(b"0", NONE) + bytes(1024)
    path = tmp_path / "cifar.tar"
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    with pytest.raises(DataError, match=message):
        open_dataset(path)


def test_a_link_in_an_archive_is_no_batch(tmp_path: Path) -> None:
    path = tmp_path / "cifar.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("c/data_batch_1.bin")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(DataError, match="no batches"):
        open_cifar(path)
