"""A run's folder: which file is where, who may write in it, and what to do with an older run."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from minialex.errors import CheckpointError, OutputError
from minialex.train.files import output_errors, remove_temporaries

LAST = "last.safetensors"
BEST = "best.safetensors"
EXAMPLE = "example.png"
FILES = (
    LAST,
    BEST,
    "class_indices.json",
    "config.json",
    "split.json",
    "history.csv",
    "history.png",
    "confusion.csv",
    "confusion.png",
    "mistakes.png",
)
# What not every run has: one picture of data that are no files, and what the examples draw into the folder of
# the network that they look at.
OTHER_FILES = (EXAMPLE, "filters.png", "learnt_filters.png", "feature_maps.png", "similar.png", "top5.png")
LOCK = ".lock"


class RunFolder:
    """The folder of --out, held by one run at a time.

    The lock is the system's (flock): it ends with the process that holds it, however that ends, so that the
    file which a killed run leaves behind blocks nobody.
    """

    def __init__(self, path: Path, lock: IO[str], made: Sequence[Path] = ()) -> None:
        self.path = path
        self._lock = lock
        self._made = made

    @classmethod
    def create(cls, out: str | None, *, model: str, overwrite: bool) -> RunFolder:
        """Make or enter the folder of a new run. `out` None takes the first free runs/MODEL-N.

        Raises: OutputError if it cannot be written to, another run is writing there, or it holds files of
                a run and `overwrite` is not set.
        """
        path = choose_folder(out, model)
        made = [place for place in (path, *path.parents) if not os.path.lexists(place)]
        try:
            with output_errors(path):
                path.mkdir(parents=True, exist_ok=True)
            folder = cls(path, _acquire(path), made)
        except BaseException:
            _remove_empty(made)
            raise
        try:
            folder._make_room(overwrite)
        except BaseException:
            folder.close()
            raise
        return folder

    @classmethod
    def reopen(cls, path: Path) -> RunFolder:
        """Enter the folder of a run that is to go on. Raises: OutputError as `create`."""
        folder = cls(path, _acquire(path))
        remove_temporaries(path)
        return folder

    def _make_room(self, overwrite: bool) -> None:
        remove_temporaries(self.path)
        there = refuse_older_run(self.path, overwrite)
        with output_errors(self.path):
            for name in there:
                (self.path / name).unlink()

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the next run in, and remove the folder, and those made for it, if nothing was ever written."""
        with contextlib.suppress(OSError):  # The folder may be gone, or no longer writable: nothing is lost.
            (self.path / LOCK).unlink()
        self._lock.close()
        _remove_empty([self.path, *self._made[1:]])


def find_checkpoint(resume: str) -> Path:
    """The checkpoint to go on from: `resume` itself, or last.safetensors in the folder `resume`.

    Raises: CheckpointError if there is none.
    """
    path = Path(resume)
    if not path.exists():
        raise CheckpointError(f"--resume {resume}: there is no such folder or checkpoint")
    if not path.is_dir():
        return path
    if not (path / LAST).exists():
        raise CheckpointError(
            f"--resume {resume}: the folder holds no {LAST}; nothing was saved there, so start a new run"
        )
    return path / LAST


def find_network(path: str | Path) -> Path:
    """The file of a trained network: `path` itself, or best.safetensors in the folder `path`.

    Raises: CheckpointError for a folder without one.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    if not (path / BEST).exists():
        hint = f"; {LAST} there is a run that has finished no epoch yet" if (path / LAST).exists() else ""
        raise CheckpointError(
            f"the folder {path} holds no {BEST}{hint}; give a run's folder, or the file, and after it any "
            "pictures"
        )
    return path / BEST


def choose_folder(out: str | None, model: str) -> Path:
    """Where a new run would write: `out`, or else the first free runs/MODEL-N."""
    return Path(out) if out is not None else _free_folder(model)


def refuse_older_run(path: Path, overwrite: bool) -> list[str]:
    """The files of an older run in the folder. Raises: OutputError if there are any that may not go."""
    with output_errors(path):
        there = [name for name in FILES + OTHER_FILES if (path / name).exists()]
    if there and not overwrite:
        hint = f"--resume {shlex.quote(str(path))} goes on with it, " if LAST in there else ""
        raise OutputError(
            f"{path} already holds a run ({', '.join(there[:3])}{', ...' if len(there) > 3 else ''}): "
            f"{hint}--overwrite replaces it, or choose another --out"
        )
    return there


def refuse_inside_data(path: Path, data: Path) -> None:
    """Raises: OutputError if a run's folder would lie in the folder of the pictures, also by way of links."""
    inner, outer = path.resolve(), data.expanduser().resolve()
    if inner.is_relative_to(outer):
        elsewhere = outer.parent / "runs" / (inner.name if inner != outer else "mine")
        raise OutputError(
            f"the run's folder {path} would lie inside the data folder {data}, where it would be taken for a "
            f"class of pictures; give a place outside of it, such as --out {shlex.quote(str(elsewhere))}"
        )


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, innermost first, up to the first one that is not empty."""
    with contextlib.suppress(OSError):  # Not empty, as it should be; or gone.
        for folder in folders:
            folder.rmdir()


def _free_folder(model: str) -> Path:
    number = 1
    while True:
        path = Path("runs") / f"{model}-{number}"
        if not path.exists():
            return path
        number += 1


def _acquire(path: Path) -> IO[str]:
    """The folder's lock file, locked. Raises: OutputError naming the process that holds it."""
    with output_errors(path):
        while True:
            file = open(path / LOCK, "a+")  # noqa: SIM115 - held open as long as the run lasts
            try:
                _flock(file, path)
            except BaseException:
                file.close()
                raise
            if _is_still_there(file, path / LOCK):
                break
            file.close()  # The run before us removed it between our open and our lock: once more.
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
    return file


def _flock(file: IO[str], path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: two runs in one folder are the user's care there.
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            return  # A file system without locks; refusing to train there would help nobody.
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        file.seek(0)
        owner = file.read().strip() or "unknown"
        raise OutputError(
            f"another run (process {owner}) is writing to {path}; wait for it, stop it, or choose another "
            "--out"
        ) from error


def _is_still_there(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False
