"""Gradients that are wrong in some places and right in others: which places they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minialex.gradient_check.fault_kinds import Fault, Float64Array, Hints, Mask, number, places, plural
from minialex.shapes import Padding, Pair

__all__ = ["coverage", "location_fault", "sliced"]


def location_fault(
    analytic: Float64Array, numeric: Float64Array, wrong: Mask, hints: Hints, tolerance: float
) -> Fault | None:
    """Where it is wrong: one slice of an axis, the border, where windows overlap, where nothing may pass.

    Shapes: analytic, numeric, wrong: the input's.
    Args:   tolerance: below which a number counts as zero.

    The confidence is that of a coincidence that did not happen: if a share p of the elements lies in such a
    place, all k wrong ones lie there by chance with probability p**k.
    """
    telling = wrong | (np.isfinite(numeric) & (np.abs(numeric) > tolerance))
    if not wrong.any() or not (telling & ~wrong).any():
        return None
    faults = (
        _overlap(wrong, telling, hints),
        sliced(wrong, telling, hints.letters(wrong.ndim)),
        _border(wrong, telling, hints.letters(wrong.ndim)),
        _mask(analytic, numeric, wrong, tolerance),
    )
    best = max((f for f in faults if f is not None), key=lambda f: f.confidence, default=None)
    if best is None or best.kind == "mask":
        return best
    return Fault(best.kind, best.text + _how(analytic[wrong], numeric[wrong], tolerance), best.confidence)


def _how(a: Float64Array, n: Float64Array, tolerance: float) -> str:
    """What the wrong elements have in common."""
    if not (np.abs(a) > tolerance).any():
        return "; there it is 0"
    c = float(a @ n) / max(float(n @ n), 1e-300)
    if c != 0 and np.abs(a - c * n).max() <= 2 * tolerance * max(1.0, abs(c)):
        return f"; there it is {number(c)} times what it must be"
    return ""


def _surprise(wrong: Mask, inside: Mask, telling: Mask) -> float:
    """1 - the probability that all wrong elements lie inside by chance."""
    share = (inside & telling).sum() / telling.sum()
    return float(1 - share ** int(wrong.sum()))


def sliced(wrong: Mask, telling: Mask, letters: Sequence[str], pictures: bool = False) -> Fault | None:
    """Whole slices of one axis are wrong, and the others are right.

    Args: pictures: whether to look at rows and columns of pictures, too.
    """
    found: list[Fault] = []
    for axis, extent in enumerate(wrong.shape):
        if extent < 2 or (letters[axis] in ("H", "W") and not pictures):
            continue
        others = tuple(i for i in range(wrong.ndim) if i != axis)
        bad, seen = wrong.sum(axis=others), telling.sum(axis=others)
        hit = np.flatnonzero(bad)
        # Nearly all that is in the slice, and none of what is not.
        if not (seen[bad == 0] > 0).any() or (bad[hit] < 0.9 * seen[hit]).any():
            continue
        shape = [1] * wrong.ndim
        shape[axis] = extent
        inside = np.broadcast_to((bad > 0).reshape(shape), wrong.shape)
        which = ", ".join(str(int(i)) for i in hit[:8]) + (", ..." if len(hit) > 8 else "")
        where = places(letters[axis], f"{which} of {extent}", len(hit))
        text = f"only {where} {'is' if len(hit) == 1 else 'are'} wrong"
        # A slice that is most of them is no more telling than its rest.
        weight = 0.94 if len(hit) <= max(1, extent // 2) else 0.5
        kind = "border" if letters[axis] in ("H", "W") else "channel"
        found.append(Fault(kind, text, weight * _surprise(wrong, inside, telling)))
    return max(found, key=lambda f: f.confidence, default=None)


def _border(wrong: Mask, telling: Mask, letters: tuple[str, ...]) -> Fault | None:
    """Only rows and columns at the edge of the picture are wrong."""
    if letters[-1:] != ("W",) and wrong.ndim != 4:
        return None
    H, W = wrong.shape[-2:]
    rows, cols = np.arange(H)[:, None], np.arange(W)[None, :]
    # How far from the four edges each pixel is; the width at each edge that the wrong ones need.
    depths = {"first row": rows, "last row": H - 1 - rows, "first column": cols, "last column": W - 1 - cols}
    plane = np.asarray(wrong.reshape(-1, H, W).any(axis=0))
    nearest = np.min(np.stack([np.broadcast_to(d, (H, W)) for d in depths.values()]), axis=0)
    width = int(nearest[plane].max()) + 1
    if 2 * width >= min(H, W):
        return _one_edge(wrong, telling, plane, depths)
    inside = np.broadcast_to(nearest < width, wrong.shape)
    if not (telling & ~inside).any():
        return None
    fault = _one_edge(wrong, telling, plane, depths)
    text = f"only elements within {plural(width, 'pixel')} of the border are wrong"
    return fault or Fault("border", text, 0.85 * _surprise(wrong, inside, telling))


def _one_edge(wrong: Mask, telling: Mask, plane: Mask, depths: dict[str, np.ndarray]) -> Fault | None:
    for name, depth in depths.items():
        depth = np.broadcast_to(depth, plane.shape)
        width = int(depth[plane].max()) + 1
        inside = np.broadcast_to(depth < width, wrong.shape)
        if width <= max(1, (int(depth.max()) + 1) // 3) and (telling & ~inside).any():
            where = f"the {name}" if width == 1 else f"the {width} {name}s"
            text = f"only {where} {'is' if width == 1 else 'are'} wrong"
            return Fault("border", text, 0.87 * _surprise(wrong, inside, telling))
    return None


def coverage(
    size: Pair, window: Pair, stride: Pair, padding: Padding, dilation: Pair, windows: Pair
) -> np.ndarray:
    """How many windows see each pixel. Shapes: -> (H, W)."""
    axes = []
    for axis in range(2):
        counts = np.zeros(size[axis], dtype=np.int64)
        for start in range(windows[axis]):
            for cell in range(window[axis]):
                place = start * stride[axis] - padding[axis][0] + cell * dilation[axis]
                if 0 <= place < size[axis]:
                    counts[place] += 1
        axes.append(counts)
    return np.asarray(axes[0][:, None] * axes[1][None, :])


def _overlap(wrong: Mask, telling: Mask, hints: Hints) -> Fault | None:
    """Wrong only where more than one window sees the pixel."""
    if hints.window is None or wrong.ndim != 4:
        return None
    H, W = wrong.shape[2:]
    windows = hints.windows or tuple(
        (size + sum(pads) - dilation * (kernel - 1) - 1) // stride + 1
        for size, kernel, stride, pads, dilation in zip(
            (H, W), hints.window, hints.stride, hints.padding, hints.dilation, strict=True
        )
    )
    seen = coverage(
        (H, W), hints.window, hints.stride, hints.padding, hints.dilation, (windows[0], windows[1])
    )
    shared = np.broadcast_to(seen > 1, wrong.shape)
    if (wrong & ~shared).any() or not (telling & ~shared).any():
        return None
    text = f"only pixels that {plural(2, 'window')} or more share are wrong, {int(wrong.sum())} of them"
    return Fault("overlap", text, 0.92 * _surprise(wrong, shared, telling))


def _mask(analytic: Float64Array, numeric: Float64Array, wrong: Mask, tolerance: float) -> Fault | None:
    """Not zero where it must be, or zero where it must not, and right elsewhere."""
    with np.errstate(invalid="ignore"):
        passed = wrong & (np.abs(numeric) <= tolerance)
        stopped = wrong & (np.abs(analytic) <= tolerance)
    if (wrong & ~passed & ~stopped).any():
        return None
    parts = []
    if passed.any():
        parts.append(f"{plural(int(passed.sum()), 'element')} where it must be 0")
    if stopped.any():
        parts.append(f"0 at {plural(int(stopped.sum()), 'element')} where it must not")
    kind = "not 0 at " if passed.any() else ""
    text = f"the gradient is {kind}{' and '.join(parts)}, and right elsewhere"
    return Fault("mask", text, (0.8 if passed.any() else 0.6) * (1 - 0.5 ** int(wrong.sum())))
