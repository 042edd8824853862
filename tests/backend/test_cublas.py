"""Matrix products: what we say to cuBLAS is checked by doing it, column by column on bare memory."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fake_cupy import FakeArray, FakeCublas, fake_cupy

from minialex.backend import blas, cublas, current_precision, gemm, to_device, use_precision, use_variant
from minialex.backend.precision import round_to_precision
from minialex.errors import UsageError
from minialex.shapes import ShapeError

TOLERANCE = {"float32": 1e-5, "float64": 1e-13}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCublas:
    module, calls = fake_cupy()
    monkeypatch.setitem(sys.modules, "cupy", module)
    return calls


def random(*shape: int, seed: int = 0, dtype: str = "float64") -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# How a matrix lies in memory: as made, and by what it is cut or turned from something larger.
LAYOUTS = ("rows", "columns", "part of wider rows", "part of longer columns", "every second column")


def laid_out(values: np.ndarray, layout: str) -> FakeArray:
    """The values in memory of that layout, in an array of the stand-in."""
    *batch, M, N = values.shape
    if layout == "rows":
        memory = np.full((*batch, M, N), np.nan, values.dtype)
        view = memory
    elif layout == "columns":
        memory = np.full((*batch, N, M), np.nan, values.dtype)
        view = memory.swapaxes(-1, -2)
    elif layout == "part of wider rows":
        memory = np.full((*batch, M + 1, N + 3), np.nan, values.dtype)
        view = memory[..., 1:, 2 : 2 + N]
    elif layout == "part of longer columns":
        memory = np.full((*batch, N + 2, M + 5), np.nan, values.dtype)
        view = memory.swapaxes(-1, -2)[..., 1 : 1 + M, 1 : 1 + N]
    else:
        memory = np.full((*batch, M, 2 * N), np.nan, values.dtype)
        view = memory[..., ::2]
    view[...] = values
    return FakeArray(view, memory)


SHAPES = ((1, 1, 1), (2, 3, 4), (1, 5, 3), (4, 1, 3), (3, 4, 1), (1, 1, 6), (5, 1, 1), (1, 7, 1), (6, 5, 8))


@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("turns", list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_single_products(dtype: str, turns: tuple[bool, bool], add: bool, fake: FakeCublas) -> None:
    cases = list(itertools.product(SHAPES, LAYOUTS, LAYOUTS, ("rows", "part of wider rows")))
    for number, ((M, K, N), layout_a, layout_b, layout_y) in enumerate(cases):
        a = random(*((K, M) if turns[0] else (M, K)), seed=number, dtype=dtype)
        b = random(*((N, K) if turns[1] else (K, N)), seed=number + 1, dtype=dtype)
        before = random(M, N, seed=number + 2, dtype=dtype)
        y = laid_out(before, layout_y)
        gemm(
            laid_out(a, layout_a),
            laid_out(b, layout_b),
            y,
            transpose_a=turns[0],
            transpose_b=turns[1],
            add=add,
        )
        wanted = (a.T if turns[0] else a) @ (b.T if turns[1] else b) + (before if add else 0)
        np.testing.assert_allclose(y.host, wanted, rtol=0, atol=TOLERANCE[dtype] * K)
    assert set(fake.calls) == {"32F" if dtype == "float32" else "64F"}
    assert len(fake.calls) == len(cases)


@pytest.mark.parametrize("turns", list(itertools.product([False, True], repeat=2)))
def test_batches(turns: tuple[bool, bool], fake: FakeCublas) -> None:
    """Each factor: one for each product, one for all (without the axis, with an extent or a stride of 1)."""
    B = 3
    kinds = ("each", "one", "one of one", "stretched")
    for number, ((M, K, N), kind_a, kind_b, layout) in enumerate(
        itertools.product(SHAPES, kinds, kinds, LAYOUTS)
    ):
        a_shape, b_shape = ((K, M) if turns[0] else (M, K)), ((N, K) if turns[1] else (K, N))
        factors, arrays = [], []
        for kind, shape, seed in ((kind_a, a_shape, number), (kind_b, b_shape, number + 1)):
            leading = {"each": (B,), "one": (), "one of one": (1,), "stretched": ()}[kind]
            values = random(*leading, *shape, seed=seed)
            array = laid_out(values, layout)
            if kind == "stretched":
                array = FakeArray(np.broadcast_to(array.host, (B, *shape)), array.owner)
            factors.append(values)
            arrays.append(array)
        y = laid_out(np.full((B, M, N), 7.0), "rows")
        gemm(*arrays, y, transpose_a=turns[0], transpose_b=turns[1])
        left = factors[0].swapaxes(-1, -2) if turns[0] else factors[0]
        right = factors[1].swapaxes(-1, -2) if turns[1] else factors[1]
        wanted = np.broadcast_to(np.matmul(left, right), y.shape)
        np.testing.assert_allclose(y.host, wanted, rtol=0, atol=1e-12)


def test_the_stand_in_refuses_what_cublas_refuses(fake: FakeCublas, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong arguments are noticed, or the tests above would prove nothing."""
    a, b, y = (laid_out(random(*shape), "rows") for shape in ((4, 3), (3, 5), (4, 5)))
    layout = cublas._layout
    changes: list[tuple[Callable[[Any], Any], str]] = [
        (lambda found: found._replace(leading=found.leading - 1), "refuse"),
        (lambda found: found._replace(leading=found.leading + 50), "beyond"),
        (lambda found: found._replace(operation=1 - found.operation), "refuse|beyond"),
    ]
    for change, message in changes:
        for changed in (a, b):

            def wrong(x: Any, change: Any = change, changed: Any = changed) -> Any:
                return change(layout(x)) if x.host is changed.host else layout(x)

            monkeypatch.setattr(cublas, "_layout", wrong)
            with pytest.raises(AssertionError, match=message):
                gemm(a, b, y)


@pytest.mark.parametrize(
    ("a", "b", "y"),
    [
        ((2, 3), (4, 5), (2, 5)),
        ((2, 3), (3, 5), (5, 2)),
        ((4, 2, 3), (5, 3, 2), (4, 2, 2)),
        ((2, 3), (3,), (2,)),
        ((2, 2, 2, 3), (3, 2), (2, 2, 2, 2)),
    ],
)
def test_shapes_that_do_not_fit(a: tuple[int, ...], b: tuple[int, ...], y: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"gemm: .* times .* does not give y"):
        gemm(np.ones(a), np.ones(b), np.ones(y))


def test_empty_products(fake: FakeCublas) -> None:
    y = FakeArray(np.full((2, 3), 5.0))
    gemm(FakeArray(np.ones((2, 0))), FakeArray(np.ones((0, 3))), y, add=True)
    np.testing.assert_array_equal(y.host, np.full((2, 3), 5.0))
    gemm(FakeArray(np.ones((2, 0))), FakeArray(np.ones((0, 3))), y)
    np.testing.assert_array_equal(y.host, np.zeros((2, 3)))
    gemm(FakeArray(np.ones((0, 2))), FakeArray(np.ones((2, 3))), FakeArray(np.ones((0, 3))))
    assert fake.calls == []


# ------------------------------------------------------------------------------------------------- precision


def test_the_precision_is_what_the_innermost_block_says() -> None:
    assert current_precision() == "fp32"
    with use_precision("tf32"):
        with use_precision("bf16"):
            assert current_precision() == "bf16"
        assert current_precision() == "tf32"
    assert current_precision() == "fp32"
    message = "unknown precision 'fp16': expected one of fp32, tf32, bf16"
    with pytest.raises(UsageError, match=message), use_precision("fp16"):
        pass


def by_hand(value: float, bits: int) -> float:
    """The nearest number with so many significant bits; a tie goes to the even one."""
    if value == 0 or not np.isfinite(value):
        return value
    mantissa, exponent = np.frexp(value)
    return float(np.ldexp(np.round(mantissa * 2**bits), int(exponent) - bits))


@pytest.mark.parametrize(("precision", "bits"), [("tf32", 11), ("bf16", 8)])
def test_rounding(precision: str, bits: int) -> None:
    values = np.concatenate(
        [
            random(2000, dtype="float32"),
            random(500, seed=1, dtype="float32") * np.float32(1e30),
            np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 3.4028235e38, 1.0], np.float32),
            # Ties: one half of the last kept bit above numbers with an even and an odd last bit.
            np.float32(1) + np.arange(8, dtype=np.float32) * np.float32(2.0**-bits),
        ]
    )
    with np.errstate(over="ignore"):
        wanted = np.array([by_hand(float(v), bits) for v in values], np.float64).astype(np.float32)
    np.testing.assert_array_equal(round_to_precision(values, precision), wanted)
    nan = np.array([0x7F800001, 0xFFFFFFFF], np.uint32).view(np.float32)
    assert np.isnan(round_to_precision(nan, precision)).all()
    assert round_to_precision(values.astype(np.float64), precision).dtype == np.float64


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("precision", "name"), [("tf32", "TF32"), ("bf16", "32F")])
def test_lower_precision_on_cublas(
    precision: str, name: str, layout: str, fake: FakeCublas, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bits of the products of rounded factors; for bf16 the factors are rounded by our own kernel."""
    monkeypatch.setattr(cublas.round_to_bfloat16, "for_each", rounded_on_the_host)
    a, b = random(4, 6, dtype="float32"), random(6, 3, seed=1, dtype="float32")
    y = FakeArray(np.zeros((4, 3), np.float32))
    with use_precision(precision):
        gemm(laid_out(a, layout), laid_out(b, layout), y)
    wanted = round_to_precision(a, precision) @ round_to_precision(b, precision)
    np.testing.assert_allclose(y.host, wanted, rtol=1e-6, atol=1e-6)
    assert abs(y.host - a @ b).max() > 1e-5
    assert fake.calls == [name]
    stretched = FakeArray(np.broadcast_to(b, (2, 6, 3)))
    many = FakeArray(np.zeros((2, 4, 3), np.float32))
    with use_precision(precision):
        gemm(laid_out(np.stack([a, 2 * a]), layout), stretched, many)
    np.testing.assert_allclose(many.host, np.stack([wanted, 2 * wanted]), rtol=1e-6, atol=1e-6)


def rounded_on_the_host(count: int, x: FakeArray, y: FakeArray, size: int) -> None:
    assert count == size == x.size == y.size
    assert x.flags.c_contiguous
    assert y.flags.c_contiguous
    y.host[...] = (round_to_precision(x.host, "bf16").view(np.uint32) >> 16).astype(np.uint16)


def test_float64_ignores_the_precision(fake: FakeCublas) -> None:
    a, b, y = random(3, 4), random(4, 2), FakeArray(np.zeros((3, 2)))
    with use_precision("bf16"):
        gemm(FakeArray(a), FakeArray(b), y)
    np.testing.assert_allclose(y.host, a @ b, rtol=1e-13, atol=1e-13)
    assert fake.calls == ["64F"]


@pytest.mark.emulator
def test_the_emulated_device_rounds_and_the_cpu_does_not() -> None:
    a, b = random(5, 40, dtype="float32"), random(40, 6, seed=1, dtype="float32")
    with use_precision("bf16"):
        on_cpu = blas.matmul(a, b)
        emulated = blas.matmul(to_device(a, "cuda-emulated"), to_device(b, "cuda-emulated"))
    np.testing.assert_array_equal(on_cpu, blas.matmul(a, b))
    wanted = round_to_precision(a, "bf16") @ round_to_precision(b, "bf16")
    np.testing.assert_allclose(emulated.get(), wanted, rtol=1e-6, atol=1e-6)
    assert abs(emulated.get() - on_cpu).max() > 1e-3


# -------------------------------------------------------------------------------------- through the kernel


MATMULS: list[tuple[tuple[int, ...], tuple[int, ...], int]] = [
    # Shapes, and how many calls of cuBLAS they take.
    ((2, 3), (3, 4), 1),
    ((3,), (3, 2), 1),
    ((2, 3), (3,), 1),
    ((5, 2, 3), (3, 4), 1),
    ((5, 2, 3), (5, 3, 4), 5),
    ((2, 3), (5, 3, 4), 5),
    ((2, 1, 2, 3), (4, 3, 2), 8),
    ((2, 4, 2, 3), (3, 2), 1),
]


@pytest.mark.parametrize(("a_shape", "b_shape", "calls"), MATMULS)
def test_matmul_goes_through_cublas(
    a_shape: tuple[int, ...], b_shape: tuple[int, ...], calls: int, fake: FakeCublas
) -> None:
    a, b = random(*a_shape), random(*b_shape, seed=1)
    y = blas.matmul(fake_array(a), fake_array(b))
    np.testing.assert_allclose(y.host, np.matmul(a, b), rtol=1e-13, atol=1e-13)
    assert len(fake.calls) == calls
    with use_variant("cuda"):
        np.testing.assert_allclose(blas.matmul(a, b), np.matmul(a, b), rtol=1e-13, atol=1e-13)


def fake_array(values: np.ndarray) -> Any:
    return FakeArray(values)


@pytest.mark.emulator
def test_our_kernel_rounds_to_bfloat16_as_numpy_does() -> None:
    """Through the emulator: random numbers, ties, the ends of the range, and NaNs of any payload."""
    bits = np.random.default_rng(0).integers(0, 2**32, 3001, dtype=np.uint32)
    special = [0x3F808000, 0x3F818000, 0x3F807FFF, 0x3F808001, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x80000000]
    nans = [0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000]
    x = np.concatenate([bits, np.array(special + nans, np.uint32)]).view(np.float32)
    y = np.zeros(x.size, np.uint16)
    cublas.round_to_bfloat16.for_each(x.size, x, y, x.size)
    got = (y.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(got, round_to_precision(x, "bf16"))
    assert np.isnan(got[-4:]).all()
