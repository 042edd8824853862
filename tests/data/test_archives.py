"""Zips of pictures: which layouts are understood, and that no archive is believed more than it deserves."""

from __future__ import annotations

import io
import os
import pickle
import stat
import struct
import tracemalloc
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from noise_pictures import noise

from minialex.data import Loader, MemoryCache, Normalize, Resize, archives, divide, open_dataset
from minialex.data.archives import ZipPictures
from minialex.data.images import decode
from minialex.data.transforms import Compose
from minialex.errors import DataError
from minialex.rng import Stream


def png(number: int) -> bytes:
    content = io.BytesIO()
    noise(number).save(content, "PNG")
    return content.getvalue()


def make(path: Path, names: Sequence[str] | Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip with these members; a different picture each, or what the mapping says."""
    contents = names if isinstance(names, Mapping) else {name: png(i) for i, name in enumerate(names)}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("around", ["", "train/", "flowers/", "a/b/train/"])
def test_class_folders_below_any_folders(tmp_path: Path, around: str, method: int) -> None:
    path = make(
        tmp_path / "p.zip", [f"{around}{name}" for name in ("b/1.png", "a/2.png", "a/in/1.png")], method
    )
    dataset = ZipPictures(path)
    assert dataset.classes == ["a", "b"]
    assert dataset.names == [f"{around}{name}" for name in ("a/2.png", "a/in/1.png", "b/1.png")]
    assert dataset.labels.tolist() == [0, 0, 1]
    assert dataset.test_indices is None
    assert np.array_equal(np.asarray(dataset.load(2)), np.asarray(noise(0)))
    assert dataset.example_path(0) is None


def test_it_is_the_folder_in_everything_but_the_place(tmp_path: Path, make_folder) -> None:  # type: ignore[no-untyped-def]
    root = make_folder({"a": 7, "b": 5})
    (root / ".DS_Store").write_bytes(b"x")
    (root / "README.txt").write_bytes(b"x")
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in root.rglob("*"):
            archive.write(file, file.relative_to(root))
        archive.writestr("__MACOSX/a/._000.png", b"x")
    here, there = open_dataset(root)[0], open_dataset(path)[0]
    assert (there.classes, there.names, there.extra) == (here.classes, here.names, here.extra)
    assert divide(there, seed=5).digest == divide(here, seed=5).digest
    transform = Compose([Resize((8, 8)), Normalize()])
    batches = [next(iter(Loader(data, range(12), transform, 12).epoch(1))).images for data in (here, there)]
    assert np.array_equal(*batches)


def test_train_and_another_part_are_an_official_division(tmp_path: Path) -> None:
    names = [f"d/{part}/{label}/{i}.png" for part in ("train", "test") for label in "ba" for i in range(4)]
    dataset, description = open_dataset(make(tmp_path / "p.zip", names))
    assert dataset.classes == ["a", "b"]
    assert [name[:7] for name in dataset.names] == ["d/train"] * 8 + ["d/test/"] * 8
    assert dataset.test_indices.tolist() == list(range(8, 16))
    assert description.endswith(
        "(a zip of class folders in train and test; 8 of them are the official test part)"
    )
    split = divide(dataset, (0.5, 0.25, 0.25))
    assert (len(split.train), len(split.validation), split.test.tolist()) == (6, 2, list(range(8, 16)))


@pytest.mark.parametrize("around", ["", "train/", "dogs-vs-cats/train/"])
def test_kaggles_names(tmp_path: Path, around: str) -> None:
    names = [f"{around}{name}" for name in ("dog.0.jpg", "cat.1.jpg", "cat.0.jpg")]
    dataset = ZipPictures(make(tmp_path / "p.zip", {name: png(i) for i, name in enumerate(names)}))
    assert dataset.classes == ["cat", "dog"]
    assert dataset.names == [f"{around}{name}" for name in ("cat.0.jpg", "cat.1.jpg", "dog.0.jpg")]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/1.png"], "one class only, a"),
        (["x/a/1.png", "x/a/2.png"], "one class only, a"),
        (["1.png", "2.png"], "1.png is in no class folder"),
        (["a/1.png", "b/1.png", "2.png"], "2.png is in no class folder"),
        (["train/a/1.png", "val/a/1.png", "test/a/1.png"], "test, train, val: .* divided already"),
        (["val/a/1.png", "test/a/1.png"], "test, val: .* divided already"),
        (["train/a/1.png", "train/b/1.png", "test/1.png"], "test/1.png is in no class folder"),
        (["a.txt", "b/c.csv"], "holds no pictures, but a.txt, b/c.csv"),
        (["train.zip", "test1.zip"], "no pictures, but test1.zip, train.zip. Unpack it"),
        ([], "holds no pictures"),
        (
            ["train/a/1.png", "train/b/1.png", "test/a/1.png", "test/c/1.png"],
            "test has classes of which there is nothing to train on: c",
        ),
    ],
)
def test_other_layouts_say_what_is_wrong(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ZipPictures(make(tmp_path / "p.zip", names))


@pytest.mark.parametrize(
    "name",
    ["../a/1.png", "a/../../b/1.png", "/a/1.png", "a\\1.png", "C:/a/1.png", "a/..", "\\\\host\\a\\1.png"],
)
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"a name that leads out of the archive.*not to be trusted"):
        ZipPictures(make(tmp_path / "p.zip", ["a/1.png", "b/1.png", name]))


@pytest.mark.parametrize("name", [".", "./"])
def test_a_member_without_a_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"a member without a name"):
        ZipPictures(make(tmp_path / "p.zip", ["a/1.png", "b/1.png", name]))


def test_nothing_is_ever_unpacked_to_a_disk(tmp_path: Path) -> None:
    folder = tmp_path / "only"
    folder.mkdir()
    dataset = ZipPictures(make(folder / "p.zip", ["a/1.png", "b/1.png"]))
    dataset.load(0)
    assert [path.name for path in folder.iterdir()] == ["p.zip"]


def test_names_that_are_there_twice(tmp_path: Path) -> None:
    path = tmp_path / "p.zip"
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("a/1.png", "b/1.png", "a/1.png"):
            archive.writestr(name, png(0))
    with pytest.raises(DataError, match=r"holds 'a/1.png' twice"):
        ZipPictures(path)
    with pytest.raises(DataError, match=r"NFC"):
        ZipPictures(make(path, ["a/\u00e4.png", "a/a\u0308.png", "b/1.png"]))


def test_links_and_encryption_and_strange_methods(tmp_path: Path) -> None:
    path = tmp_path / "p.zip"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("a/1.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match=r"'a/1.png': a link"):
        ZipPictures(path)
    with pytest.raises(DataError, match=r"method 14, expected one of 0 .stored., 8 .deflated."):
        ZipPictures(make(path, ["a/1.png", "b/1.png"], zipfile.ZIP_LZMA))
    content = bytearray(make(path, ["a/1.png", "b/1.png"]).read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"encrypted"):
        ZipPictures(path)


def test_a_member_is_not_unpacked_beyond_what_it_announces(tmp_path: Path) -> None:
    """zipfile's read() unpacks all that is there, and cuts it to the announced size afterwards."""
    path = make(tmp_path / "p.zip", {"a/1.png": png(0), "b/1.png": bytes(30 * 10**6)})
    content = bytearray(path.read_bytes())
    for header, size in ((content.index(b"b/1.png") - 30, 22), (content.rindex(b"b/1.png") - 46, 24)):
        struct.pack_into("<I", content, header + size, 1000)  # of 30,000,000, in both places
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"b/1\.png: damaged in the archive: Bad CRC-32"):
            ZipPictures(path)
        assert tracemalloc.get_traced_memory()[1] < 3 * 10**6
    finally:
        tracemalloc.stop()


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MEMBER_LIMIT", 10**6)
    monkeypatch.setattr(archives, "TOTAL_LIMIT", 2 * 10**6)
    bomb = {"a/1.bmp": bytes(10**6 + 1), "b/1.png": png(0)}
    with pytest.raises(DataError, match=r"1,000,001 bytes, more than the 1,000,000 that a picture may have"):
        ZipPictures(make(tmp_path / "p.zip", bomb))
    many = {f"{label}/{i}.bmp": bytes(10**6) for label in "ab" for i in range(2)}
    with pytest.raises(DataError, match=r"would unpack to 4,000,000: pictures do not shrink so"):
        ZipPictures(make(tmp_path / "p.zip", many))


def patched(path: Path, name: str, offset: int, value: bytes) -> Path:
    """The archive with other bytes in the central directory's record of the member `name`."""
    content = bytearray(path.read_bytes())
    record = content.rindex(name.encode()) - 46
    assert content[record : record + 4] == b"PK\1\2"
    content[record + offset : record + offset + len(value)] = value
    path.write_bytes(content)
    return path


def test_members_that_lie_over_each_other(tmp_path: Path) -> None:
    """A thousand members of a bomb can share one member's bytes."""
    path = make(tmp_path / "p.zip", ["a/1.png", "b/1.png", "b/2.png"])
    with pytest.raises(DataError, match=r"'a/1.png' and 'b/1.png' lie over each other"):
        ZipPictures(patched(path, "b/1.png", 42, struct.pack("<I", 0)))


def test_a_member_that_is_longer_or_other_than_it_says(tmp_path: Path) -> None:
    path = make(tmp_path / "p.zip", {"a/1.png": png(1), "b/1.png": png(0) + bytes(10**6)})
    with pytest.raises(DataError, match=r"b/1.png: damaged in the archive: Bad CRC-32"):
        ZipPictures(patched(path, "b/1.png", 24, struct.pack("<I", len(png(0)))))
    path = make(tmp_path / "p.zip", ["a/1.png", "b/1.png"])
    with pytest.raises(DataError, match=r"b/1.png: damaged in the archive"):
        ZipPictures(patched(path, "b/1.png", 16, b"abcd"))


def test_damaged_pictures_are_left_out_if_asked(tmp_path: Path) -> None:
    path = make(tmp_path / "p.zip", {"a/1.png": png(1), "a/2.png": b"", "b/1.png": png(2)})
    with pytest.raises(DataError, match=r"a/2.png: the file is empty"):
        ZipPictures(path)
    dataset = ZipPictures(path, on_bad_image="skip")
    assert [bad.name for bad in dataset.skipped] == ["a/2.png"]
    assert len(dataset) == 2


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"x" * 100])
def test_what_is_no_zip(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"p.zip is no sound zip archive"):
        ZipPictures(tmp_path / "p.zip")


def test_hundreds_of_damaged_archives_give_pictures_or_a_data_error(tmp_path: Path) -> None:
    path = make(tmp_path / "p.zip", ["train/a/1.png", "train/b/1.png", "train/b/2.png"])
    whole = path.read_bytes()
    directory = whole.index(b"PK\1\2")
    refused = 0
    for number in range(250):
        stream = Stream(2, "test", item=number)
        content = bytearray(whole)
        for place in stream.integers(directory if number % 2 else 0, len(content), (4,)):
            content[int(place)] = int(stream.integers(0, 256))
        path.write_bytes(content[: int(stream.integers(directory, 3 * len(content)))])
        try:
            dataset = ZipPictures(path, on_bad_image="skip")
            assert all(dataset.load(i).mode == "RGB" for i in range(len(dataset)))
        except DataError:
            refused += 1
    assert 100 < refused < 250


def test_workers_threads_and_caches_read_it_too(tmp_path: Path) -> None:
    path = make(tmp_path / "p.zip", [f"{label}/{i}.png" for label in "ab" for i in range(10)])
    dataset = ZipPictures(path)
    transform = Compose([Resize((8, 8)), Normalize()])
    cache = MemoryCache(10**6)
    with Loader(dataset, range(20), transform, 5, workers=1) as loader:
        by_worker = np.concatenate([batch.images for batch in loader.epoch(1)])
    with Loader(dataset, range(20), transform, 5, threads=4, cache=cache) as loader:
        by_threads = [np.concatenate([batch.images for batch in loader.epoch(1)]) for _ in range(2)]
    assert len(cache) == 20
    assert np.array_equal(by_worker, by_threads[0])
    assert np.array_equal(*by_threads)
    copy = pickle.loads(pickle.dumps(dataset))
    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(copy.load, range(20)))) == 20


def test_an_archive_that_was_changed_is_noticed(tmp_path: Path) -> None:
    dataset = ZipPictures(make(tmp_path / "p.zip", ["a/1.png", "b/1.png"]))
    assert dataset.is_unchanged(0)
    sent = pickle.dumps(dataset)
    make(tmp_path / "p.zip", ["a/1.png", "b/1.png", "b/2.png"])
    with pytest.raises(DataError, match=r"was changed while it was in use"):
        pickle.loads(sent).load(0)


@pytest.mark.photographs
def test_cifars_pictures_in_a_zip() -> None:
    path = Path(os.environ.get("MINIALEX_DATA", "")) / "cifar10/cifar10_train_jpeg.zip"
    if not path.is_file():
        pytest.skip("MINIALEX_DATA has no cifar10/cifar10_train_jpeg.zip")
    with zipfile.ZipFile(path) as archive:
        classes, files, extra, layout = archives._arrange(path, archives._checked(path, archive.infolist()))
        picture = decode(archive.read(files[12_345].path))
    assert (classes[0], len(classes), len(files), extra) == ("airplane", 10, 25_000, [])
    assert layout == "a zip of class folders"
    assert np.bincount([file.label for file in files]).tolist() == [2500] * 10
    assert (picture.mode, picture.size) == ("RGB", (32, 32))
