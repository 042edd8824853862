"""What a PyTorch checkpoint's pickle is made of: storages, and tensors that are windows on them.

The pickle is read first, into descriptions alone; every window is checked against its storage. Numbers are
read afterwards, and only those that are wanted: an optimiser's state costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt

from minialex.errors import CheckpointError
from minialex.safe_pickle import Buildable, Limits, ordered_dict, shown

__all__ = [
    "LIMITS",
    "NAMES",
    "STORAGE_TYPES",
    "Arrays",
    "Storage",
    "StoragePart",
    "StorageType",
    "StoredTensor",
    "arrays_of",
    "bfloat16_as_float32",
    "is_size",
    "native",
    "part_of",
    "rebuild_tensor",
    "state_dict_of",
    "storage_of",
]

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]

LIMITS = Limits(size=16 * 2**20)

MAX_AXES = 32
MAX_NUMBERS = 2**40  # In the shape of an empty tensor, which no storage limits.
MAX_NAME = 300  # Characters.

# Where training scripts put a state dict beside other things.
WRAPPERS = ("state_dict", "model", "model_state_dict")


@dataclass(frozen=True)
class StorageType:
    """Numbers of one kind. Args: name: PyTorch's; dtype: as they lie in the file, little-endian."""

    name: str
    dtype: str


# PyTorch's other kinds (complex, quantised, float8) have no place in the networks here.
STORAGE_TYPES = [
    StorageType("FloatStorage", "<f4"),
    StorageType("DoubleStorage", "<f8"),
    StorageType("HalfStorage", "<f2"),
    StorageType("BFloat16Storage", "<u2"),
    StorageType("LongStorage", "<i8"),
    StorageType("IntStorage", "<i4"),
    StorageType("ShortStorage", "<i2"),
    StorageType("CharStorage", "|i1"),
    StorageType("ByteStorage", "|u1"),
    StorageType("BoolStorage", "|u1"),
]


@dataclass(frozen=True)
class Storage:
    """Numbers in the file. Args: key: its name there; kind: of numbers; size: how many."""

    key: str
    kind: StorageType
    size: int


@dataclass(frozen=True)
class StoragePart:
    """What a tensor's storage is in the pickle: all of a storage, or a part (PyTorch had such until 0.4).

    Args: offset, size: in numbers.
    """

    storage: Storage
    offset: int
    size: int


@dataclass(frozen=True)
class StoredTensor:
    """A window on a storage: element (i, j, ...) is number offset + i*strides[0] + j*strides[1] + ...

    Raises: CheckpointError if it would look beyond the storage, or at a number twice.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        if not (is_size(self.offset) and _are_sizes(self.shape) and _are_sizes(self.strides)):
            raise CheckpointError("a tensor's offset, shape and strides are not whole numbers from 0 on")
        if len(self.shape) != len(self.strides) or len(self.shape) > MAX_AXES:
            raise CheckpointError(f"a tensor has {len(self.shape)} axes and {len(self.strides)} strides")
        if 0 in self.shape:
            if math.prod(extent for extent in self.shape if extent) > MAX_NUMBERS:
                raise CheckpointError("an empty tensor has a shape that is too large")
            return
        reach = 1
        for stride, extent in sorted(self._steps()):
            if stride < reach:
                raise CheckpointError(
                    f"a tensor of shape {self.shape} looks at the same numbers more than once (strides "
                    f"{self.strides}); save tensor.contiguous()"
                )
            reach += stride * (extent - 1)
        if self.offset + reach > self.storage.size:
            raise CheckpointError(
                f"a tensor of shape {self.shape} looks beyond its storage: offset {self.offset}, strides "
                f"{self.strides}, and {self.storage.size:,} numbers in the storage {shown(self.storage.key)}"
            )

    def _steps(self) -> list[tuple[int, int]]:
        return [(s, n) for s, n in zip(self.strides, self.shape, strict=True) if n > 1]

    def region(self) -> tuple[object, ...]:
        """Equal for tensors that look at the same numbers: tied weights, also one transposed or reshaped."""
        steps: list[tuple[int, int]] = []
        for stride, extent in sorted(self._steps()):
            if steps and stride == steps[-1][0] * steps[-1][1]:
                steps[-1] = (steps[-1][0], steps[-1][1] * extent)
            else:
                steps.append((stride, extent))
        return (self.offset, *steps)

    def window(self, numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The tensor as a view of its storage's numbers, a flat array."""
        if 0 in self.shape:
            return np.empty(self.shape, numbers.dtype)
        strides = [
            numbers.itemsize * (s if n > 1 else 1) for s, n in zip(self.strides, self.shape, strict=True)
        ]
        return np.lib.stride_tricks.as_strided(numbers[self.offset :], self.shape, strides)


class StoredParameter(Buildable):
    """A Parameter as PyTorch 0.1 pickled it: an object of a class, and its tensor perhaps in its state."""

    def __init__(self, tensor: object = None, requires_grad: object = True) -> None:
        self.tensor = tensor

    def set_state(self, state: object) -> None:
        """(requires_grad, volatile, hooks), or the tensor before that and its gradient."""
        if not isinstance(state, tuple) or len(state) not in (3, 5):
            raise CheckpointError("a Parameter has a state that is not one of PyTorch's")
        if len(state) == 5:
            self.tensor = state[0]


def rebuild_tensor(part: object, offset: object, shape: object, strides: object) -> StoredTensor:
    """A tensor on a storage. Raises: CheckpointError if that makes no sense."""
    if not isinstance(part, StoragePart):
        raise CheckpointError("a tensor has no storage")
    if not (is_size(offset) and isinstance(shape, tuple) and isinstance(strides, tuple)):
        raise CheckpointError("a tensor's offset, shape and strides are not whole numbers from 0 on")
    # The part is looked at as if it were a storage of its own, so that nothing beyond it is seen.
    StoredTensor(Storage(part.storage.key, part.storage.kind, part.size), offset, shape, strides)
    return StoredTensor(part.storage, part.offset + offset, shape, strides)


def _rebuild_tensor_v2(
    storage: object,
    offset: object,
    shape: object,
    strides: object,
    requires_grad: object,
    hooks: object,
    metadata: object = None,
) -> StoredTensor:
    if metadata:
        raise CheckpointError(
            "a tensor is a conjugate or a negative that was not worked out; save tensor.clone()"
        )
    return rebuild_tensor(storage, offset, shape, strides)


def _rebuild_parameter(tensor: object, requires_grad: object, hooks: object) -> StoredTensor:
    if not isinstance(tensor, StoredTensor):
        raise CheckpointError("a Parameter has no tensor")
    return tensor


# All that the pickle of a state dict needs, by the names that PyTorch gives it.
NAMES: dict[str, Callable[..., object] | object] = {
    "collections.OrderedDict": ordered_dict,
    "torch._utils._rebuild_tensor": rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor_v2,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch.nn.parameter.Parameter": StoredParameter,
    **{f"torch.{kind.name}": kind for kind in STORAGE_TYPES},
}


def storage_of(known: dict[str, Storage], kind: object, key: object, size: object) -> Storage:
    """The storage of this key, which every mention must describe alike; `known` is added to."""
    if not isinstance(kind, StorageType) or not isinstance(key, str) or not is_size(size):
        raise CheckpointError("a storage is not described by a kind, a key and a size")
    storage = Storage(key, kind, size)
    if known.setdefault(key, storage) != storage:
        raise CheckpointError(f"storage {shown(key)} is described in two ways")
    return storage


def part_of(storage: Storage, offset: object, size: object) -> StoragePart:
    """A part of a storage. Raises: CheckpointError if it reaches beyond it."""
    if not is_size(offset) or not is_size(size) or offset + size > storage.size:
        raise CheckpointError(f"a part of storage {shown(storage.key)} reaches beyond it")
    return StoragePart(storage, offset, size)


def state_dict_of(value: object) -> dict[str, StoredTensor]:
    """The state dict that a checkpoint is, or holds as one of WRAPPERS.

    Raises: CheckpointError naming the first entry that is not a tensor, and for names that are none.
    """
    if isinstance(value, dict):
        value = next((value[name] for name in WRAPPERS if isinstance(value.get(name), dict)), value)
    if not isinstance(value, dict) or not value:
        raise CheckpointError("it holds no state dict; save model.state_dict() with torch.save")
    tensors: dict[str, StoredTensor] = {}
    for name, entry in value.items():
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= MAX_NAME:
            raise CheckpointError(f"an entry is called {ascii(name)[:200]}, which is no parameter's name")
        tensor = entry.tensor if isinstance(entry, StoredParameter) else entry
        if not isinstance(tensor, StoredTensor):
            raise CheckpointError(
                f"its entry {name!r} is not a tensor; a checkpoint is a state dict, or has one under "
                f"{', '.join(WRAPPERS[:-1])} or {WRAPPERS[-1]}"
            )
        tensors[name] = tensor
    return tensors


def native(numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same numbers in this machine's byte order, swapped in place if need be."""
    if numbers.dtype.isnative:
        return numbers
    return numbers.byteswap(inplace=True).view(numbers.dtype.newbyteorder("="))


def is_size(value: object) -> TypeGuard[int]:
    """Whether it is a whole number from 0 to what 63 bits hold."""
    return type(value) is int and 0 <= value < 2**63


def _are_sizes(values: Iterable[object]) -> bool:
    return all(map(is_size, values))


def arrays_of(
    tensors: dict[str, StoredTensor], read: Callable[[Storage], npt.NDArray[Any]]
) -> dict[str, npt.NDArray[Any]]:
    """The arrays by name. Tensors that share a storage are views of one array, as in PyTorch.

    Tied weights, two names for all the same numbers, are views of the same memory, also where one of them is
    transposed or reshaped. Tensors that share only some of their numbers are refused: no model is saved so,
    and a small file could pretend to be a huge one. bfloat16, which NumPy lacks, becomes float32, exactly.

    Args:   read: gives the numbers of a storage as they are in the file.
    Raises: CheckpointError as `read`, and for tensors that overlap.
    """
    by_storage: dict[Storage, list[str]] = {}
    for name, tensor in tensors.items():
        by_storage.setdefault(tensor.storage, []).append(name)
    arrays: dict[str, npt.NDArray[Any]] = {}
    for storage, names in by_storage.items():
        numbers = _converted(read(storage), storage.kind)
        _check_overlaps(storage, {name: tensors[name] for name in names})
        arrays |= {name: tensors[name].window(numbers) for name in names}
    return {name: arrays[name] for name in tensors}


def _check_overlaps(storage: Storage, tensors: dict[str, StoredTensor]) -> None:
    regions = {tensor.region(): name for name, tensor in tensors.items() if 0 not in tensor.shape}
    if len(regions) < 2:
        return
    taken = np.zeros(storage.size, np.bool_)
    for name in regions.values():
        own = tensors[name].window(taken)
        if own.any():
            raise CheckpointError(f"{name} shares some of its numbers, but not all, with another tensor")
        own[...] = True


def bfloat16_as_float32(halves: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """The numbers whose upper halves these are, as bits in whole numbers of 16 bits."""
    wide = halves.astype(np.uint32)
    return np.left_shift(wide, 16, out=wide).view(np.float32)


def _converted(numbers: npt.NDArray[Any], kind: StorageType) -> npt.NDArray[Any]:
    if kind.name == "BFloat16Storage":
        return bfloat16_as_float32(numbers)
    return numbers != 0 if kind.name == "BoolStorage" else numbers
