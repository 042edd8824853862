"""Classes and pictures in an order that no file system decides, and an audit that names what is bad."""

from __future__ import annotations

import hashlib
import os
import pickle
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minialex.data import BadImage, Dataset, ImageFolder, equal_files
from minialex.errors import DataError

MakeFolder = Callable[..., Path]


def test_classes_and_names_are_sorted(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder({"tulips": 2, "daisy": 3, "roses": 1})
    real_walk, real_iterdir = os.walk, Path.iterdir
    names = []
    for turn in (False, True):  # as two file systems might list them
        monkeypatch.setattr(
            os, "walk", lambda top, turn=turn: [(p, d, sorted(f, reverse=turn)) for p, d, f in real_walk(top)]
        )
        monkeypatch.setattr(Path, "iterdir", lambda self, turn=turn: sorted(real_iterdir(self), reverse=turn))
        folder = ImageFolder(root)
        assert folder.classes == ["daisy", "roses", "tulips"]
        names.append(folder.names)
    assert names[0] == names[1] == sorted(names[0])
    assert folder.labels.tolist() == [0, 0, 0, 1, 2, 2]
    assert folder.labels.dtype == np.int64
    assert len(folder) == 6
    assert isinstance(folder, Dataset)


def test_load_and_digest(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 1, "b": 1})
    folder = ImageFolder(str(root))
    assert folder.names == ["a/000.png", "b/000.png"]
    assert folder.digest(1) == hashlib.sha256((root / "b/000.png").read_bytes()).hexdigest()
    with Image.open(root / "b/000.png") as image:
        np.testing.assert_array_equal(np.asarray(folder.load(1)), np.asarray(image))
    again = pickle.loads(pickle.dumps(folder))
    assert again.names == folder.names
    assert again.load(0).mode == "RGB"


def test_a_picture_that_vanished_is_named(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 1, "b": 1})
    folder = ImageFolder(root)
    (root / "b/000.png").unlink()
    with pytest.raises(DataError, match=r"b/000\.png cannot be read"):
        folder.load(1)


def test_hidden_and_system_files_are_passed_over_and_extra_ones_reported(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 2, "b": 2, ".git": 1, "__MACOSX": 1})
    (root / "a" / "._000.png").write_bytes(b"resource fork")
    (root / "a" / ".DS_Store").write_bytes(b"")
    (root / "a" / "Thumbs.db").write_bytes(b"")
    (root / "LICENSE.txt").write_text("free")
    (root / "b" / "notes.txt").write_text("nice")
    folder = ImageFolder(root)
    assert folder.classes == ["a", "b"]
    assert len(folder) == 4
    assert folder.extra == ["LICENSE.txt", "b/notes.txt"]
    assert folder.skipped == []


def test_folders_inside_a_class_and_upper_case_suffixes_count(make_folder: MakeFolder) -> None:
    root = make_folder({"a/x": 1, "a/y": 1, "b": 1})
    (root / "a/x/000.png").rename(root / "a/x/ONE.PNG")
    assert ImageFolder(root).names == ["a/x/ONE.PNG", "a/y/000.png", "b/000.png"]


def test_names_are_normalised_and_files_still_found(make_folder: MakeFolder) -> None:
    composed = unicodedata.normalize("NFC", "Gänseblümchen")
    decomposed = unicodedata.normalize("NFD", composed)
    assert composed != decomposed
    from_mac = ImageFolder(make_folder({decomposed: 1, "Rose": 1, "Ginster": 1}, "mac"))
    from_linux = ImageFolder(make_folder({composed: 1, "Rose": 1, "Ginster": 1}, "linux"))
    assert from_mac.classes == from_linux.classes == sorted([composed, "Rose", "Ginster"])
    assert from_mac.names == from_linux.names
    assert from_mac.load(1).mode == "RGB"


def test_names_that_only_unicode_tells_apart_are_refused(make_folder: MakeFolder) -> None:
    composed = unicodedata.normalize("NFC", "é")
    decomposed = unicodedata.normalize("NFD", "é")
    with pytest.raises(DataError, match="same name"):
        ImageFolder(make_folder({composed: 1, decomposed: 1, "b": 1}))
    root = make_folder({"a": 1, "b": 1}, "files")
    for name in (composed, decomposed):
        os.link(root / "a/000.png", root / f"a/{name}.png")
    with pytest.raises(DataError, match="same name"):
        ImageFolder(root)


@pytest.mark.skipif(os.name != "posix", reason="only POSIX file names can be bytes that are no UTF-8")
def test_names_that_are_no_utf8_can_be_printed_and_read(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 1, "b": 1})
    try:
        os.rename(os.fsencode(root / "a/000.png"), os.fsencode(root / "a") + b"/\xff.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    folder = ImageFolder(root)
    assert folder.names[0] == "a/\\udcff.png"
    assert folder.load(0).mode == "RGB"


def spoil(root: Path) -> None:
    """One bad picture of each kind in class a."""
    Image.effect_noise((200, 200), 60).save(root / "a/whole.jpg")
    (root / "a/cut.jpg").write_bytes((root / "a/whole.jpg").read_bytes()[:3000])
    (root / "a/whole.jpg").unlink()
    (root / "a/empty.png").write_bytes(b"")
    (root / "a/page.jpg").write_bytes(b"<html>404</html>")
    (root / "a/phone.heic").write_bytes(b"\x00\x00\x00\x18ftypheic")


def test_bad_pictures_stop_and_are_named(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 2, "b": 2})
    spoil(root)
    with pytest.raises(DataError) as caught:
        ImageFolder(root)
    message = str(caught.value)
    assert "4 of the 8 pictures" in message
    for part in (
        "a/cut.jpg: truncated",
        "a/empty.png: the file is empty",
        "a/page.jpg: no picture of a format",
        "a/phone.heic: .heic pictures are not read",
        "--on-bad-image skip",
    ):
        assert part in message
    assert caught.value.exit_code == 3


def test_bad_pictures_are_skipped_and_reported_on_request(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 2, "b": 2})
    spoil(root)
    folder = ImageFolder(root, on_bad_image="skip")
    assert len(folder) == 4
    assert [bad.name for bad in folder.skipped] == ["a/cut.jpg", "a/empty.png", "a/page.jpg", "a/phone.heic"]
    assert isinstance(folder.skipped[0], BadImage)


def test_long_lists_of_bad_pictures_are_cut(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 1, "b": 1})
    for number in range(30):
        (root / f"a/{number:03d}.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"30 of the 32 pictures") as caught:
        ImageFolder(root)
    assert str(caught.value).count("the file is empty") == 20
    assert "... and 10 more" in str(caught.value)


def test_a_picture_over_the_limit_is_bad(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 1, "b": 1})
    Image.new("L", (100, 100)).save(root / "b/big.png")
    folder = ImageFolder(root, on_bad_image="skip", pixel_limit=5000)
    assert [bad.name for bad in folder.skipped] == ["b/big.png"]
    assert "100 x 100 = 10,000 pixels, the limit is 5,000" in folder.skipped[0].reason


def test_folders_that_cannot_be_used_say_why(make_folder: MakeFolder, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        ImageFolder(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file, expected a folder"):
        ImageFolder(tmp_path / "file")
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError, match="holds no folders"):
        ImageFolder(tmp_path / "bare")
    with pytest.raises(DataError, match="one class only, a;"):
        ImageFolder(make_folder({"a": 2}, "single"))
    with pytest.raises(DataError, match=r"flowers holds 2 folders: did you mean that one\?"):
        ImageFolder(make_folder({"flowers/a": 1, "flowers/b": 1}, "parent"))
    with pytest.raises(DataError, match=r"1 of the 3 classes .* holds no usable picture: b"):
        ImageFolder(make_folder({"a": 1, "b": 0, "c": 1}, "empty"))
    root = make_folder({"a": 1, "b": 1}, "all-bad")
    (root / "b/000.png").write_bytes(b"")
    with pytest.raises(DataError, match="holds no usable picture: b"):
        ImageFolder(root, on_bad_image="skip")
    with pytest.raises(ValueError, match="on_bad_image"):
        ImageFolder(root, on_bad_image="ignore")  # type: ignore[arg-type]


def test_progress_of_the_audit(make_folder: MakeFolder) -> None:
    calls: list[tuple[int, int]] = []
    ImageFolder(make_folder({"a": 60, "b": 10}), progress=lambda done, total: calls.append((done, total)))
    assert calls == [(64, 70), (70, 70)]


def test_equal_files_are_found(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 3, "b": 2})
    (root / "b/copy.png").write_bytes((root / "a/001.png").read_bytes())
    folder = ImageFolder(root)
    groups = [[folder.names[index] for index in group] for group in equal_files(folder)]
    assert groups == [["a/001.png", "b/copy.png"]]
    assert equal_files(folder, [0, 1]) == []


@pytest.mark.photographs
def test_the_real_photographs(photographs: Path) -> None:
    folder = ImageFolder(photographs)
    assert folder.classes == ["daisy", "dandelion", "roses", "sunflowers", "tulips"]
    assert len(folder) > 3000
    assert folder.load(len(folder) - 1).mode == "RGB"


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        (
            {"train/a": 1, "train/b": 1, "val/a": 1, "val/b": 1},
            r"seem to be a, b; give --data \S+/train",
        ),
        ({"Test/a": 1, "Train/a": 1, "Train/b": 1}, r"classes seem to be a; give --data \S+/Train"),
        ({"train": 1, "test": 1}, r"already split: and its parts hold no classes"),
        (
            {"one/a": 1, "one/b": 1, "two/a": 1, "two/b": 1},
            r"seem to be a, b; .*if one, two are the classes",
        ),
    ],
)
def test_a_folder_that_is_already_split(make_folder: MakeFolder, counts: dict[str, int], said: str) -> None:
    with pytest.raises(DataError, match=said):
        ImageFolder(make_folder(counts))


@pytest.mark.parametrize(
    "counts",
    [
        {"train": 1, "plane": 1},  # vehicles
        {"daisy/2023": 1, "daisy/2024": 1, "tulip/2024": 1, "tulip/2025": 1},
        {"daisy/day": 1, "daisy/night": 1, "daisy": 1, "tulip/day": 1, "tulip/night": 1},
    ],
)
def test_folders_inside_classes_are_no_parts(make_folder: MakeFolder, counts: dict[str, int]) -> None:
    assert len(ImageFolder(make_folder(counts)).classes) == 2
