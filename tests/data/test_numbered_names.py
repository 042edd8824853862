"""Kaggle's cats and dogs, whose names say what they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from noise_pictures import noise

from minialex.data import divide, open_dataset
from minialex.data.folder import ImageFolder
from minialex.data.numbered_names import class_in_name, find_numbered_names
from minialex.errors import DataError


def write(folder: Path, *names: str) -> Path:
    """A different picture under each name."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        noise(number).save(folder / name, "PNG")
    return folder


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("cat.0.jpg", "cat"),
        ("dog.12499.JPG", "dog"),
        ("sea lion.7.png", "sea lion"),
        ("b2.1.png", "b2"),
        ("1.jpg", None),
        ("1.2.jpg", None),
        ("cat.jpg", None),
        ("cat.a.jpg", None),
        ("big.cat.1.jpg", None),
        ("cat.1", None),
        ("cat.1.txt", None),
        (".0.jpg", None),
    ],
)
def test_a_class_in_a_name(name: str, label: str | None) -> None:
    assert class_in_name(name) == label


def test_classes_and_numbers(tmp_path: Path) -> None:
    write(tmp_path, "dog.10.jpg", "cat.2.jpg", "dog.9.jpg", "cat.10.jpg")
    (tmp_path / "README.txt").write_text("")
    dataset, description = open_dataset(tmp_path, say=lambda line: None)
    assert dataset.classes == ["cat", "dog"]
    assert dataset.names == ["cat.2.jpg", "cat.10.jpg", "dog.9.jpg", "dog.10.jpg"]
    assert dataset.extra == ["README.txt"]
    assert description == f"4 pictures in 2 classes from {tmp_path} (classes by file names such as cat.2.jpg)"
    assert dataset.example_path(0) == str(tmp_path / "cat.2.jpg")
    assert dataset.load(0).size == noise(1).size


def test_kaggles_folders(tmp_path: Path) -> None:
    """train/ has the names, test1/ pictures of which nobody says what they are."""
    write(tmp_path / "train", "cat.0.jpg", "dog.0.jpg")
    write(tmp_path / "test1", "1.jpg", "2.jpg")
    assert find_numbered_names(tmp_path) == tmp_path / "train"
    dataset, _ = open_dataset(tmp_path)
    assert dataset.names == ["cat.0.jpg", "dog.0.jpg"]


@pytest.mark.parametrize(
    "names",
    [
        ["train/cat.0.jpg", "train/cat.1.jpg"],  # one class
        ["train/cat.0.jpg", "train/dog.jpg"],  # not all
        ["bus/bus.0.jpg", "train/train.0.jpg"],  # a class called train
        ["bus/1.jpg", "train/bus.0.jpg", "train/train.0.jpg"],
        ["train/cat.0.jpg", "train/dog.0.jpg", "train/more/dog.1.jpg"],
        ["cat/cat.0.jpg", "dog/dog.0.jpg", "cat.0.jpg", "dog.0.jpg"],
    ],
)
def test_other_folders_are_left_to_others(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        write((tmp_path / name).parent, Path(name).name)
    assert find_numbered_names(tmp_path) is None


def test_class_folders_with_such_names_are_class_folders(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        write(tmp_path / label, f"{label}.0.png", f"{label}.1.png")
    dataset, description = open_dataset(tmp_path, say=lambda line: None)
    assert type(dataset) is ImageFolder
    assert description == f"4 pictures in 2 classes from {tmp_path}"


def test_bad_pictures_are_named(tmp_path: Path) -> None:
    write(tmp_path, "cat.0.jpg", "dog.0.jpg", "dog.1.jpg")
    (tmp_path / "dog.1.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match=r"1 of the 3 pictures.*\n  dog\.1\.jpg"):
        open_dataset(tmp_path)
    dataset, _ = open_dataset(tmp_path, on_bad_image="skip", say=lambda line: None)
    assert len(dataset) == 2


def test_the_split_does_not_depend_on_the_order_of_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, *(f"{label}.{number}.jpg" for label in ("cat", "dog") for number in range(6)))
    first = divide(open_dataset(tmp_path)[0])

    iterdir = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: sorted(iterdir(self), reverse=True))
    assert divide(open_dataset(tmp_path)[0]).digest == first.digest
