"""Convolution on a GPU: one matrix product for many images, whose columns lie side by side.

The columns (groups, K, images x pixels) of as many images as the budget allows are written by one kernel
and multiplied by one call of cuBLAS, a product for each group. It gives (F, images x pixels); a second kernel
puts that in the order of pictures and adds bias and ReLU on the way. Backward, one kernel puts dy in that
order, with the ReLU's gradient and the sums for the bias; two products and a gather follow.

Nothing is added atomically, and images are added up in order: the same bits in every run.
"""

from __future__ import annotations

from dataclasses import dataclass

from minialex.backend import Array, CudaKernel, contiguous, empty, gemm
from minialex.kernels.column_convolution import GPU_COLUMN_BUDGET
from minialex.kernels.im2col import ColumnLayout, launch_col2im, launch_im2col
from minialex.kernels.launch_grids import MOST_ALONG_Y, THREADS, grid_of_channels
from minialex.shapes import Padding, Pair, Shape, numel

# Bytes of the columns, and of the product's other side, that exist at a time.
COLUMN_BUDGET = GPU_COLUMN_BUDGET
# Tensor cores want rows of the matrices to begin at multiples of 16 bytes: images come in eights.
IMAGES_TOGETHER = 8
# Elements of one filter that a block of conv2d_gradient moves: ROUNDS * THREADS in kernels/convolution.cu.
GRADIENTS_PER_BLOCK = 16 * THREADS

_output = CudaKernel("convolution", "conv2d_output")
_bias = CudaKernel("convolution", "conv2d_bias")
_gradient = CudaKernel("convolution", "conv2d_gradient")
_bias_gradient = CudaKernel("convolution", "conv2d_bias_gradient")


def conv2d_cuda(
    x: Array,
    weight: Array,
    bias: Array | None,
    y: Array,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    relu: bool,
) -> None:
    """weight (G, F/G, K) @ columns (G, K, images * pixels), then y in the order of pictures."""
    x, weight, bias = contiguous(x), contiguous(weight), contiguous(bias)
    if groups == 1 and weight.shape[2:] == (1, 1) and stride == (1, 1) and padding == ((0, 0), (0, 0)):
        _pointwise(x, weight, bias, y, relu)
        return
    F, OH, OW = y.shape[1:]
    K, P = numel(weight.shape[1:]), OH * OW
    strips = _strips(y.shape, groups * K, y.dtype.itemsize)
    columns, products = _workspaces(strips, y, groups, K)
    for strip in strips:
        part, product = columns.of(strip), products.of(strip)
        _fill(x, part, strip, weight.shape[2:], stride, padding, dilation)
        gemm(_by_group(weight, groups), part, product)
        where = (strip.count, F, P, strip.pixels, strip.rows.start * OW)
        grid = grid_of_channels(strip.count * strip.pixels, F)
        _output.launch(grid, THREADS, product, bias, y[strip.images], *where, relu)


def _pointwise(x: Array, weight: Array, bias: Array | None, y: Array, relu: bool) -> None:
    """A window of one pixel: the pictures are their own columns."""
    N, C, H, W = x.shape
    F, P = len(weight), H * W
    gemm(weight.reshape(F, C), x.reshape(N, C, P), y.reshape(N, F, P))
    if bias is not None or relu:
        _bias.for_each(y.size, y, bias, N * F, F, P, relu)


def conv2d_backward_cuda(
    dy: Array,
    x: Array | None,
    weight: Array | None,
    mask: Array | None,
    dx: Array | None,
    dweight: Array | None,
    dbias: Array | None,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> None:
    """dweight = dy @ columns.T, added up strip by strip; dx gathers from weight.T @ dy."""
    dy, x, weight, mask = contiguous(dy), contiguous(x), contiguous(weight), contiguous(mask)
    # One of them is there: see Conv2dOp.
    shape: Shape = dweight.shape if weight is None else weight.shape  # type: ignore[union-attr]
    K, geometry = numel(shape[1:]), ((shape[2], shape[3]), stride, padding, dilation)
    strips = _strips(dy.shape, groups * K, dy.dtype.itemsize)
    columns, gradients = _workspaces(strips, dy, groups, K)
    blocks = [-(-strip.count * strip.pixels // GRADIENTS_PER_BLOCK) for strip in strips]
    partial = None if dbias is None else empty((dy.shape[1], sum(blocks)), dy)
    if dweight is not None and not strips:
        dweight[...] = 0
    for number, strip in enumerate(strips):
        part, gradient = columns.of(strip), gradients.of(strip)
        _take(dy, mask, gradient, partial, strip, sum(blocks[:number]))
        if dweight is not None:
            _fill(x, part, strip, *geometry)
            gemm(gradient, part, _by_group(dweight, groups), transpose_b=True, add=number > 0)
        if dx is not None:
            gemm(_by_group(weight, groups), gradient, part, transpose_a=True)
            _add_up(part, dx, strip, *geometry)
    if partial is not None:
        _bias_gradient.launch(len(partial), THREADS, partial, dbias, sum(blocks))


# ------------------------------------------------------------------------------------------ a strip at a time


@dataclass(frozen=True)
class _Strip:
    """Some images, or some output rows of one image: what is done at a time."""

    images: slice
    rows: slice
    width: int

    @property
    def count(self) -> int:
        """Images."""
        return int(self.images.stop - self.images.start)

    @property
    def pixels(self) -> int:
        """Output pixels of each image."""
        return int(self.rows.stop - self.rows.start) * self.width


def _strips(y: Shape, cells: int, itemsize: int) -> list[_Strip]:
    """The output, cut so that columns (cells, ...) and the product (F, ...) fit the budget.

    No strip is smaller than one output row of one image, whatever the budget.
    """
    N, F, OH, OW = y
    row_bytes = (cells + F) * OW * itemsize
    most = COLUMN_BUDGET // (row_bytes * OH)
    if most < 1:
        count = min(OH, -(-row_bytes * OH // COLUMN_BUDGET))
        rows = [slice(OH * i // count, OH * (i + 1) // count) for i in range(count)]
        return [_Strip(slice(n, n + 1), part, OW) for n in range(N) for part in rows]
    # As few strips as will do, of about the same size.
    step = max(1, -(-N // -(-N // most))) if N else 1
    step = min(most, -(-step // IMAGES_TOGETHER) * IMAGES_TOGETHER)
    return [_Strip(slice(n, min(n + step, N)), slice(0, OH), OW) for n in range(0, N, step)]


class _Workspace:
    """Memory for a matrix (G, rows, images * pixels) of the largest strip, which every strip uses in turn."""

    def __init__(self, strips: list[_Strip], like: Array, groups: int, rows: int) -> None:
        self.groups, self.rows = groups, rows
        largest = max((strip.count * strip.pixels for strip in strips), default=0)
        self.memory = empty((groups * rows * largest,), like)

    def of(self, strip: _Strip) -> Array:
        """The strip's matrix; without the first axis if there is one group only."""
        shape = (self.rows, strip.count * strip.pixels)
        matrix = self.memory[: self.groups * numel(shape)]
        return matrix.reshape(shape if self.groups == 1 else (self.groups, *shape))


def _workspaces(strips: list[_Strip], y: Array, groups: int, K: int) -> tuple[_Workspace, _Workspace]:
    """For columns, and for what is as large as the output."""
    return _Workspace(strips, y, groups, K), _Workspace(strips, y, groups, y.shape[1] // groups)


def _by_group(weight: Array, groups: int) -> Array:
    """(F, C/G, KH, KW) -> (F, K), or (G, F/G, K) if there are several groups."""
    F, K = len(weight), numel(weight.shape[1:])
    return weight.reshape((F, K) if groups == 1 else (groups, F // groups, K))


def _fill(
    x: Array, columns: Array, strip: _Strip, window: Pair, stride: Pair, padding: Padding, dilation: Pair
) -> None:
    """The columns of a strip, images side by side."""
    launch_im2col(x[strip.images], columns, _layout(strip, window), stride, padding, dilation)


def _add_up(
    columns: Array, dx: Array, strip: _Strip, window: Pair, stride: Pair, padding: Padding, dilation: Pair
) -> None:
    """dx of a strip's images; a later strip of the same image adds to it."""
    add = strip.rows.start > 0
    launch_col2im(columns, dx[strip.images], _layout(strip, window), stride, padding, dilation, add)


def _layout(strip: _Strip, window: Pair) -> ColumnLayout:
    rows = int(strip.rows.stop - strip.rows.start)
    together = strip.count * strip.pixels
    return ColumnLayout(window, (rows, strip.width), strip.rows.start, strip.pixels, together)


def _take(
    dy: Array, mask: Array | None, gradient: Array, partial: Array | None, strip: _Strip, first_block: int
) -> None:
    """The strip's dy with the ReLU's gradient, in the products' order, and its sums for the bias."""
    F, OH, OW = dy.shape[1:]
    masks = None if mask is None else mask[strip.images]
    where = (strip.count, F, OH * OW, strip.pixels, strip.rows.start * OW)
    blocks = 0 if partial is None else partial.shape[1]
    grid = (-(-strip.count * strip.pixels // GRADIENTS_PER_BLOCK), min(F, MOST_ALONG_Y))
    _gradient.launch(grid, THREADS, dy[strip.images], masks, gradient, partial, *where, blocks, first_block)
