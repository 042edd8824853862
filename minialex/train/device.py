"""Which device a run is on, and how exactly it computes. `auto` may fall back to the CPU and says so, `cuda`
never does."""

from __future__ import annotations

from collections.abc import Callable

from minialex.backend import PRECISIONS, compute_capability, parse_device, require_device
from minialex.errors import DeviceError, UsageError

# The first GPUs whose tensor cores take bfloat16; cuBLAS refuses it on older ones.
AMPERE = 80


def choose_device(device: str, say: Callable[[str], object] = print) -> str:
    """The canonical name of the device that `device` asks for, which can be used now.

    Args:   device: "cpu", "cuda", "cuda:N", "cuda-emulated" or "auto"; say: is told what auto chose.
    Raises: DeviceError if the device cannot be used, saying what is missing.
    """
    check_device_name(device)
    if device != "auto":
        return require_device(device)
    try:
        return require_device("cuda")
    except DeviceError as error:
        reason = (
            "CuPy is not installed" if "not installed" in str(error) else "CuPy finds no usable GPU or driver"
        )
        say(f"no GPU can be used ({reason}): using the CPU")
        return require_device("cpu")


def check_device_name(device: str) -> None:
    """Raises: DeviceError for what is no device's name, nor auto."""
    if device == "auto":
        return
    try:
        parse_device(device)
    except DeviceError as error:  # The engine does not know auto.
        raise DeviceError(str(error).replace("expected ", "expected 'auto', ")) from error


def check_precision(precision: str, device: str) -> None:
    """Raises: UsageError for a precision that the device does not compute in, or that there is not."""
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}: expected one of {', '.join(PRECISIONS)}")
    if device == "cpu" and precision != "fp32":
        raise UsageError(
            f"--precision {precision} is for a GPU: the CPU computes in fp32. Leave --precision out, or use "
            "--device cuda (--device cuda-emulated shows what the rounding does, slowly)"
        )
    if precision == "bf16" and parse_device(device)[0] == "cuda":
        generation = compute_capability(device)
        if generation < AMPERE:
            raise UsageError(
                f"--precision bf16 needs a GPU of compute capability 8.0 or more (Ampere); {device} has "
                f"{generation / 10}. Use --precision fp32"
            )
