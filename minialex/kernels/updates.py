"""UpdateKernel: a kernel that changes parameters, and on a GPU many of them in one launch.

A network has dozens of parameters, and most are small: a launch for each takes longer than the work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minialex.backend import Array, CudaKernel, Kernel, device_of, is_array, parse_device
from minialex.backend.cuda import TABLE_SIZE

__all__ = ["PIECE", "UpdateKernel"]

# Elements of a parameter that a block of threads works on, as in kernels/pieces.cuh.
PIECE, THREADS = 4096, 256

Call = tuple[Any, ...]


class UpdateKernel(Kernel):
    """A kernel whose arguments are flat arrays of one parameter, then scalars.

    Args: outputs, reference, array, numba: as Kernel; entry: in kernels/*.cu: takes tables of the leading
          arguments, a table of sizes, and the remaining scalars; own: how many leading arguments differ from
          parameter to parameter; scalars: makes of the others what the entry takes; None: just these.
    """

    def __init__(
        self,
        name: str,
        *,
        outputs: Sequence[str],
        reference: Callable[..., Any],
        array: Callable[..., Any],
        numba: Callable[..., Any],
        entry: CudaKernel,
        own: int,
        scalars: Callable[..., Call] | None = None,
    ) -> None:
        super().__init__(
            name,
            outputs=outputs,
            reference=reference,
            array=array,
            numba=numba,
            cuda=lambda *args: self.together([args]),
        )
        self._entry, self._own, self._scalars = entry, own, scalars

    def takes_together(self, array: Array) -> bool:
        """Whether parameters where this array is are better updated by `together`."""
        return self.select(parse_device(device_of(array))[0]) == "cuda"

    def together(self, calls: Sequence[Call]) -> None:
        """Do what a call with each of these arguments does, in one launch for up to 32 of them.

        Args:   calls: arguments of the kernel, their arrays C-contiguous. Arrays of one dtype and device go
                together, if their scalars beyond the first `own` arguments agree.
        Raises: DTypeError as Kernel.
        """
        groups: dict[Any, list[Call]] = {}
        for call in calls:
            self._check_dtypes([a for a in call if is_array(a)])
            if call[0].size > 0:
                key = (call[0].dtype, device_of(call[0]), call[self._own :])
                groups.setdefault(key, []).append(call)
        for group in groups.values():
            for start in range(0, len(group), TABLE_SIZE):
                self._launch(group[start : start + TABLE_SIZE])

    def _launch(self, calls: Sequence[Call]) -> None:
        sizes = tuple(call[0].size for call in calls)
        tables = zip(*(map(_entry, call[: self._own]) for call in calls), strict=True)
        scalars = calls[0][self._own :]
        if self._scalars is not None:
            scalars = self._scalars(*scalars)
        blocks = sum(-(-size // PIECE) for size in sizes)
        self._entry.launch(blocks, THREADS, *tables, sizes, *scalars)


def _entry(value: Any) -> Any:
    """An entry of a table. An empty array stands for one that is not there: a null pointer."""
    if not is_array(value):
        return float(value)
    return value if value.size > 0 else None
