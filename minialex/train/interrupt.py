"""Ctrl-C and SIGTERM: the batch is finished and saved first."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from minialex.errors import MinialexError


class Interrupted(MinialexError):
    """The user or the system asked the run to stop; `exit_code` is 130 or 143, as a shell expects."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class StopRequest:
    """Inside `with`, notes SIGINT and SIGTERM in `signal_number` and lets the loop end in its own time.

    A second signal ends the run at once, as it would without this. Outside the main thread Python allows no
    handlers, and nothing is caught.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal_number = number
        self._restore()
        # Written past Python's buffers, which the interrupted code may be in the middle of.
        os.write(2, b"\nstopping after this batch; once more stops at once\n")

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
