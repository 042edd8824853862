"""One pool of threads, and work that does not depend on how many there are."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from minialex.backend import for_ranges, num_threads, per_image


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
