"""The audit: every file is read whole once, before the first epoch rather than in the middle of the night.

A truncated photograph shows only when it is decoded to the end, so all are. The same pass computes the
SHA-256 of each file, by which a split recognises photographs and finds equal ones.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePath

from minialex.data.images import OTHER_PICTURE_SUFFIXES, PIXEL_LIMIT, PictureError, decode

__all__ = ["BadImage", "Finding", "audit_files", "report"]

Progress = Callable[[int, int], None]

SHARE = 8  # files that a thread takes at a time: to hand over a small picture takes as long as to read it
SHOWN = 20  # how many names an error message lists


@dataclass(frozen=True)
class BadImage:
    """A picture that cannot be used: its name, relative to the data set's folder, and the reason."""

    name: str
    reason: str


@dataclass(frozen=True)
class Finding:
    """What the audit found in one file: the SHA-256 of its bytes ("" if it could not be read), and the
    reason why it cannot be used, None for a sound picture."""

    digest: str
    reason: str | None


def audit_files(
    names: Sequence[str],
    read: Callable[[str], bytes],
    pixel_limit: int = PIXEL_LIMIT,
    progress: Progress | None = None,
) -> list[Finding]:
    """One finding for each name, in order; `read` gives the bytes of the file that a name stands for.

    Threads suffice: hashing and decoding both release Python's lock.

    Args:   read: may raise OSError, or PictureError with the reason; several threads call it at once.
            progress: called with (files done, files in all) now and then, and at the end.
    """
    findings: list[Finding] = []
    shares = [names[start : start + SHARE] for start in range(0, len(names), SHARE)]
    pool = ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4))
    try:
        for found in pool.map(lambda share: [_inspect(name, read, pixel_limit) for name in share], shares):
            findings += found
            if progress is not None and (len(findings) % 64 == 0 or len(findings) == len(names)):
                progress(len(findings), len(names))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)  # Ctrl-C must not wait for thousands of files
    return findings


def _inspect(name: str, read: Callable[[str], bytes], pixel_limit: int) -> Finding:
    """Read, hash and decode one file."""
    try:
        data = read(name)
    except OSError as error:
        return Finding("", f"unreadable: {error.strerror or error}")
    except PictureError as error:
        return Finding("", str(error))
    digest = hashlib.sha256(data).hexdigest()
    suffix = PurePath(name).suffix.lower()
    if suffix in OTHER_PICTURE_SUFFIXES:
        return Finding(digest, f"{suffix} pictures are not read here; convert it to JPEG or PNG")
    try:
        decode(data, pixel_limit, quick=True)
    except PictureError as error:
        return Finding(digest, str(error))
    return Finding(digest, None)


def report(bad: Sequence[BadImage]) -> str:
    """The bad pictures, one a line, the first 20 of them and a count of the rest."""
    lines = [f"  {image.name}: {image.reason}" for image in bad[:SHOWN]]
    if len(bad) > SHOWN:
        lines.append(f"  ... and {len(bad) - SHOWN:,} more")
    return "\n".join(lines)
