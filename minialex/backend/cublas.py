"""gemm: matrix products of row-major matrices, by cuBLAS on a GPU and by NumPy in its place elsewhere.

cuBLAS counts column by column. A row-major matrix read so is its transpose, and y = a b is the same as
y^T = b^T a^T: with the factors swapped, all three matrices are read as they lie, and nothing is moved.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from minialex.backend.cuda import CudaKernel, contiguous
from minialex.backend.device import Array
from minialex.backend.memory import empty
from minialex.backend.precision import current_precision, round_to_precision
from minialex.backend.threads import one_blas_thread
from minialex.shapes import ShapeError

__all__ = ["gemm"]

# From library_types.h and cublas_api.h.
CUDA_R_32F, CUDA_R_64F, CUDA_R_16BF = 0, 1, 14
CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_64F, CUBLAS_COMPUTE_32F_FAST_TF32 = 68, 70, 77
CUBLAS_OP_N, CUBLAS_OP_T = 0, 1
CUBLAS_GEMM_DEFAULT = -1

round_to_bfloat16 = CudaKernel("precision", "round_to_bfloat16")


def gemm(
    a: Array, b: Array, y: Array, *, transpose_a: bool = False, transpose_b: bool = False, add: bool = False
) -> None:
    """y = op(a) @ op(b), or y += that; op transposes the last two axes or does nothing.

    Shapes: op(a) (M, K), op(b) (K, N), y (M, N), written; all of them may have one leading axis, of a batch:
            a or b without it, or with one matrix, serves every product.
    Args:   add: add to what y holds.
    float32 goes by the precision in force (see `use_precision`), with sums in float32.
    Raises: ShapeError if the shapes do not fit; ValueError if the rows of y do not lie in one piece each.
    """
    if any(x.ndim not in (2, 3) for x in (a, b, y)):
        raise ShapeError(f"gemm: {a.shape} times {b.shape} does not give y {y.shape}; matrices, or batches")
    left = a.swapaxes(-1, -2) if transpose_a else a
    right = b.swapaxes(-1, -2) if transpose_b else b
    _check_shapes(left, right, y)
    if y.size == 0:
        return
    if left.shape[-1] == 0:
        if not add:
            y[...] = 0
    elif isinstance(y, np.ndarray):
        _by_numpy(left.view(np.ndarray), right.view(np.ndarray), y.view(np.ndarray), add)
    else:
        with y.device:
            _by_cublas(left, right, y, add)


def _check_shapes(a: Array, b: Array, y: Array) -> None:
    batch = y.shape[:-2]
    fits = a.shape[-1] == b.shape[-2] and y.shape[-2:] == (a.shape[-2], b.shape[-1])
    if not fits or any(x.shape[:-2] not in ((), (1,), batch) for x in (a, b)):
        raise ShapeError(f"gemm: {a.shape} times {b.shape} does not give y {y.shape}")


def _by_numpy(a: Any, b: Any, y: Any, add: bool) -> None:
    precision = current_precision()
    a, b = round_to_precision(a, precision), round_to_precision(b, precision)
    with one_blas_thread():
        if add:
            y += np.matmul(a, b)
        else:
            np.matmul(a, b, out=y)


# ------------------------------------------------------------------------------------------------ on a GPU


class Layout(NamedTuple):
    """How cuBLAS reads a row-major matrix, or a batch of them.

    Args: array: the memory; operation: CUBLAS_OP_N if its rows lie in one piece each, CUBLAS_OP_T if its
          columns do; leading: elements from one of them to the next; stride: elements to the next matrix.
    """

    array: Array
    operation: int
    leading: int
    stride: int


def _layout(x: Array) -> Layout | None:
    """How to read x (M, N) or (B, M, N) as it lies; None if neither its rows nor its columns are whole."""
    M, N = x.shape[-2:]
    strides = [stride // x.dtype.itemsize for stride in x.strides]
    across, along = strides[-2:]
    batch = strides[0] if x.ndim == 3 and x.shape[0] > 1 else 0
    # An axis of extent 1 is never stepped along, and its stride may be any number.
    if (along == 1 or N == 1) and (across >= N or M == 1):
        return Layout(x, CUBLAS_OP_N, across if M > 1 else N, batch)
    if (across == 1 or M == 1) and (along >= M or N == 1):
        return Layout(x, CUBLAS_OP_T, along if N > 1 else M, batch)
    return None


def _readable(x: Array) -> Layout:
    """How to read x, or a copy of it."""
    layout = _layout(x) or _layout(contiguous(x))
    # A copy of nothing but whole rows is always readable.
    return layout  # type: ignore[return-value]


def _as_bfloat16(x: Array) -> Array:
    """The matrices of x with values of 16 bits, in the layout that they have; one if all are the same."""
    if x.ndim == 3 and x.strides[0] == 0:
        x = x[:1]
    turned = x.swapaxes(-1, -2)
    if turned.flags.c_contiguous:
        return _as_bfloat16_rows(turned).swapaxes(-1, -2)
    return _as_bfloat16_rows(contiguous(x))


def _as_bfloat16_rows(x: Array) -> Array:
    y = empty(x.shape, x, np.uint16)
    round_to_bfloat16.for_each(x.size, x, y, x.size)
    return y


def _by_cublas(a: Array, b: Array, y: Array, add: bool) -> None:
    """One call of cuBLAS, with the factors swapped."""
    factor, compute = CUDA_R_32F, CUBLAS_COMPUTE_32F
    result = CUDA_R_32F
    if y.dtype == np.float64:
        factor = result = CUDA_R_64F
        compute = CUBLAS_COMPUTE_64F
    elif current_precision() == "tf32":
        compute = CUBLAS_COMPUTE_32F_FAST_TF32
    elif current_precision() == "bf16":
        factor = CUDA_R_16BF
        a, b = _as_bfloat16(a), _as_bfloat16(b)
    first, second, out = _readable(b), _readable(a), _layout(y)
    if out is None or out.operation != CUBLAS_OP_N:
        raise ValueError(f"gemm: the rows of y {y.shape} must lie in one piece each, got strides {y.strides}")
    _call(first, second, out, (factor, result, compute), a.shape[-1], add)


def _call(first: Layout, second: Layout, out: Layout, types: tuple[int, int, int], K: int, add: bool) -> None:
    """out = first @ second, or out += that, as cuBLAS reads them."""
    import cupy

    factor, result, compute = types
    y = out.array
    one, zero = _numbers(y.dtype.name)
    handle = cupy.cuda.device.get_cublas_handle()
    pointers = [x.array.data.ptr for x in (first, second, out)]
    begin = (handle, first.operation, second.operation, y.shape[-1], y.shape[-2], K, one)
    end = (compute, CUBLAS_GEMM_DEFAULT)
    a, b = (pointers[0], factor, first.leading), (pointers[1], factor, second.leading)
    beta, c = one if add else zero, (pointers[2], result, out.leading)
    if y.ndim == 2 or y.shape[0] == 1:
        cupy.cuda.cublas.gemmEx(*begin, *a, *b, beta, *c, *end)
    else:
        strides = (first.stride, second.stride, out.stride)
        cupy.cuda.cublas.gemmStridedBatchedEx(
            *begin, *a, strides[0], *b, strides[1], beta, *c, strides[2], y.shape[0], *end
        )


@functools.cache
def _held(dtype: str) -> tuple[Any, Any]:
    """1 and 0 in host memory, where cuBLAS reads its factors."""
    return np.ones((), dtype), np.zeros((), dtype)


def _numbers(dtype: str) -> tuple[int, int]:
    one, zero = _held(dtype)
    return one.ctypes.data, zero.ctypes.data
