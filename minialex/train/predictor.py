"""A trained network that answers: `load("best.safetensors").predict("photo.jpg")`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from minialex import ops
from minialex.backend import on_device, to_numpy
from minialex.data.images import load_image, to_rgb
from minialex.errors import UsageError
from minialex.tensor import Tensor, no_grad
from minialex.train.checkpoint import Checkpoint, load_checkpoint
from minialex.train.device import choose_device
from minialex.train.networks import model_of
from minialex.train.preprocessing import transform_of
from minialex.train.run_folder import find_network

Picture = str | Path | Image.Image | np.ndarray
BATCH = 32


@dataclass(frozen=True)
class Prediction:
    """Every class with its probability, the most probable first: `for name, probability in prediction`."""

    classes: tuple[str, ...]
    probabilities: tuple[float, ...]

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.classes[0]

    @property
    def probability(self) -> float:
        """The most probable class's probability."""
        return self.probabilities[0]

    def __iter__(self) -> Iterator[tuple[str, float]]:
        return zip(self.classes, self.probabilities, strict=True)

    def __len__(self) -> int:
        return len(self.classes)

    def __str__(self) -> str:
        return "\n".join(f"{probability:.3f}  {name}" for name, probability in self)


class Predictor:
    """A network with the class names and the preprocessing that it was trained with.

    Attributes: model, classes, device, transform (picture -> array), checkpoint.
    """

    def __init__(
        self, checkpoint: Checkpoint, path: Path, device: str = "cpu", say: Callable[[str], object] = print
    ) -> None:
        self.checkpoint = checkpoint
        self.classes = checkpoint.classes
        self.device = choose_device(device, say)
        self.model = model_of(checkpoint, path, self.device)
        self.model.eval()
        self.transform = transform_of(checkpoint)

    @overload
    # A string is a sequence of strings to the type checker; here it is a path.
    def predict(self, pictures: Picture) -> Prediction: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, pictures: Sequence[Picture]) -> list[Prediction]: ...
    def predict(self, pictures: Picture | Sequence[Picture]) -> Prediction | list[Prediction]:
        """The answer to a picture, or a list of answers to a list of them.

        Args:   pictures: a file's path, a PIL image, or an array (H, W, 3) of uint8, red first.
        Raises: DataError naming a file that cannot be read as a picture; UsageError for anything else.
        """
        if isinstance(pictures, Picture):
            return self.predict([pictures])[0]
        if not isinstance(pictures, Sequence):
            _open(pictures)  # Refuses, and says what is expected.
        shares = [self._probabilities(pictures[i : i + BATCH]) for i in range(0, len(pictures), BATCH)]
        return [self._ranked(row) for batch in shares for row in batch]

    def _probabilities(self, pictures: Sequence[Picture]) -> npt.NDArray[Any]:
        images = np.stack([self.transform(_open(picture)) for picture in pictures])
        with no_grad(), on_device(self.device):
            return to_numpy(ops.softmax(self.model(Tensor(images, device=self.device)), axis=-1).data)

    def _ranked(self, row: npt.NDArray[Any]) -> Prediction:
        order = np.argsort(-row, kind="stable")
        return Prediction(tuple(self.classes[i] for i in order), tuple(float(row[i]) for i in order))

    def __repr__(self) -> str:
        return f"Predictor({self.checkpoint.model_name}, {len(self.classes)} classes, device={self.device!r})"


def _open(picture: Picture) -> Image.Image:
    if isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and _is_colour(picture.shape):
        return Image.fromarray(np.ascontiguousarray(picture))
    if isinstance(picture, Image.Image):
        return to_rgb(ImageOps.exif_transpose(picture))
    if isinstance(picture, str | Path):
        return load_image(Path(picture))
    got = f"{type(picture).__module__}.{type(picture).__name__}"
    if isinstance(picture, np.ndarray):
        got = f"an array {picture.shape} of {picture.dtype}"
    raise UsageError(
        "a picture is the path of a file, a PIL image or an array (H, W, 3) of uint8, or a list of these; "
        f"got {got}"
    )


def _is_colour(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[2] == 3 and min(shape) > 0


def load(checkpoint: str | Path, device: str = "cpu", say: Callable[[str], object] = print) -> Predictor:
    """The trained network in a checkpoint, ready to answer.

    Args:   checkpoint: a run's folder, or best.safetensors or last.safetensors in it; device: "cpu", "cuda",
            "cuda:N" or "auto"; say: is told what auto chose.
    Raises: CheckpointError if it is missing, damaged or foreign; DeviceError if the device cannot be used.
    """
    path = find_network(checkpoint)
    return Predictor(load_checkpoint(path), path, device, say)
