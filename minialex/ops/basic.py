"""The Tensor's own methods as functions, and flatten."""

from __future__ import annotations

from collections.abc import Sequence

from minialex.shapes import numel
from minialex.tensor import Tensor, as_tensor


def sum(x: Tensor, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
    """Sum over `axis` (None: all); see SumOp."""
    return as_tensor(x).sum(axis, keepdims)


def mean(x: Tensor, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
    """Mean over `axis` (None: all); see MeanOp."""
    return as_tensor(x).mean(axis, keepdims)


def exp(x: Tensor) -> Tensor:
    """e to the power of each element; see ExpOp."""
    return as_tensor(x).exp()


def log(x: Tensor) -> Tensor:
    """Natural logarithm of each element; see LogOp."""
    return as_tensor(x).log()


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Matrix product over the last two axes; see MatmulOp."""
    return as_tensor(a) @ as_tensor(b)


def reshape(x: Tensor, shape: Sequence[int]) -> Tensor:
    """The same elements under another shape, one extent of which may be -1; see ReshapeOp."""
    return as_tensor(x).reshape(shape)


def transpose(x: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    """Permuted axes, None: all reversed; see TransposeOp."""
    return as_tensor(x).transpose(*([] if axes is None else [axes]))


def flatten(x: Tensor, start_axis: int = 1) -> Tensor:
    """All axes from start_axis on as one: (N, C, H, W) -> (N, C*H*W)."""
    x = as_tensor(x)
    return x.reshape(*x.shape[:start_axis], numel(x.shape[start_axis:]))
