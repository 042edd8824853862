"""Downloads from a server that cuts, lies, refuses and stalls; archives that want to write elsewhere."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minialex.data import download as module
from minialex.data.download import DownloadError, extract, fetch
from minialex.errors import DataError
from minialex.rng import Stream

CONTENT = Stream(0, "test").bits(250_000).astype("<u4").tobytes()  # 1 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """A local HTTP server whose faults a test chooses."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.cut_after: list[int] = []  # bytes of body before the connection is cut, one a request
        self.ranges = True
        self.status = 200
        self.stall = 0.0  # seconds before the body
        self.length = True
        self.requests: list[str | None] = []  # the Range header of each
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing on the terminal."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}/flowers.tgz"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range")
        self.requests.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if start >= len(self.content):
            handler.send_error(416)
            return
        body = self.content[start:]
        handler.send_response(self.status if self.status != 200 else (206 if start else 200))
        if start:
            last = len(self.content) - 1
            handler.send_header("Content-Range", f"bytes {start}-{last}/{len(self.content)}")
        if self.length:
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        time.sleep(self.stall)
        with contextlib.suppress(OSError):
            handler.wfile.write(body[: self.cut_after.pop(0)] if self.cut_after else body)
        handler.close_connection = True

    def close(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = Server()
    yield server
    server.close()


def get(server: Server, target: Path, **arguments: Any) -> Path:
    return fetch(server.url, target, **{"size": len(CONTENT), "sha256": SHA256, **arguments})


def test_a_download_arrives_and_tells_its_progress(server: Server, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    target = get(
        server, tmp_path / "new" / "file.tgz", progress=lambda done, size: calls.append((done, size))
    )
    assert target.read_bytes() == CONTENT
    assert calls[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert not target.with_name("file.tgz.part").exists()
    get(server, target)  # it is there: no further request
    assert len(server.requests) == 1


def test_a_cut_connection_is_taken_up_where_it_ended(server: Server, tmp_path: Path) -> None:
    server.cut_after = [300_000, 500_000]
    assert get(server, tmp_path / "file").read_bytes() == CONTENT
    assert server.requests == [None, "bytes=300000-", "bytes=800000-"]


def test_a_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    server.cut_after = [300_000]
    server.ranges = False
    assert get(server, tmp_path / "file").read_bytes() == CONTENT
    assert server.requests == [None, "bytes=300000-"]


def test_a_server_that_tells_no_length_is_believed_by_the_checksum(server: Server, tmp_path: Path) -> None:
    server.length = False
    assert get(server, tmp_path / "file").read_bytes() == CONTENT


def test_what_was_fetched_serves_the_next_call(server: Server, tmp_path: Path) -> None:
    server.cut_after = [400_000, 0, 0, 0]
    with pytest.raises(DownloadError, match=r"the connection was cut\. 400,000 of 1,000,000 bytes"):
        get(server, tmp_path / "file")
    assert not (tmp_path / "file").exists()
    server.cut_after = []
    assert get(server, tmp_path / "file").read_bytes() == CONTENT
    assert server.requests[-1] == "bytes=400000-"


def test_a_partial_file_that_is_too_long_is_thrown_away(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT + b"more")
    assert get(server, tmp_path / "file").read_bytes() == CONTENT


def test_a_wrong_checksum_deletes_what_came(server: Server, tmp_path: Path) -> None:
    server.content = b"?" + CONTENT[1:]
    with pytest.raises(DataError, match=f"SHA-256 expected {SHA256}, got ") as caught:
        get(server, tmp_path / "file")
    assert not isinstance(caught.value, DownloadError)
    assert [path.name for path in tmp_path.iterdir()] == [".file.lock"]


def test_another_file_of_another_length_is_not_even_stored(server: Server, tmp_path: Path) -> None:
    server.content = b"<html>Please log in</html>"
    with pytest.raises(DownloadError, match=r"offers 26 bytes, expected 1,000,000"):
        get(server, tmp_path / "file")
    assert not (tmp_path / "file.part").exists()


def test_an_endless_answer_is_cut_off(server: Server, tmp_path: Path) -> None:
    server.length = False
    server.content = CONTENT * 3
    with pytest.raises(DownloadError, match="sent more than 1,000,000 bytes"):
        get(server, tmp_path / "file")
    assert (tmp_path / "file.part").stat().st_size <= len(CONTENT)


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_refusal_is_passed_on(server: Server, tmp_path: Path, status: int) -> None:
    server.status = status
    with pytest.raises(DownloadError, match=f"HTTP {status}"):
        get(server, tmp_path / "file")


def test_a_silent_server_is_given_up(server: Server, tmp_path: Path) -> None:
    server.stall = 3.0
    start = time.monotonic()
    with pytest.raises(DownloadError, match="timed out"):
        get(server, tmp_path / "file", read_timeout=0.2)
    assert time.monotonic() - start < 2.5


def test_a_slow_answer_may_take_longer_than_connecting(server: Server, tmp_path: Path) -> None:
    server.stall = 1.3
    assert get(server, tmp_path / "file", connect_timeout=1.0).read_bytes() == CONTENT


def test_nobody_there_is_said_at_once(server: Server, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/file"
        start = time.monotonic()
        with pytest.raises(DownloadError, match="refused"):
            fetch(url, tmp_path / "file", size=1, sha256="")
        assert time.monotonic() - start < 4


def test_a_name_server_that_does_not_answer_costs_the_time_out(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silence(*args: Any, **kwargs: Any) -> None:
        time.sleep(3)
        raise OSError("no answer")

    monkeypatch.setattr(socket, "create_connection", silence)
    start = time.monotonic()
    with pytest.raises(DownloadError, match=r"no connection to 127\.0\.0\.1 within 0\.2 s"):
        get(server, tmp_path / "file", connect_timeout=0.2)
    assert time.monotonic() - start < 2.5


def test_a_disk_without_room_is_found_before(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = module.shutil.disk_usage(tmp_path)._replace(free=500_000)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match=r"has 0 MB free|has 1 MB free"):
        get(server, tmp_path / "file")
    assert server.requests == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to(server: Server, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(DataError, match="cannot be written to"):
        get(server, tmp_path / "locked" / "file")


def test_two_at_a_time_fetch_once(server: Server, tmp_path: Path) -> None:
    server.stall = 0.2
    threads = [threading.Thread(target=get, args=(server, tmp_path / "file")) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert len(server.requests) == 1


AddMembers = Callable[[tarfile.TarFile], None]


def archive(path: Path, *, add: AddMembers | None = None) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name in ("top/a/1.txt", "top/b/2.txt"):
            put(tar, name, name.encode())
        if add is not None:
            add(tar)
    return path


def put(
    tar: tarfile.TarFile, name: str, body: bytes = b"body", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(body) if kind == tarfile.REGTYPE else 0
    member.type = kind
    member.linkname = link
    tar.addfile(member, io.BytesIO(body) if kind == tarfile.REGTYPE else None)


def test_an_archive_is_unpacked_in_one_step(tmp_path: Path) -> None:
    folder = extract(archive(tmp_path / "x.tgz"), tmp_path / "cache" / "flowers", top="top")
    assert (folder / "a/1.txt").read_text() == "top/a/1.txt"
    assert [path.name for path in folder.parent.iterdir()] == ["flowers"]


EVIL: dict[str, AddMembers] = {
    "absolute": lambda tar: put(tar, "/tmp/evil"),
    "parent": lambda tar: put(tar, "top/../../evil"),
    "beside": lambda tar: put(tar, "other/evil"),
    "drive": lambda tar: put(tar, "top/C:evil"),
    "backslash": lambda tar: put(tar, "top/..\\..\\evil"),
    "symlink": lambda tar: put(tar, "top/link", kind=tarfile.SYMTYPE, link="../../.."),
    "hard link": lambda tar: put(tar, "top/link", kind=tarfile.LNKTYPE, link="top/a/1.txt"),
    "device": lambda tar: put(tar, "top/null", kind=tarfile.CHRTYPE),
    "pipe": lambda tar: put(tar, "top/pipe", kind=tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("kind", EVIL)
def test_archives_that_reach_out_are_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(DataError, match="expected only files and folders below top/"):
        extract(archive(tmp_path / "x.tgz", add=EVIL[kind]), tmp_path / "cache" / "flowers", top="top")
    assert list((tmp_path / "cache").iterdir()) == []


def test_archives_that_are_broken_too_big_or_others_are_refused(tmp_path: Path) -> None:
    whole = archive(tmp_path / "x.tgz", add=lambda tar: put(tar, "top/c", np.arange(9999).tobytes()))
    with pytest.raises(DataError, match="unpacks to more than 1,000 bytes"):
        extract(whole, tmp_path / "cache" / "flowers", top="top", most_bytes=1000)
    for content in (whole.read_bytes()[:5000], b"no archive"):
        (tmp_path / "y.tgz").write_bytes(content)
        with pytest.raises(DataError, match="cannot be unpacked"):
            extract(tmp_path / "y.tgz", tmp_path / "cache" / "flowers", top="top")
    with pytest.raises(DataError, match="expected only files and folders below elsewhere/"):
        extract(whole, tmp_path / "cache" / "flowers", top="elsewhere")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_folder_that_is_there_already_is_kept(tmp_path: Path) -> None:
    (tmp_path / "flowers").mkdir()
    (tmp_path / "flowers/mine").write_text("")
    extract(archive(tmp_path / "x.tgz"), tmp_path / "flowers", top="top")
    assert [path.name for path in (tmp_path / "flowers").iterdir()] == ["mine"]
