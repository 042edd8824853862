"""Threads over the rows of a batch: every row once, the first error by its row, and nothing after it ends."""

from __future__ import annotations

import threading
import time

import pytest

from minialex.data.team import Team


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("count", [0, 1, 3, 50])
def test_every_row_is_done_once(threads: int, count: int) -> None:
    team, done = Team(threads), []
    for _ in range(3):
        team.each(count, done.append)
    team.close()
    team.close()
    assert sorted(done) == sorted(3 * list(range(count)))


def test_rows_are_shared_out() -> None:
    team, seen = Team(3), set()
    meeting = threading.Barrier(3, timeout=20)

    def work(row: int) -> None:
        meeting.wait()  # three at a time, or never
        seen.add(threading.get_ident())

    team.each(6, work)
    team.close()
    assert len(seen) == 3


def test_the_error_of_the_lowest_row_is_raised() -> None:
    team = Team(4)

    def work(row: int) -> None:
        if row in (5, 6):
            time.sleep(0.2 if row == 5 else 0.0)  # the later one fails first
            raise ValueError(f"row {row}")

    for _ in range(3):
        with pytest.raises(ValueError, match="row 5"):
            team.each(20, work)
    team.each(5, work)  # it can still be used
    team.close()


def test_ctrl_c_waits_for_what_is_being_written() -> None:
    team, begun, ended = Team(2), [], []
    main = threading.get_ident()

    def work(row: int) -> None:
        if threading.get_ident() == main:
            while not begun:
                time.sleep(0.001)
            raise KeyboardInterrupt
        begun.append(row)
        time.sleep(0.1)
        ended.append(row)

    with pytest.raises(KeyboardInterrupt):
        team.each(100, work)
    assert begun == ended
    assert len(begun) < 5
    team.close()
