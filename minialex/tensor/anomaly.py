"""Anomaly mode: stop at the first op that makes a NaN or an infinity, or whose saved values were edited."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from minialex.backend import Array, array_module, on_device_of, to_numpy
from minialex.errors import NumericalError
from minialex.tensor.graph import Event, GraphError, Op, observe


class _Watcher:
    """An observer that checks every value made, and checksums what ops save."""

    def __init__(self) -> None:
        self.checksums: WeakKeyDictionary[Op, tuple[int, ...]] = WeakKeyDictionary()

    def __call__(self, event: Event) -> None:
        op = event.op
        if event.phase == "forward":
            output = event.outputs[0]
            bad_inputs = [i for i, t in enumerate(event.inputs) if not _finite(t.data)]
            if not _finite(output.data):
                raise NumericalError(
                    f"{op.name}: forward made {_describe(output.data)}, output shape {output.shape}, from "
                    + (
                        f"input {bad_inputs[0]} that already was not finite"
                        if bad_inputs
                        else "finite inputs"
                    )
                )
            if output.requires_grad:
                self.checksums[op] = _checksums(op)
            return
        if op in self.checksums and self.checksums[op] != _checksums(op):
            raise GraphError(
                f"{op.name}: an array that it saved for backward was overwritten through raw `data` after "
                "the forward pass; edit a copy, or call backward first"
            )
        for i, dinput in enumerate(event.outputs):
            if dinput is not None and not _finite(dinput):
                state = "finite" if _finite(event.inputs[0]) else "not finite either"
                raise NumericalError(
                    f"{op.name}: backward made {_describe(dinput)} in the gradient of input {i}, "
                    f"shape {dinput.shape}; its dy is {state}"
                )


@contextmanager
def anomaly_mode() -> Iterator[None]:
    """Inside, the first op that makes a NaN or an infinity raises, forward or backward; so does a backward
    whose saved values were overwritten through raw `data` writes. Slower: every value is looked at.

    Raises: NumericalError naming the op and the input; GraphError for overwritten values.
    """
    with observe(_Watcher()):
        yield


def _finite(array: Array) -> bool:
    with on_device_of(array):
        return array.dtype.kind != "f" or bool(array_module(array).isfinite(array).all())


def _describe(array: Array) -> str:
    xp = array_module(array)
    with on_device_of(array):
        nans, infinities = int(xp.isnan(array).sum()), int(xp.isinf(array).sum())
    return f"{nans} NaN and {infinities} infinite of {array.size} values"


def _checksums(op: Op) -> tuple[int, ...]:
    arrays = [a for a in op._saved if hasattr(a, "nbytes")]
    return tuple(zlib.adler32(to_numpy(a).tobytes()) for a in arrays)
