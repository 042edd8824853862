"""Layers with weights, and the small ones between them: parameters and one op call each."""

from __future__ import annotations

import numpy as np

from minialex import ops
from minialex.nn import init
from minialex.nn.module import Module
from minialex.nn.parameter import Parameter
from minialex.shapes import IntOrPair, PaddingLike, Pair, ShapeError, as_int, pair
from minialex.tensor import Tensor

__all__ = ["Conv2d", "Dropout", "Flatten", "Identity", "Linear", "LocalResponseNorm"]


class Conv2d(Module):
    """Convolution: each output channel slides a window of weights over the input channels of its group.

    Shapes: x (N, in_channels, H, W) -> (N, out_channels, OH, OW) with
            OH = floor((H + top + bottom - dilation * (KH - 1) - 1) / stride) + 1, and OW alike;
            weight (out_channels, in_channels / groups, KH, KW), bias (out_channels,).
    Args:   kernel_size, stride, dilation: a number or (height, width), pixels; padding: zeros around the
            image, a number, (ph, pw) or ((top, bottom), (left, right)); groups: parts that the channels are
            split into, each convolved by itself; bias: whether a number is added to each output channel.
    Raises: ShapeError if an extent is below 1 or `groups` does not divide both numbers of channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrPair,
        stride: IntOrPair = 1,
        padding: PaddingLike = 0,
        dilation: IntOrPair = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.in_channels = positive(in_channels, "Conv2d: in_channels")
        self.out_channels = positive(out_channels, "Conv2d: out_channels")
        self.kernel_size = pair(kernel_size, "Conv2d: kernel_size")
        op = ops.Conv2dOp(stride, padding, dilation, groups)  # Refuses now what it would at the first call.
        self.stride, self.padding, self.dilation, self.groups = op.stride, op.padding, op.dilation, op.groups
        shape = (self.out_channels, self.in_channels // max(self.groups, 1), *self.kernel_size)
        window = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel_size, strict=True)]
        op.shape((1, self.in_channels, *window), shape)
        self.weight = Parameter(np.zeros(shape, dtype=np.float32))
        self.bias = Parameter(np.zeros(out_channels, dtype=np.float32)) if bias else None
        init.reset_(self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return ops.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def output_size(self, size: Pair) -> Pair:
        """(OH, OW) for an image of (H, W). Raises: ShapeError if the kernel does not fit anywhere."""
        op = ops.Conv2dOp(self.stride, self.padding, self.dilation, self.groups)
        height, width = op.shape((1, self.in_channels, *size), self.weight.shape)[2:]
        return height, width

    def extra_repr(self) -> str:
        parts = [f"{self.in_channels}, {self.out_channels}", f"kernel_size={self.kernel_size}"]
        parts.append(f"stride={self.stride}")
        parts += [f"padding={short_padding(self.padding)}"] if self.padding != ((0, 0), (0, 0)) else []
        parts += [f"dilation={self.dilation}"] if self.dilation != (1, 1) else []
        parts += [f"groups={self.groups}"] if self.groups != 1 else []
        parts += ["bias=False"] if self.bias is None else []
        return ", ".join(parts)


class Linear(Module):
    """Fully connected: y = x @ weight.T + bias.

    Shapes: x (N, in_features) -> (N, out_features); weight (out_features, in_features), bias (out_features,).
    Args:   bias: whether a number is added to each output.
    Raises: ShapeError if an extent is below 1.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features = positive(in_features, "Linear: in_features")
        self.out_features = positive(out_features, "Linear: out_features")
        self.weight = Parameter(np.zeros((out_features, in_features), dtype=np.float32))
        self.bias = Parameter(np.zeros(out_features, dtype=np.float32)) if bias else None
        init.reset_(self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return ops.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        without = ", bias=False" if self.bias is None else ""
        return f"in_features={self.in_features}, out_features={self.out_features}{without}"


class Dropout(Module):
    """While training, set each element to zero with probability p.

    "inverted" divides the others by 1 - p while training and leaves eval() alone; "paper" leaves training
    alone and multiplies by 1 - p in eval(), as Krizhevsky, Sutskever and Hinton did in 2012.

    Shapes: any -> the same.
    Args:   p: probability, 0 to 1; mode: "inverted" or "paper".
    Raises: ValueError for another p or mode.
    """

    def __init__(self, p: float = 0.5, mode: str = "inverted") -> None:
        super().__init__()
        ops.dropout(Tensor(0.0), p, training=False, mode=mode)  # Refuses what it would at the first call.
        self.p = p
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        return ops.dropout(x, self.p, self.training, mode=self.mode)

    def extra_repr(self) -> str:
        return f"p={self.p}" + (f", mode={self.mode!r}" if self.mode != "inverted" else "")


class LocalResponseNorm(Module):
    """Divide each activation by the energy of its neighbouring channels; see `ops.local_response_norm`.

    Shapes: x (N, C, H, W) -> the same.
    Args:   size: window in channels; alpha, beta, k: dimensionless; dialect: "paper" (alpha as it is) or
            "torch" (alpha divided by size), which must be said because systems differ.
    Raises: ShapeError if size is below 1, ValueError for another dialect.
    """

    def __init__(
        self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0, *, dialect: str
    ) -> None:
        super().__init__()
        op = ops.LocalResponseNormOp(size, alpha, beta, k, dialect=dialect)
        self.size, self.beta, self.k, self.dialect = op.size, op.beta, op.k, op.dialect
        self.alpha = float(alpha)  # Not the op's, which is divided by size in the dialect "torch".

    def forward(self, x: Tensor) -> Tensor:
        return ops.local_response_norm(x, self.size, self.alpha, self.beta, self.k, dialect=self.dialect)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}, dialect={self.dialect!r}"


class Flatten(Module):
    """All axes from `start_axis` on become one.

    Shapes: x (N, C, H, W) -> (N, C * H * W) for start_axis=1.
    """

    def __init__(self, start_axis: int = 1) -> None:
        super().__init__()
        self.start_axis = start_axis

    def forward(self, x: Tensor) -> Tensor:
        return ops.flatten(x, self.start_axis)

    def extra_repr(self) -> str:
        return f"start_axis={self.start_axis}"


class Identity(Module):
    """Gives what it gets: a placeholder where a layer is taken out."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def positive(value: int, name: str) -> int:
    """The whole number itself. Raises: ShapeError if it is below 1."""
    number = as_int(value, name)
    if number < 1:
        raise ShapeError(f"{name} must be at least 1, got {number}")
    return number


def short_padding(padding: tuple[Pair, Pair]) -> Pair | tuple[Pair, Pair]:
    """(ph, pw) where both sides are equal, for messages."""
    (top, bottom), (left, right) = padding
    return (top, left) if (top, left) == (bottom, right) else padding
