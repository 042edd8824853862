"""Pooling as layers: no parameters, one op call each."""

from __future__ import annotations

from typing import ClassVar

from minialex import ops
from minialex.nn.layers import short_padding
from minialex.nn.module import Module
from minialex.shapes import IntOrPair, PaddingLike, Pair
from minialex.tensor import Tensor

__all__ = ["AdaptiveAvgPool2d", "AvgPool2d", "MaxPool2d"]


class _Pool2d(Module):
    """What the pooling layers with a window share: their settings and the size of what they give."""

    _op: ClassVar[type[ops.MaxPool2dOp | ops.AvgPool2dOp]]

    def __init__(
        self,
        kernel_size: IntOrPair,
        stride: IntOrPair | None = None,
        padding: PaddingLike = 0,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        op = self._op(kernel_size, stride, padding, ceil_mode)  # Refuses what it would at the first call.
        self.kernel_size, self.stride, self.padding = op.kernel_size, op.stride, op.padding
        self.ceil_mode = ceil_mode

    def output_size(self, size: Pair) -> Pair:
        """(OH, OW) for an image of (H, W). Raises: ShapeError if the window does not fit anywhere."""
        op = self._op(self.kernel_size, self.stride, self.padding, self.ceil_mode)
        height, width = op.shape((1, 1, *size))[2:]
        return height, width

    def extra_repr(self) -> str:
        parts = [f"kernel_size={self.kernel_size}", f"stride={self.stride}"]
        parts += [f"padding={short_padding(self.padding)}"] if self.padding != ((0, 0), (0, 0)) else []
        return ", ".join(parts + (["ceil_mode=True"] if self.ceil_mode else []))


class MaxPool2d(_Pool2d):
    """The largest value in each window.

    Shapes: x (N, C, H, W) -> (N, C, OH, OW), OH = floor((H + top + bottom - KH) / stride) + 1, and OW alike.
    Args:   kernel_size: a number or (height, width), pixels; stride: alike, None means kernel_size, smaller
            than kernel_size the windows overlap; padding: minus infinity around the image, at most half of
            kernel_size; ceil_mode: round up, which adds a last window that is cut off.
    Raises: ShapeError if an extent is below 1 or the padding too large.
    """

    _op = ops.MaxPool2dOp

    def forward(self, x: Tensor) -> Tensor:
        return ops.max_pool2d(x, self.kernel_size, self.stride, self.padding, self.ceil_mode)


class AvgPool2d(_Pool2d):
    """The mean of each window.

    Shapes: as MaxPool2d.
    Args:   as MaxPool2d, the padding being zeros; count_include_pad: whether these count in the mean.
    Raises: as MaxPool2d.
    """

    _op = ops.AvgPool2dOp

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

    def forward(self, x: Tensor) -> Tensor:
        return ops.avg_pool2d(
            x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad
        )

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.count_include_pad else ", count_include_pad=False")


class AdaptiveAvgPool2d(Module):
    """Means over a grid of `output_size` windows that cover an image of any size.

    Shapes: x (N, C, H, W) -> (N, C, *output_size).
    Args:   output_size: a number or (height, width), pixels.
    """

    def __init__(self, output_size: IntOrPair) -> None:
        super().__init__()
        self.target = ops.AdaptiveAvgPool2dOp(output_size).output_size

    def forward(self, x: Tensor) -> Tensor:
        return ops.adaptive_avg_pool2d(x, self.target)

    def output_size(self, size: Pair) -> Pair:
        """(OH, OW) for an image of any (H, W). Raises: ShapeError if the image has no pixels."""
        height, width = ops.AdaptiveAvgPool2dOp(self.target).shape((1, 1, *size))[2:]
        return height, width

    def extra_repr(self) -> str:
        return f"output_size={self.target}"
