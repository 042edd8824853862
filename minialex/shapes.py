"""Integer arithmetic on shapes: no arrays here, so that every rule can be read and tested by itself."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TypeAlias

Shape: TypeAlias = tuple[int, ...]
Pair: TypeAlias = tuple[int, int]
Padding: TypeAlias = tuple[Pair, Pair]
IntOrPair: TypeAlias = int | Sequence[int]
PaddingLike: TypeAlias = int | Sequence[int] | Sequence[Sequence[int]]


class ShapeError(ValueError):
    """Extents that do not fit. The message names the operation, the axis and both numbers."""


def as_int(value: object, name: str) -> int:
    """A whole number from a Python or NumPy integer; ShapeError for anything else, 2.0 and True too."""
    if isinstance(value, bool):
        raise ShapeError(f"{name} must be a whole number, got {value!r}")
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ShapeError(f"{name} must be a whole number, got {value!r}") from None


def pair(value: IntOrPair, name: str, *, minimum: int = 1) -> Pair:
    """(height, width) from one number for both, or from two.

    Raises: ShapeError if there are not one or two whole numbers, each at least `minimum`.
    """
    items = (value, value) if not isinstance(value, Sequence) else tuple(value)
    if len(items) != 2:
        raise ShapeError(f"{name} must be a whole number or a pair (height, width), got {value!r}")
    result = (as_int(items[0], name), as_int(items[1], name))
    if min(result) < minimum:
        raise ShapeError(f"{name} must be at least {minimum}, got {value!r}")
    return result


def padding_pairs(padding: PaddingLike, name: str = "padding") -> Padding:
    """((top, bottom), (left, right)) from p, (ph, pw) or the pairs themselves.

    Raises: ShapeError for any other form and for negative numbers.
    """
    if isinstance(padding, Sequence) and len(padding) == 2 and all(isinstance(p, Sequence) for p in padding):
        vertical, horizontal = padding
        return pair(vertical, name, minimum=0), pair(horizontal, name, minimum=0)
    ph, pw = pair(padding, name, minimum=0)  # type: ignore[arg-type]
    return (ph, ph), (pw, pw)


def conv_output_size(size: int, kernel: int, stride: int, padding: Pair, dilation: int = 1) -> int:
    """Positions at which a dilated kernel fits: floor((W + P - D*(K-1) - 1) / S) + 1; below 1: it never does.

    Args: size, kernel, padding (before, after): pixels; stride, dilation: steps in pixels.
    """
    return (size + padding[0] + padding[1] - dilation * (kernel - 1) - 1) // stride + 1


def pool_output_size(size: int, kernel: int, stride: int, padding: Pair, ceil_mode: bool = False) -> int:
    """Windows along one axis; `ceil_mode` adds a last window that is cut off at the end.

    A last window that would start in the far padding holds no pixel at all and is dropped, as in PyTorch.
    """
    span = size + padding[0] + padding[1] - kernel
    if span < 0 and not (ceil_mode and span > -stride):
        return 0
    count = (-(-span // stride) if ceil_mode else span // stride) + 1
    if ceil_mode and (count - 1) * stride >= size + padding[0]:
        count -= 1
    return count


def numel(shape: Sequence[int]) -> int:
    """The number of elements: the product of the extents, 1 for ()."""
    count = 1
    for extent in shape:
        count *= extent
    return count


def normalize_axis(axis: int, ndim: int, operation: str) -> int:
    """A non-negative axis. Raises: ShapeError if it is outside -ndim .. ndim - 1."""
    position = as_int(axis, f"{operation}: axis")
    if not -ndim <= position < ndim:
        raise ShapeError(f"{operation}: axis {axis} is out of range for an array of {ndim} dimensions")
    return position % ndim


def normalize_axes(axis: int | Sequence[int] | None, ndim: int, operation: str) -> tuple[int, ...]:
    """Sorted non-negative axes; None means all. Raises: ShapeError if one is out of range or comes twice."""
    if axis is None:
        return tuple(range(ndim))
    axes = [normalize_axis(a, ndim, operation) for a in (axis if isinstance(axis, Sequence) else [axis])]
    if len(set(axes)) != len(axes):
        raise ShapeError(f"{operation}: an axis comes twice in {axis!r}")
    return tuple(sorted(axes))


def reduced_shape(shape: Shape, axes: tuple[int, ...], keepdims: bool) -> Shape:
    """The shape left when `axes` are summed away, or kept with extent 1."""
    if keepdims:
        return tuple(1 if i in axes else extent for i, extent in enumerate(shape))
    return tuple(extent for i, extent in enumerate(shape) if i not in axes)


def broadcast_shape(a: Shape, b: Shape, operation: str) -> Shape:
    """NumPy's rule: aligned from the last axis, extents are equal or one of them is 1.

    Raises: ShapeError naming the first axis, from the end, that does not fit.
    """
    result = []
    for back in range(1, max(len(a), len(b)) + 1):
        extent_a = a[-back] if back <= len(a) else 1
        extent_b = b[-back] if back <= len(b) else 1
        if extent_a != extent_b and 1 not in (extent_a, extent_b):
            raise ShapeError(
                f"{operation}: shapes {a} and {b} do not broadcast: "
                f"axis -{back} has {extent_a} and {extent_b}, expected equal extents or a 1"
            )
        result.append(extent_b if extent_a == 1 else extent_a)
    return tuple(reversed(result))


def require_ndim(operation: str, name: str, shape: Shape, ndim: int, axes: str) -> None:
    """Raises: ShapeError if `shape` has not `ndim` axes, naming them: `conv2d: x must be (N, C, H, W)`."""
    if len(shape) != ndim:
        raise ShapeError(f"{operation}: {name} must be {axes}, {ndim} dimensions, got shape {shape}")
