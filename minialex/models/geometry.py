"""The rule for the size of what a window gives, with the numbers filled in, as it stands in lectures."""

from __future__ import annotations

from minialex.shapes import Pair, pool_output_size

__all__ = ["SIZE_RULE", "size_by_rule"]

# W: the picture's side, F: the window's, P: zeros at each end, S: from one window to the next; all in pixels.
SIZE_RULE = "N = (W - F + 2P)/S + 1"


def size_by_rule(
    size: int, kernel: int, stride: int, padding: Pair, dilation: int = 1, ceil_mode: bool = False
) -> str:
    """The right side of SIZE_RULE in numbers, and its value, rounded if it is no whole number.

        size_by_rule(227, 11, 4, (0, 0))   "(227 - 11 + 2*0)/4 + 1 = 55"
        size_by_rule(224, 11, 4, (2, 2))   "(224 - 11 + 2*2)/4 + 1 = 55.25 -> 55"
        size_by_rule(224, 11, 4, (1, 2))   "(224 - 11 + 1 + 2)/4 + 1 = 55"

    Args: as `shapes.conv_output_size`; of a dilated kernel, F is what it spans; ceil_mode: rounded up, but
          for a last window without a pixel, which is dropped (see `shapes.pool_output_size`).
    """
    window = dilation * (kernel - 1) + 1
    before, after = padding
    zeros = f"2*{before}" if before == after else f"{before} + {after}"
    span = size - window + before + after
    text = f"({size} - {window} + {zeros})/{stride} + 1 = {span / stride + 1:g}"
    if span % stride == 0:
        return text
    rounded = pool_output_size(size, window, stride, padding, True) if ceil_mode else span // stride + 1
    return f"{text} -> {rounded}"
