"""Uploader: arrays on their way from the host to a device while the device computes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from minialex.backend.device import Array, parse_device, require_device
from minialex.backend.emulated import EMULATED, POISON, poisoned

__all__ = ["Uploader"]

# cudaMemcpyHostToDevice
HOST_TO_DEVICE = 1

Host = np.ndarray[Any, np.dtype[Any]]
# Gives the array on the device, for the stream that is current then.
Arrival = Callable[[], Array]


class Uploader:
    """Copies one array after another to a device, on a stream of its own, up to two ahead of their use.

        arrival = uploader.send(pixels)     # returns at once; `pixels` may be overwritten
        ...                                 # the device computes something else
        array = arrival()                   # the current stream waits for the copy, the host does not

    An array is good for work that is launched before the next but one `send`: that one reuses its memory.

    Args:   device: any; on the CPU nothing is copied, and `pixels` itself arrives.
    Raises: DeviceError if the device cannot be used.
    """

    def __init__(self, device: str) -> None:
        self._kind, self._number = parse_device(require_device(device))
        self._slots: list[_EmulatedSlot | _CudaSlot | None] = [None, None]
        self._next = 0
        self._stream: Any = None

    def send(self, array: Host) -> Arrival:
        """Begin to copy an array. It must be C-contiguous."""
        if self._kind == "cpu":
            return lambda: array
        with self._device():
            slot = self._slots[self._next]
            if slot is None or slot.capacity < array.nbytes:
                if slot is not None:
                    slot.finish()
                slot = self._slots[self._next] = self._new_slot(array.nbytes)
            self._next = 1 - self._next
            return slot.send(array)

    def close(self) -> None:
        """Wait for what is still under way: its memory becomes somebody else's after this."""
        with self._device():
            for slot in self._slots:
                if slot is not None:
                    slot.finish()
        self._slots = [None, None]

    def _device(self) -> AbstractContextManager[Any]:
        if self._kind != "cuda":
            return nullcontext()
        import cupy

        return cupy.cuda.Device(self._number)  # type: ignore[no-any-return]

    def _new_slot(self, capacity: int) -> _EmulatedSlot | _CudaSlot:
        if self._kind == EMULATED:
            return _EmulatedSlot(capacity)
        if self._stream is None:
            import cupy

            self._stream = cupy.cuda.Stream(non_blocking=True)
        return _CudaSlot(capacity, self._stream)


class _CudaSlot:
    """A buffer on the device, and page-locked memory on the host: only from there does a copy run alone."""

    def __init__(self, capacity: int, stream: Any) -> None:
        import cupy

        self.capacity, self._stream = capacity, stream
        self._pinned = cupy.cuda.alloc_pinned_memory(capacity)
        self._host = np.frombuffer(self._pinned, np.uint8, capacity)
        self._buffer = cupy.empty(capacity, np.uint8)
        self._copied: Any = None

    def send(self, array: Host) -> Arrival:
        import cupy

        self.finish()  # The copy before may still read the memory on the host.
        size = array.nbytes
        self._host[:size] = array.reshape(-1).view(np.uint8)
        # What reads the buffer was launched before this, and must be done before it is overwritten.
        self._stream.wait_event(cupy.cuda.get_current_stream().record())
        target, source = self._buffer.data.ptr, self._host.ctypes.data
        cupy.cuda.runtime.memcpyAsync(target, source, size, HOST_TO_DEVICE, self._stream.ptr)
        copied = self._copied = self._stream.record()

        def arrival() -> Array:
            cupy.cuda.get_current_stream().wait_event(copied)
            return self._buffer[:size].view(array.dtype).reshape(array.shape)

        return arrival

    def finish(self) -> None:
        """Wait until the copy is done."""
        if self._copied is not None:
            self._copied.synchronize()


class _EmulatedSlot:
    """The same without a GPU. What was sent is seen only once it was asked for, and not once it is gone."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._host = np.empty(capacity, np.uint8)
        self._buffer = poisoned(capacity, np.uint8)

    def send(self, array: Host) -> Arrival:
        size = array.nbytes
        self._host[:size] = array.reshape(-1).view(np.uint8)
        self._buffer.view(np.ndarray)[...] = POISON

        def arrival() -> Array:
            self._buffer.view(np.ndarray)[:size] = self._host[:size]
            return self._buffer[:size].view(array.dtype).reshape(array.shape)

        return arrival

    def finish(self) -> None:
        """Nothing is under way."""
