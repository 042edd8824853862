"""Ten thousand damaged files: each gives a CheckpointError, or a right answer.

In a zip file everything that is read has a checksum, so that a right answer is the whole file's. In the older
formats, and in a zip file whose checksums were made to fit, a changed bit can be another weight or another
name: then the answer must be a state dict all the same, no larger than the file, and where only numbers
were changed, the same but for these numbers.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pytorch_writer import (
    Call,
    Global,
    old_file,
    pickled,
    records,
    state_dict,
    storage,
    tar_file,
    tensor,
    zip_file,
    zipped,
)

from minialex import models
from minialex.errors import CheckpointError

Arrays = dict[str, npt.NDArray[Any]]

ARRAYS: Arrays = {
    "features.0.weight": np.arange(12, dtype=np.float32).reshape(2, 3, 2) / 7,
    "features.0.bias": np.array([0.5, -1.25]),
    "classifier.1.weight": np.array([[2**40, -1]]),
}
# Bytes that mean something to the reader of a pickle, a zip file or a tar file.
TELLING = (
    b"\x00\x01\x7f\x80\xff"
    + b"(.01NKMJGUTCBX)]ae}sqrhjcRbQtuioPLIFSVgp2dl\x81\x85\x86\x87\x88\x89\x8a\x8b\x8c\x93\x94\x95"
)
EDGES = [0, 1, 2**7, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]
EACH = 2000


def mutations(data: bytes, seed: int) -> Iterator[bytes]:
    """EACH damaged copies: bits turned, opcodes put in, sizes changed, pieces cut off, lost and doubled."""
    draw = random.Random(seed)
    for number in range(EACH):
        copy = bytearray(data)
        for _ in range(draw.choice((1, 1, 1, 2, 5))):
            at = draw.randrange(len(copy))
            match number % 6:
                case 0:
                    copy[at] ^= 1 << draw.randrange(8)
                case 1:
                    copy[at] = draw.choice(TELLING)
                case 2:
                    width = draw.choice((1, 2, 4, 8))
                    copy[at : at + width] = (draw.choice(EDGES) % 2 ** (8 * width)).to_bytes(width, "little")
                case 3:
                    copy = copy[: max(1, at)]
                case 4:
                    copy[at:at] = bytes(copy[draw.randrange(len(copy)) :][: draw.randrange(1, 40)])
                case 5:
                    del copy[at : at + draw.randrange(1, 40)]
                    copy = copy or bytearray(b"\x80")
        yield bytes(copy)


def with_fitting_checksums(seed: int) -> Iterator[bytes]:
    """Zip files that are in order, around a damaged pickle with everything in it that is known."""
    parameter = Call(
        Global("torch.nn.parameter", "Parameter"), (tensor(storage(ARRAYS["features.0.bias"], "1"), (2,)),)
    )
    checkpoint = {
        "epoch": 3,
        "lr": 0.5,
        "state_dict": state_dict(ARRAYS),
        "best": [1, (2, None), True],
        "p": parameter,
    }
    for pickle in mutations(pickled(checkpoint), seed):
        yield zip_file(ARRAYS, pickle)


FILES: dict[str, Callable[[], Iterator[bytes]]] = {
    "zip": lambda: mutations(zip_file(ARRAYS), 1),
    "zip-32": lambda: mutations(zipped(records(ARRAYS), zip64=False), 2),
    "zip-pickle": lambda: with_fitting_checksums(3),
    "pickles": lambda: mutations(old_file(ARRAYS), 4),
    "tar": lambda: mutations(tar_file(ARRAYS), 5),
}


def put(path: Path, data: bytes) -> None:
    """Write over the file that is there: to make ten thousand new ones would take most of the time."""
    with open(path, "r+b" if path.exists() else "wb") as file:
        file.write(data)
        file.truncate()


def answer(path: Path, data: bytes) -> Arrays | None:
    """The state dict in these bytes, or None if it was refused in the right way. Anything else is raised."""
    put(path, data)
    try:
        return models.read_state_dict(path)
    except CheckpointError:
        return None


def is_whole(got: Arrays) -> bool:
    """Whether it is the state dict that was written."""
    return list(got) == list(ARRAYS) and all(
        got[name].dtype == array.dtype and np.array_equal(got[name], array) for name, array in ARRAYS.items()
    )


def is_plausible(got: Arrays, size: int) -> bool:
    """Whether it is a state dict, with no more numbers than a file of this size can hold."""
    arrays = list(got.values())
    return (
        all(name.isprintable() and type(array) is np.ndarray for name, array in got.items())
        and all(array.dtype.isnative and array.dtype.kind in "fiub" for array in arrays)
        and all(array.nbytes <= 2 * size for array in arrays)  # Twice: bfloat16 becomes float32.
    )


@pytest.mark.parametrize("kind", FILES)
def test_a_damaged_file_is_refused_or_read_right(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    refused = right = 0
    for number, data in enumerate(FILES[kind]()):
        got = answer(path, data)
        if got is None:
            refused += 1
        elif is_whole(got):
            right += 1
        else:
            assert not kind.startswith("zip-32"), number
            assert kind != "zip", number
            assert is_plausible(got, len(data)), number
    assert refused > EACH // 3  # The files are damaged,
    assert right > EACH // 100  # but not all of them where it matters.


def test_every_changed_bit_of_a_zip_file_is_noticed_or_harmless(tmp_path: Path) -> None:
    whole = zip_file(ARRAYS)
    noticed = 0
    for at in range(len(whole)):
        got = answer(tmp_path / "weights", whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        assert got is None or is_whole(got), at
        noticed += got is None
    assert noticed > sum(array.nbytes for array in ARRAYS.values())


def test_a_changed_number_in_an_old_file_changes_this_number_alone(tmp_path: Path) -> None:
    whole = old_file(ARRAYS)
    last = ARRAYS["classifier.1.weight"]
    for back in range(1, last.nbytes + 1):
        at = len(whole) - back
        got = answer(tmp_path / "weights", whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        assert got is not None
        assert (got["classifier.1.weight"] != last).sum() == 1
        assert is_whole(got | {"classifier.1.weight": last})


# --------------------------------------------------------------------- in a process that watches itself

FORBIDDEN = (
    "import",
    "exec",
    "compile",
    "ctypes",
    "socket",
    "subprocess",
    "os.system",
    "os.exec",
    "os.posix_spawn",
)


def watched(path: Path, count: int) -> dict[str, Any]:
    """What was seen while `count` files of each kind were read: forbidden events, memory, and seconds."""
    seen: list[str] = []
    reading = False

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[1], str) and arguments[1] not in ("r", "rb")
        if reading and (writes or event.startswith(FORBIDDEN)):
            seen.append(f"{event} {arguments}")

    sys.addaudithook(note)
    answer(path, b"")  # Imports safetensors.
    peak, began = 0, time.perf_counter()
    for kind in FILES:
        for data in itertools.islice(FILES[kind](), count):
            put(path, data)
            tracemalloc.start()
            reading = True
            with contextlib.suppress(CheckpointError):
                models.read_state_dict(path)
            reading = False
            peak = max(peak, tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    return {"seen": seen, "peak": peak, "seconds": time.perf_counter() - began}


def test_nothing_is_run_and_memory_is_bounded(tmp_path: Path) -> None:
    script = (
        f"import json, pathlib, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import test_pytorch_mutations as tests\n"
        f"print(json.dumps(tests.watched(pathlib.Path({str(tmp_path / 'weights')!r}), 150)))"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["seen"] == []
    assert result["peak"] < 2**20  # The files have some 3,000 bytes.


def test_the_watch_sees_what_a_pickle_can_do() -> None:
    """The test above can fail: Python's own reader imports what it is told to, and that is seen."""
    script = (
        "import contextlib, pickle, sys\n"
        "seen = []\n"
        "sys.addaudithook(lambda event, arguments: seen.append(event))\n"
        "with contextlib.suppress(ImportError): pickle.loads(b'cno_such_module\\nname\\n.')\n"
        "print('import' in seen)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "True\n", done.stderr
