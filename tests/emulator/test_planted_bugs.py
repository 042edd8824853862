"""Bugs planted in the text of the real kernels are caught, by an error or by wrong numbers.

Each row changes one line of one file, in a copy; the operation then runs on the emulated device, through the
same Python code that launches on a GPU. Unchanged, the same run gives the CPU's numbers: the copy and the
comparison are not what catches the bug.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import minialex as mx
from minialex import ops, optim
from minialex.backend import cuda, to_device, to_numpy
from minialex.backend.sources import cuda_source_dir
from minialex.emulator import use_seed
from minialex.errors import KernelError
from minialex.testing import grid

Run = Callable[[str], list[np.ndarray]]


def of_op(op: Callable[..., mx.Tensor], *shapes: tuple[int, ...]) -> Run:
    """Output and gradients of an operation on numbers that all differ."""

    def run(device: str) -> list[np.ndarray]:
        arrays = [grid(*shape, item=i, scale=1.0).astype(np.float32) for i, shape in enumerate(shapes)]
        leaves = [mx.Tensor(a, requires_grad=True, device=device) for a in arrays]
        y = op(*leaves)
        y.backward(to_device(grid(*y.shape, item=9, scale=1.0).astype(np.float32), y.device))
        return [y.numpy(), *(to_numpy(leaf.grad) for leaf in leaves)]

    return run


def of_sgd(device: str) -> list[np.ndarray]:
    """Parameters after two steps; the second is longer than what one block updates."""
    shapes = ((37,), (5001,), (3, 5))
    parameters = [
        mx.Tensor(grid(*shape, item=i, scale=1.0).astype(np.float32), requires_grad=True, device=device)
        for i, shape in enumerate(shapes)
    ]
    optimizer = optim.SGD(parameters, lr=0.5, momentum=0.9)
    for step in range(2):
        for i, p in enumerate(parameters):
            p.grad = to_device(grid(*p.shape, item=7 * step + i, scale=1.0).astype(np.float32), p.device)
        optimizer.step()
    return [p.numpy() for p in parameters]


RELU = of_op(ops.relu, (3, 347))
MAX_POOL = of_op(lambda x: ops.max_pool2d(x, 3, 2), (2, 3, 19, 13))
# Rows longer than a block of threads; several rows.
SOFTMAX = of_op(ops.softmax, (5, 1031))
CROSS_ENTROPY = of_op(lambda x: ops.cross_entropy(x, np.array([3, 299, 0])), (3, 300))
CONVOLUTION = of_op(lambda x, w, b: ops.conv2d(x, w, b, 2, 1), (3, 5, 13, 17), (7, 5, 3, 3), (7,))
FUSED = of_op(
    lambda x: ops.relu_lrn_max_pool2d(x, 5, 1.0, dialect="paper", kernel_size=3, stride=2, padding=1),
    (2, 11, 13, 15),
)
LRN = of_op(lambda x: ops.local_response_norm(x, 4, 1.0, dialect="torch"), (2, 11, 5, 7))
AVERAGE_POOL = of_op(lambda x: ops.avg_pool2d(x, 3, 2, 1), (2, 5, 11, 13))
DROPOUT = of_op(lambda x: ops.dropout(x, 0.5), (7, 593))

NUMBERS = "numbers"  # No error: the result is wrong.


@dataclass(frozen=True)
class Bug:
    """Args: old, new: what stands in the file, and what takes its place, as for re.sub; caught: the error, or
    NUMBERS."""

    file: str
    old: str
    new: str
    run: Run
    caught: str


BUGS = {
    "the barrier before a block's sums are read, dropped": Bug(
        "common.cuh",
        r"if \(lane == 0\) of_warp\[warp\] = value;\n    __syncthreads\(\);",
        "if (lane == 0) of_warp[warp] = value;",
        SOFTMAX,
        r"race: \w+ shared of_warp|shared of_warp\[\d+\] is read before any thread",
    ),
    "the barrier after a block's sums are read, dropped": Bug(
        "common.cuh",
        r"__syncthreads\(\);\n    return all;",
        "return all;",
        CROSS_ENTROPY,  # Two sums, one after the other.
        r"race: \w+ shared of_warp",
    ),
    "the barrier between normalising and pooling, dropped": Bug(
        "fused_pooling.cu",
        r"        __syncthreads\(\);\n",
        "",
        FUSED,
        r"race: \w+ shared tile|shared tile\[\d+\] is read before any thread",
    ),
    "a barrier that some threads skip": Bug(
        "fused_pooling.cu",
        r"        __syncthreads\(\);\n",
        "        if (threadIdx.x < cells) __syncthreads();\n",
        FUSED,
        "divergent barrier|race",
    ),
    "one element too many": Bug(
        "common.cuh", r"i < \(index_t\)\(n\);", "i <= (index_t)(n);", RELU, r"x\[1041\] is out of range"
    ),
    "one column too many": Bug(
        "max_pooling.cu",
        r"q >= OW\) return",
        "q > OW) return",
        MAX_POOL,
        "race: writes y|out of range",
    ),
    "one row too many": Bug(
        "max_pooling.cu",
        r"line >= (.*) \|\| q >=",
        r"line > \1 || q >=",
        MAX_POOL,
        "is out of range",
    ),
    "argmax off by one row": Bug(
        "max_pooling.cu", r"winner = i \* KW \+ j;", "winner = (i + 1) * KW + j;", MAX_POOL, NUMBERS
    ),
    "argmax off by one row, fused": Bug(
        "fused_pooling.cu",
        r"argmax_nchw\[place\] = \(Cell\)winner",
        "argmax_nchw[place] = (Cell)windows.KW + (Cell)winner",
        FUSED,
        NUMBERS,
    ),
    "the last tile of rows missing": Bug(
        "max_pooling.cu",
        r"const int last = first \+ TILE < H \? first \+ TILE : H;",
        "const int last = first + TILE < H ? first + TILE : first;",
        MAX_POOL,
        NUMBERS,
    ),
    "the last piece of a parameter missing": Bug(
        "pieces.cuh",
        r"min\(start \+ PIECE, sizes\[i\]\)",
        "start + PIECE <= sizes[i] ? start + PIECE : start",
        of_sgd,
        NUMBERS,
    ),
    "a piece that goes on behind the parameter": Bug(
        "pieces.cuh",
        r"min\(start \+ PIECE, sizes\[i\]\)",
        "start + PIECE",
        of_sgd,
        r"\[\d+\] is out of range",
    ),
    "a window that goes on behind the last channel": Bug(
        "local_response_norm.cuh", r"pixel\.C - 1\);", "pixel.C);", LRN, r"x_nchw\[\d+\] is out of range"
    ),
    "a rectangle's first row missing": Bug(
        "average_pooling.cu", r"START\(rows, p\) <= h;", "START(rows, p) < h;", AVERAGE_POOL, NUMBERS
    ),
    "the last warp's sum missing": Bug(
        "common.cuh", "other < warps;", "other < warps - 1;", SOFTMAX, NUMBERS
    ),
    "a column to the left": Bug(
        "im2col.cu",
        r"const int begin = q \* SW - left;",
        "const int begin = q * SW - top - 1;",
        CONVOLUTION,
        NUMBERS,
    ),
    "the last four elements missing": Bug("dropout.cu", r"\(size \+ 3\) / 4", "size / 4", DROPOUT, NUMBERS),
}


@pytest.fixture
def kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the kernels, from which the emulator compiles now."""
    folder = tmp_path / "kernels"
    shutil.copytree(cuda_source_dir(), folder)
    monkeypatch.setattr(cuda, "cuda_source_dir", lambda: folder)
    return folder


def is_right(run: Run) -> bool:
    """Whether the emulated device gives the CPU's numbers."""
    with mx.random_scope(5):
        wanted = run("cpu")
    with mx.random_scope(5):
        results = run("cuda-emulated")
    return all(
        np.allclose(got, expected, rtol=0, atol=2e-5 * max(1.0, np.abs(expected).max()))
        for got, expected in zip(results, wanted, strict=True)
    )


@pytest.mark.parametrize(
    "run", [RELU, MAX_POOL, SOFTMAX, CROSS_ENTROPY, CONVOLUTION, LRN, AVERAGE_POOL, FUSED, DROPOUT, of_sgd]
)
def test_unchanged_kernels_are_right(kernels: Path, run: Run) -> None:
    for seed in range(3):
        with use_seed(seed):
            assert is_right(run)


@pytest.mark.parametrize("bug", BUGS.values(), ids=BUGS)
def test_a_planted_bug_is_caught(kernels: Path, bug: Bug) -> None:
    path = kernels / bug.file
    text = path.read_text(encoding="utf-8")
    planted, count = re.subn(bug.old, bug.new, text)
    assert count > 0, f"{bug.file} has changed: plant this bug in another line"
    path.write_text(planted, encoding="utf-8")
    for seed in range(3):
        with use_seed(seed):
            if bug.caught == NUMBERS:
                assert not is_right(bug.run)
            else:
                with pytest.raises(KernelError, match=bug.caught):
                    is_right(bug.run)
