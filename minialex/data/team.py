"""Threads that share out the pictures of a batch. Decoding and scaling release Python's lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

__all__ = ["Team"]


class Team:
    """The calling thread and `threads` - 1 others, which end with `close()` or with the program."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool: ThreadPoolExecutor | None = None

    def each(self, count: int, work: Callable[[int], object]) -> None:
        """Call work(row) for every row in range(count); returns when all are done.

        Raises: what `work` raises; of several errors that with the lowest row, as without threads.
        """
        rows, errors = deque(range(count)), dict[int, Exception]()

        def run() -> None:
            while rows and not errors:
                try:
                    row = rows.popleft()
                except IndexError:  # another thread took the last one
                    return
                try:
                    work(row)
                except Exception as error:
                    errors[row] = error

        others = min(self.threads, count) - 1
        if others > 0 and self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads - 1, thread_name_prefix="minialex-pictures")
        futures = [self._pool.submit(run) for _ in range(others)] if self._pool is not None else []
        try:
            run()
        except BaseException:  # Ctrl-C
            rows.clear()
            raise
        finally:
            wait(futures)  # none may still write into the batch
        if errors:
            raise errors[min(errors)]

    def close(self) -> None:
        """End the threads. The next call of `each` would start them anew."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
