"""Official test parts are honoured, and data without one are divided as ever."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from minialex.data import Split, divide, open_dataset, stratified_split, subset
from minialex.data.arrays import PictureArray
from minialex.errors import DataError, UsageError
from minialex.rng import Stream

THREE = (0.8, 0.1, 0.1)


def pictures(train: int, test: int, classes: int = 2, copies: Sequence[tuple[int, int]] = ()) -> PictureArray:
    """`train` + `test` pictures, classes in turn; for each (i, j) of copies, j is made the same as i."""
    count = train + test
    pixels = Stream(5, "test").integers(0, 256, (count, 2, 2)).astype(np.uint8)
    for source, target in copies:
        pixels[target] = pixels[source]
    return PictureArray(
        Path("made-up"),
        pixels,
        np.arange(count, dtype=np.int64) % classes,
        [f"c{i}" for i in range(classes)],
        [f"{i:04d}" for i in range(count)],
        test_indices=np.arange(train, count, dtype=np.int64) if test else None,
    )


def sizes(split: Split) -> tuple[int, int, int]:
    return len(split.train), len(split.validation), len(split.test)


@pytest.mark.parametrize("limit", [None, 30])
@pytest.mark.parametrize("shares", [THREE, (0.9, 0.1)])
def test_without_an_official_part_nothing_has_changed(shares: tuple[float, ...], limit: int | None) -> None:
    dataset = pictures(100, 0)
    chosen = None if limit is None else subset(dataset, limit, 7)
    assert divide(dataset, shares, 7, limit).digest == stratified_split(dataset, shares, 7, chosen).digest


def test_a_data_set_that_knows_nothing_of_test_parts() -> None:
    dataset = pictures(100, 0)
    del dataset.test_indices
    assert divide(dataset, THREE, 7).digest == stratified_split(dataset, THREE, 7).digest


def test_the_official_part_is_tested_on_and_nothing_else() -> None:
    dataset = pictures(90, 30)
    split = divide(dataset, THREE, 1)
    assert sizes(split) == (80, 10, 30)
    assert split.test.tolist() == list(range(90, 120))
    assert split.fractions == THREE
    assert sorted([*split.train, *split.validation]) == list(range(90))
    assert np.bincount(dataset.labels[split.validation]).tolist() == [5, 5]
    assert divide(dataset, THREE, 2).test.tolist() == split.test.tolist()
    assert divide(dataset, THREE, 2).digest != split.digest


def test_a_split_in_two_is_tested_on_it_as_well() -> None:
    # A tenth of 45 of each class is rounded up.
    assert sizes(divide(pictures(90, 30), (0.9, 0.1), 1)) == (80, 10, 30)


def test_a_limit_is_shared_out() -> None:
    dataset = pictures(900, 100)
    split = divide(dataset, THREE, 1, limit=100)
    assert sum(sizes(split)) == 100
    assert sizes(split)[2] == 10
    assert set(split.test) <= set(range(900, 1000))
    assert max(*split.train, *split.validation) < 900
    for part in (split.train, split.validation, split.test):
        assert len(set(np.bincount(dataset.labels[part]))) == 1
    assert sizes(divide(dataset, THREE, 1, limit=10**6)) == sizes(divide(dataset, THREE, 1))


@pytest.mark.parametrize(("train", "test"), [(900, 100), (100, 900)])
def test_the_smallest_limit_has_each_class_in_each_part(train: int, test: int) -> None:
    dataset = pictures(train, test, classes=5)
    split = divide(dataset, THREE, 1, limit=15)
    assert sizes(split) == (5, 5, 5)
    for part in (split.train, split.validation, split.test):
        assert sorted(dataset.labels[part]) == list(range(5))
    with pytest.raises(DataError, match=r"limit of 14 pictures is too low.*Give --limit 15 or more"):
        divide(dataset, THREE, 1, limit=14)


def test_copies_of_test_pictures_are_not_trained_on() -> None:
    dataset = pictures(90, 30, copies=[(100, 3), (100, 5), (101, 88), (7, 8)])
    for limit in (None, 100):
        split = divide(dataset, THREE, 1, limit)
        assert not {3, 5, 88} & {*split.train.tolist(), *split.validation.tolist()}
    assert sizes(divide(dataset, THREE, 1)) == (77, 10, 30)


def test_a_split_is_found_again() -> None:
    dataset = pictures(90, 30)
    split = divide(dataset, THREE, 1)
    again = Split.from_manifest(split.manifest(), dataset)
    assert again.digest == split.digest
    assert again.test.tolist() == split.test.tolist()


def test_a_class_that_is_not_tested_on_takes_no_share() -> None:
    dataset = pictures(90, 30)
    dataset.labels[90:] = 0
    split = divide(dataset, THREE, 1, limit=40)
    assert sizes(split)[2] == 10
    assert sum(sizes(split)) == 40


def test_fractions_are_checked_all_the_same() -> None:
    with pytest.raises(UsageError, match="fractions"):
        divide(pictures(90, 30), (0.8, 0.1), 1)


def test_copies_are_said_aloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = pictures(90, 30, copies=[(100, 4), (101, 5)])
    monkeypatch.setattr("minialex.data.sources.open_digits", lambda: dataset)
    said: list[str] = []
    _, description = open_dataset("digits", say=said.append)
    assert "2 pictures to train on are also in the official test part, and left out of training." in said
    assert description.endswith("(30 of them are the official test part)")
