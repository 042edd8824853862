"""What the layers of a network make of pictures: the output of each, and one layer's numbers for many.

The activations of the last hidden layer are a description of a picture: pictures whose vectors lie close to
each other look alike to the network, whatever their pixels are.
Source: Krizhevsky, Sutskever, Hinton 2012, section 6.1 and figure 4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from minialex import nn
from minialex.backend import on_device, to_numpy
from minialex.data import Loader, load_image
from minialex.errors import UsageError
from minialex.tensor import Event, Tensor, no_grad, observe
from minialex.train.config import TrainConfig
from minialex.train.files import atomic_write, atomic_write_json
from minialex.train.input_pipeline import ahead, count_threads, input_tensor
from minialex.train.judging import check_part, own_part
from minialex.train.predictor import BATCH, Predictor
from minialex.train.reporter import PLAIN_INTERVAL

__all__ = [
    "Notes",
    "PictureFiles",
    "choose_layer",
    "extract_features",
    "last_hidden_layer",
    "layer_outputs",
    "part_indices",
    "save_features",
]

FloatArray = npt.NDArray[Any]
# Called with (pictures done, pictures in all).
Progress = Callable[[int, int], object]


def layer_outputs(model: Any, x: Tensor | FloatArray) -> dict[str, FloatArray]:
    """What every layer gives for the images x, by the layers' names, in the order in which they ran.

    The layers run one by one (not fused) and as in use: no dropout, no gradients. A layer that then does
    nothing, such as Dropout, is not listed; of one that runs several times, the last output is.

    Shapes: x (N, C, H, W) -> {"features.0": (N, F, OH, OW), ..., "classifier.6": (N, classes)}.
    """
    return {name: to_numpy(output.data) for name, output in _run(model, x).items()}


def _run(model: Any, x: Tensor | FloatArray) -> dict[str, Tensor]:
    names = {id(module): name for name, module in model.named_modules() if name}
    found: dict[str, Tensor] = {}

    def look(event: Event) -> None:
        name = names.get(id(nn.active_module()))
        if event.phase == "forward" and name is not None:
            found.pop(name, None)  # Again, and later in the order.
            found[name] = event.outputs[0]

    device = next((parameter.device for parameter in model.parameters()), "cpu")
    was_training = model.training
    model.eval()
    try:
        with no_grad(), on_device(device), nn.unfused(model), observe(look):
            model(x if isinstance(x, Tensor) else Tensor(x, device=device))
    finally:
        model.train(was_training)
    return found


def _of_zeros(model: Any) -> dict[str, Tensor]:
    """The outputs for one black picture: which layers there are, and of what shapes."""
    side = model.image_size
    return _run(model, np.zeros((1, model.channels, side, side), dtype=np.float32))


def last_hidden_layer(model: Any) -> str:
    """The layer whose output goes into the last fully connected one: an AlexNet's "classifier.5", the second
    hidden fully connected layer's activations after their ReLU.

    Raises: UsageError for a network without such a layer.
    """
    modules, names = dict(model.named_modules()), list(_of_zeros(model))
    heads = [i for i, name in enumerate(names) if isinstance(modules[name], nn.Linear)]
    if not heads or heads[-1] == 0:
        raise UsageError("the network has no layer before its last fully connected one; name a layer")
    return names[heads[-1] - 1]


def choose_layer(model: Any, layer: str | None) -> str:
    """The layer of that name, or the last hidden one for None.

    Raises: UsageError that lists the layers, if there is none of that name.
    """
    if layer is None:
        return last_hidden_layer(model)
    outputs = _of_zeros(model)
    if any(_is_within(name, layer) for name in outputs):
        return layer
    modules = dict(model.named_modules())
    if layer in modules:
        what = f"{layer} ({type(modules[layer]).__name__}) does nothing except in training"
    else:
        what = f"there is no layer {layer!r}"
    rows = [
        f"  {name}  {type(modules[name]).__name__}, {' x '.join(map(str, output.shape[1:]))}"
        for name, output in outputs.items()
    ]
    raise UsageError("\n".join([f"{what}; the layers and what they give for a picture are", *rows]))


def _is_within(name: str, layer: str) -> bool:
    """Whether a module is the layer or inside of it: the output of "features" is that of its last layer."""
    return name == layer or name.startswith(f"{layer}.")


def extract_features(
    predictor: Predictor,
    pictures: Loader | Sequence[str | Path],
    layer: str | None = None,
    progress: Progress | None = None,
) -> tuple[list[str], npt.NDArray[np.float32]]:
    """What a layer makes of each picture, as a row of numbers.

    Args:    pictures: a loader that does not shuffle and has the predictor's transform, or picture files;
             layer: a name such as "classifier.5", None for the last hidden layer (see `last_hidden_layer`).
    Returns: the pictures' names, and the rows (N, D) in the same order; the maps of a convolution (C, H, W)
             are a row of D = C * H * W, channel after channel.
    Raises:  UsageError listing the layers if there is no such one; DataError naming a bad picture.
    """
    layer = choose_layer(predictor.model, layer)
    if isinstance(pictures, Loader):
        return _extract(predictor, pictures, layer, progress)
    files = PictureFiles(pictures)
    with Loader(files, range(len(files)), predictor.transform, BATCH, threads=count_threads()) as loader:
        return _extract(predictor, loader, layer, progress)


def _extract(
    predictor: Predictor, loader: Loader, layer: str, progress: Progress | None
) -> tuple[list[str], npt.NDArray[np.float32]]:
    count = len(loader.indices)
    names: list[str] = []
    rows = np.empty((0, 0), dtype=np.float32)
    for batch in ahead(loader.epoch(0), predictor.device):
        outputs = _run(predictor.model, input_tensor(batch, predictor.device))
        output = to_numpy([t for name, t in outputs.items() if _is_within(name, layer)][-1].data)
        if not names:
            rows = np.empty((count, output[0].size), dtype=np.float32)  # All of it at once, and never copied.
        rows[len(names) : len(names) + len(output)] = output.reshape(len(output), -1)
        names += [loader.dataset.names[int(index)] for index in batch.indices]
        if progress is not None:
            progress(len(names), count)
    return names, rows[: len(names)]


class Notes:
    """A `progress` that tells now and then how many pictures are done: note("320 of 3,306 pictures")."""

    def __init__(self, note: Callable[[str], object], interval: float = PLAIN_INTERVAL) -> None:
        self._note, self._interval, self._last = note, interval, perf_counter()

    def __call__(self, done: int, total: int) -> None:
        if perf_counter() - self._last >= self._interval:
            self._note(f"{done:,} of {total:,} pictures")
            self._last = perf_counter()


class PictureFiles:
    """Picture files of no particular classes, as a loader takes them."""

    def __init__(self, files: Sequence[str | Path]) -> None:
        self.root = Path()
        self.classes: list[str] = []
        self.names = [str(file) for file in files]
        self.labels = np.zeros(len(files), dtype=np.int64)

    def __len__(self) -> int:
        return len(self.names)

    def load(self, index: int) -> Image.Image:
        """Picture `index`, upright, RGB. Raises: DataError naming the file."""
        return load_image(self.names[index])

    def digest(self, index: int) -> str:
        """SHA-256 of the picture's file, in hexadecimal."""
        return hashlib.sha256(Path(self.names[index]).read_bytes()).hexdigest()


def part_indices(predictor: Predictor, path: Path, dataset: Any, part: str) -> npt.NDArray[np.int64]:
    """The numbers of the pictures in a part of the run's own split: "test", "validation", "train"; or "all".

    Args:   path: of the predictor's checkpoint: the split is in split.json beside it, or is made again.
    Raises: UsageError for a part that is none, or that the run's split does not have; DataError if the data
            set's pictures are not the run's.
    """
    check_part(part)
    checkpoint = predictor.checkpoint
    return own_part(dataset, checkpoint, TrainConfig.from_dict(checkpoint.config), path, part)


def save_features(out: Path, rows: FloatArray, about: dict[str, Any]) -> None:
    """Write rows of features as a .npy file, and what they are of as a .json file beside it.

    Raises: OutputError if the place cannot be written to.
    """
    atomic_write(out, lambda file: np.save(file, rows))
    atomic_write_json(out.with_suffix(".json"), about)
