"""Compiles a .cu file for the CPU with g++, once: the library is kept on disk for the processes to come."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from minialex.emulator.complaints import shortened
from minialex.emulator.translation import Entry, find_entries, translate
from minialex.errors import DeviceError, KernelError, OutputError
from minialex.folders import cache_folder

INCLUDE = Path(__file__).resolve().parent / "include"
# -O1 compiles faster than -O2, and kernels run as fast: most of the time goes into checking accesses.
# -ffp-contract=off: every product and sum is rounded, on every processor alike. A GPU contracts them to
# multiply-adds, so results agree with it to rounding. -g1: an error names its line.
# -fstack-clash-protection: a function with large arrays touches the guard below its stack, and not beyond.
FLAGS = (
    "-std=c++17", "-O1", "-g1", "-w", "-fPIC", "-shared", "-fvisibility=hidden", "-fno-exceptions",
    "-fno-threadsafe-statics", "-ffp-contract=off", "-fstack-clash-protection",
)  # fmt: skip
# Two lines that report the same kind of error keep a call each; an index outside a thread's own array traps.
# Clang does not know these.
GCC_FLAGS = (
    "-fno-crossjumping", "-fno-tree-tail-merge",
    "-fsanitize=bounds-strict", "-fsanitize-undefined-trap-on-error",
)  # fmt: skip
# Local variables begin with a number that is seen in what comes of it: -1.7e38, or -16843010. From g++ 12 on.
PATTERN_FLAG = "-ftrivial-auto-var-init=pattern"
DEFINE = "-DMINIALEX_EMULATED=1"
KEPT_DAYS = 30  # A library that nobody loaded for so long is deleted.
Stamps = dict[str, tuple[int, int] | None]
_memory: dict[tuple[str, str], tuple[Stamps, Library]] = {}
# The same file in two folders is one library, with one state.
_loaded: dict[Path, tuple[ctypes.CDLL, threading.Lock]] = {}
_lock = threading.RLock()


# Called with a file's name and None when g++ begins with it, and with the seconds taken when it is done. What
# is found on disk is not told of.
build_listeners: list[Callable[[str, float | None], object]] = []


@dataclass(frozen=True)
class Library:
    """A compiled file. Its kernels keep their state in global variables, so the lock allows one launch.

    Args: path: of the compiled library; files: the source and what it includes.
    """

    path: Path
    source: Path
    files: tuple[Path, ...]
    entries: tuple[Entry, ...]
    functions: ctypes.CDLL
    lock: threading.Lock


def load(source: Path, headers: Path) -> Library:
    """The library of a .cu file, compiled if the file, a header or the compiler is new.

    Raises: DeviceError if g++ is missing; KernelError if it refuses the file; OutputError if the cache cannot
    be written to.
    """
    key = str(source), str(headers)
    with _lock:
        known = _memory.get(key)
        if known is None or any(_stamp(file) != stamp for file, stamp in known[0].items()):
            known = _memory[key] = _load(source.resolve(), headers.resolve())
    return known[1]


def _stamp(file: str) -> tuple[int, int] | None:
    try:
        stat = os.stat(file)
    except FileNotFoundError:
        return None
    return stat.st_mtime_ns, stat.st_size


def _load(source: Path, headers: Path) -> tuple[Stamps, Library]:
    """The library, and when the files that it was made from were changed last."""
    if not source.is_file():
        raise KernelError(f"{source}: there is no such file of kernels")
    compiler = find_compiler()
    text = _preprocess(compiler, source, headers)
    included = sorted(set(re.findall(r'^# \d+ "([^<"][^"]*)"', text, flags=re.MULTILINE)))
    files = tuple(source.parent / name for name in included)
    stamps = {str(file): _stamp(str(file)) for file in files}
    digest = hashlib.sha256("\0".join((*_identity(compiler), *_flags(compiler), text)).encode())
    for path in (*sorted(INCLUDE.glob("*.hpp")), Path(__file__), Path(__file__).with_name("translation.py")):
        digest.update(path.read_bytes())
    path = cache_folder() / "emulator" / f"{source.stem}-{digest.hexdigest()[:24]}.so"
    if path.is_file():
        os.utime(path)
        entries = find_entries(text)
    else:
        translated, entries = translate(text)
        with _told(source.name):
            _compile(compiler, translated, source, path)
        _forget_old(path.parent)
    functions, lock = _loaded.setdefault(path, (ctypes.CDLL(str(path)), threading.Lock()))
    return stamps, Library(path, source, files, entries, functions, lock)


@contextmanager
def _told(name: str) -> Iterator[None]:
    start = time.perf_counter()
    for listener in tuple(build_listeners):
        listener(name, None)
    try:
        yield
    finally:
        for listener in tuple(build_listeners):
            listener(name, time.perf_counter() - start)


def find_compiler() -> str:
    """The command of the compiler. Raises: DeviceError saying what to install."""
    if sys.platform == "win32":
        raise DeviceError("the emulator of CUDA kernels does not run on Windows itself, but in its WSL")
    wanted = os.environ.get("CXX") or "g++"
    found = shutil.which(wanted)
    if found is None:
        raise DeviceError(
            f"the emulator of CUDA kernels compiles them with {wanted}, which is not on PATH: install it "
            "(apt install g++, dnf install gcc-c++, xcode-select --install), or name another in CXX"
        )
    return found


@functools.lru_cache
def _identity(compiler: str) -> tuple[str, ...]:
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
    machine = subprocess.run([compiler, "-dumpmachine"], capture_output=True, text=True, check=False)
    return compiler, version.stdout, machine.stdout


def _flags(compiler: str) -> tuple[str, ...]:
    flags = FLAGS if "clang" in "".join(_identity(compiler)) else (*FLAGS, *GCC_FLAGS)
    return (*flags, PATTERN_FLAG) if _accepts(compiler, PATTERN_FLAG) else flags


@functools.lru_cache
def _accepts(compiler: str, flag: str) -> bool:
    command = [compiler, flag, "-fsyntax-only", "-x", "c++", "-"]
    return subprocess.run(command, input="", capture_output=True, text=True, check=False).returncode == 0


def _preprocess(compiler: str, source: Path, headers: Path) -> str:
    """The text without macros and comments. It names its files as seen from its own folder, so that the same
    kernels elsewhere need not be compiled again."""
    folders = [] if headers == source.parent else [f"-I{headers}"]
    command = [compiler, "-std=c++17", "-E", "-x", "c++", DEFINE, *folders, source.name]
    done = subprocess.run(
        command, cwd=source.parent, capture_output=True, text=True, check=False, env=_english()
    )
    if done.returncode:
        raise _refused(source, done.stderr)
    return done.stdout


def _compile(compiler: str, text: str, source: Path, library: Path) -> None:
    """Into a file of another name first: two processes may compile at once, and either may be killed."""
    with _writing(library.parent):
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent, prefix="compiling-") as folder:
            output = Path(folder) / library.name
            files = ("-x", "c++", "-", "-o", str(output), "-ldl")
            command = [compiler, *_flags(compiler), DEFINE, f"-I{INCLUDE}", *files]
            done = subprocess.run(
                command, input=text, capture_output=True, text=True, check=False, env=_english()
            )
            if done.returncode:
                raise _refused(source, done.stderr, text)
            os.replace(output, library)


def _english() -> dict[str, str]:
    """The environment for a compiler whose errors are read here."""
    return {**os.environ, "LC_ALL": "C"}


def _refused(source: Path, errors: str, text: str = "") -> KernelError:
    said = shortened(source, INCLUDE, errors, text)
    return KernelError(f"{source}: g++ does not accept it for the emulator:\n{said}")


def line_of(library: Library, address: int) -> str | None:
    """Where in the kernels the machine code at `address` comes from, "name.cu:12: y[i] = x[i];".

    None if that cannot be told: without addr2line, which comes with g++ on Linux.
    """
    tool = shutil.which("addr2line")
    if tool is None or address == 0:
        return None
    command = [tool, "-i", "-e", str(library.path), hex(address)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    for place in done.stdout.splitlines():  # From the innermost function that was inlined outwards.
        name, _, line = place.split(" ")[0].rpartition(":")
        path = next((file for file in library.files if file.name == Path(name).name), None)
        if path is not None and line.isdecimal():
            text = path.read_text(encoding="utf-8").splitlines()
            code = text[int(line) - 1].strip() if 0 < int(line) <= len(text) else ""
            return f"{path.name}:{line}: {code}"
    return None


def _forget_old(folder: Path) -> None:
    oldest = time.time() - KEPT_DAYS * 24 * 3600
    for path in folder.glob("*.so"):
        try:
            if path.stat().st_mtime < oldest:
                path.unlink()
        except FileNotFoundError:  # Another process was faster.
            continue


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{folder}: the emulator cannot keep compiled kernels there ({error}). Set MINIALEX_CACHE to a "
            "folder that can be written to."
        ) from error
