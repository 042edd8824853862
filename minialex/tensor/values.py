"""Tensor: an array, its gradient, and the Op that made it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from minialex.backend import (
    FLOAT_DTYPES,
    Array,
    DTypeError,
    array_module,
    canonical_device,
    device_of,
    is_array,
    on_device_of,
    require_device,
    to_device,
    to_numpy,
)
from minialex.errors import DeviceError
from minialex.shapes import Shape, ShapeError
from minialex.tensor.arithmetic import AddOp, DivOp, MatmulOp, MulOp, NegOp, PowOp, SubOp
from minialex.tensor.elementary import ExpOp, LogOp
from minialex.tensor.graph import GraphError, Op, Version, is_recording, run_backward
from minialex.tensor.indexing import IndexOp
from minialex.tensor.reductions import MeanOp, SumOp
from minialex.tensor.shaping import ReshapeOp, TransposeOp


class Tensor:
    """An array that remembers how it was computed.

    Args:   data: an array, a Tensor, a number or nested lists; copied. Floating and integer arrays keep
            their dtype; lists and Python numbers become float32.
            requires_grad: whether `backward` shall leave a gradient in `grad`; device: "cpu", "cuda",
            "cuda:N", "cuda-emulated" (None: where the data is); dtype: the element type, if another is
            wanted.
    Raises: DTypeError if a gradient is asked for integers; DeviceError if the device cannot be used.

    Attributes: data: the array; grad: None or an array of the same shape, dtype and device; op: the Op that
    made it, None for a leaf; requires_grad; version: counts edits in place.
    """

    __slots__ = ("__weakref__", "_data", "_grad", "name", "op", "requires_grad", "version")

    # NumPy must leave array + Tensor to Tensor.__radd__ instead of making an array of Tensors.
    __array_priority__ = 1000
    __array_ufunc__ = None

    def __init__(
        self,
        data: Any,
        requires_grad: bool = False,
        device: str | None = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        array = _as_new_array(data, dtype)
        if device is not None and canonical_device(device) != device_of(array):
            array = to_device(array, require_device(device))
        self._set(array, requires_grad)

    def _set(self, array: Array, requires_grad: bool) -> None:
        if requires_grad and array.dtype.kind != "f":
            raise DTypeError(f"only floating Tensors can require gradients, got dtype {array.dtype}")
        self._data = array
        self._grad: Array | None = None
        self.op: Op | None = None
        self.requires_grad = requires_grad
        self.version = Version()
        self.name = ""

    @classmethod
    def _wrap(cls, array: Array, requires_grad: bool = False) -> Tensor:
        """A Tensor around this very array, without a copy."""
        tensor = Tensor.__new__(Tensor)
        tensor._set(array, requires_grad)
        return tensor

    # ------------------------------------------------------------------------------------ attributes

    @property
    def data(self) -> Array:
        """The array itself, on the Tensor's device. Writing into it is not noticed (anomaly mode does)."""
        return self._data

    @data.setter
    def data(self, array: Array) -> None:
        if array.shape != self._data.shape:
            raise ShapeError(f"data: expected shape {self._data.shape}, got {array.shape}")
        if array.dtype != self._data.dtype or device_of(array) != self.device:
            self._grad = None  # It belongs to the old values, and could not be added to.
        self._data = array
        self.version.count += 1

    @property
    def grad(self) -> Array | None:
        """The gradient that `backward` added up here, or None; of the Tensor's shape, dtype and device."""
        return self._grad

    @grad.setter
    def grad(self, array: Array | None) -> None:
        if isinstance(array, Tensor):
            raise TypeError("grad is an array, not a Tensor: assign tensor.data")
        if array is not None:
            mine = (self.shape, self.dtype, self.device)
            given = (tuple(array.shape), array.dtype, device_of(array))
            if given != mine:
                raise ShapeError(
                    f"grad: expected shape {mine[0]}, {mine[1]}, on {mine[2]}; "
                    f"got shape {given[0]}, {given[1]}, on {given[2]}"
                )
        self._grad = array

    @property
    def shape(self) -> Shape:
        """The extents."""
        return tuple(self._data.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type."""
        return self._data.dtype  # type: ignore[no-any-return]

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self._data.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(self._data.size)

    @property
    def device(self) -> str:
        """Where the array lives: "cpu", "cuda:N" or "cuda-emulated"."""
        return device_of(self._data)

    @property
    def is_leaf(self) -> bool:
        """Whether it was made by the user and not by an op that was recorded."""
        return self.op is None

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a Tensor of no dimensions has no len()")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        values = np.array2string(to_numpy(self._data), separator=", ", prefix="Tensor(", threshold=100)
        extras = [f"dtype={self.dtype}"] if self.dtype != np.float32 else []
        extras += [f"device={self.device!r}"] if self.device != "cpu" else []
        extras += ["requires_grad=True"] if self.requires_grad and self.op is None else []
        extras += [f"op={self.op.name}"] if self.op is not None else []
        return f"Tensor({', '.join([values, *extras])})"

    # ------------------------------------------------------------------------------- leaving the graph

    def numpy(self) -> npt.NDArray[Any]:
        """The values as a NumPy array: on the CPU the very memory of the Tensor, else a copy."""
        return to_numpy(self._data)

    def item(self) -> float | int | bool:
        """The value of a Tensor of one element, as a Python number. Raises: ShapeError if there are more."""
        if self.size != 1:
            raise ShapeError(f"item: expected one element, got shape {self.shape}")
        return to_numpy(self._data).reshape(()).item()  # type: ignore[no-any-return]

    def __float__(self) -> float:
        return float(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    # Comparisons give plain boolean arrays: there is nothing to differentiate.

    def __eq__(self, other: object) -> Any:
        return self._compared(operator.eq, other)

    def __ne__(self, other: object) -> Any:
        return self._compared(operator.ne, other)

    def __lt__(self, other: Any) -> Any:
        return self._compared(operator.lt, other)

    def __le__(self, other: Any) -> Any:
        return self._compared(operator.le, other)

    def __gt__(self, other: Any) -> Any:
        return self._compared(operator.gt, other)

    def __ge__(self, other: Any) -> Any:
        return self._compared(operator.ge, other)

    def _compared(self, compare: Callable[[Any, Any], Any], other: Any) -> Any:
        with on_device_of(self._data):
            return compare(self._data, self._values(other))

    __hash__ = object.__hash__

    def detach(self) -> Tensor:
        """The same memory as a leaf that requires no gradient."""
        tensor = Tensor._wrap(self._data)
        tensor.version = self.version
        return tensor

    def to(self, device: str) -> Tensor:
        """This Tensor on `device`: itself if it is there, else a leaf that is a copy.

        Raises: DeviceError if the device cannot be used; GraphError for a recorded Tensor, whose gradient
        could not find its way back.
        """
        if canonical_device(device) == self.device:
            return self
        if self.op is not None and is_recording():
            raise GraphError("to: only leaves move between devices; call .detach() first")
        return Tensor._wrap(to_device(self._data, device), requires_grad=self.requires_grad)

    def astype(self, dtype: npt.DTypeLike) -> Tensor:
        """A leaf with the same values as another dtype; it requires no gradient.

        Raises: GraphError for a Tensor that requires gradients, which could not find their way back.
        """
        if self.requires_grad and is_recording():
            raise GraphError(
                "astype: this Tensor requires gradients, and they would not flow back through astype; "
                "use .detach().astype(...), or make the Tensor with dtype=... from the beginning"
            )
        with on_device_of(self._data):
            return Tensor._wrap(self._data.astype(dtype), requires_grad=False)

    # --------------------------------------------------------------------------------------- gradients

    def backward(self, grad: Any = None, retain_graph: bool = False) -> None:
        """Add the gradient of this Tensor to the `grad` of every leaf it was computed from.

        Args:   grad: the cotangent, an array of this Tensor's shape; a Tensor of one element needs none.
                retain_graph: keep what ops saved, so that backward can run again.
        Raises: GraphError if nothing was recorded, the graph was freed, or a saved value was edited;
                ShapeError if `grad` has another shape, or is missing for more than one element.
        """
        if not self.requires_grad:
            raise GraphError(
                "backward: nothing to differentiate: this Tensor was computed under no_grad() or from "
                "inputs without requires_grad=True"
            )
        with on_device_of(self._data):
            run_backward(self, self._cotangent(grad), retain_graph)

    def _cotangent(self, grad: Any) -> Array:
        xp = array_module(self._data)
        if grad is None:
            if self.size != 1:
                raise ShapeError(
                    f"backward: a Tensor of shape {self.shape} needs a cotangent of that shape: "
                    "y.backward(dy); or reduce it first, as in y.sum().backward()"
                )
            return xp.ones_like(self._data)
        array = grad.data if isinstance(grad, Tensor) else grad
        array = xp.asarray(array, dtype=self.dtype)
        if array.shape != self.shape:
            raise ShapeError(f"backward: grad has shape {array.shape}, expected this Tensor's {self.shape}")
        return array

    def retain_grad(self) -> None:
        """Ask `backward` to leave a gradient here although this Tensor is not a leaf."""
        if not self.requires_grad:
            raise GraphError("retain_grad: this Tensor requires no gradient")
        if self.op is not None:
            self.op.retains_grad = True

    def zero_grad(self) -> None:
        """Forget the gradient: `grad` becomes None, and its memory is free."""
        self.grad = None

    # ---------------------------------------------------------------------------------- edits in place

    def bump_version(self) -> None:
        """Say that the values were edited in place, so that a backward that wants the old ones refuses."""
        self.version.count += 1

    def copy_(self, values: Any) -> Self:
        """Overwrite the values, broadcasting; noticed by ops that saved them."""
        self[...] = values
        return self

    def zero_(self) -> Self:
        """Overwrite the values with zeros; noticed by ops that saved them."""
        return self.copy_(0)

    def __setitem__(self, index: Any, values: Any) -> None:
        if self.requires_grad and is_recording():
            raise GraphError(
                "an edit in place of a Tensor that requires gradients cannot be recorded; "
                "do it under no_grad(), or compute a new Tensor"
            )
        with on_device_of(self._data):
            self._data[_plain_index(index)] = self._values(values)
        self.bump_version()

    def _in_place(self, result: Tensor) -> Tensor:
        """What += and its like leave in the variable: under no_grad this Tensor, edited; while recording a
        new one, because ops may have saved the old values."""
        if is_recording() and (self.requires_grad or result.requires_grad):
            if self.requires_grad and self.is_leaf:
                raise GraphError(
                    "a leaf that requires gradients cannot be edited in place while calls are recorded; "
                    "update it under no_grad(), or write y = x + ... for a new Tensor"
                )
            return result
        self[...] = result
        return self

    def __iadd__(self, other: Any) -> Tensor:
        return self._in_place(self + other)

    def __isub__(self, other: Any) -> Tensor:
        return self._in_place(self - other)

    def __imul__(self, other: Any) -> Tensor:
        return self._in_place(self * other)

    def __itruediv__(self, other: Any) -> Tensor:
        return self._in_place(self / other)

    # ------------------------------------------------------------------------------ symbols and methods

    def __add__(self, other: Any) -> Tensor:
        return AddOp()(self, self._operand(other))

    def __radd__(self, other: Any) -> Tensor:
        return AddOp()(self._operand(other), self)

    def __sub__(self, other: Any) -> Tensor:
        return SubOp()(self, self._operand(other))

    def __rsub__(self, other: Any) -> Tensor:
        return SubOp()(self._operand(other), self)

    def __mul__(self, other: Any) -> Tensor:
        return MulOp()(self, self._operand(other))

    def __rmul__(self, other: Any) -> Tensor:
        return MulOp()(self._operand(other), self)

    def __truediv__(self, other: Any) -> Tensor:
        return DivOp()(self, self._operand(other))

    def __rtruediv__(self, other: Any) -> Tensor:
        return DivOp()(self._operand(other), self)

    def __pow__(self, other: Any) -> Tensor:
        return PowOp()(self, self._operand(other))

    def __rpow__(self, other: Any) -> Tensor:
        return PowOp()(self._operand(other), self)

    def __matmul__(self, other: Any) -> Tensor:
        return MatmulOp()(self, self._operand(other))

    def __rmatmul__(self, other: Any) -> Tensor:
        return MatmulOp()(self._operand(other), self)

    def __neg__(self) -> Tensor:
        return NegOp()(self)

    def __getitem__(self, index: Any) -> Tensor:
        return IndexOp(_plain_index(index))(self)

    def sum(self, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
        """Sum over `axis` (None: all)."""
        return SumOp(axis, keepdims)(self)

    def mean(self, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
        """Mean over `axis` (None: all)."""
        return MeanOp(axis, keepdims)(self)

    def exp(self) -> Tensor:
        """e to the power of each element."""
        return ExpOp()(self)

    def log(self) -> Tensor:
        """Natural logarithm of each element."""
        return LogOp()(self)

    def reshape(self, *shape: int | Sequence[int]) -> Tensor:
        """The same elements under another shape: reshape(2, -1) or reshape((2, -1))."""
        return ReshapeOp(_varargs(shape))(self)

    def transpose(self, *axes: int | Sequence[int]) -> Tensor:
        """Permuted axes: transpose(0, 2, 1) or transpose((0, 2, 1)); without arguments all reversed."""
        return TransposeOp(_varargs(axes) if axes else None)(self)

    @property
    def T(self) -> Tensor:
        """All axes reversed."""
        return TransposeOp()(self)

    def _operand(self, other: Any) -> Tensor:
        """The other side of an operator: numbers and lists take its dtype, arrays must have it already."""
        if isinstance(other, Tensor):
            tensor = other
        elif isinstance(other, (int, float, np.generic)):
            dtype = self.dtype
            if dtype.kind in "iub" and isinstance(other, (float, np.floating)):
                dtype = np.dtype(np.float32)
            with on_device_of(self._data):
                tensor = Tensor._wrap(array_module(self._data).asarray(other, dtype=dtype))
        else:
            # A copy: backward may want the values after the user has changed the array.
            wanted = self.dtype if isinstance(other, (list, tuple)) else None
            owner = other if is_array(other) and device_of(other) != "cpu" else self._data
            with on_device_of(owner):
                tensor = Tensor._wrap(array_module(owner).array(other, dtype=wanted))
        return tensor

    def _values(self, other: Any) -> Any:
        """The values of a Tensor, array, list or number; an array of the CPU is brought to this device.

        Raises: DeviceError for values on another device.
        """
        values = other.data if isinstance(other, Tensor) else other
        if not is_array(values) or device_of(values) == self.device:
            return values
        if isinstance(other, Tensor) or device_of(values) != "cpu":
            raise DeviceError(
                f"values on {device_of(values)} meet a Tensor on {self.device}; move one of them, as in "
                f"values.to({self.device!r})"
            )
        return to_device(values, self.device)


def as_tensor(value: Any, like: Tensor | None = None) -> Tensor:
    """The Tensor itself, or a Tensor around an array, list or number (on the device of `like`)."""
    if isinstance(value, Tensor):
        return value
    return Tensor(value, device=like.device if like is not None else None)


def _as_new_array(data: Any, dtype: npt.DTypeLike | None) -> Array:
    if data is None:
        raise DTypeError("a Tensor needs values, got None")
    if isinstance(data, Tensor):
        data = data.data
    if is_array(data):
        with on_device_of(data):  # Else CuPy would copy it to its current device.
            array = array_module(data).array(data)
    elif hasattr(data, "__array__") or isinstance(data, np.generic):  # Other libraries' arrays, too.
        array = np.array(data)
    else:
        array = np.asarray(data, dtype=np.float32 if dtype is None else dtype)
    if dtype is not None:
        with on_device_of(array):
            array = array.astype(dtype, copy=False)
    if array.dtype.kind not in "fiub" or (array.dtype.kind == "f" and str(array.dtype) not in FLOAT_DTYPES):
        raise DTypeError(
            f"a Tensor holds float32, float64, whole numbers or booleans, got {array.dtype}; "
            "give dtype='float32' to convert"
        )
    return array


def _plain_index(index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple(part.data if isinstance(part, Tensor) else part for part in index)
    return index.data if isinstance(index, Tensor) else index


def _varargs(numbers: tuple[int | Sequence[int], ...]) -> tuple[int, ...]:
    if len(numbers) == 1 and isinstance(numbers[0], Sequence):
        return tuple(numbers[0])
    return numbers  # type: ignore[return-value]
