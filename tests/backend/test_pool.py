"""The pool gives freed memory to the next array of about that size, and never to two at once."""

from __future__ import annotations

import gc
import os
import threading

import numpy as np
import pytest

import minialex as mx
from minialex import backend, ops
from minialex.backend import threads
from minialex.backend.memory import ALIGNMENT, PATIENCE, SMALLEST, Pool

F4 = np.dtype(np.float32)
LARGE = (SMALLEST // 4 + 100,)


def address(array: np.ndarray) -> int:
    return int(array.ctypes.data)


def test_a_freed_array_is_used_again() -> None:
    pool = Pool()
    first = pool.empty(LARGE, F4)
    where = address(first)
    del first
    again = pool.empty(LARGE, F4)
    assert address(again) == where
    assert (again.shape, again.dtype) == (LARGE, F4)
    assert again.flags.c_contiguous
    assert again.flags.writeable
    assert where % ALIGNMENT == 0


def test_a_view_keeps_the_memory() -> None:
    pool = Pool()
    array = pool.empty((2, *LARGE), F4)
    array[:] = 1
    view = array[1].reshape(-1)[5:]
    del array
    gc.collect()
    other = pool.empty((2, *LARGE), F4)
    other[:] = 2
    assert (view == 1).all()
    assert not np.shares_memory(view, other)
    del view, other
    assert pool.kept() > 0


def test_a_block_far_too_large_is_left_for_others() -> None:
    pool = Pool()
    where = address(pool.empty((10, *LARGE), F4))
    assert address(pool.empty(LARGE, F4)) != where
    assert address(pool.empty((6, *LARGE), F4)) == where


def test_the_smallest_block_that_fits_is_taken() -> None:
    pool = Pool()
    both = [pool.empty((rows, *LARGE), F4) for rows in (14, 10)]
    wanted = address(both[1])
    both.clear()
    assert address(pool.empty((9, *LARGE), F4)) == wanted


def test_small_arrays_are_numpys_own() -> None:
    pool = Pool()
    assert pool.empty((3,), F4).flags.owndata
    assert pool.empty((0, 5), F4).shape == (0, 5)


def test_what_nobody_wants_is_given_back() -> None:
    pool = Pool()
    pool.empty(LARGE, F4)
    assert pool.kept() >= 4 * LARGE[0]
    kept = [pool.empty((10, *LARGE), F4) for _ in range(2)]
    for _ in range(PATIENCE + 2):
        pool.empty((10, *LARGE), F4)
    kept.append(pool.empty((100, *LARGE), F4))  # Only a new block makes it look.
    assert pool.kept() < 4 * 21 * LARGE[0]
    pool.clear()
    assert pool.kept() == 0


def test_threads_never_share_a_block() -> None:
    pool, failures = Pool(), []

    def work(number: int) -> None:
        for _ in range(300):
            array = pool.empty(LARGE, F4)
            array[:] = number
            if not (array == number).all():
                failures.append(number)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join()
    assert not failures


def test_a_training_step_takes_its_memory_from_the_step_before(monkeypatch: pytest.MonkeyPatch) -> None:
    x = mx.Tensor(np.ones((4, 3, 64, 64), dtype=np.float32))
    weight = mx.Tensor(np.ones((16, 3, 3, 3), dtype=np.float32), requires_grad=True)
    new = []
    take = Pool._take

    def counted(self: Pool, size: int) -> np.ndarray | None:
        block = take(self, size)
        new.append(block is None)
        return block

    monkeypatch.setattr(Pool, "_take", counted)
    mx.empty_cache()
    for _ in range(3):
        new.clear()
        ops.relu(ops.conv2d(x, weight)).sum().backward()
        weight.zero_grad()
    assert new
    assert not any(new)


def test_memory_that_is_kept_is_given_up_before_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool()
    pool.empty((10, *LARGE), F4)
    real, refused = np.empty, []

    def short_of_memory(*args: object) -> np.ndarray:
        if pool.kept():
            refused.append(args)
            raise MemoryError
        return real(*args)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(np, "empty", short_of_memory)
    assert pool.empty(LARGE, F4).shape == LARGE
    assert len(refused) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_does_not_inherit_a_lock_that_nobody_gives_back() -> None:
    with backend.memory._pool._lock:
        child = os.fork()
        if child == 0:
            backend.empty(LARGE, np.empty(0, dtype=F4))
            os._exit(0)
        assert os.waitpid(child, 0) == (child, 0)


def test_scratch_memory_is_given_back_too() -> None:
    backend.scratch("test", LARGE, F4)[:] = 1
    assert "test" in threads._scratch.buffers
    mx.empty_cache()
    assert not threads._scratch.buffers
    assert backend.scratch("test", LARGE, F4).shape == LARGE


def test_the_dtype_is_the_one_asked_for() -> None:
    like = np.empty(0, dtype=np.float32)
    assert backend.empty((2, 3), like).dtype == np.float32
    assert backend.empty(LARGE, like, np.uint8).dtype == np.uint8
