"""What all transforms share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from minialex.rng import Stream

__all__ = ["Arrays", "Compose", "Size", "Transform", "as_pair", "require", "required_stream"]

Arrays = dict[str, npt.NDArray[Any]]
Size = int | Sequence[int]


class Transform:
    """What all transforms share: they are called with (image, stream) and can be written as JSON."""

    def __call__(self, image: Any, stream: Stream | None = None) -> Any:
        """The changed image. The stream may be left out where nothing is random."""
        raise NotImplementedError

    def to_config(self, arrays: Arrays | None = None) -> dict[str, Any]:
        """The transform as JSON can hold it; `transform_from_config` is the way back.

        Args: arrays: takes up, under names that the configuration refers to, what is no matter for JSON: the
              mean image of a Normalize. May be left out where there is none.
        """
        arguments = {
            name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()
        }
        return {"name": type(self).__name__, **arguments}


class Compose(Transform):
    """Transforms one after another, all drawing from one stream."""

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = list(transforms)

    def __call__(self, image: Any, stream: Stream | None = None) -> Any:
        for transform in self.transforms:
            image = transform(image, stream)
        return image

    def to_config(self, arrays: Arrays | None = None) -> dict[str, Any]:
        steps = [transform.to_config(arrays) for transform in self.transforms]
        return {"name": "Compose", "transforms": steps}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Compose) and self.transforms == other.transforms

    def __repr__(self) -> str:
        return f"Compose({self.transforms!r})"


def as_pair(size: Size) -> tuple[int, int]:
    """(height, width) of a size, which is one number for both or a pair."""
    if isinstance(size, int):
        return size, size
    height, width = size
    return int(height), int(width)


def require(condition: bool | np.bool_, transform: Transform, expected: str) -> None:
    """Raises: ValueError with what was expected and the transform, unless the condition holds."""
    if not condition:
        raise ValueError(f"{expected}, got {transform!r}")


def required_stream(transform: Transform, stream: Stream | None) -> Stream:
    """The stream. Raises: ValueError if a random transform was called without one."""
    if stream is None:
        raise ValueError(f"{type(transform).__name__} is random: call it with a Stream as second argument")
    return stream
