"""The update kernels: every variant against the plain loops, in both dtypes."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest

from minialex import rng
from minialex.backend import use_variant
from minialex.kernels.adam import adam
from minialex.kernels.sgd import sgd_paper, sgd_torch

SGD = (0.1, 0.9, 5e-4)
CALLS = {
    "torch": (sgd_torch, 3, (*SGD, False)),
    "torch nesterov": (sgd_torch, 3, (*SGD, True)),
    "torch without momentum": (sgd_torch, 2, (0.1, 0.0, 5e-4, False)),
    "paper": (sgd_paper, 3, SGD),
    "adam": (adam, 4, (0.02, 0.3, 0.9, 0.999, 1e-8, 1e-3)),
}

VARIANTS = {"reference", "array", "numba", "cuda"}
if shutil.which("g++") is None:  # The emulator compiles CUDA's kernels with it; test_together.py says so.
    VARIANTS.remove("cuda")


def arrays(count: int, size: int, dtype: str) -> list[np.ndarray[Any, Any]]:
    made = [rng.Stream(0, "test", item=i).normal(shape=(size,)).astype(dtype) for i in range(count)]
    if count == 4:
        made[3] = np.abs(made[3])
    return made if count > 2 else [*made, np.empty(0, dtype)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CALLS)
def test_variants_agree_bit_for_bit(name: str, dtype: str) -> None:
    kernel, count, scalars = CALLS[name]
    results = {}
    assert set(kernel.variants) >= VARIANTS
    for variant in VARIANTS:
        values = arrays(count, 500, dtype)
        with use_variant(variant):
            for _ in range(3):
                kernel(*values, *scalars)
        assert {str(array.dtype) for array in values} == {dtype}
        results[variant] = values
    for variant, values in results.items():
        for got, expected in zip(values, results["reference"], strict=True):
            np.testing.assert_array_equal(got, expected, err_msg=variant, strict=True)
    changed = results["reference"][0]
    assert (changed != arrays(count, 500, dtype)[0]).all()


def test_nothing_to_update() -> None:
    for variant in VARIANTS:
        with use_variant(variant):
            sgd_torch(*(np.empty(0, np.float32) for _ in range(3)), *SGD, False)
