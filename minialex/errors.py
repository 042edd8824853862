"""The errors that a user can cause, each with the exit code of the command line.

A message names what, where, expected and got, and what to do. Mistakes in calling the engine are ordinary
Python errors beside the code that raises them: ShapeError, DTypeError, GraphError.
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "DataError",
    "DeviceError",
    "KernelError",
    "MinialexError",
    "NumericalError",
    "OutputError",
    "UsageError",
]


class MinialexError(Exception):
    """Something that the user can mend; `exit_code` is what the command line ends with."""

    exit_code = 1


class UsageError(MinialexError):
    """An option or a combination of options that makes no sense."""

    exit_code = 2


class DataError(MinialexError):
    """A folder or a picture that cannot be used."""

    exit_code = 3


class CheckpointError(MinialexError):
    """A checkpoint that is corrupt, foreign or of another version."""

    exit_code = 4


class DeviceError(MinialexError):
    """A device that is not there, or arrays on different ones."""

    exit_code = 5


class NumericalError(MinialexError):
    """NaN, infinity, or a gradient that is wrong."""

    exit_code = 6


class OutputError(MinialexError):
    """A place that cannot be written to, or that another run is writing to."""

    exit_code = 7


class KernelError(MinialexError):
    """A CUDA kernel that does not compile, or in which the emulator found a mistake."""

    exit_code = 8
