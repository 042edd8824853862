"""Convolution with fewer multiplications, after Winograd.

A picture is cut into overlapping tiles of n x n pixels that give m x m outputs each, n = m + KH - 1. Where
im2col multiplies each output's window with the filter, here pixels and filter are first mapped to n x n
points, where a convolution is one multiplication a point, summed over the channels:

    y tile = A.T @ (sum over c of (G @ weight[f, c] @ G.T) * (B.T @ x tile[c] @ B)) @ A

With m = 4 a 3 x 3 filter costs 36 multiplications for 16 outputs instead of 144. The sums over channels are
one matrix product for each of the n x n points, and the gradients are the same maps, transposed.

Rounding errors, with the points chosen here, are 1e-6 to 6e-6 of the result where those of the direct sum are
1e-7 to 6e-7 (float32, root mean square; the tests hold them to it, and to twenty times the direct sum's). A
NaN or an infinity spreads over its tile. So it is for float32 only, gradient checks run without it, and
`use_winograd(False)` or MINIALEX_WINOGRAD=0 turns it off.

Source: Winograd 1980; Lavin, Gray 2016, "Fast algorithms for convolutional neural networks"; the choice of
points: Barabasz et al. 2020, "Error analysis and improving the accuracy of Winograd convolution".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minialex.backend import (
    Array,
    for_ranges,
    matmul,
    num_threads,
    one_blas_thread,
    scratch,
)
from minialex.kernels.winograd_plan import Plan, plan_for
from minialex.kernels.winograd_tiles import pictures_from_tiles, tiles_from_pictures
from minialex.shapes import Padding, Pair

# The weights' gradient is summed in so many parts of the batch, if together they have at most these bytes.
SUM_PARTS = 8
SUM_BUDGET = 32 * 2**20

# Elements that are worth a thread, for a copy.
COPY_PER_THREAD = 1 << 15

# Bytes of the products that are added to it at a time: few enough to stay in the cache, and not so few that
# threads wait for each other at every call of NumPy.
PRODUCT_BYTES = 2**20


def conv2d_winograd(
    x: Array,
    weight: Array,
    bias: Array | None,
    y: Array,
    stride: Pair,
    padding: Padding,
    groups: int,
    relu: bool,
) -> None:
    """The forward pass; arguments as in `conv2d_reference`."""
    plan = plan_for(weight.shape, y.shape, stride, padding, groups)
    A_T, G, B_T = plan.matrices(x.dtype)
    U = _weights_to_points(weight, G, plan, filters_last=True)

    def work(bunches: list[slice]) -> None:
        for images in bunches:
            V = plan.empty("tiles of channels", images, plan.channels, x.dtype)
            M = plan.empty("tiles of filters", images, plan.filters, x.dtype)
            for g in range(groups):
                filter0, channel = g * plan.filters, g * weight.shape[1]
                tiles_from_pictures(x[images], None, B_T, V, plan.outputs, plan.block, plan.origin, channel)
                _multiply(V, U[g], M)
                part = None if bias is None else bias[filter0 : filter0 + plan.filters]
                pictures_from_tiles(M, A_T, part, relu, y[images], plan.outputs, 1, (0, 0), filter0)

    _share(plan.bunches(len(x)), work)


def conv2d_backward_winograd(
    dy: Array,
    x: Array | None,
    weight: Array | None,
    mask: Array | None,
    dx: Array | None,
    dweight: Array | None,
    dbias: Array | None,
    stride: Pair,
    padding: Padding,
    groups: int,
) -> None:
    """The gradients, by the transposed maps; arguments as in `conv2d_backward_reference`."""
    shape: tuple[int, ...] = dweight.shape if weight is None else weight.shape  # type: ignore[union-attr]
    plan = plan_for(shape, dy.shape, stride, padding, groups)
    A_T, G, B_T = plan.matrices(dy.dtype)
    A, B = np.ascontiguousarray(A_T.T), np.ascontiguousarray(B_T.T)
    U = None if weight is None or dx is None else _weights_to_points(weight, G, plan, filters_last=False)
    dU = None if dweight is None else _point_weights("weight points' gradient", plan, dy.dtype)
    for g in range(groups):
        filters = slice(g * plan.filters, (g + 1) * plan.filters)
        group_U = None if U is None else U[g]
        back = _Backward(plan, dy, mask, x, dx, group_U, A, B, B_T, filters.start, g * shape[1])
        sums = None if dU is None else dU[g], None if dbias is None else dbias[filters]
        parts = min(SUM_PARTS, len(plan.bunches(len(dy))))
        if dU is None or parts * dU[g].nbytes <= SUM_BUDGET:
            _sum_in_parts(back, parts, *sums)
        else:
            _sum_in_chunks(back, *sums)
    if dU is not None:
        _points_to_weights(dU, G, plan, dweight)


@dataclass(frozen=True)
class _Backward:
    """What the steps backward need, for one group of channels and filters."""

    plan: Plan
    dy: Array
    mask: Array | None
    x: Array | None
    dx: Array | None
    U: Array | None
    A: Array
    B: Array
    B_T: Array
    filter0: int
    channel0: int

    def cotangents(self, images: slice, out: Array) -> None:
        """dM = A @ dy tile @ A.T."""
        masked = None if self.mask is None else self.mask[images]
        outputs = self.plan.outputs
        tiles_from_pictures(self.dy[images], masked, self.A, out, outputs, 1, (0, 0), self.filter0)

    def pixels(self, images: slice, out: Array) -> None:
        """V = B.T @ x tile @ B, as on the way forward."""
        if self.x is not None:
            tiles_from_pictures(self.x[images], None, self.B_T, out, *self._geometry())

    def send_back(self, dM: Array, images: slice) -> None:
        """dx = the tiles B @ (dM @ U.T) @ B.T, added up."""
        if self.dx is not None and self.U is not None:
            dV = self.plan.empty("tiles of channels", images, self.plan.channels, dM.dtype)
            _multiply(dM, self.U, dV)
            pictures_from_tiles(dV, self.B, None, False, self.dx[images], *self._geometry())

    def _geometry(self) -> tuple[int, int, Pair, int]:
        return self.plan.outputs, self.plan.block, self.plan.origin, self.channel0


def _sum_in_parts(back: _Backward, parts: int, dU: Array | None, dbias: Array | None) -> None:
    """dx, and dU = V.T @ dM at each point: every part of the batch adds to a dU of its own at first.

    A thread adds while its tiles are still in its cache. The parts are the same for any number of threads.
    """
    plan, dtype = back.plan, back.dy.dtype
    bunches = plan.bunches(len(back.dy))
    sums = [] if dU is None else [dU, *scratch("parts of a sum", (max(parts, 1) - 1, *dU.shape), dtype)]
    biases = np.zeros((parts, plan.filters), dtype)

    def work(start: int, stop: int) -> None:
        for part in range(start, stop):
            first = len(bunches) * part // parts
            for i in range(first, len(bunches) * (part + 1) // parts):
                dM = plan.empty("tiles of filters", bunches[i], plan.filters, dtype)
                back.cotangents(bunches[i], dM)
                biases[part] += _sum_of_pictures(dM)
                if sums:
                    V = plan.empty("tiles of channels", bunches[i], plan.channels, dtype)
                    back.pixels(bunches[i], V)
                    _multiply_and_add(V, dM, sums[part], i == first)
                back.send_back(dM, bunches[i])

    with one_blas_thread():
        for_ranges(parts, work)
    if parts == 0 and dU is not None:
        dU[...] = 0
    for summand in sums[1:parts]:
        _add(summand, sums[0])
    if dbias is not None:
        dbias[...] = biases.sum(axis=0)


def _sum_in_chunks(back: _Backward, dU: Array, dbias: Array | None) -> None:
    """The same where dU is too large to have several: a chunk's tiles wait until all of them are made.

    Then each thread adds up its share of the points.
    """
    plan, dtype = back.plan, back.dy.dtype
    for chunk in plan.chunks(len(back.dy), dtype.itemsize):
        dM = plan.empties("waiting filters", chunk, plan.filters, dtype)
        V = plan.empties("waiting channels", chunk, plan.channels, dtype)

        def work(bunches: list[slice], chunk: Any = chunk, dM: Any = dM, V: Any = V) -> None:
            for images in bunches:
                i = chunk.index(images)
                back.cotangents(images, dM[i])
                back.pixels(images, V[i])
                back.send_back(dM[i], images)

        _share(chunk, work)
        for i, (pixels, cotangents) in enumerate(zip(V, dM, strict=True)):
            first = chunk[0].start == 0 and i == 0
            _multiply_and_add(pixels, cotangents, dU, first)
            if dbias is not None:
                dbias[...] = _sum_of_pictures(cotangents) + (0 if first else dbias)


def _share(bunches: list[slice], work: Callable[[list[slice]], None]) -> None:
    """Whole bunches for each thread, which then keeps what it makes in its own cache, if they come out even.

    Otherwise one bunch after another, and each step within it is shared.
    """
    threads = num_threads()
    with one_blas_thread():
        if len(bunches) % threads == 0 or len(bunches) >= 4 * threads:
            for_ranges(len(bunches), lambda start, stop: work(bunches[start:stop]))
        else:
            work(bunches)


def _by_point(tiles: Array) -> Array:
    """(n, n, N, TY, TX, C) as one matrix a point, (n*n, N*TY*TX, C)."""
    return tiles.reshape(tiles.shape[0] ** 2, -1, tiles.shape[-1])


def _multiply(tiles: Array, U: Array, out: Array) -> None:
    """out = tiles @ U for each point, which is one thread's."""
    a, y = _by_point(tiles), _by_point(out)
    for_ranges(len(U), lambda start, stop: np.matmul(a[start:stop], U[start:stop], out=y[start:stop]))


def _multiply_and_add(V: Array, dM: Array, dU: Array, first: bool) -> None:
    """dU += V.T @ dM for each point, which is one thread's; `first`: dU holds nothing yet."""
    a, b = _by_point(V).swapaxes(1, 2), _by_point(dM)

    def work(start: int, stop: int) -> None:
        if first:
            np.matmul(a[start:stop], b[start:stop], out=dU[start:stop])
            return
        step = max(1, PRODUCT_BYTES // dU[0].nbytes)
        for p in range(start, stop, step):
            part = slice(p, min(p + step, stop))
            product = scratch("product", dU[part].shape, dU.dtype)
            np.matmul(a[part], b[part], out=product)
            dU[part] += product

    with one_blas_thread():
        for_ranges(len(dU), work)


def _sum_of_pictures(tiles: Array) -> Array:
    """The bias's gradient (F,): at the point (1, 1) a tile's polynomial is the sum of its pixels."""
    return tiles[1, 1].sum(axis=(0, 1, 2))


def _add(summand: Array, total: Array) -> None:
    """total += summand."""
    a, b = summand.reshape(-1), total.reshape(-1)
    for_ranges(a.size, lambda start, stop: np.add(b[start:stop], a[start:stop], out=b[start:stop]), 1 << 16)


def _point_weights(name: str, plan: Plan, dtype: Any) -> Array:
    return scratch(name, (plan.groups, plan.points, plan.channels, plan.filters), dtype)


def _weights_to_points(weight: Array, G: Array, plan: Plan, filters_last: bool) -> Array:
    """G @ filter @ G.T for each filter and channel: (groups, n*n, S*S*C, F), or (groups, n*n, F, S*S*C)."""
    cells = _cells_of(weight, plan)
    order = (0, 3, 5, 2, 4, 6, 1) if filters_last else (0, 3, 5, 1, 2, 4, 6)
    split = cells.transpose(order)
    rows = scratch("weight cells", split.shape, weight.dtype)
    _copy(split, rows, axis=3)
    matrices = (plan.channels, plan.filters) if filters_last else (plan.filters, plan.channels)
    U = scratch("weight points", (plan.groups, plan.points, *matrices), weight.dtype)
    for g in range(plan.groups):
        matmul(np.kron(G, G), rows[g].reshape(plan.kernel**2, -1), out=U[g].reshape(plan.points, -1))
    return U


def _points_to_weights(dU: Array, G: Array, plan: Plan, dweight: Array) -> None:
    """The transpose of `_weights_to_points`, written into dweight (F, C/groups, KH, KW)."""
    KB, S = plan.kernel, plan.block
    F, C, KH, KW = dweight.shape
    rows = scratch("weight cells", (plan.groups, KB, KB, C, S, S, plan.filters), dU.dtype)
    for g in range(plan.groups):
        matmul(np.kron(G, G).T, dU[g].reshape(plan.points, -1), out=rows[g].reshape(KB * KB, -1))
    split = rows.transpose(0, 6, 3, 1, 4, 2, 5)
    whole = KB * S == KH
    cells = (dweight if whole else np.empty((F, C, KB * S, KB * S), dU.dtype)).reshape(split.shape)
    _copy(split, cells, axis=1)
    if not whole:
        dweight[...] = cells.reshape(F, C, KB * S, KB * S)[:, :, :KH, :KW]


def _copy(source: Array, target: Array, axis: int) -> None:
    """target[...] = source, on threads along `axis`; they are in another order of memory."""
    a, b = np.moveaxis(source, axis, 0), np.moveaxis(target, axis, 0)
    smallest = -(-COPY_PER_THREAD * len(a) // max(1, a.size))
    for_ranges(len(a), lambda start, stop: np.copyto(b[start:stop], a[start:stop]), smallest)


def _cells_of(weight: Array, plan: Plan) -> Array:
    """Filters by blocks, (groups, F, C, KB, S, KB, S), with zeros where they do not fill their last block."""
    side = plan.kernel * plan.block
    F, C, KH, KW = weight.shape
    if side > KH:
        padded = np.zeros((F, C, side, side), dtype=weight.dtype)
        padded[:, :, :KH, :KW] = weight
        weight = padded
    return weight.reshape(plan.groups, plan.filters, C, plan.kernel, plan.block, plan.kernel, plan.block)
