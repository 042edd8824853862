"""Matrix products: large ones are done in slices on threads, and must be what the small ones are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from minialex import rng
from minialex.backend import matmul, use_variant
from minialex.backend.blas import SLICE
from minialex.shapes import ShapeError

# (M, K, N): on both sides of the extent from which a product is sliced, along rows and along columns, with a
# rest that does not fill a slice.
SHAPES = [
    (600, 30, 700),
    (700, 20, 3),
    (3, 20, 700),
    (2 * SLICE, 7, 2 * SLICE),
    (2 * SLICE - 1, 7, 5),
    (2 * SLICE + 1, 7, 1),
    (1, 7, 3 * SLICE + 1),
    (4, 5, 6),
]
TOLERANCE = {"float32": 1e-5, "float64": 1e-13}


def array(*shape: int, item: int = 0, dtype: str = "float64") -> npt.NDArray[np.floating]:
    return rng.Stream(0, "test", item=item).normal(shape=shape).astype(dtype)


def plain(a: npt.ArrayLike, b: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Sums in float64 by einsum, which calls no BLAS."""
    return np.einsum("ik,kj->ij", np.asarray(a, np.float64), np.asarray(b, np.float64), optimize=False)


def require_product(got: npt.NDArray[np.floating], a: npt.ArrayLike, b: npt.ArrayLike) -> None:
    wanted = plain(a, b)
    assert got.shape == wanted.shape
    scale = max(1.0, float(np.abs(wanted).max(initial=0)))
    np.testing.assert_allclose(got, wanted, rtol=0, atol=TOLERANCE[str(got.dtype)] * scale)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("M", "K", "N"), SHAPES)
def test_every_element_is_its_sum(M: int, K: int, N: int, dtype: str) -> None:
    a, b = array(M, K, dtype=dtype), array(K, N, item=1, dtype=dtype)
    y = matmul(a, b)
    assert y.dtype == dtype
    require_product(y, a, b)


@pytest.mark.parametrize(("M", "K", "N"), SHAPES)
def test_transposed_inputs(M: int, K: int, N: int) -> None:
    a, b = array(K, M), array(N, K, item=1)
    require_product(matmul(a.T, b.T), a.T, b.T)
    require_product(matmul(a.T, np.ascontiguousarray(b.T)), a.T, b.T)
    wide = array(2 * M, 3 * K)
    require_product(matmul(wide[::2, ::3], b.T), wide[::2, ::3], b.T)


@pytest.mark.parametrize(("M", "K", "N"), SHAPES)
def test_out_is_written_and_given_back(M: int, K: int, N: int) -> None:
    a, b, out = array(M, K), array(K, N, item=1), np.full((M, N), np.nan)
    assert matmul(a, b, out=out) is out
    require_product(out, a, b)


def test_an_out_that_is_not_contiguous_is_refused_and_not_written() -> None:
    for out in (np.zeros((600, 8))[:, ::2], np.zeros((4, 600)).T):
        with pytest.raises(ValueError, match=r"matmul: .* must be a C-contiguous array"):
            matmul(array(600, 5), array(5, 4), out=out)
        assert not out.any()


@pytest.mark.parametrize(("M", "N"), [(600, 700), (700, 3), (3, 700), (4, 5)])
def test_a_sum_of_nothing_is_zero(M: int, N: int) -> None:
    a, b = np.empty((M, 0)), np.empty((0, N))
    np.testing.assert_array_equal(matmul(a, b), np.zeros((M, N)), strict=True)
    out = np.full((M, N), np.nan)
    np.testing.assert_array_equal(matmul(a, b, out=out), np.zeros((M, N)), strict=True)


@pytest.mark.parametrize(("M", "N"), [(600, 0), (0, 600), (0, 0)])
def test_no_rows_or_no_columns(M: int, N: int) -> None:
    assert matmul(np.ones((M, 3)), np.ones((3, N))).shape == (M, N)


@pytest.mark.parametrize("variant", ["reference", "array", "numba"])
def test_every_variant_is_the_sum(variant: str) -> None:
    with use_variant(variant):
        for M, K, N in ((4, 5, 6), (1, 3, 2), (3, 0, 2), (0, 3, 2), (2, 3, 0)):
            a, b = array(M, K), array(K, N, item=1)
            require_product(matmul(a, b), a, b)
            require_product(matmul(a, array(N, K, item=1).T), a, array(N, K, item=1).T)
        stack = array(2, 1, 4, 5)
        y = matmul(stack, array(3, 5, 2, item=1))
        assert y.shape == (2, 3, 4, 2)
        for i, j in np.ndindex(2, 3):
            require_product(y[i, j], stack[i, 0], array(3, 5, 2, item=1)[j])


def test_vectors_and_stacks_of_matrices() -> None:
    a, b, vector = array(2, 600, 5), array(5, 700, item=1), array(5, item=2)
    y = matmul(a, b)
    for i in range(2):
        require_product(y[i], a[i], b)
    require_product(matmul(a[0], vector)[:, None], a[0], vector[:, None])
    require_product(matmul(vector, b)[None], vector[None], b)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("M", "K", "N"), SHAPES)
def test_bits_do_not_depend_on_the_number_of_threads(
    M: int, K: int, N: int, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = array(M, K, dtype=dtype), array(K, N, item=1, dtype=dtype)
    results = []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("MINIALEX_NUM_THREADS", threads)
        results.append(matmul(a, b).tobytes())
    assert results[0] == results[1] == results[2]


def test_out_must_have_the_results_shape() -> None:
    with pytest.raises(ShapeError, match=r"matmul: out has shape \(3, 2\), expected \(2, 3\)"):
        matmul(np.ones((2, 4)), np.ones((4, 3)), out=np.empty((3, 2)))
