"""Which data are used, in which order of preference, and that the choice is said aloud."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minialex import folders
from minialex.data import drawn, flowers, open_dataset, sources
from minialex.data.download import DownloadError
from minialex.errors import DataError, OutputError

MakeFolder = Callable[..., Path]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no MINIALEX_DATA, and a download that fails unless a test replaces it."""
    monkeypatch.delenv("MINIALEX_DATA", raising=False)
    monkeypatch.setenv("MINIALEX_CACHE", str(tmp_path / "cache"))

    def offline(*args: Any, **kwargs: Any) -> Path:
        raise DownloadError("http://example could not be fetched: no route to host.")

    monkeypatch.setattr(sources, "fetch_flowers", offline)
    return tmp_path / "cache"


def test_a_named_folder_is_used(
    cache: Path, make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINIALEX_DATA", "/does/not/matter")
    said: list[str] = []
    dataset, description = open_dataset(str(make_folder({"a": 2, "b": 1})), say=said.append)
    assert description == f"3 pictures in 2 classes from {dataset.root}"
    assert said == []


def test_findings_are_said(cache: Path, make_folder: MakeFolder) -> None:
    root = make_folder({"a": 3, "b": 2})
    (root / "a/bad.jpg").write_bytes(b"")
    (root / "README.txt").write_text("")
    shutil.copy(root / "a/001.png", root / "b/copy.png")
    with pytest.raises(DataError, match=r"a/bad\.jpg"):
        open_dataset(root, say=print)
    said: list[str] = []
    dataset, _ = open_dataset(root, on_bad_image="skip", say=said.append)
    assert len(dataset) == 6
    text = "\n".join(said)
    assert "1 picture cannot be used and is left out:\n  a/bad.jpg: the file is empty" in text
    assert "1 file is no picture and is passed over: README.txt" in text
    assert "1 picture is a copy of another" in text
    assert "in more than one class, for example a/001.png = b/copy.png" in text


def test_minialex_data_comes_first(
    cache: Path, make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder({"a": 1, "b": 1}, "cache/flower_photos")
    root = make_folder({"c": 1, "d": 1}, "named/flower_photos")
    monkeypatch.setenv("MINIALEX_DATA", str(root.parent))
    dataset, description = open_dataset()
    assert dataset.classes == ["c", "d"]
    assert description.endswith("(MINIALEX_DATA)")


def test_minialex_data_without_flowers_is_an_error(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "named/mnist").mkdir(parents=True)
    monkeypatch.setenv("MINIALEX_DATA", str(tmp_path / "named"))
    with pytest.raises(DataError, match=r"which holds mnist, but no flower_photos.*--data drawn"):
        open_dataset()
    monkeypatch.setenv("MINIALEX_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="which is no folder"):
        open_dataset()


def test_the_cache_comes_second(
    cache: Path, make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINIALEX_DATA", "")  # as good as not set
    make_folder({"a": 1, "b": 1}, "cache/flower_photos")
    dataset, description = open_dataset()
    assert dataset.root == cache / "flower_photos"
    assert description.endswith("(downloaded earlier)")


def test_then_a_download(
    cache: Path, make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder({"a": 2, "b": 2}, "flower_photos")
    with tarfile.open(tmp_path / "there.tgz", "w:gz") as tar:
        tar.add(root, "flower_photos")
    content = (tmp_path / "there.tgz").read_bytes()

    def fetch(cache: Path, say: Callable[[str], None], progress: Any) -> Path:
        return flowers.fetch_flowers(
            cache, say, progress, size=len(content), sha256=hashlib.sha256(content).hexdigest()
        )

    def fake_download(url: str, target: Path, **arguments: Any) -> Path:
        assert url == "http://download.tensorflow.org/example_images/flower_photos.tgz"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        arguments["progress"](len(content), arguments["size"])
        return target

    monkeypatch.setattr(sources, "fetch_flowers", fetch)
    monkeypatch.setattr(flowers, "fetch", fake_download)
    said: list[str] = []
    steps: list[tuple[int, int]] = []
    dataset, description = open_dataset(
        say=said.append, progress=lambda done, size: steps.append((done, size))
    )
    assert len(dataset) == 4
    assert description.endswith("(downloaded now)")
    assert "Downloading http://download.tensorflow.org" in "\n".join(said)
    assert steps == [(len(content), len(content))]
    assert [path.name for path in cache.glob("[!.]*")] == ["flower_photos"]  # the archive is not kept
    assert open_dataset()[1].endswith("(downloaded earlier)")


def test_offline_the_drawn_flowers_are_used_aloud(cache: Path) -> None:
    said: list[str] = []
    dataset, description = open_dataset(say=said.append, per_class=2)
    assert dataset.classes == sorted(drawn.KINDS)
    assert len(dataset) == 2 * len(drawn.KINDS)
    assert description.endswith("(flowers drawn by code, as the photographs could not be downloaded)")
    text = "\n".join(said)
    assert "no route to host" in text
    assert "DRAWN BY CODE" in text
    assert "--data" in text


def test_the_drawn_flowers_can_be_asked_for(cache: Path) -> None:
    said: list[str] = []
    dataset, description = open_dataset("drawn", say=said.append, per_class=2)
    assert description.endswith("(flowers drawn by code)")
    assert dataset.root.parent == cache
    again, _ = open_dataset("drawn", per_class=2)
    assert [again.digest(i) for i in range(len(again))] == [dataset.digest(i) for i in range(len(dataset))]


def test_other_failures_are_not_covered_up_by_drawn_flowers(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*args: Any, **kwargs: Any) -> Path:
        raise DataError("SHA-256 expected a, got b")

    monkeypatch.setattr(sources, "fetch_flowers", wrong)
    with pytest.raises(DataError, match="SHA-256"):
        open_dataset()


def test_a_cache_that_is_a_file_is_refused(cache: Path) -> None:
    cache.write_text("")
    with pytest.raises(OutputError, match="MINIALEX_CACHE"):
        open_dataset("drawn", per_class=1)
    with pytest.raises(DataError, match="MINIALEX_CACHE"):
        flowers.fetch_flowers(cache, print)


@pytest.mark.parametrize(
    ("environment", "platform", "expected"),
    [
        ({"MINIALEX_CACHE": "/c"}, "linux", "/c"),
        ({"XDG_CACHE_HOME": "/x"}, "linux", "/x/minialex"),
        ({}, "linux", "/home/me/.cache/minialex"),
        ({}, "darwin", "/home/me/Library/Caches/minialex"),
        ({"LOCALAPPDATA": "/local"}, "win32", "/local/minialex"),
    ],
)
def test_where_the_cache_is(
    environment: dict[str, str], platform: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MINIALEX_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(folders.sys, "platform", platform)
    assert folders.cache_folder().as_posix() == expected
