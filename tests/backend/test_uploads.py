"""Uploader: what arrives is what was sent, however late each stream of the device runs."""

from __future__ import annotations

import ctypes
import itertools
import sys
from collections import deque
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minialex.backend import device_of, to_numpy, uploads
from minialex.backend.uploads import Uploader


def pictures(number: int, count: int = 4) -> np.ndarray:
    return np.full((count, 3, 5), number, np.uint8) + np.arange(5, dtype=np.uint8)


# ------------------------------------------------------------------------- streams that run when they like


class Event:
    """Happened once its stream came to it. The host waits by letting that stream run."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.happened = stream, False

    def synchronize(self) -> None:
        while not self.happened:
            self.stream.run_one()


class Stream:
    """Work that is done in order, but no sooner than somebody waits for it."""

    ptr = 1

    def __init__(self, non_blocking: bool = False) -> None:
        self.work: deque[Callable[[], bool]] = deque()  # Each says whether it could be done now.

    def launch(self, work: Callable[[], object]) -> None:
        def done() -> bool:
            work()
            return True

        self.work.append(done)

    def record(self) -> Event:
        event = Event(self)
        self.launch(lambda: setattr(event, "happened", True))
        return event

    def wait_event(self, event: Event) -> None:
        self.work.append(lambda: event.happened)

    def run_one(self) -> None:
        """The next piece, and before it what it waits for."""
        if self.work[0]():
            self.work.popleft()
            return
        for other in STREAMS:
            if other is not self and other.work:
                other.run_one()


STREAMS: list[Stream] = []


class Buffer:
    """cupy.empty(n, uint8), and views of it; `values` reads what is there now."""

    def __init__(self, memory: np.ndarray) -> None:
        self.memory = memory
        self.data = SimpleNamespace(ptr=memory.ctypes.data)

    def __getitem__(self, index: Any) -> Buffer:
        return Buffer(self.memory[index])

    def view(self, dtype: Any) -> Buffer:
        return Buffer(self.memory.view(dtype))

    def reshape(self, shape: tuple[int, ...]) -> Buffer:
        return Buffer(self.memory.reshape(shape))


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    compute = Stream()
    copies: list[Stream] = []

    def new_stream(non_blocking: bool) -> Stream:
        assert non_blocking, "a blocking stream waits for the default stream"
        copies.append(Stream())
        STREAMS.append(copies[-1])
        return copies[-1]

    def copy(target: int, source: int, size: int, kind: int, stream: int) -> None:
        assert (kind, stream) == (1, Stream.ptr)
        copies[-1].launch(lambda: ctypes.memmove(target, source, size))

    module: Any = ModuleType("cupy")
    module.empty = lambda size, dtype: Buffer(np.full(size, 99, dtype))
    module.cuda = SimpleNamespace(
        Stream=new_stream,
        Device=lambda number: compute_device(number),
        get_current_stream=lambda: compute,
        alloc_pinned_memory=bytearray,
        runtime=SimpleNamespace(memcpyAsync=copy, getDeviceCount=lambda: 2),
    )
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    STREAMS[:] = [compute]
    yield SimpleNamespace(compute=compute, copies=copies)
    STREAMS.clear()


class compute_device:
    def __init__(self, number: int) -> None:
        assert number == 1

    def __enter__(self) -> None: ...

    def __exit__(self, *exception: object) -> None: ...


def results_of_a_run(cupy: Any, choices: tuple[int, ...]) -> list[np.ndarray]:
    """Six batches as training takes them: the next is sent, then this one is used. Between any two things
    that the host does, a stream gets on, or none: `choices` says which."""
    uploader, seen = Uploader("cuda:1"), []
    turn = itertools.cycle(choices)

    def elsewhere() -> None:
        chosen = next(turn)
        streams = [s for s in STREAMS if s.work]
        if chosen and streams:
            streams[chosen % len(streams)].run_one()

    arrivals: deque[Any] = deque()
    for number in range(6):
        sent = pictures(number, count=4 if number < 4 else 2)
        arrivals.append(uploader.send(sent))
        sent[...] = 200  # The caller may reuse its memory at once.
        elsewhere()
        if len(arrivals) == 2:
            array = arrivals.popleft()()
            cupy.compute.launch(lambda array=array: seen.append(array.memory.copy()))
            elsewhere()
    array = arrivals.popleft()()
    cupy.compute.launch(lambda: seen.append(array.memory.copy()))
    while cupy.compute.work:
        cupy.compute.run_one()
    return seen


@pytest.mark.parametrize("choices", list(itertools.product([0, 1, 2], repeat=3)))
def test_what_arrives_is_what_was_sent(choices: tuple[int, ...], cupy: Any) -> None:
    seen = results_of_a_run(cupy, choices)
    assert len(cupy.copies) == 1
    for number, array in enumerate(seen):
        np.testing.assert_array_equal(array, pictures(number, count=4 if number < 4 else 2))


def test_closing_waits_for_what_is_under_way(cupy: Any) -> None:
    uploader = Uploader("cuda:1")
    uploader.send(pictures(1))
    uploader.send(pictures(2))
    assert cupy.copies[0].work
    uploader.close()
    assert not cupy.copies[0].work
    Uploader("cuda:1").close()


@pytest.mark.parametrize("forgotten", ["arrival", "reuse", "host memory"])
def test_a_forgotten_wait_is_noticed(forgotten: str, cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in can tell: without one of the three waits, some order of work gives wrong pictures."""
    wait = Stream.wait_event
    if forgotten == "host memory":
        monkeypatch.setattr(uploads._CudaSlot, "finish", lambda self: None)
    else:
        on_compute = forgotten == "arrival"
        monkeypatch.setattr(
            Stream,
            "wait_event",
            lambda self, event: None if (self is cupy.compute) == on_compute else wait(self, event),
        )
    wrong = 0
    for choices in itertools.product([0, 1, 2], repeat=4):
        STREAMS[:] = [cupy.compute]
        seen = results_of_a_run(cupy, choices)
        wrong += any(
            not np.array_equal(array, pictures(number, count=len(array))) for number, array in enumerate(seen)
        )
    assert wrong


# ----------------------------------------------------------------------------------------- without a GPU


def test_on_the_cpu_nothing_is_copied() -> None:
    sent = pictures(1)
    assert Uploader("cpu").send(sent)() is sent


@pytest.mark.emulator
def test_on_the_emulated_device() -> None:
    uploader = Uploader("cuda-emulated")
    kept = []
    for number in range(4):
        sent = pictures(number)
        arrival = uploader.send(sent)
        sent[...] = 200
        array = arrival()
        assert device_of(array) == "cuda-emulated"
        np.testing.assert_array_equal(to_numpy(array), pictures(number))
        kept.append(array)
    assert (to_numpy(kept[1])[0, 0] == pictures(3)[0, 0]).all()  # Its memory is another's now.
    uploader.send(pictures(5))
    assert (to_numpy(kept[2]) == 255).all()
    numbers = np.arange(100.0).reshape(10, 10)  # Larger than what was there.
    np.testing.assert_array_equal(to_numpy(uploader.send(numbers)()), numbers)
