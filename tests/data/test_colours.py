"""Colour jitter along principal components, and mean images: what is drawn, added and subtracted."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from loader_datasets import Pictures
from PIL import Image

from minialex.data import (
    CenterCrop,
    Compose,
    Loader,
    Normalize,
    PCAJitter,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    Transform,
    transform_from_config,
)
from minialex.data.transforms.colours import FIRST_BLOCK
from minialex.errors import DataError
from minialex.rng import Stream

Array = np.ndarray[Any, Any]

# Of ImageNet's pixels, as fb.resnet.torch prints them.
VALUES = (0.2175, 0.0188, 0.0045)
VECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
JITTER = PCAJitter(VALUES, VECTORS, sigma=0.1)


def address(item: int = 0, epoch: int = 1) -> Stream:
    return Stream(5, "augment", epoch, item)


def noise(*shape: int) -> Array:
    return np.asarray(Stream(0, "test").integers(0, 256, shape)).astype(np.uint8)


def mean_picture(*shape: int) -> Array:
    return np.asarray(Stream(1, "test").uniform(0.3, 0.6, shape)).astype(np.float32)


# -------------------------------------------------------------------------------------------------- PCAJitter


def test_a_shift_is_the_papers_sum() -> None:
    values, vectors = np.array(VALUES), np.array(VECTORS)
    for item in (0, 1, 77):
        alpha = np.asarray(Stream(5, "augment", 1, item, FIRST_BLOCK).normal(std=0.1, shape=(3,)))
        expected = sum(vectors[:, i] * alpha[i] * values[i] for i in range(3))
        np.testing.assert_allclose(JITTER.shift(address(item)), expected, rtol=1e-6, atol=1e-9)
    one = PCAJitter([4.0, 9.0], [[0.0, 1.0], [1.0, 0.0]], sigma=1.0).shift(address())
    plain = PCAJitter([1.0, 1.0], np.eye(2).tolist(), sigma=1.0).shift(address())
    np.testing.assert_allclose(one, [9 * plain[1], 4 * plain[0]], rtol=1e-6)  # columns are components


def test_shifts_vary_as_the_components_say() -> None:
    shifts = JITTER.shifts(address(), range(20_000)).astype(np.float64)
    values, vectors = np.array(VALUES), np.array(VECTORS)
    wanted = vectors @ np.diag((0.1 * values) ** 2) @ vectors.T
    np.testing.assert_allclose(np.cov(shifts.T), wanted, atol=0.03 * wanted.max())
    np.testing.assert_allclose(shifts.mean(axis=0), 0.0, atol=0.03 * np.sqrt(wanted.max()))
    along = shifts @ vectors / (0.1 * values)  # the alphas: normal, each for itself
    for alpha in along.T:
        assert abs(float(np.mean(np.abs(alpha) < 1)) - 0.6827) < 0.012
        assert abs(float(np.mean(np.abs(alpha) < 2)) - 0.9545) < 0.006
    np.testing.assert_allclose(np.corrcoef(along.T), np.eye(3), atol=0.03)


def test_one_draw_a_picture_and_epoch() -> None:
    items = [3, 0, 2**31, 9]
    together = JITTER.shifts(address(), items)
    assert together.dtype == np.float32
    for row, item in enumerate(items):  # bit for bit, whoever else is in the batch
        np.testing.assert_array_equal(JITTER.shift(address(item)), together[row], strict=True)
    later = address(3)
    later.uniform(shape=(50,))
    np.testing.assert_array_equal(JITTER.shift(later), together[0])  # whatever the crops drew
    assert len({bytes(JITTER.shift(address(i, e))) for i in range(10) for e in range(10)}) == 100
    assert not np.array_equal(JITTER.shift(Stream(6, "augment", 1, 3)), together[0])
    assert JITTER.shifts(address(), []).shape == (0, 3)


def test_crops_are_the_same_with_and_without_jitter() -> None:
    picture = Image.fromarray(noise(40, 50, 3))
    head = [RandomResizedCrop(9), RandomHorizontalFlip()]
    for item in range(6):
        plain = Compose([*head, Normalize(0.0, 1.0)])(picture, address(item))
        shifted = Compose([*head, JITTER, Normalize(0.0, 1.0)])(picture, address(item))
        moved = np.broadcast_to(JITTER.shift(address(item))[:, None, None], plain.shape)
        np.testing.assert_allclose(shifted - plain, moved, atol=1e-7)


def test_nothing_is_rounded_or_cut_off() -> None:
    strong = PCAJitter((1.0, 1.0, 1.0), np.eye(3).tolist(), sigma=1.0)
    for level in (0, 255):
        picture = Image.new("RGB", (4, 3), (level, level, level))
        found = strong(picture, address(1))
        assert found.shape == (3, 4, 3)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found[2, 3], np.float32(level / 255) + strong.shift(address(1)))
    assert (strong.shift(address(1)) < 0).any()
    assert (strong.shift(address(1)) > 0).any()


def test_a_jitter_of_nothing_changes_nothing() -> None:
    picture = Image.fromarray(noise(5, 6, 3))
    for still in (PCAJitter(VALUES, VECTORS, sigma=0.0), PCAJitter((0, 0, 0), VECTORS)):
        np.testing.assert_array_equal(still.shifts(address(), range(5)), 0.0)
        chain = Compose([still, Normalize()])
        np.testing.assert_array_equal(chain(picture, address()), Normalize()(picture))


@pytest.mark.parametrize(
    "make",
    [
        lambda: PCAJitter((1, 2), VECTORS),
        lambda: PCAJitter((1, 2, -3), VECTORS),
        lambda: PCAJitter((1, 2, np.nan), VECTORS),
        lambda: PCAJitter(VALUES, np.full((3, 3), 0.577).tolist()),
        lambda: PCAJitter(VALUES, np.full((3, 3), np.nan).tolist()),
        lambda: PCAJitter(VALUES, [0.5, 0.5, 0.5]),  # type: ignore[list-item]
        lambda: PCAJitter(VALUES, VECTORS, sigma=-0.1),
        lambda: PCAJitter(VALUES, VECTORS, sigma=np.inf),
    ],
)
def test_components_without_sense_are_refused(make: Callable[[], PCAJitter]) -> None:
    with pytest.raises(ValueError, match="must be"):
        make()


def test_a_jitter_asks_for_a_stream_and_its_channels() -> None:
    grey = Image.new("L", (4, 4), 90)
    with pytest.raises(ValueError, match="call it with a Stream"):
        JITTER(Image.new("RGB", (2, 2)))
    with pytest.raises(DataError, match="3 eigenvalues, and the picture 1 channels"):
        JITTER(grey, address())
    brightness = PCAJitter([0.2], [[1.0]])
    assert brightness(grey, address()).shape == (4, 4, 1)


@pytest.mark.parametrize(
    "steps",
    [
        [JITTER, RandomHorizontalFlip(), Normalize()],
        [JITTER, JITTER, Normalize()],
        [Resize((4, 4)), JITTER],
        [JITTER],
    ],
)
def test_a_jitter_stands_before_the_normalize(steps: list[Transform]) -> None:
    with pytest.raises(DataError, match="right before a Normalize at the end"):
        Loader(Pictures(4), range(4), Compose(steps), 2)


def test_a_loader_checks_the_channels_of_a_jitter() -> None:
    loader = Loader(
        Pictures(4), range(4), Compose([Resize((4, 4)), PCAJitter([1.0], [[1.0]]), Normalize()]), 2
    )
    with pytest.raises(DataError, match=r"0\.png .*1 eigenvalues, and the picture 3 channels"):
        next(loader.epoch(1))


# ------------------------------------------------------------------------------------------------- mean image


def test_a_mean_image_is_subtracted() -> None:
    mean, pixels = mean_picture(3, 5, 7), noise(2, 5, 7, 3)
    normalize = Normalize(mean, (0.5, 0.25, 2.0))
    found = normalize.batch(pixels)
    exact = (pixels.transpose(0, 3, 1, 2) / 255.0 - mean) / np.array([0.5, 0.25, 2.0])[:, None, None]
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-6)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(normalize(Image.fromarray(pixels[1])), found[1])
    flat = Normalize(np.full((3, 5, 7), 0.25), 0.5)
    np.testing.assert_array_equal(flat.batch(pixels), Normalize(0.25, 0.5).batch(pixels))


@pytest.mark.parametrize(
    ("larger", "size"), [((8, 8), (5, 6)), ((9, 8), (4, 8)), ((6, 7), (6, 7)), ((7, 5), (2, 2))]
)
def test_its_central_part_is_subtracted_from_every_crop(
    larger: tuple[int, int], size: tuple[int, int]
) -> None:
    """Wherever the crop was made, and whether it is flipped: as in cuda-convnet, and not as in Caffe."""
    y, x = np.mgrid[: larger[0], : larger[1]]
    grid = np.stack([10 * x, 10 * y, 0 * x], axis=-1).astype(np.uint8)
    middle = np.asarray(CenterCrop(size)(Image.fromarray(grid)))
    normalize = Normalize(grid.transpose(2, 0, 1) / 255.0, 1.0)
    np.testing.assert_allclose(normalize(Image.fromarray(middle)), 0.0, atol=1e-7)
    part = Normalize(middle.transpose(2, 0, 1) / 255.0, 1.0)
    crop = Compose([RandomCrop(size), RandomHorizontalFlip()])
    for item in range(8):
        picture = crop(Image.fromarray(grid), address(item))
        np.testing.assert_array_equal(normalize(picture), part(picture))


def test_a_mean_image_must_fit() -> None:
    normalize = Normalize(mean_picture(3, 4, 6), 1.0)
    with pytest.raises(DataError, match=r"mean image of 4 x 6 pixels .* is larger, 5 x 6"):
        normalize.batch(noise(1, 5, 6, 3))
    with pytest.raises(DataError, match=r"is larger, 4 x 7"):
        normalize.batch(noise(1, 4, 7, 3))
    with pytest.raises(DataError, match=r"3 means .* 1 channels"):
        normalize.batch(noise(1, 4, 6, 1))
    with pytest.raises(DataError, match=r"1 means .* 3 channels"):  # an image of one channel is none of three
        Normalize(mean_picture(1, 4, 6), 1.0).batch(noise(1, 4, 6, 3))
    with pytest.raises(ValueError, match="must be finite"):
        Normalize(np.full((3, 2, 2), np.nan))
    with pytest.raises(ValueError, match="must be finite"):
        Normalize(np.zeros((3, 0, 2)))
    loader = Loader(Pictures(4), range(4), Compose([Resize((5, 5)), Normalize(mean_picture(3, 4, 4))]), 2)
    with pytest.raises(DataError, match=r"0\.png cannot be prepared: .* larger"):
        next(loader.epoch(1))


def test_a_mean_image_is_a_value() -> None:
    mean = mean_picture(3, 4, 4)
    one, same, other = Normalize(mean, 1.0), Normalize(mean.astype(np.float64), 1.0), Normalize(mean + 1, 1.0)
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one != Normalize(mean, 2.0)
    assert one != Normalize(0.5, 1.0)
    assert Normalize(0.5, 1.0) != one
    mean[:] = 0  # the caller's own
    assert one == same
    with pytest.raises(ValueError, match="read-only"):
        one.mean_at(2, 2)[:] = 0
    assert repr(one) == "Normalize(mean=<image (3, 4, 4)>, std=1.0)"
    pixels = np.zeros((1, 4, 4, 1), np.float32)
    Normalize(1.0, 1.0).batch(pixels)
    np.testing.assert_array_equal(pixels, 0)


# ---------------------------------------------------------------------------------------------- configuration


def test_configurations_refer_to_arrays() -> None:
    mean = mean_picture(3, 9, 9)
    training = Compose([RandomCrop(8), JITTER, Normalize(mean, 1 / 255)])
    evaluation = Compose([CenterCrop(8), Normalize(mean, 1 / 255)])
    arrays: dict[str, Array] = {}
    configs = [transform.to_config(arrays) for transform in (training, evaluation)]
    assert list(arrays) == ["mean_image"]
    assert configs[0]["transforms"][2] == {
        "name": "Normalize", "mean": {"array": "mean_image"}, "std": 1 / 255
    }  # fmt: skip
    again = [transform_from_config(config, arrays) for config in json.loads(json.dumps(configs))]
    assert again == [training, evaluation]
    picture = Image.fromarray(noise(9, 9, 3))
    np.testing.assert_array_equal(again[0](picture, address()), training(picture, address()))
    other = Normalize(mean + 1).to_config(arrays)
    assert other["mean"] == {"array": "mean_image_2"}
    assert transform_from_config(other, arrays) == Normalize(mean + 1)


def test_a_jitter_survives_json() -> None:
    again = transform_from_config(json.loads(json.dumps(JITTER.to_config())))
    assert again == JITTER
    assert again.to_config() == JITTER.to_config()
    assert hash(again) == hash(JITTER)


def test_missing_arrays_are_named() -> None:
    config = {"name": "Normalize", "mean": {"array": "mean_image"}, "std": 1.0}
    with pytest.raises(DataError, match=r"refers to the array 'mean_image', which is missing; given: none"):
        transform_from_config(config)
    with pytest.raises(DataError, match=r"which is missing; given: other"):
        transform_from_config({"name": "Compose", "transforms": [config]}, {"other": np.zeros(3)})
    with pytest.raises(DataError, match="No transform can be made from"):
        transform_from_config({"name": "Normalize", "mean": {"image": "mean_image"}})
    with pytest.raises(DataError, match="No transform can be made from"):
        transform_from_config(config, {"mean_image": np.zeros((2, 2))})
    with pytest.raises(ValueError, match="JSON cannot hold a mean image"):
        Compose([Normalize(mean_picture(3, 2, 2))]).to_config()
