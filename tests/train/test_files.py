"""Files are whole or not there, and a place that cannot be written to is explained."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import IO

import pytest

from minialex.errors import OutputError
from minialex.train.files import (
    atomic_write,
    atomic_write_json,
    atomic_write_text,
    explain_os_error,
    remove_temporaries,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole(tmp_path: Path) -> None:
    atomic_write_json(tmp_path / "a.json", {"name": "Gänseblümchen"})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"name": "Gänseblümchen"}
    assert names(tmp_path) == ["a.json"]


def test_a_failure_leaves_the_older_file_and_nothing_else(tmp_path: Path) -> None:
    atomic_write_text(tmp_path / "a", "old")

    def fail(file: IO[bytes]) -> None:
        file.write(b"half of the ne")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OutputError, match="the disk is full"):
        atomic_write(tmp_path / "a", fail)
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_order_of_the_system_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes to the disk before the name, then the folder: else a power cut leaves an empty file."""
    calls: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        calls.append("fsync folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "fsync file")
        real_fsync(descriptor)

    def replace(source: Path, target: Path) -> None:
        calls.append("rename")
        assert Path(source).parent == Path(target).parent
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    atomic_write_text(tmp_path / "a", "text")
    assert calls == ["fsync file", "rename", "fsync folder"]


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EACCES, "choose a folder that you may write to"),
        (errno.EROFS, "choose a folder that you may write to"),
        (errno.ENOTDIR, "a file stands where a folder is needed"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_every_complaint_says_what_to_do(number: int, expected: str) -> None:
    text = explain_os_error(Path("runs/x"), OSError(number, os.strerror(number)))
    assert expected in text
    assert "runs/x" in text
    assert "--out" in text


def test_only_our_own_leftovers_are_removed(tmp_path: Path) -> None:
    for name in (".last.safetensors.minialex-tmp", ".hidden.tmp", "mine.minialex-tmp"):
        (tmp_path / name).touch()
    remove_temporaries(tmp_path)
    assert names(tmp_path) == [".hidden.tmp", "mine.minialex-tmp"]
