"""Downloading an archive and unpacking it, for connections that fail and archives that lie.

A download that was cut goes on where it ended; a file counts only if its SHA-256 is right; an archive is
unpacked beside its place and moved there in one step, so that a half-unpacked folder is never taken for a
whole one.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import shutil
import socket
import tarfile
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from minialex.errors import DataError

__all__ = ["DownloadError", "alone", "extract", "fetch"]

CONNECT_TIMEOUT = 5.0  # seconds until a connection stands, looking up the name included
READ_TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 3  # in a row without progress
CHUNK = 1 << 18

Progress = Callable[[int, int], None]


class DownloadError(DataError):
    """The network or the server failed: nothing is wrong on this machine, and trying later may help."""


def fetch(
    url: str,
    target: Path,
    *,
    size: int,
    sha256: str,
    progress: Progress | None = None,
    connect_timeout: float = CONNECT_TIMEOUT,
    read_timeout: float = READ_TIMEOUT,
) -> Path:
    """Fetch `url` into the file `target`, going on with what an earlier call fetched.

    Args:   size, sha256: of the whole file, in bytes and in hexadecimal. progress: called with (bytes, size).
    Raises: DownloadError if the server cannot be reached or the connection fails again and again; what was
            fetched stays for the next call. DataError for a wrong checksum or a disk that is full.
    """
    part = target.with_name(target.name + ".part")
    transfer = _Transfer(url, part, size, progress, connect_timeout, read_timeout)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with alone(target):
            if not target.exists():  # else another process has just fetched it
                _check_room(target.parent, 2 * size - _length(part))  # it will be unpacked
                transfer.run()
                _check_sum(part, url, size, sha256)
                os.replace(part, target)
    except PermissionError as error:
        raise DataError(
            f"{target.parent} cannot be written to ({error.strerror}). Set MINIALEX_CACHE to another folder."
        ) from error
    return target


@dataclass(frozen=True)
class _Transfer:
    """Filling the file `part` with the `size` bytes of `url`."""

    url: str
    part: Path
    size: int
    progress: Progress | None
    connect_timeout: float
    read_timeout: float

    def run(self) -> None:
        """Fetch until the file has its size; a cut connection is taken up again."""
        fruitless = 0
        while (before := _length(self.part)) != self.size:
            try:
                _check_reachable(self.url, self.connect_timeout)
                self.fetch()
                reason = "the connection was cut"
            except (OSError, http.client.HTTPException) as error:
                reason = self.judge(error)
            fruitless = 0 if _length(self.part) > before else fruitless + 1
            if fruitless == ATTEMPTS or (fruitless and not before):  # offline from the start: say so at once
                raise DownloadError(
                    f"{self.url} could not be fetched: {reason}. {_length(self.part):,} of {self.size:,} "
                    f"bytes are in {self.part}, and the next attempt goes on from there. Check the network."
                )

    def judge(self, error: Exception) -> str:
        """Why a request failed, in words, if another may help. Raises: DataError if none will."""
        if isinstance(error, urllib.error.HTTPError):
            error.close()
            if error.code != 416:
                raise DownloadError(f"{self.url} was refused: HTTP {error.code} {error.reason}.") from error
            self.part.unlink(missing_ok=True)  # what we have is no beginning of what the server has
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise DataError(
                f"The disk of {self.part.parent} is full. Make room, or set MINIALEX_CACHE to another one."
            ) from error
        return str(getattr(error, "reason", error)) or type(error).__name__

    def fetch(self) -> None:
        """One request: append what the server sends from the file's end on, or start over if it sends all."""
        have = _length(self.part)
        headers = {"Accept-Encoding": "identity", "User-Agent": "minialex"}
        if have:
            headers["Range"] = f"bytes={have}-"
        opener = urllib.request.build_opener(*_handlers(self.read_timeout))
        request = urllib.request.Request(self.url, headers=headers)
        with opener.open(request, timeout=self.connect_timeout) as response:
            start = _range_start(response.headers.get("Content-Range", "")) if response.status == 206 else 0
            if start not in (0, have):
                self.part.unlink(missing_ok=True)
                raise http.client.HTTPException("the server sent another part than was asked for")
            self.check_length(start, response.headers.get("Content-Length"))
            with self.part.open("ab" if start else "wb") as file:
                self.copy(response, file)

    def check_length(self, start: int, length: str | None) -> None:
        """A login page of a hotel's network answers every request, but not with the right number of bytes."""
        if length is not None and start + int(length) != self.size:
            raise DownloadError(
                f"{self.url} offers {start + int(length):,} bytes, expected {self.size:,}: that is another "
                "file. Perhaps the network wants a login first; open the address in a browser."
            )

    def copy(self, response: IO[bytes], file: IO[bytes]) -> None:
        """The body of a response to the file."""
        done = file.tell()
        while chunk := response.read(CHUNK):
            done += len(chunk)
            if done > self.size:
                raise http.client.HTTPException(f"the server sent more than {self.size:,} bytes")
            file.write(chunk)
            if self.progress is not None:
                self.progress(done, self.size)


def _range_start(header: str) -> int:
    """The first byte of a Content-Range header such as "bytes 100-199/200", -1 for anything else."""
    start = header.removeprefix("bytes ").split("-")[0].strip()
    return int(start) if start.isdigit() else -1


def _handlers(read_timeout: float) -> list[urllib.request.BaseHandler]:
    """urllib has one time-out for everything; a slow server may need longer than a connection."""

    class Plain(http.client.HTTPConnection):
        """A connection that waits `read_timeout` seconds for data once it stands."""

        def connect(self) -> None:
            super().connect()
            self.sock.settimeout(read_timeout)

    class Secure(http.client.HTTPSConnection):
        """The same, encrypted."""

        def connect(self) -> None:
            super().connect()
            self.sock.settimeout(read_timeout)

    class PlainHandler(urllib.request.HTTPHandler):
        """Opens http addresses with `Plain`."""

        def http_open(self, req: urllib.request.Request) -> Any:
            return self.do_open(Plain, req)

    class SecureHandler(urllib.request.HTTPSHandler):
        """Opens https addresses with `Secure`."""

        def https_open(self, req: urllib.request.Request) -> Any:
            return self.do_open(Secure, req)

    return [PlainHandler(), SecureHandler()]


def _check_reachable(url: str, timeout: float) -> None:
    """Try to connect within `timeout` seconds in all.

    The system's look-up of names knows no time-out, and a server with many addresses is tried at each of
    them; on a machine behind a closed door that adds up to minutes. So a thread tries, and we wait.
    """
    parts = urllib.parse.urlsplit(url)
    if urllib.request.getproxies().get(parts.scheme) and not urllib.request.proxy_bypass(
        parts.hostname or ""
    ):
        return  # the proxy looks the name up
    address = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
    outcome: list[OSError | None] = []

    def attempt() -> None:
        try:
            socket.create_connection(address, timeout).close()
            outcome.append(None)
        except OSError as error:
            outcome.append(error)

    thread = threading.Thread(target=attempt, name="minialex-connect", daemon=True)
    thread.start()
    thread.join(timeout)
    if not outcome:
        raise TimeoutError(f"no connection to {address[0]} within {timeout:g} s")
    if outcome[0] is not None:
        raise outcome[0]


def _check_sum(part: Path, url: str, size: int, sha256: str) -> None:
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        part.unlink()
        raise DataError(
            f"What {url} sent is not the file that minialex knows: SHA-256 expected {sha256}, got {found} "
            f"({size:,} bytes). It was deleted. Try again; if it stays so, get the data elsewhere and use "
            "--data."
        )


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"{folder} has {free / 1e6:.0f} MB free, the download needs {needed / 1e6:.0f} MB. Make room, or "
            "set MINIALEX_CACHE to a folder on another disk."
        )


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Two processes must not make `path` at the same time; the second waits until the first is done."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def extract(archive: Path, folder: Path, *, top: str, most_bytes: int = 2_000_000_000) -> Path:
    """Unpack the folder `top` of a tar archive as `folder`, in one step.

    Only files and folders below `top` are accepted: no links, no devices, no paths that lead out.

    Args:   most_bytes: what the files may add up to.
    Raises: DataError naming the member that is not accepted, or if the archive is broken.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpacking-") as temporary:
        try:
            with tarfile.open(archive) as tar:
                total = 0
                for member in tar:
                    total += member.size
                    _check_member(member, archive, top, total, most_bytes)
                    tar.extract(member, temporary, filter="data")
        except (tarfile.TarError, EOFError, OSError) as error:
            raise DataError(f"{archive} cannot be unpacked: {error}. Delete it and try again.") from error
        unpacked = Path(temporary, top)
        if not unpacked.is_dir():
            raise DataError(f"{archive} holds no folder {top}. Delete it and try again.")
        try:
            os.replace(unpacked, folder)
        except OSError as error:
            if not folder.is_dir():
                raise DataError(f"{folder} cannot be made: {error.strerror}.") from error
    return folder


def _check_member(member: tarfile.TarInfo, archive: Path, top: str, total: int, most_bytes: int) -> None:
    path = PurePosixPath(member.name)
    inside = not path.is_absolute() and ".." not in path.parts and path.parts[:1] == (top,)
    if "\\" in member.name or ":" in member.name or not inside or not (member.isreg() or member.isdir()):
        raise DataError(
            f"{archive} holds {member.name!r}, expected only files and folders below {top}/. Nothing was "
            "kept; delete the archive, it is not to be trusted."
        )
    if total > most_bytes:
        raise DataError(
            f"{archive} unpacks to more than {most_bytes:,} bytes. Delete it, it is not to be trusted."
        )
