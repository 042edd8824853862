"""Ten crops at test time: four corners and the centre of a picture, and of its mirror image.

A network answers about parts of the picture, as it was trained on parts of it; the mean of its ten answers
is better than the one about the whole or the middle, as a rule. The picture is decoded and scaled once.

Source: Krizhevsky, Sutskever, Hinton 2012, section 4.1: parts of 224 x 224 out of 256 x 256.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from minialex.data import Batch, CenterCrop, Compose, Greyscale, Normalize, Resize, Transform
from minialex.errors import UsageError

__all__ = ["TenCrops", "ten_crops"]

Pixels = npt.NDArray[np.uint8]


def ten_crops(pictures: Pixels, height: int, width: int) -> Iterator[Pixels]:
    """The corners and the centre, then those of the mirror image, in torchvision's order (TenCrop).

    Shapes: pictures (N, H, W, C) -> ten of (N, height, width, C), contiguous.
    Raises: ValueError if the pictures are smaller than that.
    """
    down, right = pictures.shape[1] - height, pictures.shape[2] - width
    if down < 0 or right < 0:
        raise ValueError(f"ten_crops: parts of {height} x {width} do not fit into {pictures.shape[1:3]}")
    # Rounded as CenterCrop does, so that the middle one is its.
    corners = ((0, 0), (0, right), (down, 0), (down, right), (round(down / 2), round(right / 2)))
    for side in (pictures, pictures[:, :, ::-1]):
        for top, left in corners:
            yield np.ascontiguousarray(side[:, top : top + height, left : left + width])


@dataclass(frozen=True)
class TenCrops:
    """Ten crops of pictures, in the manner of an evaluation transform: `TenCrops.like(transform)`.

    Attributes: larger: makes the pictures that are cut, a seventh larger than what the network takes. Its
                batches are bytes; the Normalize at its end is only there because a loader wants one.
                height, width: of the parts; normalize: what is done to each of them.
    """

    larger: Transform
    height: int
    width: int
    normalize: Normalize

    @classmethod
    def like(cls, transform: Transform) -> TenCrops:
        """For a network that is evaluated with this transform.

        Resize((S, S)), the whole picture whatever its shape, becomes Resize((8 S / 7, 8 S / 7)). With
        Resize(R) and CenterCrop(S), the middle of a picture of right proportions, the parts are cut from the
        middle square of R x R, as in the 2012 paper; of 8 S / 7 where R leaves nothing around the centre.

        Raises: UsageError for a transform that is none of these.
        """
        steps = list(transform.transforms) if isinstance(transform, Compose) else [transform]
        colours = [step for step in steps if isinstance(step, Greyscale)]
        resize, crop, normalize = _parts([step for step in steps if not isinstance(step, Greyscale)])
        height, width = _pair(resize.size if crop is None else crop.size)
        scaling: list[Transform] = [Resize((round(height * 8 / 7), round(width * 8 / 7)))]
        if isinstance(resize.size, int):
            largest = max(height, width)
            side = resize.size if resize.size > largest else round(largest * 8 / 7)
            scaling = [Resize(side), CenterCrop(side)]
        return cls(Compose([*colours, *scaling, Normalize()]), height, width, normalize)

    def batches(self, larger: Iterable[Batch]) -> Iterator[Batch]:
        """For each batch of larger pictures ten with their parts, one after the other."""
        for batch in larger:
            for part in ten_crops(batch.samples, self.height, self.width):
                yield replace(batch, samples=part, normalize=self.normalize)


def _parts(steps: Sequence[Transform]) -> tuple[Resize, CenterCrop | None, Normalize]:
    """A Resize to an exact size, or one of the shorter side with a CenterCrop, and the Normalize."""
    match steps:
        case [Resize() as resize, Normalize() as normalize] if not isinstance(resize.size, int):
            return resize, None, normalize
        case [Resize() as resize, *crops, Normalize() as normalize] if isinstance(resize.size, int):
            # Of several crops around one centre the smallest is what is left.
            if crops and all(isinstance(crop, CenterCrop) for crop in crops):
                smallest = min(crops, key=lambda crop: _pair(crop.size))  # type: ignore[attr-defined]
                assert isinstance(smallest, CenterCrop)
                return resize, smallest, normalize
    raise UsageError(
        "--crops 10 knows networks whose evaluation transform is Resize((height, width)), or Resize(shorter "
        f"side) and CenterCrop(size), and then Normalize; this one's is {list(steps)!r}"
    )


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    height, width = size
    return int(height), int(width)
