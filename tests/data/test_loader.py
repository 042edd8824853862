"""The same batches from any number of workers, and no worker, file or memory left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from loader_datasets import ExitsAt, Hangs, KilledAt, Pictures, RaisesAt, SaysWhatIsImported

import minialex
from minialex.data import (
    Batch,
    Compose,
    ImageFolder,
    Loader,
    Normalize,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    pool,
)
from minialex.errors import DataError, UsageError

MakeFolder = Callable[..., Path]

AUGMENT = Compose([RandomResizedCrop(8), RandomHorizontalFlip(), Normalize()])
PLAIN = Compose([Resize((6, 5)), Normalize()])
ON_LINUX = sys.platform.startswith("linux")


def shared_memory(process: int | None = None) -> list[str]:
    """The shared memory segments that a process, by default this one, has made and not given back."""
    return [path.name for path in Path("/dev/shm").glob(f"minialex-{process or os.getpid()}-*")]


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    yield
    assert multiprocessing.active_children() == []
    assert shared_memory() == []


def same(one: list[Batch], other: list[Batch]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.images.tobytes() == b.images.tobytes()
        assert a.images.shape == b.images.shape
        np.testing.assert_array_equal(a.labels, b.labels)
        np.testing.assert_array_equal(a.indices, b.indices)


def test_a_batch_is_what_the_engine_takes() -> None:
    dataset = Pictures(10)
    batches = list(Loader(dataset, range(10), PLAIN, 4).epoch(0))
    assert [len(batch) for batch in batches] == [4, 4, 2]  # the last, partial one is there
    first = batches[0]
    assert first.images.shape == (4, 3, 6, 5)
    assert first.images.dtype == np.float32
    assert first.images.flags.c_contiguous
    assert first.labels.dtype == first.indices.dtype == np.int64
    assert first.indices.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(first.labels, dataset.labels[:4])
    np.testing.assert_array_equal(first.images[2], PLAIN(dataset.load(2)))


def test_length_and_drop_last() -> None:
    dataset = Pictures(10)
    assert len(Loader(dataset, range(10), PLAIN, 4)) == 3
    dropping = Loader(dataset, range(10), PLAIN, 4, drop_last=True)
    assert len(dropping) == len(list(dropping.epoch(0))) == 2
    assert list(Loader(dataset, [], PLAIN, 4).epoch(0)) == []


def test_shuffling_gives_every_picture_once_in_an_order_of_the_epoch() -> None:
    chosen = [1, 3, 5, 7, 9, 11, 13]
    loader = Loader(Pictures(20), chosen, PLAIN, 3, shuffle=True, seed=1)
    orders = [
        np.concatenate([batch.indices for batch in loader.epoch(epoch)]).tolist() for epoch in (0, 1, 0)
    ]
    assert orders[0] == orders[2] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == chosen


def test_workers_make_the_same_bits() -> None:
    dataset = Pictures(43)
    expected = None
    for workers in (0, 1, 4):
        with Loader(dataset, range(1, 43), AUGMENT, 5, shuffle=True, seed=7, workers=workers) as loader:
            found = [list(loader.epoch(epoch)) for epoch in (0, 1)]
            resumed = list(loader.epoch(1, start_batch=6))
        expected = expected or found
        for one, other in zip(expected, found, strict=True):
            same(one, other)
        same(resumed, expected[1][6:])
    assert expected is not None
    assert expected[0][0].images.tobytes() != expected[1][0].images.tobytes()


def test_batches_stay_as_they_are_and_memory_is_given_back() -> None:
    with Loader(Pictures(40), range(40), AUGMENT, 4, workers=1, prefetch=1) as loader:
        epoch = loader.epoch(0)
        first = next(epoch)
        kept = first.images.copy()
        assert not ON_LINUX or len(shared_memory()) == 1
        rest = list(epoch)
        np.testing.assert_array_equal(first.images, kept)
        assert len(rest) == 9
    assert shared_memory() == []


def test_an_epoch_can_be_left_and_workers_live_on() -> None:
    dataset = Pictures(60)
    with Loader(dataset, range(60), AUGMENT, 4, shuffle=True, workers=2) as loader:
        for batch in loader.epoch(0):
            if batch.indices.size:
                break
        assert loader._pool is not None
        processes = [process.pid for process in loader._pool.processes]
        left = loader.epoch(0)
        next(left)
        found = list(loader.epoch(1))  # while another is not at its end
        with pytest.raises(RuntimeError, match="began another epoch"):
            next(left)
        same(found, list(Loader(dataset, range(60), AUGMENT, 4, shuffle=True).epoch(1)))
        assert [process.pid for process in loader._pool.processes] == processes
        unfinished = loader.epoch(2)
        next(unfinished)
    with pytest.raises(RuntimeError, match="was closed"):
        next(unfinished)


def test_workers_start_again_after_close() -> None:
    loader = Loader(Pictures(8), range(8), PLAIN, 4, workers=1)
    expected = list(loader.epoch(0))
    loader.close()
    loader.close()
    same(list(loader.epoch(0)), expected)
    loader.close()


def test_a_forgotten_loader_is_cleared_up() -> None:
    loader = Loader(Pictures(8), range(8), PLAIN, 4, workers=1)
    list(loader.epoch(0))
    del loader
    assert shared_memory() == []


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_a_killed_worker_is_reported_with_its_file() -> None:
    with Loader(KilledAt(40, fatal=21), range(40), PLAIN, 4, workers=2) as loader:
        epoch = loader.epoch(0)
        with pytest.raises(
            DataError, match=r"killed by SIGKILL while it read pictures/odd/21\.png\. .*--workers"
        ):
            for _ in epoch:
                pass


def test_a_worker_that_ends_is_reported_with_its_file() -> None:
    with (
        Loader(ExitsAt(40, fatal=6), range(40), PLAIN, 4, workers=1) as loader,
        pytest.raises(DataError, match=r"ended with exit code 7 while it read pictures/even/6\.png"),
    ):
        list(loader.epoch(0))


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_a_worker_killed_from_outside_is_reported_and_replaced() -> None:
    dataset = Hangs(40)
    with Loader(dataset, range(40), PLAIN, 4, workers=2) as loader:
        epoch = loader.epoch(0)
        start = time.monotonic()

        def kill_when_reading() -> None:
            while loader._pool is None or len(loader._pool.processes) < 2 or loader._pool.views.header[2] < 0:
                time.sleep(0.01)
            os.kill(loader._pool.processes[1].pid or 0, signal.SIGKILL)

        killer = threading.Thread(target=kill_when_reading)
        killer.start()
        with pytest.raises(DataError, match=r"killed by SIGKILL while it read pictures/even/4\.png"):
            next(epoch)
        killer.join()
        assert time.monotonic() - start < 30  # and not when the worker's minute is over


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_names_the_file(workers: int) -> None:
    dataset = RaisesAt(12, fatal=9)
    with Loader(dataset, range(12), PLAIN, 4, workers=workers) as loader:
        epoch = loader.epoch(0)
        assert len(next(epoch)) == len(next(epoch)) == 4
        with pytest.raises(DataError, match=r"pictures/odd/9\.png cannot be prepared: ZeroDivisionError"):
            next(epoch)
        assert len(next(loader.epoch(0))) == 4  # the loader can still be used


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_broke_since_the_audit_is_named(make_folder: MakeFolder, workers: int) -> None:
    root = make_folder({"a": 4, "b": 4})
    dataset = ImageFolder(root)
    (root / "b/001.png").write_bytes(b"")
    with (
        Loader(dataset, range(8), PLAIN, 2, workers=workers) as loader,
        pytest.raises(DataError, match=r"b/001\.png cannot be used: the file is empty"),
    ):
        list(loader.epoch(0))


@pytest.mark.parametrize("workers", [0, 1])
def test_pictures_of_different_shapes_are_refused(workers: int) -> None:
    with (
        Loader(Pictures(8), range(8), Normalize(), 4, workers=workers) as loader,
        pytest.raises(
            DataError, match=r"1\.png becomes an array of shape \(3, 11, 13\), expected \(3, 10, 12\)"
        ),
    ):
        list(loader.epoch(0))


def test_transforms_that_make_no_arrays_are_refused() -> None:
    with pytest.raises(DataError, match="must make float32 arrays"):
        next(Loader(Pictures(8), range(8), Resize(4), 4).epoch(0))


def test_what_cannot_be_sent_to_workers_is_refused() -> None:
    dataset = Pictures(8)
    dataset.__dict__["secret"] = lambda: None
    with (
        Loader(dataset, range(8), PLAIN, 4, workers=1) as loader,
        pytest.raises(DataError, match="cannot be sent to a loader worker"),
    ):
        next(loader.epoch(0))
    assert shared_memory() == []


def test_a_worker_that_cannot_import_the_data_set_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    ghost = types.ModuleType("ghost")  # a module that only this process has
    ghost.Own = type("Own", (Pictures,), {"__module__": "ghost"})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ghost", ghost)
    with (
        Loader(ghost.Own(8), range(8), PLAIN, 4, workers=2) as loader,
        pytest.raises(DataError, match=r"worker could not start: ModuleNotFoundError: .*ghost"),
    ):
        next(loader.epoch(0))


def test_arguments_without_sense_are_refused() -> None:
    for arguments in ({"batch_size": 0}, {"workers": -1}, {"prefetch": 0}):
        with pytest.raises(UsageError, match="expected"):
            Loader(Pictures(4), range(4), PLAIN, **{"batch_size": 2, **arguments})
    with pytest.raises(IndexError):
        Loader(Pictures(4), [4], PLAIN, 2)
    with pytest.raises(ValueError, match="start_batch"):
        Loader(Pictures(4), range(4), PLAIN, 2).epoch(0, start_batch=3)


def test_tight_shared_memory_means_fewer_batches_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    class Status:
        f_frsize = 1
        f_bavail = 1000

    monkeypatch.setattr(os, "statvfs", lambda path: Status, raising=False)
    assert pool.fitting_slots(2, 4, slot_bytes=100) == 8
    assert pool.fitting_slots(2, 4, slot_bytes=200) == 4
    with pytest.raises(DataError, match=r"2 loader workers need .* of shared memory"):
        pool.fitting_slots(2, 4, slot_bytes=500)


def test_workers_import_nothing_heavy() -> None:
    with Loader(SaysWhatIsImported(8), range(8), Normalize(0.0, 1.0), 4, workers=1) as loader:
        batch = next(loader.epoch(0))
    assert batch.images[:, 0].max() == 0


# A script without `if __name__ == "__main__"`, as beginners write it: workers must not run it again.
SCRIPT = """
import sys, time
sys.path[:0] = {paths!r}
print("start", flush=True)
from minialex.data import Compose, Loader, Normalize, Resize
from loader_datasets import Hangs, Pictures
loader = Loader({dataset}, range(40), Compose([Resize((4, 4)), Normalize()]), 4, workers=2)
epoch = loader.epoch(0)
{body}
"""


def start_script(dataset: str, body: str, tmp_path: Path) -> subprocess.Popen[str]:
    paths = [str(Path(__file__).parent), str(Path(minialex.__file__).parents[1])]
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(paths=paths, dataset=dataset, body=textwrap.dedent(body)))
    return subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(process: int) -> bool:
    """Whether a process is gone, waiting for a moment. One that nobody has reaped yet counts as gone."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


READY = """
import threading
def tell():
    while loader._pool is None or len(loader._pool.processes) < 2 or loader._pool.views.header[1:].min() < 0:
        time.sleep(0.01)
    print(*[process.pid for process in loader._pool.processes], flush=True)
threading.Thread(target=tell, daemon=True).start()
next(epoch)
"""


@pytest.mark.skipif(not ON_LINUX, reason="looks into /proc and /dev/shm")
@pytest.mark.parametrize(("number", "to_group"), [(signal.SIGINT, True), (signal.SIGKILL, False)])
def test_nothing_survives_ctrl_c_or_a_kill(number: signal.Signals, to_group: bool, tmp_path: Path) -> None:
    script = start_script("Hangs(40)", READY, tmp_path)
    assert script.stdout is not None
    assert script.stdout.readline() == "start\n"
    workers = [int(word) for word in script.stdout.readline().split()]
    assert len(workers) == 2
    if to_group:
        os.killpg(script.pid, number)  # as a terminal does
    else:
        os.kill(script.pid, number)
    _, errors = script.communicate(timeout=30)
    assert script.returncode != 0
    assert all(ended(process) for process in workers)
    deadline = time.monotonic() + 15
    while shared_memory(script.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert shared_memory(script.pid) == []
    if number == signal.SIGINT:
        assert errors.count("KeyboardInterrupt") == 1  # from the script, none from its workers
        assert "resource_tracker" not in errors


def test_a_script_without_a_guard_or_a_close_ends_cleanly(tmp_path: Path) -> None:
    script = start_script("Pictures(40)", 'print(sum(len(batch) for batch in epoch), "pictures")', tmp_path)
    output, errors = script.communicate(timeout=60)
    assert output == "start\n40 pictures\n"
    assert errors == ""
    assert script.returncode == 0


def test_classes_defined_in_the_script_work_behind_a_guard(tmp_path: Path) -> None:
    paths = [str(Path(__file__).parent), str(Path(minialex.__file__).parents[1])]
    script = tmp_path / "own.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys
        sys.path[:0] = {paths!r}
        from loader_datasets import Pictures
        from minialex.data import Loader, Normalize, Resize, Compose
        class Own(Pictures):
            pass
        if __name__ == "__main__":
            with Loader(Own(8), range(8), Compose([Resize((4, 4)), Normalize()]), 4, workers=1) as loader:
                print(len(list(loader.epoch(0))))
        """)
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("2\n", "")


@pytest.mark.photographs
def test_real_photographs_from_workers(photographs: Path) -> None:
    dataset = ImageFolder(photographs)
    transform = Compose([RandomResizedCrop(64), RandomHorizontalFlip(), Normalize()])
    chosen = range(0, len(dataset), 40)
    here = list(Loader(dataset, chosen, transform, 16, shuffle=True).epoch(3))
    with Loader(dataset, chosen, transform, 16, shuffle=True, workers=2) as loader:
        same(list(loader.epoch(3)), here)
