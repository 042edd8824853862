"""Files that are either whole or not there, and messages for places that cannot be written to."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from minialex.errors import OutputError

# A name of our own, so that what a killed run left behind can be told from the user's files.
TEMPORARY_SUFFIX = ".minialex-tmp"

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextlib.contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Inside, an OSError becomes an OutputError that says which place and what to do."""
    try:
        yield
    except OSError as error:
        raise OutputError(explain_os_error(path, error)) from error


def explain_os_error(path: Path, error: OSError) -> str:
    """The operating system's complaint about `path` in a sentence, with a way out."""
    if error.errno in _FULL:
        what = f"the disk is full ({error.strerror})"
        return f"cannot write {path}: {what}; free some space or choose another --out"
    if error.errno in _FORBIDDEN:
        return f"cannot write {path}: {error.strerror}; choose a folder that you may write to with --out"
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return f"cannot write {path}: a file stands where a folder is needed; choose another --out"
    return f"cannot write {path}: {error.strerror or error}; choose another --out"


def atomic_write(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write` fill a file that appears under `path` whole, or not at all.

    The bytes go to a temporary file in the same folder and are forced to the disk before the file takes its
    name; then the folder is forced too, so that neither a kill nor a power cut leaves half a file.

    Raises: OutputError if the place cannot be written to; an older file at `path` is then still whole.
    """
    temporary = path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")
    try:
        with output_errors(path):
            with open(temporary, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def sync_folder(folder: Path) -> None:
    """Force a folder's list of names to the disk, where the system can do that to a folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders.
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # Some network file systems refuse.
            raise
    finally:
        os.close(descriptor)


def atomic_write_text(path: Path, text: str) -> None:
    """`atomic_write` of a text in UTF-8."""
    atomic_write(path, lambda file: file.write(text.encode()))


def atomic_write_json(path: Path, value: Any) -> None:
    """`atomic_write` of a value as JSON that people can read, too."""
    atomic_write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def remove_temporaries(folder: Path) -> None:
    """Delete what a killed run left half written. Only for whoever holds the folder's lock."""
    with output_errors(folder):
        for path in folder.glob(f".*{TEMPORARY_SUFFIX}"):
            path.unlink()
