"""A convolution and its gradient on a 4 x 4 picture: by loops, by im2col, and by minialex.

    python examples/02_conv_by_hand.py

im2col writes every window of the picture into a column of its own. A convolution is then one matrix product,
and its gradients are two more. On the way back, col2im adds each column to the pixels it came from.
"""

from __future__ import annotations

import numpy as np

import minialex as mx
from minialex import ops
from minialex.kernels.im2col import col2im, im2col

# A 4 x 4 picture, a 3 x 3 filter: there are 2 x 2 places where the filter fits.
PICTURE = np.array([[1.0, 2.0, 0.0, 3.0], [4.0, 1.0, 5.0, 0.0], [0.0, 3.0, 1.0, 2.0], [2.0, 0.0, 4.0, 1.0]])
FILTER = np.array([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [0.0, 3.0, 0.0]])
DY = np.array([[1.0, 2.0], [3.0, 4.0]])  # What the rest of a network says about each output: dL/dy.
SIZE, KERNEL, OUT = 4, 3, 2
GEOMETRY = ((1, 1), ((0, 0), (0, 0)), (1, 1), 0)  # Stride, padding, dilation, first row.


def show(title: str, *matrices: tuple[str, np.ndarray]) -> None:
    """Whole numbers in columns, matrices side by side."""
    if title:
        print(title + "\n")
    blocks = []
    for name, matrix in matrices:
        rows = ["  ".join(f"{value:4g}" for value in row) for row in matrix]
        blocks.append([name.ljust(len(rows[0])), *(row.ljust(len(name)) for row in rows)])
    height = max(len(block) for block in blocks)
    for i in range(height):
        cells = [block[i] if i < len(block) else " " * len(block[0]) for block in blocks]
        print(("   " + "      ".join(cells)).rstrip())
    print()


def forward_by_loops() -> np.ndarray:
    """y[p, q] = sum over i, j of x[p + i, q + j] * weight[i, j]."""
    y = np.zeros((OUT, OUT))
    for p in range(OUT):
        for q in range(OUT):
            for i in range(KERNEL):
                for j in range(KERNEL):
                    y[p, q] += PICTURE[p + i, q + j] * FILTER[i, j]
    return y


def backward_by_loops() -> tuple[np.ndarray, np.ndarray]:
    """Each product x * weight of the forward pass sends dy * weight to x, and dy * x to weight."""
    dx, dweight = np.zeros_like(PICTURE), np.zeros_like(FILTER)
    for p in range(OUT):
        for q in range(OUT):
            for i in range(KERNEL):
                for j in range(KERNEL):
                    dx[p + i, q + j] += DY[p, q] * FILTER[i, j]
                    dweight[i, j] += DY[p, q] * PICTURE[p + i, q + j]
    return dx, dweight


def columns_of(picture: np.ndarray) -> np.ndarray:
    """im2col with minialex's kernel: 9 cells of the window by 4 places of the window."""
    columns = np.empty((1, 1, KERNEL, KERNEL, OUT, OUT))
    im2col(picture[None, None], columns, *GEOMETRY)
    return columns.reshape(KERNEL * KERNEL, OUT * OUT)


def picture_of(columns: np.ndarray) -> np.ndarray:
    """col2im: every cell of every column is added to the pixel that it was copied from."""
    picture = np.zeros((1, 1, SIZE, SIZE))
    col2im(columns.reshape(1, 1, KERNEL, KERNEL, OUT, OUT), picture, *GEOMETRY)
    return picture[0, 0]


def forward_by_columns() -> np.ndarray:
    columns = columns_of(PICTURE)
    show("1. The picture, the filter, and the windows as columns", ("x", PICTURE), ("weight", FILTER))
    print("   Column 0 is the window at the top left, read row by row; column 1 lies one pixel to the right,")
    show("   columns 2 and 3 one pixel down.", ("columns = im2col(x)", columns))
    row = FILTER.reshape(1, -1)
    y = row @ columns
    show("2. The filter as one row, times the columns, is the output", ("weight as a row", row))
    show("", ("y as a row", y), ("y", y.reshape(OUT, OUT)))
    terms = [f"{pixel:g}*({w:g})" for pixel, w in zip(columns[:, 0], row[0], strict=True) if w]
    print(f"   y[0, 0] = {' + '.join(terms)} = {y[0, 0]:g}\n")
    return y.reshape(OUT, OUT)


def backward_by_columns() -> tuple[np.ndarray, np.ndarray]:
    row, columns = DY.reshape(1, -1), columns_of(PICTURE)
    show("3. Backward starts with dL/dy, one number for each output", ("dy", DY), ("dy as a row", row))
    dweight = (row @ columns.T).reshape(KERNEL, KERNEL)
    show("4. y = weight @ columns, so dweight = dy @ columns.T", ("dweight", dweight))
    dcolumns = FILTER.reshape(-1, 1) @ row
    show("5. ... and dcolumns = weight.T @ dy: the filter, times each dy", ("dcolumns", dcolumns))
    dx = picture_of(dcolumns)
    shared = picture_of(np.ones_like(dcolumns))
    show(
        "6. dx = col2im(dcolumns). The windows overlap: an inner pixel lies in four of them and gets four\n"
        "   contributions, which add up. This is why col2im undoes im2col only where windows do not overlap.",
        ("windows a pixel lies in", shared),
        ("dx", dx),
    )
    places = [(p, q) for p in range(OUT) for q in range(OUT)]
    parts = [f"dy[{p},{q}]*weight[{1 - p},{1 - q}]" for p, q in places]
    numbers = [f"{DY[p, q]:g}*{FILTER[1 - p, 1 - q]:g}" for p, q in places]
    print(f"   dx[1, 1] = {' + '.join(parts)}")
    print(f"            = {' + '.join(numbers)} = {dx[1, 1]:g}")
    print("   As the window moves right, the pixel moves left in it: seen from x, the filter is flipped.\n")
    return dx, dweight


def by_minialex() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = mx.Tensor(PICTURE[None, None], requires_grad=True)
    weight = mx.Tensor(FILTER[None, None], requires_grad=True)
    y = ops.conv2d(x, weight)
    y.backward(DY[None, None])
    return y.data[0, 0], x.grad[0, 0], weight.grad[0, 0]


def main() -> None:
    y = forward_by_columns()
    dx, dweight = backward_by_columns()
    loops = (forward_by_loops(), *backward_by_loops())
    library = by_minialex()
    print("7. The same numbers by loops, by columns, and by ops.conv2d with backward():\n")
    names = ("y", "dx", "dweight")
    for name, columns, plain, ours in zip(names, (y, dx, dweight), loops, library, strict=True):
        np.testing.assert_array_equal(columns, plain)
        np.testing.assert_array_equal(columns, ours)
        print(f"   {name:8} equal, all {columns.size} of them")
    assert mx.gradcheck(lambda x, w: ops.conv2d(x, w), [PICTURE[None, None], FILTER[None, None]])
    print("\n   and mx.gradcheck agrees, which knows nothing of columns: it moves one pixel at a time.")


if __name__ == "__main__":
    main()
