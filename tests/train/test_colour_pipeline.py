"""Jittered colours and mean images reach the network with the same bits, whichever way they go."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minialex import rng
from minialex.data import (
    Batch,
    CenterCrop,
    Compose,
    DiskCache,
    Loader,
    MemoryCache,
    Normalize,
    PCAJitter,
    RandomCrop,
    RandomHorizontalFlip,
    Resize,
    Transform,
    open_dataset,
)
from minialex.errors import DataError
from minialex.train import TrainConfig, train
from minialex.train.device_pictures import DevicePictures
from minialex.train.input_pipeline import ahead, input_tensor
from minialex.train.normalization import constants

Array = np.ndarray[Any, Any]
Make = Callable[..., TrainConfig]
EMULATED = "cuda-emulated"
DEVICES = ["cpu", pytest.param(EMULATED, marks=pytest.mark.emulator)]
EPOCHS, SIZE = (1, 2), (8, 7)

MEAN = np.asarray(rng.Stream(4, "test").uniform(0.3, 0.6, (3, 12, 11))).astype(np.float32)
JITTER = PCAJitter(
    (0.2175, 0.0188, 0.0045),
    ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203)),
    sigma=1.0,
)
CHOICES: list[Transform] = [RandomCrop(SIZE), RandomHorizontalFlip()]
TRANSFORMS = {
    "both": Compose([Resize((12, 11)), *CHOICES, JITTER, Normalize(MEAN, 1 / 255)]),
    "jitter": Compose([Resize((12, 11)), *CHOICES, JITTER, Normalize((0.4, 0.5, 0.6), 0.2)]),
    "mean image": Compose([Resize((12, 11)), *CHOICES, Normalize(MEAN, (0.2, 0.3, 0.4))]),
    "nothing else": Compose([Resize((12, 11)), JITTER, Normalize(MEAN)]),
    "middle": Compose([Resize((12, 11)), CenterCrop(SIZE), Normalize(MEAN)]),
}
EACH = pytest.mark.parametrize("name", list(TRANSFORMS))


@pytest.fixture(scope="module")
def data(pictures: Path) -> Any:
    return open_dataset(str(pictures))[0]


def loader(data: Any, name: str, **options: Any) -> Loader:
    return Loader(data, np.arange(3, 50), TRANSFORMS[name], 8, shuffle=True, seed=5, **options)


def expected(data: Any, name: str, start: int = 0) -> list[Array]:
    """By the transform alone, picture by picture."""
    order = loader(data, name)
    return [
        TRANSFORMS[name](data.load(index), rng.Stream(5, "augment", epoch, index))
        for epoch in EPOCHS
        for index in order.order(epoch)[8 * start :].tolist()
    ]


def assert_equal(batches: Iterable[Array], wanted: list[Array]) -> None:
    np.testing.assert_array_equal(np.concatenate(list(batches)), np.stack(wanted), strict=True)


@EACH
def test_threads_and_caches_change_no_bit(name: str, data: Any, tmp_path: Path) -> None:
    wanted = expected(data, name)
    for options in (
        {},
        {"threads": 3},
        {"cache": MemoryCache(10**6)},
        {"cache": DiskCache(tmp_path / "cache"), "threads": 2},
    ):
        with loader(data, name, **options) as batches:
            for _ in range(2):  # the second time out of the cache
                found = [batch for epoch in EPOCHS for batch in batches.epoch(epoch)]
                assert_equal((batch.images for batch in found), wanted)
                assert all(batch.samples.dtype == np.uint8 for batch in found)
                assert_equal((input_tensor(batch, "cpu").numpy() for batch in found), wanted)


def test_workers_change_no_bit(data: Any) -> None:
    with loader(data, "both", workers=2) as batches:
        found = [batch.images for epoch in EPOCHS for batch in batches.epoch(epoch)]
        assert_equal(found, expected(data, "both"))
        rest = [batch.images for epoch in EPOCHS for batch in batches.epoch(epoch, start_batch=4)]
        assert_equal(rest, expected(data, "both", start=4))


@EACH
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("start", [0, 4])
def test_every_device_has_the_same_bits(name: str, device: str, start: int, data: Any) -> None:
    wanted = expected(data, name, start)
    sent = [
        input_tensor(batch, device)
        for epoch in EPOCHS
        for batch in ahead(loader(data, name).epoch(epoch, start), device)
    ]
    assert all(tensor.device == device for tensor in sent)
    assert_equal((tensor.numpy() for tensor in sent), wanted)
    kept = DevicePictures(loader(data, name), device, 10**6)
    stayed = [input_tensor(batch, device) for epoch in EPOCHS for batch in kept.epoch(epoch, start)]
    assert all(tensor.device == device for tensor in stayed)
    assert_equal((tensor.numpy() for tensor in stayed), wanted)
    kept.close()


def test_batches_carry_their_shifts(data: Any) -> None:
    batch = next(loader(data, "both").epoch(2))
    assert batch.shifts is not None
    assert batch.shifts.shape == (8, 3)
    np.testing.assert_array_equal(
        batch.shifts, JITTER.shifts(rng.Stream(5, "augment", 2), batch.indices.tolist())
    )
    assert next(loader(data, "middle").epoch(1)).shifts is None
    assert Batch(batch.samples, batch.labels, batch.indices, batch.normalize).shifts is None


def test_constants_are_of_one_normalize() -> None:
    mean, std = constants(Normalize(MEAN, 0.5), (10, 9, 3), "cpu")
    np.testing.assert_array_equal(mean, MEAN[:, 1:11, 1:10])
    np.testing.assert_array_equal(std, np.full(3, 0.5, np.float32))
    again, _ = constants(Normalize(MEAN.copy(), 0.5), (10, 9, 3), "cpu")
    assert again is mean
    other, _ = constants(Normalize(MEAN + 1, 0.5), (10, 9, 3), "cpu")  # of the same hash
    np.testing.assert_array_equal(other, mean + 1)
    with pytest.raises(DataError, match="is larger"):
        constants(Normalize(MEAN, 0.5), (13, 9, 3), "cpu")


# ------------------------------------------------------------------------------------------------------- runs


def weights(result: Any) -> dict[str, bytes]:
    from minialex.train.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(result.checkpoint.parent / "last.safetensors")
    return {name: array.tobytes() for name, array in checkpoint.weights.items()}


OPTIONS = {
    "crops": "paper",
    "augment": True,
    "normalize": "mean-image",
    "pca_jitter": 0.5,
    "limit": 30,
    "save_every": 100,
}


def test_runs_end_with_the_same_bits(config: Make, reporter: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("MINIALEX_CACHE", str(tmp_path / "cache"))
    ends = []
    for number, options in enumerate(({"cache": "none"}, {"workers": 2})):
        ends.append(weights(train(config(out=str(tmp_path / str(number)), **OPTIONS, **options), reporter)))
    assert ends[0] == ends[1]
    out = str(tmp_path / "half")
    half = weights(train(config(out=out, **OPTIONS, epochs=1), reporter))
    still = train(config(out=str(tmp_path / "still"), **{**OPTIONS, "pca_jitter": 0.0}, epochs=1), reporter)
    assert weights(still) != half
    assert weights(train(TrainConfig(resume=out, epochs=2), reporter)) == ends[0]


@pytest.mark.emulator
def test_runs_from_a_device_end_with_the_same_bits(config: Make, reporter: Any, tmp_path: Path) -> None:
    """A run whose pictures stay there, in two halves, and one whose pictures are sent, in one."""
    whole = config(out=str(tmp_path / "whole"), device=EMULATED, cache="memory", **OPTIONS)
    end = weights(train(whole, reporter))
    out = str(tmp_path / "half")
    train(config(out=out, device=EMULATED, cache="device", **OPTIONS, epochs=1), reporter)
    assert weights(train(TrainConfig(resume=out, epochs=2, cache="device"), reporter)) == end
