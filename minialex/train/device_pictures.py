"""Pictures that stay on the device: copied there once, and cropped and flipped there every time.

The rectangles are those that the transforms on the host would choose, from the same random numbers, and the
kernel rounds as they do: a batch has the same bits as one that was prepared on the host.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import numpy.typing as npt

from minialex.backend import Array, device_of, empty, on_device_of, to_device, to_numpy
from minialex.data import Loader, Normalize, RandomCrop, RandomHorizontalFlip
from minialex.data.picture_cache import in_words
from minialex.data.team import Team
from minialex.errors import DataError, UsageError
from minialex.kernels.image_normalization import Crops
from minialex.tensor import Tensor
from minialex.train.normalization import normalized

# Bytes of pictures that are brought to the device at a time.
PART = 64 * 2**20


class DeviceBatch:
    """Pictures with their labels, made where they lie; see `data.Batch`.

    Attributes: labels, indices: as there; normalize: how bytes become numbers.
    """

    def __init__(
        self, kept: DevicePictures, labels: npt.NDArray[np.int64], indices: npt.NDArray[np.int64], epoch: int
    ) -> None:
        self._kept, self.labels, self.indices, self._epoch = kept, labels, indices, epoch

    def tensor(self) -> Tensor:
        """(N, C, H, W) float32, on the device."""
        return self._kept.tensor(self.indices, self._epoch)

    @cached_property
    def images(self) -> npt.NDArray[np.float32]:
        """The same on the host."""
        return to_numpy(self.tensor().data)

    def __len__(self) -> int:
        return len(self.labels)


class DevicePictures:
    """A loader's batches, from pictures that are kept on a device.

    Args:   loader: whose pictures and order these are; its transform may choose rectangles of one size and
            flip them, and must end with Normalize; device: where they are kept; budget: bytes that they may
            take; threads: that decode them.
    Raises: UsageError if the transform does something else, or the pictures do not fit.
    """

    def __init__(self, loader: Loader, device: str, budget: int, threads: int = 1) -> None:
        self._loader, self._device, self._budget = loader, device, budget
        self._team = Team(threads)
        self._crop, self._flip = _crop_and_flip(loader)
        self._pixels: Array | None = None
        self._rows = np.full(len(loader.dataset), -1, np.int64)
        self._rows[loader.indices] = np.arange(len(loader.indices))

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self._loader)

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[DeviceBatch]:
        """The batches of an epoch, from `start_batch` on. The first time, all pictures are brought over.

        Raises: DataError, naming the file, if a picture cannot be prepared.
        """
        if self._pixels is None:
            self._pixels = self._load()
        order, size = self._loader.order(epoch), self._loader.batch_size
        for batch in range(start_batch, len(self)):
            indices = order[batch * size : (batch + 1) * size]
            yield DeviceBatch(self, self._loader.dataset.labels[indices], indices.copy(), epoch)

    def tensor(self, indices: npt.NDArray[np.int64], epoch: int) -> Tensor:
        """These pictures as they appear in an epoch."""
        assert self._pixels is not None, "a batch comes from an epoch"
        recipe = self._loader.recipe
        assert isinstance(recipe.normalize, Normalize)
        H, W = self._pixels.shape[1:3]
        with on_device_of(self._pixels):
            pixels = self._pixels[to_device(self._rows[indices], self._device)]
        images = normalized(
            recipe.normalize,
            pixels,
            self._device,
            shifts=recipe.shifts(indices.tolist(), epoch),
            crops=self._crops(indices, epoch, (W, H)),
            size=None if self._crop is None else _pair(self._crop),
        )
        return Tensor._wrap(images)

    def _crops(self, indices: npt.NDArray[np.int64], epoch: int, size: tuple[int, int]) -> Crops | None:
        if self._crop is None and self._flip is None:
            return None
        chosen = []
        for index in indices.tolist():
            stream = self._loader.recipe.stream(index, epoch)
            left, top = (0, 0) if self._crop is None else self._crop.corner(*size, stream)
            chosen.append((top, left, self._flip is not None and self._flip.flips(stream)))
        return Crops(*(np.array(values) for values in zip(*chosen, strict=True)))

    def picture_shape(self) -> tuple[int, ...]:
        """(H, W, C) of the first picture, as all are kept. Raises: UsageError if there is no room for all."""
        indices = self._loader.indices
        shape = self._loader.recipe.pixels(int(indices[0])).shape
        size = len(indices) * int(np.prod(shape))
        if size > self._budget:
            raise UsageError(
                f"--cache device: {len(indices):,} pictures of {shape[0]} x {shape[1]} take "
                f"{in_words(size)}, and --cache-budget allows {in_words(self._budget)}; raise it if the "
                "device has the memory, or use --cache memory"
            )
        return shape

    def _load(self) -> Array:
        """All pictures, on the device: (M, H, W, C) uint8."""
        shape, indices = self.picture_shape(), self._loader.indices.tolist()
        like = to_device(np.empty(0, np.uint8), self._device)
        with on_device_of(like):
            pixels = empty((len(indices), *shape), like)
        step = max(1, PART // int(np.prod(shape)))
        for start in range(0, len(indices), step):
            part = self._decoded(indices[start : start + step], shape)
            pixels[start : start + len(part)] = to_device(part, device_of(pixels))
        self._team.close()
        return pixels

    def _decoded(self, indices: list[int], shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        part = np.empty((len(indices), *shape), np.uint8)

        def fill(row: int) -> None:
            found = self._loader.recipe.pixels(indices[row])
            if found.shape != shape:
                raise DataError(
                    f"{self._loader.dataset.names[indices[row]]} becomes an array of shape {found.shape}, "
                    f"expected {shape} as the first picture: what is kept on a device has one size"
                )
            part[row] = found

        self._team.each(len(indices), fill)
        return part

    def close(self) -> None:
        """Give the device's memory back."""
        self._pixels = None
        self._team.close()
        self._loader.close()


def _crop_and_flip(loader: Loader) -> tuple[RandomCrop | None, RandomHorizontalFlip | None]:
    """The random transforms, if they are such that a kernel can do them."""
    crop = flip = None
    steps = list(loader.recipe.varying)
    if steps and type(steps[0]) is RandomCrop and steps[0].padding == 0:
        crop = steps.pop(0)
    if steps and type(steps[0]) is RandomHorizontalFlip:
        flip = steps.pop(0)
    if steps or loader.recipe.normalize is None:
        raise UsageError(
            "--cache device keeps pictures of one size, which can be cropped and flipped there but not "
            "scaled; use it with --crops fixed or --no-augment, or use --cache memory"
        )
    return crop, flip  # type: ignore[return-value]


def _pair(crop: RandomCrop) -> tuple[int, int]:
    size = crop.size
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
