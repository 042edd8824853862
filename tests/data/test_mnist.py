"""MNIST's idx files: what is in them, how they are divided, and that every malformed one is named."""

from __future__ import annotations

import gzip
import os
import pickle
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from minialex.data import divide, mnist, open_dataset
from minialex.data.mnist import find_mnist, open_mnist, read_idx
from minialex.errors import DataError
from minialex.rng import Stream


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    """An idx file with this array of bytes."""
    return struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape) + array.tobytes()


def digits(count: int, number: int = 0, size: tuple[int, int] = (6, 5)) -> np.ndarray:
    return Stream(0, "test", item=number).integers(0, 256, (count, *size)).astype(np.uint8)


def write(folder: Path, part: str, count: int, number: int = 0, packed: bool = False) -> Path:
    """Both files of a part: `count` pictures of the classes 0, 1, 0, 1, ..."""
    folder.mkdir(exist_ok=True)
    for name, array in (
        (f"{part}-images-idx3-ubyte", digits(count, number)),
        (f"{part}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8) % 2),
    ):
        content = idx(array)
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(content) if packed else content)
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_pictures_and_labels(tmp_path: Path, packed: bool) -> None:
    dataset = open_mnist(write(tmp_path, "t10k", 5, packed=packed))
    assert (len(dataset), dataset.classes, dataset.labels.tolist()) == (5, ["0", "1"], [0, 1, 0, 1, 0])
    assert dataset.names[3] == "t10k/00003"
    assert dataset.test_indices is None
    picture = dataset.load(3)
    assert picture.mode == "RGB"
    expected = np.repeat(digits(5)[3][:, :, None], 3, axis=2)
    assert np.array_equal(np.asarray(picture), expected)
    assert np.array_equal(np.asarray(picture.convert("L")), digits(5)[3])  # to LeNet's one channel and back
    assert dataset.example_path(3) is None


def test_a_digest_is_of_the_pictures_shape_and_bytes(tmp_path: Path) -> None:
    plain = open_mnist(write(tmp_path / "a", "t10k", 4))
    packed = open_mnist(write(tmp_path / "b", "train", 4, packed=True))
    assert [plain.digest(i) for i in range(4)] == [packed.digest(i) for i in range(4)]
    assert len({plain.digest(i) for i in range(4)}) == 4
    wide = digits(4).reshape(4, 5, 6)
    (tmp_path / "a/t10k-images-idx3-ubyte").write_bytes(idx(wide))
    assert open_mnist(tmp_path / "a").digest(0) != plain.digest(0)


def test_t10k_beside_train_is_the_test_part(tmp_path: Path) -> None:
    write(tmp_path, "train", 20)
    dataset = open_mnist(write(tmp_path, "t10k", 6, number=1))
    assert dataset.test_indices.tolist() == list(range(20, 26))
    split = divide(dataset, (0.8, 0.1, 0.1), seed=3)
    assert split.test.tolist() == list(range(20, 26))
    assert (len(split.train), len(split.validation)) == (18, 2)
    dataset, description = open_dataset(tmp_path)
    assert description == (
        f"26 pictures in 2 classes from {tmp_path} (train and t10k in MNIST's idx format, 6 x 5, grey; 6 of "
        "them are the official test part)"
    )


def test_a_data_set_can_be_sent_to_a_worker(tmp_path: Path) -> None:
    dataset = open_mnist(write(tmp_path, "train", 4))
    copy = pickle.loads(pickle.dumps(dataset))
    assert [copy.digest(i) for i in range(4)] == [dataset.digest(i) for i in range(4)]
    assert np.array_equal(np.asarray(copy.load(2)), np.asarray(dataset.load(2)))


@pytest.mark.parametrize("inside", ["", "raw", "MNIST/raw"])
def test_the_files_are_found_where_torchvision_puts_them(tmp_path: Path, inside: str) -> None:
    (tmp_path / "MNIST").mkdir()
    assert find_mnist(tmp_path) is None
    write(tmp_path / inside, "train", 2)
    assert find_mnist(tmp_path) == tmp_path / inside


def test_names_with_a_dot_and_an_unpacked_file_beside_its_archive(tmp_path: Path) -> None:
    write(tmp_path, "train", 4, packed=True)
    write(tmp_path, "train", 6, packed=False)
    assert len(open_mnist(tmp_path)) == 6
    for path in list(tmp_path.iterdir()):
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert find_mnist(tmp_path) == tmp_path
    assert len(open_mnist(tmp_path)) == 6


GOOD = idx(digits(3))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has 0 bytes"),
        (b"\0\0\10", "has 3 bytes"),
        (b"PK\3\4" + GOOD[4:], "begins with the bytes 50 4b 03 04, expected 00 00 08 03"),
        (b"\0\0\7\3" + GOOD[4:], "no idx file"),
        (b"\0\0\x0d\3" + GOOD[4:], r"holds float32 \(type 0x0d\), expected bytes"),
        (idx(np.zeros(5, np.uint8)), "array with axes: 1, expected 3: pictures, rows, columns.*another file"),
        (b"\0\0\10\0", "array with axes: 0"),
        (GOOD[:15], "ends within its header: 15 bytes of 16"),
        (GOOD[:-1], "announces 3 x 6 x 5 = 90 bytes, but 89 follow"),
        (GOOD + b"\0", "= 90 bytes, but more follow"),
        (GOOD[:4] + struct.pack(">3I", 3, 0, 5), "3 x 0 x 5 values, expected between 1 and"),
        (GOOD[:4] + b"\xff" * 12, "4,294,967,295 x 4,294,967,295 x .* values, expected between"),
        (GOOD[:4] + struct.pack(">3I", 2_000_000, 28, 28) + b"\0" * 9, "bytes, but 9 follow"),
        (gzip.compress(GOOD)[:-9], "cannot be unpacked"),
        (b"\x1f\x8b" + GOOD, "cannot be unpacked"),
        (
            gzip.compress(GOOD)[:20] + b"\xff" + gzip.compress(GOOD)[21:],
            "cannot be unpacked|follow|announces",
        ),
        (gzip.compress(GOOD + bytes(10**6)), "but more follow"),
    ],
)
def test_a_malformed_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path, axes=3)
    assert str(path) in str(caught.value)


def test_hundreds_of_damaged_files_give_an_array_or_a_data_error(tmp_path: Path) -> None:
    path = tmp_path / "damaged"
    packed = gzip.compress(GOOD)
    refused = 0
    for number in range(500):
        stream = Stream(1, "test", item=number)
        content = bytearray(packed if number % 2 else GOOD)
        for place in stream.integers(0, len(content) * 10, (3,)):
            if place < 16 * 10:  # the header more often than the pixels
                place //= 10
            content[int(place) % len(content)] = int(stream.integers(0, 256))
        path.write_bytes(content[: int(stream.integers(0, 2 * len(content)))])
        try:
            assert read_idx(path, axes=3).ndim == 3
        except DataError:
            refused += 1
    assert 250 < refused < 500


def test_a_stream_is_never_unpacked_beyond_what_its_header_announces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    read = gzip.GzipFile.read

    def watched(self: gzip.GzipFile, size: int | None = -1) -> bytes:
        asked.append(-1 if size is None else size)
        return read(self, size)

    monkeypatch.setattr(mnist.gzip.GzipFile, "read", watched)
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(GOOD + bytes(10**7)))
    with pytest.raises(DataError, match="more follow"):
        read_idx(path, axes=3)
    assert asked == [16, 91]


@pytest.mark.parametrize("packed", [False, True])
def test_no_memory_is_set_aside_for_what_cannot_be_there(tmp_path: Path, packed: bool) -> None:
    header = struct.pack(">HBB3I", 0, 8, 3, 2000, 1000, 1000)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(gzip.compress(header) if packed else header)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="= 2,000,000,000 bytes, but 0 follow"):
            read_idx(path, axes=3)
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    write(tmp_path, "train", 4)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(3, np.uint8)))
    with pytest.raises(DataError, match=r"has 4 pictures, but train-labels-idx1-ubyte has 3 labels"):
        open_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"holds train-images-idx3-ubyte, but no train-labels-idx1-ubyte"):
        open_mnist(tmp_path)
    write(tmp_path, "train", 4)
    write(tmp_path, "t10k", 4)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(digits(4, size=(7, 7))))
    with pytest.raises(DataError, match="differ in size: 6 x 5 and 7 x 7"):
        open_mnist(tmp_path)


def test_one_class_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "train", 4)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.full(4, 7, np.uint8)))
    with pytest.raises(DataError, match="one class only, 7"):
        open_mnist(tmp_path)


@pytest.mark.photographs
def test_the_genuine_test_digits() -> None:
    folder = Path(os.environ.get("MINIALEX_DATA", "")) / "mnist"
    if not os.environ.get("MINIALEX_DATA") or find_mnist(folder) is None:
        pytest.skip("MINIALEX_DATA has no folder mnist")
    dataset = open_mnist(folder)
    test = [i for i, name in enumerate(dataset.names) if name.startswith("t10k/")]
    # The counts of the digits and the first ten labels, as they are published everywhere.
    assert np.bincount(dataset.labels[test]).tolist() == [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]
    assert dataset.labels[test][:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    seven = np.asarray(dataset.load(test[0]))[:, :, 0]
    assert seven.shape == (28, 28)
    assert seven[7:10, 6:22].mean() > 100  # the bar of the 7
    assert seven[18:, :8].max() == 0
