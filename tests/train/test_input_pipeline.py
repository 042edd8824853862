"""How pictures reach the network: who loads them, what is kept, and that no bit depends on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minialex import rng
from minialex.data import Batch, DiskCache, MemoryCache, Normalize
from minialex.errors import DataError
from minialex.folders import cache_folder
from minialex.train import TrainConfig, train
from minialex.train.input_pipeline import count_threads, count_workers, input_tensor, open_cache

Make = Callable[..., TrainConfig]


@pytest.mark.parametrize("normalize", [Normalize(), Normalize((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))])
def test_the_tensor_has_the_bits_of_the_batchs_images(normalize: Normalize) -> None:
    pixels = rng.Stream(0, "test").integers(0, 256, (3, 6, 5, 3)).astype(np.uint8)
    labels = np.zeros(3, np.int64)
    batch = Batch(pixels, labels, labels, normalize)
    tensor = input_tensor(batch, "cpu")
    np.testing.assert_array_equal(tensor.data, batch.images, strict=True)
    assert not tensor.requires_grad
    assert batch.images is batch.images
    np.testing.assert_array_equal(batch.images[1], normalize(pixels[1]), strict=True)


def test_a_batch_of_numbers_is_taken_as_it_is() -> None:
    images = rng.Stream(0, "test").normal(shape=(2, 3, 4, 4)).astype(np.float32)
    labels = np.zeros(2, np.int64)
    assert Batch(images, labels, labels).images is images
    for batch in (Batch(images, labels, labels), SimpleNamespace(images=images)):
        np.testing.assert_array_equal(input_tensor(batch, "cpu").data, images, strict=True)


def test_channels_that_do_not_fit_are_refused() -> None:
    labels = np.zeros(2, np.int64)
    batch = Batch(np.zeros((2, 4, 4, 1), np.uint8), labels, labels, Normalize((0.1, 0.2, 0.3)))
    with pytest.raises(DataError, match="1 channels"):
        input_tensor(batch, "cpu")


def test_who_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    assert count_workers(TrainConfig(), "cpu") == 0
    assert count_workers(TrainConfig(workers=3), "cpu") == 3
    assert count_workers(TrainConfig(cache="memory"), "cuda") == 0
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(5)), raising=False)
    assert count_workers(TrainConfig(), "cuda:1") == 4
    monkeypatch.setenv("MINIALEX_NUM_THREADS", "3")
    assert count_threads() == 3
    monkeypatch.setenv("MINIALEX_NUM_THREADS", "64")
    assert count_threads() == 8


def test_what_is_kept() -> None:
    assert open_cache(TrainConfig(cache="none"), 0, ()) is None
    assert isinstance(open_cache(TrainConfig(), 0, ()), MemoryCache)
    found = open_cache(TrainConfig(cache_budget="3MB"), 2, ())
    assert isinstance(found, DiskCache)
    assert (found.budget, found.folder) == (3_000_000, cache_folder() / "pictures")
    small = open_cache(TrainConfig(cache="memory", cache_budget="1MB"), 0, ())
    assert isinstance(small, MemoryCache)
    assert small.budget == 1_000_000


def test_training_ends_with_the_same_bits_whatever_is_kept(
    config: Make, reporter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINIALEX_CACHE", str(tmp_path / "cache"))
    ways: list[dict[str, Any]] = [
        {"cache": "none"}, {}, {"cache": "disk"}, {"workers": 2}, {"cache_budget": "10KB"}
    ]  # fmt: skip
    histories = []
    for number, options in enumerate(ways):
        result = train(config(out=str(tmp_path / f"run{number}"), **options), reporter)
        histories.append((result.checkpoint.parent / "history.csv").read_text().splitlines())
    losses = [[line.split(",")[:5] for line in text] for text in histories]
    assert all(loss == losses[0] for loss in losses[1:])
    said = [line for line in reporter.lines if line.startswith("caching")]
    assert len(said) == 4  # once a run, and nothing where nothing is kept
    assert said[0].startswith("caching decoded pictures: in memory, up to ")
    assert said[1] == f"caching decoded pictures: 0 B of 2.0 GB in {tmp_path / 'cache' / 'pictures'}"
    assert " KB of 2.0 GB in " in said[2]
