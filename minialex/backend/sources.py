"""Where the CUDA source is."""

from __future__ import annotations

from pathlib import Path

from minialex.errors import DeviceError

__all__ = ["cuda_source_dir"]


def cuda_source_dir() -> Path:
    """The folder that holds common.cuh and the .cu files.

    In a checkout, installed as editable or put on PYTHONPATH, it is kernels/ beside the package; a wheel
    carries that folder as minialex/_cuda.

    Raises: DeviceError if neither holds common.cuh.
    """
    package = Path(__file__).resolve().parents[1]
    # The header is the proof: site-packages may hold a folder "kernels" of somebody else's.
    candidates = (package / "_cuda", package.parent / "kernels")
    for folder in candidates:
        if (folder / "common.cuh").is_file():
            return folder
    tried = " or ".join(str(folder) for folder in candidates)
    raise DeviceError(f"the CUDA source is missing: no common.cuh in {tried}; install minialex again")
