"""Local response normalisation, in the paper's dialect and in PyTorch's."""

from __future__ import annotations

from minialex.backend import Array, empty
from minialex.cost import Cost
from minialex.kernels.local_response_norm import lrn_backward, lrn_forward
from minialex.shapes import Shape, ShapeError, as_int, require_ndim
from minialex.tensor import Gradients, Op, Tensor, as_tensor

DIALECTS = ("paper", "torch")


class LocalResponseNormOp(Op):
    """Divide each activation by the energy of its neighbouring channels.

        paper:  y[c] = x[c] / (k + alpha        * sum(x[j]**2 for |j - c| <= size//2)) ** beta
        torch:  y[c] = x[c] / (k + alpha / size * sum(x[j]**2 for -(size//2) <= j - c <= (size-1)//2)) ** beta

    The dialects differ twice: only "torch" (also ONNX, Caffe, cuda-convnet2) divides alpha by size; and for
    an even size "paper" takes size//2 channels on both sides, "torch" one more before than after.

    Shapes: x (N, C, H, W) -> y the same; the window is cut at the first and last channel.
    Args:   size: window in channels; alpha, beta, k: dimensionless; dialect: "paper" or "torch".
    Raises: ShapeError if x is not four-dimensional or size is below 1; ValueError for another dialect.
    Source: Krizhevsky, Sutskever, Hinton 2012, section 3.3.
    """

    def __init__(
        self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0, *, dialect: str
    ) -> None:
        if dialect not in DIALECTS:
            raise ValueError(f"local_response_norm: dialect must be 'paper' or 'torch', got {dialect!r}")
        self.size = as_int(size, "local_response_norm: size")
        if self.size < 1:
            raise ShapeError(f"local_response_norm: size must be at least 1, got {size}")
        self.lower = self.size // 2
        self.upper = self.size // 2 if dialect == "paper" else (self.size - 1) // 2
        self.alpha = float(alpha) if dialect == "paper" else float(alpha) / self.size
        self.beta, self.k, self.dialect = float(beta), float(k), dialect

    def shape(self, x: Shape) -> Shape:
        require_ndim("local_response_norm", "x", x, 4, "(N, C, H, W)")
        return x

    def cost(self, x: Shape, itemsize: int = 4) -> Cost:
        N, C, H, W = x
        reach = sum(min(c + self.upper + 1, C) - max(c - self.lower, 0) for c in range(C))
        # A square and an addition for each neighbour; then times alpha, plus k, power, division.
        return Cost.of(N * H * W * (2 * reach + 4 * C), x, x, itemsize=itemsize)

    def forward(self, x: Array) -> Array:
        self.save(x)
        y = empty(x.shape, x)
        lrn_forward(x, y, self.lower, self.upper, self.alpha, self.beta, self.k)
        return y

    def backward(self, dy: Array) -> Gradients:
        (x,) = self.saved
        dx = empty(dy.shape, dy)
        lrn_backward(dy, x, dx, self.lower, self.upper, self.alpha, self.beta, self.k)
        return (dx,)


def local_response_norm(
    x: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0, *, dialect: str
) -> Tensor:
    """Normalise x (N, C, H, W) across `size` neighbouring channels; see LocalResponseNormOp."""
    return LocalResponseNormOp(size, alpha, beta, k, dialect=dialect)(as_tensor(x))
