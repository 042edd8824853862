"""Optimizer: what every rule of learning shares."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from minialex.backend import (
    Array,
    DTypeError,
    array_module,
    device_of,
    for_ranges,
    on_device_of,
    to_device,
    to_numpy,
)
from minialex.errors import CheckpointError, DeviceError
from minialex.kernels.updates import UpdateKernel
from minialex.shapes import ShapeError
from minialex.tensor import Tensor

__all__ = ["Optimizer", "Update"]


class Update(NamedTuple):
    """What a step does to one parameter: a kernel, flat arrays that it goes through together, and scalars."""

    kernel: UpdateKernel
    arrays: tuple[Array, ...]
    scalars: tuple[Any, ...]


class Optimizer:
    """Changes parameters by their gradients: a subclass gives `_update` and names its settings and buffers.

    Args:   params: the Tensors to learn, such as model.parameters(); one without a gradient is skipped.
            lr: step length, also an attribute that schedules set; weight_decay: L2 penalty on every
            parameter.
    Raises: ValueError for no parameters, the same one twice, one that is computed and not a leaf, and for a
            setting out of its range; TypeError for anything that is not a Tensor.

    Attributes: params: the list; step_count: how often step() ran.
    """

    # Names of the attributes that a state dict keeps, besides lr, and of the buffers.
    settings: tuple[str, ...] = ("weight_decay",)
    buffers: tuple[str, ...] = ()

    def __init__(self, params: Iterable[Tensor], lr: float, weight_decay: float = 0.0) -> None:
        self.params = _checked_params(params, type(self).__name__)
        self.lr = lr
        self.weight_decay = self._in_range("weight_decay", weight_decay)
        self.step_count = 0
        # How often each parameter was updated, and what is remembered about it: {name: array}.
        self._updates = [0] * len(self.params)
        self._memory: list[dict[str, Array]] = [{} for _ in self.params]

    @property
    def lr(self) -> float:
        """The learning rate: the length of a step."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = self._in_range("lr", value)

    def _in_range(self, name: str, value: float, below: float = math.inf) -> float:
        """The setting as a float. Raises: ValueError if it is not in [0, below), NaN included."""
        if not 0.0 <= value < below:
            limit = f" and below {below:g}" if below < math.inf else " and finite"
            raise ValueError(f"{type(self).__name__}: {name} must be at least 0{limit}, got {value}")
        return float(value)

    # ------------------------------------------------------------------------------------- learning

    def zero_grad(self) -> None:
        """Forget all gradients: they become None, and their memory is free."""
        for param in self.params:
            param.zero_grad()

    def step(self) -> None:
        """Update every parameter that has a gradient, in place.

        Raises: ShapeError, DTypeError or DeviceError if a gradient has not its parameter's shape, dtype or
                device; then nothing was updated.
        """
        for index, param in enumerate(self.params):
            if param.grad is not None:
                self._check_gradient(index, param.data, param.grad)
        self.step_count += 1
        updates, copies = [], []
        for index, param in enumerate(self.params):
            if param.grad is not None:
                self._updates[index] += 1
                with on_device_of(param.data):
                    # Kernels want flat contiguous memory. For a contiguous array that is the array itself.
                    weight = _flat(param.data)
                    updates.append(self._update(index, weight, _flat(param.grad)))
                if not param.data.flags.c_contiguous:
                    copies.append((param.data, weight))
                param.bump_version()
        _run(updates)
        for data, weight in copies:
            with on_device_of(data):
                data[...] = weight.reshape(data.shape)

    def _check_gradient(self, index: int, weight: Array, grad: Array) -> None:
        place = f"{type(self).__name__}: the gradient of parameter {index}"
        if grad.shape != weight.shape:
            raise ShapeError(f"{place} has shape {grad.shape}, expected the parameter's {weight.shape}")
        if grad.dtype != weight.dtype:
            raise DTypeError(f"{place} is {grad.dtype}, expected the parameter's {weight.dtype}")
        if device_of(grad) != device_of(weight):
            raise DeviceError(f"{place} is on {device_of(grad)}, expected {device_of(weight)}")

    def _update(self, index: int, weight: Array, grad: Array) -> Update:
        """What is done to the flat `weight` of parameter number `index`."""
        raise NotImplementedError(f"{type(self).__name__} must define _update")

    def _buffer(self, index: int, name: str, weight: Array) -> Array:
        """The flat buffer of a parameter: zeros at first, and always where the parameter is."""
        buffer = self._memory[index].get(name)
        if buffer is None:
            buffer = array_module(weight).zeros_like(weight)
        elif buffer.dtype != weight.dtype or device_of(buffer) != device_of(weight):
            # The model was moved or converted after the first step.
            buffer = to_device(buffer, device_of(weight)).astype(weight.dtype, copy=False)
        self._memory[index][name] = buffer
        return buffer

    # ---------------------------------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, flat: strings, numbers and NumPy arrays (copies).

        {"optimizer": class name, "step": int, "lr": float, ..., "updates": int64 array with the number of
        updates of each parameter, "momentum.0": the buffer of the first parameter, in its shape, ...}
        """
        state: dict[str, Any] = {"optimizer": type(self).__name__, "step": self.step_count, "lr": self.lr}
        state |= {name: getattr(self, name) for name in self.settings}
        state["updates"] = np.array(self._updates, dtype=np.int64)
        for index, (param, memory) in enumerate(zip(self.params, self._memory, strict=True)):
            for name, buffer in memory.items():
                state[f"{name}.{index}"] = np.array(to_numpy(buffer)).reshape(param.shape)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`: learning rate, settings, counts and buffers.

        Raises: CheckpointError saying what does not fit: another kind of optimiser, another number of
                parameters, a name too many or too few, another shape, a setting that the constructor would
                refuse, a count below zero. Then nothing was loaded.
        """
        problems = self._problems(state)
        loaded = None
        if not problems:
            try:
                loaded = self._loaded(state)
            except (TypeError, ValueError, OverflowError) as error:
                problems = [str(error)]
        if loaded is None:
            raise CheckpointError(
                f"this optimiser state does not fit {type(self).__name__}; nothing was loaded\n  "
                + "\n  ".join(problems)
            )
        for name in ("lr", *self.settings, "step_count", "_updates", "_memory"):
            setattr(self, name, getattr(loaded, name))

    def _loaded(self, state: Mapping[str, Any]) -> Self:
        """Another optimiser of the same parameters, in this state: its constructor checks the settings.

        Raises: TypeError or ValueError saying what is wrong.
        """
        optimizer = type(self)(self.params, **self._arguments(state))
        optimizer.step_count = _count("step", state["step"])
        optimizer._updates = [_count("updates", count) for count in state["updates"]]
        for index, param in enumerate(self.params):
            for name in self.buffers:
                if f"{name}.{index}" in state:
                    array = np.array(state[f"{name}.{index}"], dtype=param.dtype).reshape(-1)
                    optimizer._memory[index][name] = to_device(array, param.device)
        return optimizer

    def _arguments(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of __init__, but for params, that a state dict's settings stand for."""
        return {name: state[name] for name in ("lr", *self.settings)}

    def _problems(self, state: Mapping[str, Any]) -> list[str]:
        own = type(self).__name__
        if state.get("optimizer", own) != own:
            return [f"it is the state of {state['optimizer']}"]
        scalars = ("step", "lr", *self.settings, "updates")
        shapes = {f"{name}.{i}": param.shape for name in self.buffers for i, param in enumerate(self.params)}
        problems = [f"missing: {name}" for name in scalars if name not in state]
        problems += [
            f"unexpected: {name}"
            for name in state
            if name not in {"optimizer", *scalars} and name not in shapes
        ]
        if "updates" in state and np.shape(state["updates"]) != (len(self.params),):
            count = np.size(state["updates"])
            problems.append(f"it has {count} parameters, this optimiser {len(self.params)}")
        for name, shape in shapes.items():
            if name in state and np.shape(state[name]) != shape:
                problems.append(f"mismatched: {name} (state {np.shape(state[name])}, parameter {shape})")
        return problems

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={getattr(self, name)!r}" for name in ("lr", *self.settings))
        return f"{type(self).__name__}({len(self.params)} parameters, {settings})"


def _count(name: str, value: Any) -> int:
    """A count of a state dict. Raises: ValueError unless it is a whole number of at least 0."""
    count = int(value)
    if count != value or count < 0:
        raise ValueError(f"{name}: {value} is not a whole number of at least 0")
    return count


# Elements of a piece of the work, and how many are worth a second thread.
PIECE, WORTH_A_THREAD = 1 << 18, 1 << 17


def _run(updates: Sequence[Update]) -> None:
    """All parameters in one pass: one launch where the kernel is CUDA's, else one meeting of the threads."""
    alone: list[Update] = []
    launches: dict[UpdateKernel, list[tuple[Any, ...]]] = {}
    for update in updates:
        if update.kernel.takes_together(update.arrays[0]):
            launches.setdefault(update.kernel, []).append(update.arrays + update.scalars)
        else:
            alone.append(update)
    for kernel, calls in launches.items():
        kernel.together(calls)
    _share_out(alone)


def _share_out(updates: Sequence[Update]) -> None:
    """Each thread has its share of the pieces that the parameters are cut into."""
    pieces = [(update, part) for update in updates for part in _pieces(update.arrays[0])]

    def work(first: int, last: int) -> None:
        with np.errstate(all="ignore"):  # NaN and infinity travel on, as in the ops.
            for (kernel, arrays, scalars), part in pieces[first:last]:
                kernel(*(array[part] for array in arrays), *scalars)

    elements = sum(part.stop - part.start for _, part in pieces)
    on_cpu = all(isinstance(update.arrays[0], np.ndarray) for update in updates)
    worth_sharing = on_cpu and elements >= 2 * WORTH_A_THREAD
    for_ranges(len(pieces), work, smallest=1 if worth_sharing else max(1, len(pieces)))


def _pieces(weight: Array) -> list[slice]:
    """A parameter as work to share: in pieces on the CPU, whole on a GPU."""
    step = PIECE if isinstance(weight, np.ndarray) else max(1, weight.size)
    return [slice(start, min(start + step, weight.size)) for start in range(0, weight.size, step)]


def _flat(array: Array) -> Array:
    if array.flags.c_contiguous:
        return array.reshape(-1)
    return array_module(array).ascontiguousarray(array).reshape(-1)


def _checked_params(params: Iterable[Tensor], owner: str) -> list[Tensor]:
    if isinstance(params, Tensor):
        raise TypeError(f"{owner}: params must be a list of Tensors, got one; write [param]")
    checked = list(params)
    if not checked:
        raise ValueError(f"{owner}: no parameters; was the iterator from model.parameters() already used up?")
    for position, param in enumerate(checked):
        if not isinstance(param, Tensor):
            raise TypeError(f"{owner}: parameter {position} must be a Tensor, got {type(param).__name__}")
        if param.op is not None:
            raise ValueError(f"{owner}: parameter {position} was computed by {param.op.name}; give leaves")
    if len({id(param) for param in checked}) != len(checked):
        raise ValueError(f"{owner}: a parameter comes twice, and would be updated twice")
    return checked
