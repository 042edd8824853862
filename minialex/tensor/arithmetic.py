"""The operators that Python spells with symbols: + - * / ** @ and unary minus, broadcasting as NumPy."""

from __future__ import annotations

from minialex.backend import Array, array_module, matmul
from minialex.cost import Cost
from minialex.shapes import Shape, ShapeError, broadcast_shape, numel
from minialex.tensor.graph import Gradients, Op


def sum_to_shape(d: Array, shape: Shape) -> Array:
    """Add up the axes along which an array of `shape` was broadcast: the gradient of broadcasting."""
    if d.shape == shape:
        return d
    extra = d.ndim - len(shape)
    stretched = tuple(
        i for i, extent in enumerate(d.shape) if i < extra or (shape[i - extra] == 1 and extent != 1)
    )
    return d.sum(axis=stretched, keepdims=True).reshape(shape)


class _Elementwise(Op):
    """What the binary operators share: the output has the broadcast shape, at one operation an element."""

    def shape(self, a: Shape, b: Shape) -> Shape:
        return broadcast_shape(a, b, self.name)

    def cost(self, a: Shape, b: Shape, itemsize: int = 4) -> Cost:
        y = self.shape(a, b)
        return Cost.of(numel(y), a, b, y, itemsize=itemsize)


class AddOp(_Elementwise):
    """Sum of two arrays: y = a + b.

    Shapes: a, b broadcast against each other -> y.
    """

    takes_integers = True

    def forward(self, a: Array, b: Array) -> Array:
        return a + b

    def backward(self, dy: Array) -> Gradients:
        a, b = self.input_shapes
        return (
            sum_to_shape(dy, a) if self.needs[0] else None,
            sum_to_shape(dy, b) if self.needs[1] else None,
        )


class SubOp(_Elementwise):
    """Difference of two arrays: y = a - b.

    Shapes: a, b broadcast against each other -> y.
    """

    takes_integers = True

    def forward(self, a: Array, b: Array) -> Array:
        return a - b

    def backward(self, dy: Array) -> Gradients:
        a, b = self.input_shapes
        return (
            sum_to_shape(dy, a) if self.needs[0] else None,
            sum_to_shape(-dy, b) if self.needs[1] else None,
        )


class MulOp(_Elementwise):
    """Product of two arrays, element by element: y = a * b; da = dy * b, db = dy * a.

    Shapes: a, b broadcast against each other -> y.
    """

    takes_integers = True

    def forward(self, a: Array, b: Array) -> Array:
        self.save(a if self.needs[1] else None, b if self.needs[0] else None)
        return a * b

    def backward(self, dy: Array) -> Gradients:
        a, b = self.saved
        a_shape, b_shape = self.input_shapes
        return (
            sum_to_shape(dy * b, a_shape) if self.needs[0] else None,
            sum_to_shape(dy * a, b_shape) if self.needs[1] else None,
        )


class DivOp(_Elementwise):
    """Quotient of two arrays: y = a / b; da = dy / b, db = -dy * a / b**2.

    Shapes: a, b broadcast against each other -> y. A division by zero gives an infinity or NaN.
    """

    def forward(self, a: Array, b: Array) -> Array:
        self.save(a if self.needs[1] else None, b)
        return a / b

    def backward(self, dy: Array) -> Gradients:
        a, b = self.saved
        a_shape, b_shape = self.input_shapes
        return (
            sum_to_shape(dy / b, a_shape) if self.needs[0] else None,
            sum_to_shape(-dy * a / (b * b), b_shape) if self.needs[1] else None,
        )


class PowOp(_Elementwise):
    """Power: y = a ** b; da = dy * b * a**(b-1), db = dy * y * log(a).

    Shapes: a, b broadcast against each other -> y. Where b is 0, da is 0 for every a; where a is 0 and
    b >= 0, db is 0, as in PyTorch. A negative a with a fractional b gives NaN.
    """

    takes_integers = True

    def forward(self, a: Array, b: Array) -> Array:
        y = a**b
        self.save(a, b, y if self.needs[1] else None)
        return y

    def backward(self, dy: Array) -> Gradients:
        a, b, y = self.saved
        a_shape, b_shape = self.input_shapes
        xp = array_module(dy)
        da = db = None
        if self.needs[0]:
            da = sum_to_shape(dy * xp.where(b == 0, xp.zeros_like(b), b * a ** (b - 1)), a_shape)
        if self.needs[1]:
            limit = (a == 0) & (b >= 0)
            db = sum_to_shape(dy * xp.where(limit, xp.zeros_like(y), y * xp.log(a)), b_shape)
        return da, db


class NegOp(Op):
    """Negation: y = -x.

    Shapes: any -> the same.
    """

    takes_integers = True

    def shape(self, x: Shape) -> Shape:
        return x

    def cost(self, x: Shape, itemsize: int = 4) -> Cost:
        return Cost.of(numel(x), x, x, itemsize=itemsize)

    def forward(self, x: Array) -> Array:
        return -x

    def backward(self, dy: Array) -> Gradients:
        return (-dy,)


class MatmulOp(Op):
    """Matrix product over the last two axes: y[..., i, j] = sum over k of a[..., i, k] * b[..., k, j].

    Shapes: a (..., M, K), b (..., K, N) -> y (..., M, N); leading axes broadcast. A vector (K,) counts as
    a row on the left and as a column on the right, and its axis is left out of the result.
    Raises: ShapeError if K differs or an input is a scalar.
    """

    takes_integers = True

    def shape(self, a: Shape, b: Shape) -> Shape:
        if not a or not b:
            raise ShapeError(
                f"matmul: inputs need at least one axis, got shapes {a} and {b}; use * for scalars"
            )
        k_a, k_b = a[-1], b[-2] if len(b) > 1 else b[0]
        if k_a != k_b:
            raise ShapeError(f"matmul: a has K={k_a} but b expects K={k_b}; a {a}, b {b}")
        leading = broadcast_shape(a[:-2], b[:-2], "matmul")
        return (*leading, *a[-2:-1], *(b[-1:] if len(b) > 1 else ()))

    def cost(self, a: Shape, b: Shape, itemsize: int = 4) -> Cost:
        y = self.shape(a, b)
        return Cost.of(2 * numel(y) * a[-1], a, b, y, itemsize=itemsize)

    def forward(self, a: Array, b: Array) -> Array:
        self.save(a if self.needs[1] else None, b if self.needs[0] else None)
        return matmul(a, b)

    def backward(self, dy: Array) -> Gradients:
        a, b = self.saved
        a_shape, b_shape = self.input_shapes
        # Vectors become the matrices that they stand for; reshape to the input's shape takes it back.
        if len(a_shape) == 1:
            dy = dy[..., None, :] if len(b_shape) > 1 else dy[..., None]
        if len(b_shape) == 1:
            dy = dy[..., None]
        da = db = None
        if self.needs[0]:
            b_matrix = b if b.ndim > 1 else b[:, None]
            full = matmul(dy, b_matrix.swapaxes(-1, -2))
            da = sum_to_shape(full, _as_matrix(a_shape, row=True)).reshape(a_shape)
        if self.needs[1]:
            a_matrix = a if a.ndim > 1 else a[None, :]
            full = matmul(a_matrix.swapaxes(-1, -2), dy)
            db = sum_to_shape(full, _as_matrix(b_shape, row=False)).reshape(b_shape)
        return da, db


def _as_matrix(shape: Shape, *, row: bool) -> Shape:
    """The shape of the matrix that a vector stands for; a matrix's own shape."""
    if len(shape) > 1:
        return shape
    return (1, *shape) if row else (*shape, 1)
