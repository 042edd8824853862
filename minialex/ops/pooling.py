"""Max-pooling, average pooling and adaptive average pooling."""

from __future__ import annotations

import functools
from typing import ClassVar

import numpy as np

from minialex.backend import Array, device_of, empty, to_device
from minialex.cost import Cost
from minialex.kernels.average_pooling import (
    Bounds,
    adaptive_bounds,
    average_pool_backward,
    average_pool_forward,
    sliding_bounds,
)
from minialex.kernels.max_pooling import max_pool2d_backward, max_pool2d_forward
from minialex.shapes import (
    IntOrPair,
    PaddingLike,
    Shape,
    ShapeError,
    padding_pairs,
    pair,
    pool_output_size,
    require_ndim,
)
from minialex.tensor import Gradients, Op, Tensor, as_tensor


class _WindowOp(Op):
    """What windows that slide over a picture share: their geometry and the output's shape."""

    def __init__(
        self,
        kernel_size: IntOrPair,
        stride: IntOrPair | None = None,
        padding: PaddingLike = 0,
        ceil_mode: bool = False,
    ) -> None:
        self.kernel_size = pair(kernel_size, f"{self.name}: kernel_size")
        self.stride = pair(kernel_size if stride is None else stride, f"{self.name}: stride")
        self.padding = padding_pairs(padding, f"{self.name}: padding")
        self.ceil_mode = ceil_mode
        for kernel, pads in zip(self.kernel_size, self.padding, strict=True):
            if 2 * max(pads) > kernel:
                raise ShapeError(
                    f"{self.name}: padding must be at most half of kernel_size, or a window could see "
                    f"nothing but padding; got padding {pads} for kernel_size {kernel}"
                )

    def shape(self, x: Shape) -> Shape:
        require_ndim(self.name, "x", x, 4, "(N, C, H, W)")
        output = []
        for axis, letter in enumerate("HW"):
            size, pads = x[2 + axis], self.padding[axis]
            kernel, stride = self.kernel_size[axis], self.stride[axis]
            count = pool_output_size(size, kernel, stride, pads, self.ceil_mode) if size > 0 else 0
            if count < 1:
                raise ShapeError(
                    f"{self.name}: no window fits: {letter}={size} with padding {pads} is shorter than "
                    f"kernel_size {kernel}; x {x}"
                )
            output.append(count)
        return (x[0], x[1], *output)

    def bounds(self, x: Shape, count_include_pad: bool) -> tuple[Bounds, Bounds]:
        """(start, stop, divisor) of every window along H and along W, cut to the picture."""
        y = self.shape(x)
        vertical, horizontal = (
            sliding_bounds(
                x[2 + axis],
                y[2 + axis],
                self.kernel_size[axis],
                self.stride[axis],
                self.padding[axis],
                count_include_pad,
            )
            for axis in range(2)
        )
        return vertical, horizontal


class MaxPool2dOp(_WindowOp):
    """The largest pixel of each window; its gradient goes to the pixel that was largest.

        y[n, c, p, q] = max over i, j of x[n, c, p*SH - top + i, q*SW - left + j]

    Windows may overlap (stride < kernel_size). Padding is minus infinity. Of equal pixels the first in the
    window, row by row, takes the whole gradient. What is kept for backward is the winner's position in its
    window, one byte each (more for windows above 256 cells).

    Shapes: x (N, C, H, W) -> y (N, C, OH, OW), OH = floor((H + top + bottom - KH) / SH) + 1.
    Args:   kernel_size, stride (None: kernel_size), padding: pixels; ceil_mode: round up instead of down,
            unless the last window would start in the far padding.
    Raises: ShapeError if no window fits, or padding exceeds half of kernel_size.
    Source: overlapping pooling: Krizhevsky, Sutskever, Hinton 2012, section 3.4.
    """

    rectify: ClassVar[bool] = False

    def cost(self, x: Shape, itemsize: int = 4) -> Cost:
        return Cost.of(_window_cells(x, *self.bounds(x, False)), x, self.shape(x), itemsize=itemsize)

    def forward(self, x: Array) -> Array:
        y, argmax = self.outputs(x)
        max_pool2d_forward(x, y, argmax, self.kernel_size, self.stride, self.padding, self.rectify)
        self.save(argmax)
        return y

    def outputs(self, x: Array) -> tuple[Array, Array]:
        """Empty arrays for y and for the winners' cells."""
        output = self.shape(x.shape)
        # With ReLU there is one number more, for a window without a winner.
        numbers = self.kernel_size[0] * self.kernel_size[1] + self.rectify
        dtype = np.uint8 if numbers <= 2**8 else np.uint16 if numbers <= 2**16 else np.uint32
        return empty(output, x), empty(output, x, dtype)

    def backward(self, dy: Array) -> Gradients:
        (argmax,) = self.saved
        dx = empty(self.input_shapes[0], dy)
        max_pool2d_backward(dy, argmax, dx, self.kernel_size, self.stride, self.padding)
        return (dx,)


class AvgPool2dOp(_WindowOp):
    """The mean of each window.

    Shapes: x (N, C, H, W) -> y (N, C, OH, OW), as max_pool2d.
    Args:   kernel_size, stride, padding, ceil_mode: as max_pool2d, but padding is zeros;
            count_include_pad: whether padded zeros count in the divisor (True, as in PyTorch).
    Raises: ShapeError as max_pool2d.
    """

    def __init__(
        self,
        kernel_size: IntOrPair,
        stride: IntOrPair | None = None,
        padding: PaddingLike = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode)
        self.count_include_pad = count_include_pad

    def cost(self, x: Shape, itemsize: int = 4) -> Cost:
        return _average_cost(x, self.shape(x), self.bounds(x, self.count_include_pad), itemsize)

    def forward(self, x: Array) -> Array:
        return _average(x, self.bounds(x.shape, self.count_include_pad))

    def backward(self, dy: Array) -> Gradients:
        x = self.input_shapes[0]
        return (_average_backward(dy, x, self.bounds(x, self.count_include_pad)),)


class AdaptiveAvgPool2dOp(Op):
    """Means over as many bins as are asked for, whatever the picture's size: bin p of OH along an axis of H
    pixels is floor(p*H/OH) .. ceil((p+1)*H/OH) - 1. Bins may overlap; a bin never is empty.

    Shapes: x (N, C, H, W) -> y (N, C, OH, OW).
    Args:   output_size: OH and OW, an int or (OH, OW).
    Raises: ShapeError if x is not four-dimensional or has no pixels.
    """

    def __init__(self, output_size: IntOrPair) -> None:
        self.output_size = pair(output_size, "adaptive_avg_pool2d: output_size")

    def shape(self, x: Shape) -> Shape:
        require_ndim(self.name, "x", x, 4, "(N, C, H, W)")
        if min(x[2:]) < 1:
            raise ShapeError(f"adaptive_avg_pool2d: x has no pixels; shape {x}")
        return (x[0], x[1], *self.output_size)

    def _bounds(self, x: Shape) -> tuple[Bounds, Bounds]:
        return adaptive_bounds(x[2], self.output_size[0]), adaptive_bounds(x[3], self.output_size[1])

    def cost(self, x: Shape, itemsize: int = 4) -> Cost:
        return _average_cost(x, self.shape(x), self._bounds(x), itemsize)

    def forward(self, x: Array) -> Array:
        return _average(x, self._bounds(x.shape))

    def backward(self, dy: Array) -> Gradients:
        x = self.input_shapes[0]
        return (_average_backward(dy, x, self._bounds(x)),)


def _window_cells(x: Shape, rows: Bounds, cols: Bounds) -> int:
    """Pixels that all windows see together."""
    height, width = (sum(stop - start for start, stop, _ in bounds) for bounds in (rows, cols))
    return x[0] * x[1] * height * width


def _average_cost(x: Shape, y: Shape, bounds: tuple[Bounds, Bounds], itemsize: int) -> Cost:
    divisions = y[0] * y[1] * y[2] * y[3]
    return Cost.of(_window_cells(x, *bounds) + divisions, x, y, itemsize=itemsize)


@functools.cache
def bounds_arrays(bounds: tuple[Bounds, Bounds], device: str) -> tuple[Array, Array]:
    """The bounds as the kernels take them, who only read them: (OH, 3) and (OW, 3), on `device`."""
    rows, cols = (to_device(np.asarray(b, dtype=np.int64), device) for b in bounds)
    return rows, cols


def _average(x: Array, bounds: tuple[Bounds, Bounds]) -> Array:
    rows, cols = bounds_arrays(bounds, device_of(x))
    y = empty((*x.shape[:2], len(rows), len(cols)), x)
    average_pool_forward(x, y, rows, cols)
    return y


def _average_backward(dy: Array, x_shape: Shape, bounds: tuple[Bounds, Bounds]) -> Array:
    rows, cols = bounds_arrays(bounds, device_of(dy))
    dx = empty(x_shape, dy)
    average_pool_backward(dy, dx, rows, cols)
    return dx


def max_pool2d(
    x: Tensor,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: PaddingLike = 0,
    ceil_mode: bool = False,
) -> Tensor:
    """The largest pixel of each window of x (N, C, H, W); see MaxPool2dOp."""
    return MaxPool2dOp(kernel_size, stride, padding, ceil_mode)(as_tensor(x))


def avg_pool2d(
    x: Tensor,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: PaddingLike = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window of x (N, C, H, W); see AvgPool2dOp."""
    return AvgPool2dOp(kernel_size, stride, padding, ceil_mode, count_include_pad)(as_tensor(x))


def adaptive_avg_pool2d(x: Tensor, output_size: IntOrPair) -> Tensor:
    """Means over output_size bins of x (N, C, H, W); see AdaptiveAvgPool2dOp."""
    return AdaptiveAvgPool2dOp(output_size)(as_tensor(x))
