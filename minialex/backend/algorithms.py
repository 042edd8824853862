"""Which algorithms kernels may choose from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_enabled: ContextVar[bool | None] = ContextVar("minialex_winograd", default=None)


@contextmanager
def use_winograd(enabled: bool) -> Iterator[None]:
    """Inside, convolutions in float32 may use Winograd's algorithm where it saves time, or may not.

    Outside of any such block they may, unless the environment variable MINIALEX_WINOGRAD is 0. A backward
    pass goes by what holds when it runs: put both passes inside.
    """
    token = _enabled.set(bool(enabled))
    try:
        yield
    finally:
        _enabled.reset(token)


def winograd_enabled() -> bool:
    """What the innermost `use_winograd` says, else the environment."""
    enabled = _enabled.get()
    return os.environ.get("MINIALEX_WINOGRAD", "1") != "0" if enabled is None else enabled
