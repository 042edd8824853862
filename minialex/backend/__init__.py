"""Devices, array modules and kernels. The only package that imports CuPy and Numba, and only when needed."""

from minialex.backend.blas import matmul
from minialex.backend.device import (
    Array,
    array_module,
    canonical_device,
    device_of,
    on_device_of,
    parse_device,
    require_device,
    to_device,
    to_numpy,
)
from minialex.backend.kernel import (
    FLOAT_DTYPES,
    DTypeError,
    Kernel,
    VariantError,
    forced_variant,
    jit,
    per_image,
    use_variant,
)
from minialex.backend.memory import keep_freed_memory
from minialex.backend.sources import cuda_source_dir
from minialex.backend.threads import for_ranges, num_threads, one_blas_thread, scratch

__all__ = [
    "FLOAT_DTYPES",
    "Array",
    "DTypeError",
    "Kernel",
    "VariantError",
    "array_module",
    "canonical_device",
    "cuda_source_dir",
    "device_of",
    "for_ranges",
    "forced_variant",
    "jit",
    "keep_freed_memory",
    "matmul",
    "num_threads",
    "on_device_of",
    "one_blas_thread",
    "parse_device",
    "per_image",
    "require_device",
    "scratch",
    "to_device",
    "to_numpy",
    "use_variant",
]
