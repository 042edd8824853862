"""Devices, array modules and kernels. The only package that imports CuPy and Numba, and only when needed."""

from minialex.backend.algorithms import use_winograd, winograd_enabled
from minialex.backend.blas import matmul
from minialex.backend.compilation import Compilation, compilations, on_compile
from minialex.backend.cublas import gemm
from minialex.backend.cuda import CudaKernel, contiguous
from minialex.backend.device import (
    Array,
    array_module,
    canonical_device,
    compute_capability,
    device_of,
    is_array,
    on_device,
    on_device_of,
    parse_device,
    require_device,
    to_device,
    to_numpy,
)
from minialex.backend.emulated import EmulatedArray
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
from minialex.backend.memory import empty, empty_cache, keep_freed_memory, kept_memory
from minialex.backend.precision import PRECISIONS, current_precision, use_precision
from minialex.backend.sources import cuda_source_dir
from minialex.backend.threads import for_ranges, num_threads, one_blas_thread, scratch
from minialex.backend.uploads import Uploader

__all__ = [
    "FLOAT_DTYPES",
    "PRECISIONS",
    "Array",
    "Compilation",
    "CudaKernel",
    "DTypeError",
    "EmulatedArray",
    "Kernel",
    "Uploader",
    "VariantError",
    "array_module",
    "canonical_device",
    "compilations",
    "compute_capability",
    "contiguous",
    "cuda_source_dir",
    "current_precision",
    "device_of",
    "empty",
    "empty_cache",
    "for_ranges",
    "forced_variant",
    "gemm",
    "is_array",
    "jit",
    "keep_freed_memory",
    "kept_memory",
    "matmul",
    "num_threads",
    "on_compile",
    "on_device",
    "on_device_of",
    "one_blas_thread",
    "parse_device",
    "per_image",
    "require_device",
    "scratch",
    "to_device",
    "to_numpy",
    "use_precision",
    "use_variant",
    "use_winograd",
    "winograd_enabled",
]
