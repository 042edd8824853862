"""Columns of text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]], left: tuple[int, ...]) -> list[str]:
    """Lines with the columns `left` aligned to the left and the others, numbers, to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    return [
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [header, *rows]
    ]


def curve_line(curve: Sequence[tuple[float, float]]) -> str:
    """`2e-03 2e-05 2e-07 ...`: the errors, a dash where fn could not be evaluated."""
    return " ".join(f"{error:.0e}" if np.isfinite(error) else "  -  " for _, error in curve)
