"""Kernel: choosing a variant, refusing dtypes, compiling at the first call."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import numpy as np
import pytest

import minialex as mx
import minialex.kernels
from minialex.backend import DTypeError, Kernel, VariantError, forced_variant, jit, use_variant
from minialex.backend.kernel import Compiled


def writer(name: str, log: list[str]) -> Callable[[np.ndarray, np.ndarray], None]:
    def variant(x: np.ndarray, y: np.ndarray) -> None:
        log.append(name)
        y[...] = 2 * x

    return variant


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def double(log: list[str]) -> Kernel:
    return Kernel("double", outputs=["y"], reference=writer("reference", log), array=writer("array", log))


def test_the_best_variant_that_is_there(log: list[str], double: Kernel) -> None:
    x, y = np.ones(3), np.empty(3)
    double(x, y)
    variants = {name: writer(name, log) for name in ("reference", "array", "numba")}
    Kernel("triple", outputs=["y"], **variants)(x, y)
    assert log == ["array", "numba"]
    np.testing.assert_array_equal(y, [2.0, 2.0, 2.0])


def test_a_variant_can_be_forced_and_nesting_ends(log: list[str], double: Kernel) -> None:
    x, y = np.ones(3), np.empty(3)
    with use_variant("reference"):
        double(x, y)
        with use_variant("array"):
            double(x, y)
        assert forced_variant() == "reference"
        double(x, y)
    assert forced_variant() is None
    assert log == ["reference", "array", "reference"]


def test_a_forced_variant_that_is_missing_raises(double: Kernel) -> None:
    message = "double has no variant 'numba'; it has reference"
    with use_variant("numba"), pytest.raises(VariantError, match=message):
        double(np.ones(3), np.empty(3))
    with pytest.raises(VariantError, match="unknown kernel variant 'fast'"), use_variant("fast"):
        pass
    assert forced_variant() is None


def test_scalar_loops_do_not_reach_into_a_gpu(double: Kernel) -> None:
    assert double.select("cuda") == "array"
    message = "does not run on arrays of device 'cuda'"
    with use_variant("reference"), pytest.raises(VariantError, match=message):
        double.select("cuda")


@pytest.mark.parametrize("dtype", ["float16", "complex64", "object"])
def test_other_dtypes_are_refused(dtype: str, double: Kernel) -> None:
    x = np.zeros(3, dtype)
    with pytest.raises(DTypeError, match=rf"double: dtype {dtype} is not supported"):
        double(x, x.copy())


def test_mixed_dtypes_are_refused(double: Kernel) -> None:
    with pytest.raises(DTypeError, match="double: arrays must share one dtype, got float32 and float64"):
        double(np.zeros(3, "f4"), np.zeros(3))


def test_integers_are_refused_where_values_are_expected(double: Kernel) -> None:
    with pytest.raises(DTypeError, match="arrays must share one dtype, got int64 and float64"):
        double(np.zeros(3, np.int64), np.zeros(3))
    with pytest.raises(DTypeError, match="double: dtype int64 is not supported; expected float32 or float64"):
        double(np.zeros(3, np.int64), np.zeros(3, np.int64))


def test_an_output_that_is_not_contiguous_is_refused(double: Kernel) -> None:
    with pytest.raises(ValueError, match="double: argument 1 is written, and must be a C-contiguous array"):
        double(np.ones(3), np.zeros(6)[::2])


def test_read_only_inputs_are_not_compiled_anew() -> None:
    from minialex.kernels.activations import relu_reference

    compiled = jit(relu_reference)
    kernel = Kernel("relu", outputs=["y"], reference=relu_reference, array=relu_reference, numba=compiled)
    x, y = np.array([-1.0, 2.0]), np.empty(2)
    kernel(x, y)
    x.flags.writeable = False
    kernel(x, y)
    np.testing.assert_array_equal(y, [0, 2])
    assert len(compiled._dispatcher.signatures) == 1


def test_strided_inputs_reach_numba_contiguous() -> None:
    seen = []

    def variant(x: np.ndarray, y: np.ndarray) -> None:
        seen.append(x.flags.c_contiguous)
        y[...] = x

    kernel = Kernel("copy", outputs=["y"], reference=variant, array=lambda x, y: None, numba=variant)
    y = np.empty((3, 2))
    kernel(np.arange(6.0).reshape(2, 3).T, y)
    assert seen == [True]
    np.testing.assert_array_equal(y, np.arange(6.0).reshape(2, 3).T)


def test_compilation_waits_for_the_first_call() -> None:
    def add_one(x: np.ndarray) -> None:
        for i in range(len(x)):
            x[i] += 1.0 / x[i]

    compiled = jit(add_one)
    assert compiled._dispatcher is None
    x = np.array([1.0, 0.0])
    compiled(x)
    # No error for a division by zero: NumPy's rules hold in every variant.
    np.testing.assert_array_equal(x, [2.0, np.inf])


# ------------------------------------------------------------------------------------------- all kernels


def all_kernels() -> Iterator[tuple[str, Kernel]]:
    for module in pkgutil.walk_packages(minialex.kernels.__path__, "minialex.kernels."):
        for name, value in vars(import_module(module.name)).items():
            if isinstance(value, Kernel):
                yield f"{module.name.rpartition('.')[2]}.{name}", value


def signature_of(function: Any) -> list[str]:
    """Parameter names of a variant, also where it was compiled or shared out over threads."""
    while not inspect.isfunction(function) or hasattr(function, "__wrapped__"):
        function = function.function if isinstance(function, Compiled) else function.__wrapped__
    return list(inspect.signature(function).parameters)


def takes_anything(function: Any) -> bool:
    kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
    return kinds == [inspect.Parameter.VAR_POSITIONAL]


KERNELS = dict(all_kernels())


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_all_variants_share_one_signature(kernel: Kernel) -> None:
    signatures = {name: signature_of(function) for name, function in kernel.variants.items()}
    # What is handed on to a kernel in CUDA C++ as it is (*arrays), the emulator counts there.
    if "cuda" in kernel.variants and takes_anything(kernel.variants["cuda"]):
        del signatures["cuda"]
    assert len(set(map(tuple, signatures.values()))) == 1, signatures
    assert list(signatures)[:2] == ["reference", "array"]


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_every_reference_is_explained(kernel: Kernel) -> None:
    documentation = kernel.variants["reference"].__doc__
    assert documentation
    assert "Shapes:" in documentation


def test_there_are_kernels_and_a_wrong_one_is_found() -> None:
    assert len(KERNELS) > 10
    odd = Kernel("odd", outputs=["y"], reference=lambda x, y: None, array=lambda x, out: None)
    with pytest.raises(AssertionError):
        test_all_variants_share_one_signature(odd)


def test_public_names() -> None:
    assert mx.use_variant is use_variant
