"""Crops and flips as torchvision defines them, with random choices from the stream alone."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from minialex.data import (
    CenterCrop,
    Compose,
    Greyscale,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    Transform,
    transform_from_config,
)
from minialex.errors import DataError
from minialex.rng import Stream


def stream(item: int = 0, epoch: int = 0) -> Stream:
    return Stream(0, "augment", epoch, item)


def coordinates(width: int, height: int) -> Image.Image:
    """Red is x, green is y: every crop tells where it comes from."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x, y, 0 * x], axis=-1).astype(np.uint8))


@pytest.mark.parametrize(
    ("size", "picture", "expected"),
    [(10, (40, 20), (20, 10)), (10, (20, 40), (10, 20)), (10, (7, 7), (10, 10)), ((5, 9), (40, 20), (9, 5)),
     (10, (33, 20), (16, 10))],
)  # fmt: skip
def test_resize(size: Any, picture: tuple[int, int], expected: tuple[int, int]) -> None:
    assert Resize(size)(coordinates(*picture)).size == expected


def test_resize_averages_when_it_shrinks() -> None:
    board = Image.fromarray((np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8))
    assert np.abs(np.asarray(Resize((8, 8))(board)).astype(int) - 127).max() <= 2


def test_center_crop_takes_the_middle_and_pads_small_pictures() -> None:
    found = np.asarray(CenterCrop((4, 6))(coordinates(20, 10)))
    assert found[0, 0].tolist() == [7, 3, 0]
    assert found[-1, -1].tolist() == [12, 6, 0]
    small = np.asarray(CenterCrop(5)(Image.new("RGB", (2, 9), (9, 9, 9))))
    assert small.shape == (5, 5, 3)
    assert small[0, :, 0].tolist() == [0, 9, 9, 0, 0]


def test_random_resized_crop_stays_within_its_bounds() -> None:
    crop = RandomResizedCrop(8)
    width, height = 120, 90
    shares, ratios, lefts = [], [], []
    for item in range(500):
        left, top, w, h = crop.rectangle(width, height, stream(item))
        assert 0 <= left <= left + w <= width
        assert 0 <= top <= top + h <= height
        shares.append(w * h / (width * height))
        ratios.append(w / h)
        lefts.append(left / max(1, width - w))
    assert 0.07 < min(shares) < 0.12
    assert 0.9 < max(shares) <= 1.0
    assert 0.7 < min(ratios) < 0.8
    assert 1.25 < max(ratios) < 1.4
    assert abs(np.mean(np.log(ratios))) < 0.04  # log-uniform: 3/4 and 4/3 are equally far from 1
    assert abs(np.mean(lefts) - 0.5) < 0.05


def test_random_resized_crop_scales_what_it_cuts() -> None:
    picture = coordinates(200, 150)
    for item in range(20):
        left, top, w, h = RandomResizedCrop((30, 50)).rectangle(200, 150, stream(item))
        found = np.asarray(RandomResizedCrop((30, 50))(picture, stream(item))).astype(float)
        assert found.shape == (30, 50, 3)
        np.testing.assert_allclose(found[..., 0].mean(), left + (w - 1) / 2, atol=0.6)
        np.testing.assert_allclose(found[..., 1].mean(), top + (h - 1) / 2, atol=0.6)


@pytest.mark.parametrize(
    ("picture", "expected"), [((400, 20), (187, 0, 27, 20)), ((20, 400), (0, 187, 20, 27))]
)
def test_random_resized_crop_of_a_strip_takes_the_middle(
    picture: tuple[int, int], expected: tuple[int, int, int, int]
) -> None:
    found = RandomResizedCrop(8, scale=(0.9, 1.0)).rectangle(*picture, stream())
    assert np.abs(np.subtract(found, expected)).max() <= 1
    assert RandomResizedCrop(8)(coordinates(1, 1), stream()).size == (8, 8)


def test_random_crop_is_an_exact_piece() -> None:
    corners = set()
    for item in range(200):
        found = np.asarray(RandomCrop((4, 5))(coordinates(7, 6), stream(item))).astype(int)
        assert found.shape == (4, 5, 3)
        x, y = found[0, 0, :2]
        np.testing.assert_array_equal(found, np.asarray(coordinates(7, 6))[y : y + 4, x : x + 5])
        corners.add((x, y))
    assert len(corners) == 9  # each of 3 x 3 places occurs
    assert RandomCrop(10, padding=2)(coordinates(6, 6), stream()).size == (10, 10)
    with pytest.raises(DataError, match=r"at least 10 x 10 pixels .* got 6 x 6"):
        RandomCrop(10)(coordinates(6, 6), stream())


def test_horizontal_flip_happens_as_often_as_asked() -> None:
    picture = coordinates(5, 2)
    mirrored = np.asarray(picture)[:, ::-1]
    count = 0
    for item in range(400):
        found = np.asarray(RandomHorizontalFlip(0.25)(picture, stream(item)))
        flipped = np.array_equal(found, mirrored)
        assert flipped or np.array_equal(found, np.asarray(picture))
        count += flipped
    assert 70 < count < 130
    assert RandomHorizontalFlip(0.0)(picture, stream()) is picture
    np.testing.assert_array_equal(np.asarray(RandomHorizontalFlip(1.0)(picture, stream())), mirrored)


def test_normalize_gives_float32_in_channels_first_order() -> None:
    image = Image.new("RGB", (3, 2), (0, 255, 51))
    found = Normalize((0.5, 0.25, 0.2), (0.5, 0.25, 1.0))(image)
    assert found.dtype == np.float32
    assert found.shape == (3, 2, 3)
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found[:, 0, 0], [-1.0, 3.0, 0.0], atol=1e-7)
    np.testing.assert_array_equal(Normalize(0.5, 0.5)(image)[0], -1.0)
    assert Compose([Greyscale(), Normalize()])(image).shape == (1, 2, 3)
    with pytest.raises(DataError, match="1 channels"):
        Normalize((0.5, 0.5, 0.5), 0.5)(image.convert("L"))


def test_choices_follow_the_address_alone() -> None:
    chain = Compose([RandomResizedCrop(16), RandomHorizontalFlip(), Normalize()])
    picture = coordinates(60, 40)
    first = chain(picture, stream(3, epoch=1))
    for item in range(10):
        chain(picture, stream(item))  # what ran before does not matter
    np.testing.assert_array_equal(chain(picture, stream(3, epoch=1)), first)
    assert not np.array_equal(chain(picture, stream(3, epoch=2)), first)
    assert not np.array_equal(chain(picture, stream(4, epoch=1)), first)


TRANSFORMS: list[Transform] = [
    Resize(10),
    Resize((10, 12)),
    CenterCrop(8),
    RandomResizedCrop(8, scale=(0.5, 1.0), ratio=(1.0, 2.0)),
    RandomCrop((4, 5), padding=3),
    RandomHorizontalFlip(0.3),
    Greyscale(),
    Normalize((0.1, 0.2, 0.3), 0.5),
]


def test_configurations_survive_json() -> None:
    for transform in [*TRANSFORMS, Compose(TRANSFORMS)]:
        again = transform_from_config(json.loads(json.dumps(transform.to_config())))
        assert again == transform
        assert again.to_config() == transform.to_config()
    picture = coordinates(40, 30)
    chain = Compose([RandomResizedCrop(8), RandomHorizontalFlip(), Normalize()])
    np.testing.assert_array_equal(
        transform_from_config(chain.to_config())(picture, stream()), chain(picture, stream())
    )


@pytest.mark.parametrize(
    "config", [{}, {"name": "Blur"}, {"name": "Resize"}, {"name": "Resize", "sise": 3}, {"name": "Compose"},
               {"name": "Resize", "size": 0}]
)  # fmt: skip
def test_unknown_configurations_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="No transform can be made from"):
        transform_from_config(config)


def test_arguments_without_sense_are_refused() -> None:
    for make in (
        lambda: Resize(0),
        lambda: CenterCrop((3, -1)),
        lambda: RandomResizedCrop(8, scale=(0.0, 1.0)),
        lambda: RandomResizedCrop(8, ratio=(2.0, 1.0)),
        lambda: RandomCrop(4, padding=-1),
        lambda: RandomHorizontalFlip(1.5),
        lambda: Normalize(0.5, 0.0),
    ):
        with pytest.raises(ValueError, match="must"):
            make()
    with pytest.raises(ValueError, match="call it with a Stream"):
        RandomHorizontalFlip()(coordinates(2, 2))


def test_agrees_with_torchvision_where_it_is_installed() -> None:
    reference = pytest.importorskip(
        "torchvision.transforms.functional", reason="torchvision is not installed"
    )
    picture = coordinates(61, 47)
    for size in (20, [30, 25]):
        np.testing.assert_array_equal(
            np.asarray(Resize(size)(picture)), np.asarray(reference.resize(picture, size))
        )
    for size in (20, 55):
        np.testing.assert_array_equal(
            np.asarray(CenterCrop(size)(picture)), np.asarray(reference.center_crop(picture, size))
        )
