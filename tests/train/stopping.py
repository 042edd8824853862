"""A run that is asked to stop, without a signal."""

from __future__ import annotations

import signal


class StopAfter:
    """Stands for StopRequest: asks to stop after so many looks at it, as a signal at that moment would."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def __enter__(self) -> StopAfter:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    @property
    def signal_number(self) -> int:
        self.looks -= 1
        return signal.SIGTERM if self.looks < 0 else 0
