"""Who may write in a run's folder."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from minialex.errors import CheckpointError, OutputError
from minialex.train.run_folder import LOCK, RunFolder, find_checkpoint, refuse_inside_data

HOLD = """
import sys
from minialex.train.run_folder import RunFolder
folder = RunFolder.create(sys.argv[1], model="m", overwrite=False)
print("held", flush=True)
sys.stdin.read()
"""


def create(path: Path, overwrite: bool = False) -> RunFolder:
    return RunFolder.create(str(path), model="m", overwrite=overwrite)


def test_two_runs_in_one_folder(harness: Any, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=harness.child_environment(),
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(OutputError, match=rf"another run \(process {process.pid}\)"):
            create(tmp_path)
    finally:
        process.kill()
        process.communicate()
    # A killed run's lock file stays, and blocks nobody.
    assert (tmp_path / LOCK).exists()
    with create(tmp_path):
        pass
    assert not (tmp_path / LOCK).exists()


def test_waiting_runs_never_hold_the_same_folder(tmp_path: Path) -> None:
    """A run removes its lock file at the end: whoever opened it just before holds a lock on nothing."""
    inside, most, errors = 0, 0, 0
    guard = threading.Lock()

    def contend() -> None:
        nonlocal inside, most, errors
        for _ in range(50):
            try:
                with create(tmp_path / "run"):
                    with guard:
                        inside += 1
                        most = max(most, inside)
                    with guard:
                        inside -= 1
            except OutputError:
                errors += 1

    threads = [threading.Thread(target=contend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert errors < 200


def test_an_older_run_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    (tmp_path / "last.safetensors").touch()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(OutputError, match=r"already holds a run.*--resume .*--overwrite.*--out"):
        create(tmp_path)
    with create(tmp_path, overwrite=True):
        assert sorted(p.name for p in tmp_path.iterdir()) == [LOCK, "notes.txt"]


def test_files_that_are_not_ours_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with create(tmp_path):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_in_which_nothing_was_written_goes_away(tmp_path: Path) -> None:
    with create(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    assert not (tmp_path / "a" / "b").exists()


def test_without_out_each_run_gets_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = RunFolder.create(None, model="lenet5", overwrite=False)
    second = RunFolder.create(None, model="lenet5", overwrite=False)
    assert [first.path, second.path] == [Path("runs/lenet5-1"), Path("runs/lenet5-2")]
    second.close()
    first.close()


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OutputError, match="a file stands where a folder is needed"):
            create(path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_forbidden_place(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="may write to"):
        create(tmp_path / "run")


def test_what_to_resume(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        find_checkpoint(str(tmp_path / "nowhere"))
    with pytest.raises(CheckpointError, match="nothing was saved there"):
        find_checkpoint(str(tmp_path))
    last = tmp_path / "last.safetensors"
    last.touch()
    assert find_checkpoint(str(tmp_path)) == last
    assert find_checkpoint(str(last)) == last


def test_folders_made_on_the_way_go_away_too(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    create(tmp_path / "mine" / "a" / "b").close()
    assert os.listdir(tmp_path) == ["mine"]
    assert os.listdir(tmp_path / "mine") == []
    with create(tmp_path / "mine" / "a" / "b") as folder:
        (folder / "history.csv").touch()
    assert (tmp_path / "mine" / "a" / "b" / "history.csv").exists()


def test_a_run_does_not_write_among_its_pictures(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    for path in ("photos", "photos/runs/one", "link/run", "photos/../link/run"):
        with pytest.raises(OutputError, match=r"would lie inside the data folder .*photos.* --out "):
            refuse_inside_data(tmp_path / path, tmp_path / "photos")
    refuse_inside_data(tmp_path / "photos-run", tmp_path / "photos")
    refuse_inside_data(tmp_path, tmp_path / "photos")
