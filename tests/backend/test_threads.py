"""One pool of threads, and work that does not depend on how many there are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from minialex.backend import for_ranges, num_threads, one_blas_thread, per_image


@pytest.mark.parametrize("threads", ["1", "2", "3", "7"])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 100])
def test_every_element_is_worked_on_once(threads: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIALEX_NUM_THREADS", threads)
    touched = np.zeros(count, int)

    def work(start: int, stop: int) -> None:
        touched[start:stop] += 1

    for_ranges(count, work)
    np.testing.assert_array_equal(touched, np.ones(count))


def test_parts_run_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIALEX_NUM_THREADS", "3")
    barrier = threading.Barrier(3, timeout=30)
    for_ranges(3, lambda start, stop: barrier.wait())


@pytest.mark.parametrize("part", [0, 2])
def test_an_error_in_any_part_is_raised(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIALEX_NUM_THREADS", "3")

    def work(start: int, stop: int) -> None:
        if start == part:
            raise RuntimeError("broken part")

    with pytest.raises(RuntimeError, match="broken part"):
        for_ranges(3, work)


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_a_wrong_number_of_threads(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIALEX_NUM_THREADS", text)
    with pytest.raises(ValueError, match="MINIALEX_NUM_THREADS must be a whole number above zero"):
        num_threads()


def test_at_least_one_thread_without_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MINIALEX_NUM_THREADS", raising=False)
    assert num_threads() >= 1


def test_per_image_cuts_the_arrays_and_leaves_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIALEX_NUM_THREADS", "2")
    y = np.zeros(5)

    def scale(x: np.ndarray, out: np.ndarray, factor: float) -> None:
        out[...] = factor * x

    per_image(scale, 2)(np.arange(5.0), y, 3.0)  # type: ignore[arg-type]
    np.testing.assert_array_equal(y, 3.0 * np.arange(5.0))


def test_small_work_stays_on_the_callers_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIALEX_NUM_THREADS", "4")
    parts: list[tuple[int, int, int]] = []
    for_ranges(10, lambda start, stop: parts.append((start, stop, threading.get_ident())), smallest=6)
    assert parts == [(0, 10, threading.get_ident())]
    parts.clear()
    for_ranges(13, lambda start, stop: parts.append((start, stop, threading.get_ident())), smallest=6)
    assert sorted(part[:2] for part in parts) == [(0, 6), (6, 13)]
    assert len({part[2] for part in parts}) == 2


def test_threads_serve_again_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIALEX_NUM_THREADS", "2")
    before = threading.active_count()
    for _ in range(5):
        with pytest.raises(ZeroDivisionError):
            for_ranges(2, lambda start, stop: 1 // (1 - start))
    touched = np.zeros(2, int)
    for_ranges(2, lambda start, stop: touched.__setitem__(slice(start, stop), 1))
    assert touched.all()
    assert threading.active_count() <= before + 1


def test_callers_on_several_threads_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIALEX_NUM_THREADS", "2")
    barrier = threading.Barrier(4, timeout=30)  # Two callers with two parts each, all at once.
    callers = [
        threading.Thread(target=for_ranges, args=(2, lambda start, stop: barrier.wait())) for _ in range(2)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30)
    assert not barrier.broken


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIALEX_NUM_THREADS", "2")
    for_ranges(2, lambda start, stop: None)
    child = os.fork()
    if child == 0:
        done = []
        for_ranges(2, lambda start, stop: done.append(start))
        os._exit(0 if sorted(done) == [0, 1] else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_blas_is_held_to_one_thread_inside_and_restored_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    # Looked for anew: another test may have loaded SciPy's own BLAS, which nothing here computes with.
    monkeypatch.setattr(one_blas_thread, "_libraries", None)

    def threads() -> list[int]:
        return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

    before = threads()
    with one_blas_thread():
        with one_blas_thread():
            assert set(threads()) <= {1}
        assert set(threads()) <= {1}
    assert threads() == before
    with pytest.raises(RuntimeError), one_blas_thread():
        raise RuntimeError
    assert threads() == before


INTERRUPTED = """
import os, signal, threading, time
import numpy as np
from minialex.backend import for_ranges, threads

written = np.zeros(2)

def work(start, stop):
    if start == 1:
        time.sleep(0.6)
    written[start] = 1

threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    for_ranges(2, work)
except KeyboardInterrupt:
    print("interrupted", written.tolist(), len(threads._idle))
for_ranges(2, work)
print(written.tolist(), len(threads._idle))
"""


def test_ctrl_c_leaves_no_thread_writing() -> None:
    """The interrupt arrives while the caller waits for its helper: it is raised when the helper has ended."""
    environment = {**os.environ, "MINIALEX_NUM_THREADS": "2"}
    output = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        timeout=60,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ).stdout
    assert output.splitlines() == ["interrupted [1.0, 1.0] 1", "[1.0, 1.0] 1"]
