"""The child's half of gpu_check.py: one section in a process of its own, one line of JSON for each result.

A kernel that reads where it must not takes CUDA's whole context with it: every later call fails. So each
section is a process, which says what it begins and what came out; if it dies or hangs, the parent starts it
again without what it died of.
"""

from __future__ import annotations

import json
import math
import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

MARK = "@@gpu_check "
# After these, nothing else can run in the process.
FATAL = (
    "illegal",
    "launch failure",
    "unspecified",
    "misaligned",
    "device-side assert",
    "ECC",
    "launch timed out",
)
FATAL_EXIT = 70
# Set, every array has an allocation of its own: what reads beyond one is seen by compute-sanitizer.
PLAIN_MEMORY = "GPU_CHECK_PLAIN_MEMORY"


@dataclass
class Context:
    """What a section is told, and where its results go.

    Args: device: "cuda:0" or "cuda-emulated"; dry: small shapes; seconds: for this process; skip: labels that
          were done before, or that a process died of; options: of the command line, as a dictionary.
    """

    device: str
    dry: bool
    seconds: float
    skip: frozenset[str] = frozenset()
    options: dict[str, Any] = field(default_factory=dict)
    ceilings: dict[str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.perf_counter)

    @property
    def on_gpu(self) -> bool:
        """Whether there is a GPU to be timed."""
        return self.device.startswith("cuda:")

    def left(self) -> float:
        """Seconds."""
        return self.seconds - (time.perf_counter() - self.began)

    def run(self, label: str, work: Callable[[], dict[str, Any]], needs: float = 0.0) -> bool:
        """One result: what `work` returns, or what it raises. Nothing stops the section but the time.

        Args: needs: seconds that must be left to begin it; what does not fit is said.
        Returns: whether it ran now, and did not raise.
        """
        if label in self.skip:
            return False
        if self.left() < needs or self.left() <= 0:
            tell({"result": {"label": label, "ok": None, "note": "no time left"}})
            return False
        tell({"begin": label})
        started = time.perf_counter()
        try:
            result = {"ok": True, **work()}
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{type(error).__name__}: {error}"
            where = f"{last.filename.rpartition('/')[2]}:{last.lineno}"
            result = {"ok": False, "note": f"{_short(text)} ({where})", "traceback": traceback.format_exc()}
            if any(word in text for word in FATAL):
                tell({"result": {"label": label, **result}})
                raise SystemExit(FATAL_EXIT) from error
        tell({"result": {"label": label, "took": round(time.perf_counter() - started, 3), **result}})
        if "again" in result:
            raise SystemExit(FATAL_EXIT)
        return bool(result["ok"])


def _short(text: str, limit: int = 300) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[:limit]}..."


def tell(message: dict[str, Any]) -> None:
    """A line for the parent."""
    print(MARK + json.dumps(finite(message)), flush=True)


def finite(value: Any) -> Any:
    """The same with NaN and infinities as text, and NumPy's numbers as Python's: JSON has neither."""
    if isinstance(value, dict):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def synchronize(device: str) -> None:
    """Wait for everything that the device was given."""
    if device.startswith("cuda:"):
        import cupy

        cupy.cuda.Device().synchronize()


@contextmanager
def poisoned_memory(device: str) -> Iterator[None]:
    """Inside, every array that CuPy makes is full of NaN (or 255): what a kernel leaves out is seen.

    The emulated device's memory is poisoned always.
    """
    if not device.startswith("cuda:"):
        yield
        return
    import cupy

    pool = cupy.get_default_memory_pool()

    def poisoned(size: int) -> Any:
        if os.environ.get(PLAIN_MEMORY):
            memory = cupy.cuda.MemoryPointer(cupy.cuda.Memory(size), 0)
        else:
            memory = pool.malloc(size)
        if size:
            memory.memset_async(0xFF, size)
        return memory

    before = cupy.cuda.get_allocator()
    cupy.cuda.set_allocator(poisoned)
    try:
        yield
    finally:
        cupy.cuda.set_allocator(before)


def free_memory(device: str) -> None:
    """Give back what is kept for later, CuPy's and PyTorch's."""
    import gc
    import sys

    gc.collect()
    if device.startswith("cuda:"):
        import cupy

        cupy.get_default_memory_pool().free_all_blocks()
        if "torch" in sys.modules:
            sys.modules["torch"].cuda.empty_cache()
