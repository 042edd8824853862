"""Which kind of data a path is: one kind or an error, and never a traceback."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from test_mnist import write as write_mnist
from test_numbered_names import write as write_numbered

from minialex.data import ImageFolder, open_dataset
from minialex.data.recognition import UNDERSTOOD, open_path
from minialex.errors import DataError

MakeFolder = Callable[..., Path]


def test_a_plain_folder_is_described_as_ever(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 2, "b": 2})
    dataset, description = open_dataset(root)
    assert type(dataset) is ImageFolder
    assert description == f"4 pictures in 2 classes from {root}"


def test_an_unknown_folder_says_what_is_understood(tmp_path: Path) -> None:
    for content, message in [
        ([], "holds no folders, and nothing else"),
        (["a.csv", "b.npy"], "holds no folders, but a.csv, b.npy"),
        (["1.jpg", "2.jpg", "x.txt"], "but 2 pictures such as 1.jpg, whose classes nobody knows"),
        (["cat.0.jpg", "cat.1.jpg"], "but 2 pictures such as cat.0.jpg"),
        (["pictures.zip", "x.txt"], r"but pictures\.zip: give that \(--data .*/pictures\.zip\)"),
    ]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for name in content:
            (folder / name).write_bytes(b"x")
        with pytest.raises(DataError, match=message) as caught:
            open_path(folder)
        assert UNDERSTOOD in str(caught.value)


def test_an_unknown_file_says_what_is_understood(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("1,2")
    with pytest.raises(DataError, match="a file of no kind that is read as data") as caught:
        open_path(tmp_path / "x.csv")
    assert UNDERSTOOD in str(caught.value)
    write_mnist(tmp_path / "mnist", "train", 4)
    with pytest.raises(DataError, match=r"one of MNIST's files.*give their folder \(--data .*/mnist\)"):
        open_path(tmp_path / "mnist/train-images-idx3-ubyte")
    (tmp_path / "broken.zip").write_bytes(b"PK\3\4 and then nothing")
    with pytest.raises(DataError, match=r"broken\.zip is no sound zip archive"):
        open_path(tmp_path / "broken.zip")
    (tmp_path / "broken.tar.gz").write_bytes(b"\x1f\x8b and then nothing")
    with pytest.raises(DataError, match=r"broken\.tar\.gz cannot be unpacked"):
        open_path(tmp_path / "broken.tar.gz")


def test_a_tar_of_pictures_must_be_unpacked(tmp_path: Path, make_folder: MakeFolder) -> None:
    root = make_folder({"a": 1, "b": 1})
    with tarfile.open(tmp_path / "p.tgz", "w:gz") as archive:
        archive.add(root, "p")
    with pytest.raises(DataError, match=r"holds no batches of CIFAR-10.*must be unpacked"):
        open_path(tmp_path / "p.tgz")


def test_the_content_tells_and_not_the_suffix(tmp_path: Path, make_folder: MakeFolder) -> None:
    root = make_folder({"a": 1, "b": 1})
    with zipfile.ZipFile(tmp_path / "data.bin", "w") as archive:
        for path in root.rglob("*.png"):
            archive.write(path, path.relative_to(root))
    assert open_path(tmp_path / "data.bin").classes == ["a", "b"]


def test_what_could_be_two_kinds_is_refused(tmp_path: Path, make_folder: MakeFolder) -> None:
    write_numbered(tmp_path / "both", "cat.0.jpg", "dog.0.jpg")
    write_mnist(tmp_path / "both", "train", 4)
    with pytest.raises(
        DataError, match="MNIST's files and pictures with their classes in their names: which"
    ):
        open_path(tmp_path / "both")
    root = make_folder({"a": 1, "b": 1})
    write_mnist(root, "train", 4)
    with pytest.raises(DataError, match="MNIST's files and folders with pictures: which"):
        open_path(root)


def test_a_missing_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist.*"):
        open_path(tmp_path / "nowhere")
