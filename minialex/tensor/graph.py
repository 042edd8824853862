"""The engine: an Op is one recorded call; `run_backward` walks the record from the newest to the oldest."""

from __future__ import annotations

import heapq
import inspect
import itertools
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np

from minialex.backend import Array, DTypeError, array_module, device_of, on_device_of
from minialex.cost import Cost
from minialex.errors import DeviceError
from minialex.shapes import Shape, ShapeError

if TYPE_CHECKING:
    from minialex.tensor.values import Tensor

Gradients: TypeAlias = tuple[Array | None, ...]

_order = itertools.count()
_recording: ContextVar[bool] = ContextVar("minialex_recording", default=True)
_observers: ContextVar[tuple[Callable[[Event], None], ...]] = ContextVar("minialex_observers", default=())


class GraphError(RuntimeError):
    """The recorded graph cannot be walked: freed, edited in place, or nothing to differentiate."""


@dataclass(frozen=True)
class Event:
    """What an observer sees of one call.

    Args: phase: "forward" or "backward"; op: the Op; inputs, outputs: forward, the Tensors that went in and
          the one that came out; backward, (dy,) and one gradient array or None for each input;
          seconds: how long the op's own method took on the host.
    """

    phase: str
    op: Op
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    seconds: float


class Version:
    """Counts the edits in place of one piece of memory; views of the same memory share it."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Op:
    """One call of an operation: a subclass gives `shape`, `cost`, `forward` and `backward`.

    The arguments of a subclass's __init__ are the operation's parameters. `forward` takes and gives arrays
    and keeps what `backward` will want through `self.save(...)`; anything else is freed. `self.needs` says
    which inputs need a gradient. First derivatives only: gradients are arrays, not recorded Tensors.
    """

    name: ClassVar[str] = "op"
    # A view op's output may share memory with its first input, and so shares its version count.
    is_view: ClassVar[bool] = False
    # Most ops compute with fractions: whole numbers would be cut off on the way.
    takes_integers: ClassVar[bool] = False

    needs: tuple[bool, ...] = ()
    edges: tuple[Op | Tensor | None, ...] = ()
    input_shapes: tuple[Shape, ...] = ()
    order: int = -1
    freed: bool = False
    _saved: tuple[Any, ...] = ()
    _versions: tuple[tuple[Version, int], ...] = ()
    _output: weakref.ref[Tensor] | None = None
    retains_grad: bool = False

    def __init_subclass__(cls) -> None:
        if "name" not in cls.__dict__:
            cls.name = _snake_case(cls.__name__.removesuffix("Op"))

    def shape(self, *shapes: Any) -> Shape:
        """The output's shape from the inputs' shapes. Raises: ShapeError if they do not fit."""
        raise NotImplementedError(f"{type(self).__name__} must define shape")

    def cost(self, *shapes: Any, **options: Any) -> Cost:
        """The forward pass's work for inputs of these shapes, by the convention of cost.py.

        Args: itemsize: bytes of an element, 4 unless told.
        """
        raise NotImplementedError(f"{type(self).__name__} must define cost")

    def forward(self, *arrays: Array) -> Array:
        """The output array."""
        raise NotImplementedError(f"{type(self).__name__} must define forward")

    def backward(self, dy: Array) -> Gradients:
        """One gradient for each input, None where `self.needs` says that nobody asks."""
        raise NotImplementedError(f"{type(self).__name__} must define backward")

    def save(self, *values: Any) -> None:
        """Keep arrays (or None) for backward; kept only if the call is recorded."""
        self._saved = values

    @property
    def saved(self) -> tuple[Any, ...]:
        """What `save` kept. Raises: GraphError if it was freed, or edited in place since."""
        if self.freed:
            raise GraphError(
                f"{self.name}: backward was already run through this graph and freed what it had saved; "
                "run the forward pass again, or call backward(retain_graph=True) the first time"
            )
        for version, count in self._versions:
            if version.count != count:
                raise GraphError(
                    f"{self.name}: a value that it saved for backward was edited in place "
                    f"(version {version.count}, saved at version {count}); call backward before the edit, "
                    "or edit a copy"
                )
        return self._saved

    @property
    def saved_bytes(self) -> int:
        """Bytes of the arrays kept for backward."""
        return sum(a.nbytes for a in self._saved if hasattr(a, "nbytes"))

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Run forward on the Tensors' arrays and record the call if a gradient may be asked for."""
        self._begin(inputs)
        output_shape = self.shape(*self.input_shapes)
        started = perf_counter()
        # NaN and infinity travel on, as on a GPU; anomaly mode finds them.
        with np.errstate(all="ignore"), on_device_of(inputs[0].data):
            data = _as_array(self.forward(*(t.data for t in inputs)))
        seconds = perf_counter() - started
        if data.shape != output_shape:
            raise ShapeError(f"{self.name}: forward gave shape {data.shape}, but shape() says {output_shape}")
        output = type(inputs[0])._wrap(data, requires_grad=any(self.needs))
        if self.is_view and _may_share(data, inputs[0].data):
            output.version = inputs[0].version
        if any(self.needs):
            self._record(inputs, output)
        else:
            self._saved = ()
        if _observers.get():
            notify(Event("forward", self, inputs, (output,), seconds))
        return output

    def _begin(self, inputs: tuple[Tensor, ...]) -> None:
        if self.order >= 0:
            raise GraphError(f"{self.name}: an Op is one call; make a new one for each")
        self.order = next(_order)
        if len({t.device for t in inputs}) > 1:
            raise DeviceError(f"{self.name}: inputs are on different devices: {self._places(inputs)}")
        self._check_dtypes(inputs)
        self.input_shapes = tuple(t.shape for t in inputs)
        recording = _recording.get()
        self.needs = tuple(recording and t.requires_grad for t in inputs)

    def _places(self, inputs: tuple[Tensor, ...]) -> str:
        """Which input is where, and what to do: "x on cuda:0, weight on cpu; ..."."""
        parameters = list(inspect.signature(self.forward).parameters.values())
        if any(p.kind is p.VAR_POSITIONAL for p in parameters):
            names = [f"input {i}" for i in range(len(inputs))]
        else:
            names = [p.name for p in parameters[: len(inputs)]]
        places = ", ".join(f"{name} on {t.device}" for name, t in zip(names, inputs, strict=True))
        target = next((t.device for t in inputs if t.device != "cpu"), "cpu")
        return f"{places}; bring all of them to one, as in x.to({target!r}) or model.to({target!r})"

    def _check_dtypes(self, inputs: tuple[Tensor, ...]) -> None:
        first = inputs[0].dtype
        if any(t.dtype != first for t in inputs):
            dtypes = dict.fromkeys(str(t.dtype) for t in inputs)
            raise DTypeError(
                f"{self.name}: inputs have dtypes {' and '.join(dtypes)}, expected one; "
                "convert the data, as in mx.Tensor(x.astype('float32'))"
            )
        if not self.takes_integers and first.kind != "f":
            raise DTypeError(
                f"{self.name}: expected floating values, got {first}; "
                "convert the data, as in mx.Tensor(x.astype('float32'))"
            )

    def _record(self, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.edges = tuple((t.op or t) if need else None for t, need in zip(inputs, self.needs, strict=True))
        self._output = weakref.ref(output)
        output.op = self
        versions = {}
        for array in self._saved:
            if not hasattr(array, "strides"):  # Not an array: None, or a number.
                continue
            for tensor in (*inputs, output):
                if array is tensor.data or _may_share(array, tensor.data):
                    versions[id(tensor.version)] = (tensor.version, tensor.version.count)
        self._versions = tuple(versions.values())

    def _free(self) -> None:
        self.freed = True
        self._saved, self._versions, self.edges = (), (), ()


def _snake_case(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


def _as_array(value: Any) -> Array:
    """NumPy gives a scalar where an array of no dimensions is meant."""
    return np.asarray(value) if isinstance(value, np.generic) else value


# ---------------------------------------------------------------------------------------------- modes


@contextmanager
def no_grad() -> Iterator[None]:
    """Inside, nothing is recorded: outputs require no gradient and nothing is kept for backward."""
    token = _recording.set(False)
    try:
        yield
    finally:
        _recording.reset(token)


def is_recording() -> bool:
    """Whether calls are recorded here: False inside `no_grad`."""
    return _recording.get()


@contextmanager
def observe(callback: Callable[[Event], None]) -> Iterator[None]:
    """Inside, `callback` gets an Event for every op's forward call and for every op's backward call."""
    token = _observers.set((*_observers.get(), callback))
    try:
        yield
    finally:
        _observers.reset(token)


def notify(event: Event) -> None:
    """Tell every observer, outermost first."""
    callbacks = _observers.get()
    token = _observers.set(())  # What an observer itself computes is not observed.
    try:
        for callback in callbacks:
            callback(event)
    finally:
        _observers.reset(token)


# ------------------------------------------------------------------------------------------- backward


def run_backward(root: Tensor, dy: Array, retain_graph: bool) -> None:
    """Add the gradient of <root, dy> to the grad of every leaf that root was computed from.

    Ops are numbered as they are called, so an op's consumers all have higher numbers: taking the newest
    waiting op means that its dy is complete. A loop, so that the depth of the graph does not matter.
    """
    if root.op is None:
        _accumulate(root, dy, owned=False)
        return
    waiting: dict[int, Array] = {root.op.order: dy}
    owned: set[int] = set()
    heap: list[tuple[int, Op]] = [(-root.op.order, root.op)]
    while heap:
        _, op = heapq.heappop(heap)
        dy = waiting.pop(op.order)
        owned.discard(op.order)
        dinputs = _call_backward(op, dy)
        for i, (edge, dinput) in enumerate(zip(op.edges, dinputs, strict=True)):
            if edge is None or dinput is None:
                continue
            if not isinstance(edge, Op):
                _accumulate(edge, dinput, owned=_is_fresh(op, dy, dinputs, i))
            elif edge.order not in waiting:
                waiting[edge.order] = dinput
                heapq.heappush(heap, (-edge.order, edge))
            elif edge.order in owned:
                waiting[edge.order] += dinput
            else:
                # The first sum makes an array of its own: the parts may be views of someone else's.
                waiting[edge.order] = _as_array(waiting[edge.order] + dinput)
                owned.add(edge.order)
        if not retain_graph:
            op._free()
        del dinputs


def _call_backward(op: Op, dy: Array) -> Gradients:
    """One op's input gradients, checked; dy is kept for a Tensor that asked to retain it."""
    _ = op.saved  # Refuses a freed graph and edited values before anything is computed from them.
    output = op._output() if op._output is not None else None
    if op.retains_grad and output is not None:
        _accumulate(output, dy, owned=False)
    started = perf_counter()
    with np.errstate(all="ignore"), on_device_of(dy):
        result = op.backward(dy)
    seconds = perf_counter() - started
    if not isinstance(result, tuple):
        raise GraphError(
            f"{op.name}: backward must give a tuple with one gradient for each input, "
            f"got {type(result).__name__}; for one input write `return (dx,)`"
        )
    dinputs = tuple(d if d is None else _as_array(d) for d in result)
    if len(dinputs) != len(op.input_shapes):
        raise GraphError(
            f"{op.name}: backward gave {len(dinputs)} gradients for {len(op.input_shapes)} inputs"
        )
    for i, dinput in enumerate(dinputs):
        if dinput is None:
            if op.needs[i]:
                raise GraphError(f"{op.name}: backward gave None for input {i}, which needs a gradient")
        elif dinput.shape != op.input_shapes[i]:
            raise ShapeError(
                f"{op.name}: backward gave a gradient of shape {dinput.shape} for input {i} "
                f"of shape {op.input_shapes[i]}"
            )
        elif dinput.dtype != dy.dtype:
            raise DTypeError(f"{op.name}: backward gave {dinput.dtype} for input {i}, expected {dy.dtype}")
    if _observers.get():
        notify(Event("backward", op, (dy,), dinputs, seconds))
    return dinputs


def _is_fresh(op: Op, dy: Array, dinputs: Gradients, index: int) -> bool:
    """Whether a gradient is memory that nobody else holds, so that a leaf may keep it without a copy."""
    mine = dinputs[index]
    # A broadcast view is read-only on the host, and shares elements: it cannot be added to later.
    if mine is None or not mine.flags.c_contiguous or not getattr(mine.flags, "writeable", True):
        return False
    others = [dy, *op._saved, *(d for i, d in enumerate(dinputs) if i != index)]
    return not any(hasattr(other, "strides") and _may_share(mine, other) for other in others)


def _may_share(a: Array, b: Array) -> bool:
    """Whether two arrays may have memory in common; never on two devices."""
    if type(a) is type(b) is np.ndarray:  # Asked for every op, and mostly of these.
        return np.may_share_memory(a, b)
    return device_of(a) == device_of(b) and bool(array_module(a).may_share_memory(a, b))


def _accumulate(tensor: Tensor, dtensor: Array, *, owned: bool) -> None:
    if tensor.grad is None:
        tensor.grad = dtensor if owned else dtensor.copy()
    else:
        tensor.grad += dtensor
