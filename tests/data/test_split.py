"""A split that follows what pictures hold, keeps equal files together and can be found again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from minialex.data import ImageFolder, Split, parse_fractions, stratified_split, subset
from minialex.errors import DataError, UsageError

MakeFolder = Callable[..., Path]


def parts(split: Split) -> list[np.ndarray]:
    return [split.train, split.validation, split.test]


def contents(dataset: ImageFolder, indices: np.ndarray) -> set[str]:
    return {dataset.digest(int(index)) for index in indices}


@pytest.fixture
def dataset(make_folder: MakeFolder) -> ImageFolder:
    return ImageFolder(make_folder({"a": 40, "b": 20, "c": 7}))


def test_parts_are_disjoint_complete_and_stratified(dataset: ImageFolder) -> None:
    split = stratified_split(dataset, seed=3)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts(split))), np.arange(67))
    for part, sizes in zip(parts(split), [[32, 16, 5], [4, 2, 1], [4, 2, 1]], strict=True):
        assert part.dtype == np.int64
        assert np.bincount(dataset.labels[part]).tolist() == sizes
        np.testing.assert_array_equal(part, np.sort(part))


def test_two_parts_leave_the_test_empty(dataset: ImageFolder) -> None:
    split = stratified_split(dataset, (0.9, 0.1))
    assert [len(part) for part in parts(split)] == [60, 7, 0]
    assert split.test.dtype == np.int64
    assert split.manifest()["parts"]["test"] == []


def test_seeds_differ_and_repeat(dataset: ImageFolder) -> None:
    first, again, other = (stratified_split(dataset, seed=seed) for seed in (1, 1, 2))
    assert first.digest == again.digest
    assert first.digest != other.digest
    assert contents(dataset, first.test) != contents(dataset, other.test)


def test_the_split_follows_contents_and_not_names(dataset: ImageFolder, tmp_path: Path) -> None:
    shutil.copytree(dataset.root, tmp_path / "renamed")
    for number, path in enumerate(sorted((tmp_path / "renamed").rglob("*.png"), reverse=True)):
        path.rename(path.with_name(f"photo-{number}.png"))
    renamed = ImageFolder(tmp_path / "renamed")
    for one, other in zip(parts(stratified_split(dataset)), parts(stratified_split(renamed)), strict=True):
        assert contents(dataset, one) == contents(renamed, other)


def test_one_more_picture_moves_hardly_any_other(dataset: ImageFolder, make_folder: MakeFolder) -> None:
    before = contents(dataset, stratified_split(dataset).train)
    make_folder({"a/new": 1}, first=9000)
    more = ImageFolder(dataset.root)
    assert len(more) == len(dataset) + 1
    assert len(before - contents(more, stratified_split(more).train)) <= 2


def test_equal_files_share_a_part_even_across_classes(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 30, "b": 30})
    for number in range(10):
        shutil.copy(root / f"a/{number:03d}.png", root / f"a/copy-{number}.png")
        shutil.copy(root / f"a/{number + 10:03d}.png", root / f"b/copy-{number}.png")
    dataset = ImageFolder(root)
    for seed in range(5):
        split = stratified_split(dataset, seed=seed)
        held = [contents(dataset, part) for part in parts(split)]
        assert sum(len(part) for part in held) == len(set.union(*held)) == 60
        assert sum(len(part) for part in parts(split)) == 80
        assert 6 <= len(split.test) <= 10


def test_every_part_has_every_class_even_if_copies_are_many(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 3, "b": 3})
    for number in range(6):
        for original in range(3):
            shutil.copy(root / f"a/{original:03d}.png", root / f"a/copy-{original}-{number}.png")
    dataset = ImageFolder(root)
    split = stratified_split(dataset)
    assert [np.bincount(dataset.labels[part]).tolist() for part in parts(split)] == [[7, 1]] * 3


def test_too_few_pictures_are_counted(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 5, "b": 2})
    shutil.copy(root / "b/000.png", root / "b/copy.png")
    with pytest.raises(DataError, match=r"needs at least 3 that differ, but b \(2\) has fewer"):
        stratified_split(ImageFolder(root))
    assert len(stratified_split(ImageFolder(root), (0.9, 0.1)).validation) == 2


def test_the_manifest_survives_json_and_finds_the_pictures_again(dataset: ImageFolder) -> None:
    split = stratified_split(dataset, seed=5)
    manifest = json.loads(json.dumps(split.manifest()))
    entry = manifest["parts"]["validation"][0]
    assert set(entry) == {"name", "sha256", "label"}
    assert entry["sha256"] == dataset.digest(dataset.names.index(entry["name"]))
    again = Split.from_manifest(manifest, dataset)
    assert again.digest == split.digest
    for one, other in zip(parts(split), parts(again), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_manifest_finds_renamed_pictures_and_misses_changed_ones(dataset: ImageFolder) -> None:
    split = stratified_split(dataset)
    (dataset.root / "a/000.png").rename(dataset.root / "a/zzz.png")
    renamed = ImageFolder(dataset.root)
    found = Split.from_manifest(split.manifest(), renamed)
    for one, other in zip(parts(split), parts(found), strict=True):
        assert contents(dataset, one) == contents(renamed, other)
    shutil.copy(dataset.root / "b/000.png", dataset.root / "a/zzz.png")
    os.unlink(dataset.root / "c/000.png")
    with pytest.raises(
        DataError, match=r"2 pictures of the split are gone .*\n  [ac]/000.png\n  [ac]/000.png"
    ):
        Split.from_manifest(split.manifest(), ImageFolder(dataset.root))


def test_equal_files_are_each_found_once(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 4, "b": 4})
    shutil.copy(root / "a/000.png", root / "a/copy.png")
    dataset = ImageFolder(root)
    split = stratified_split(dataset)
    again = Split.from_manifest(split.manifest(), dataset)
    assert sum(len(part) for part in parts(again)) == 9
    assert again.digest == split.digest


def test_foreign_manifests_are_refused(dataset: ImageFolder, make_folder: MakeFolder) -> None:
    manifest = stratified_split(dataset).manifest()
    with pytest.raises(DataError, match=r"classes a, b, c, but .* holds x, y"):
        Split.from_manifest(manifest, ImageFolder(make_folder({"x": 1, "y": 1}, "other")))
    with pytest.raises(DataError, match="format version 99"):
        Split.from_manifest({**manifest, "format_version": 99}, dataset)
    with pytest.raises(DataError, match="malformed"):
        Split.from_manifest({"format_version": 1}, dataset)


def test_a_subset_keeps_the_shares_and_can_be_split(dataset: ImageFolder) -> None:
    chosen = subset(dataset, 33, seed=0)
    assert chosen.dtype == np.int64
    assert np.bincount(dataset.labels[chosen]).tolist() == [20, 10, 3]
    split = stratified_split(dataset, indices=chosen)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts(split))), chosen)
    assert not np.array_equal(chosen, subset(dataset, 33, seed=1))
    np.testing.assert_array_equal(chosen, subset(dataset, 33, seed=0))


@pytest.mark.parametrize("limit", [3, 4, 5, 10, 50, 66, 67, 1000])
def test_every_limit_gives_as_many_pictures(dataset: ImageFolder, limit: int) -> None:
    chosen = subset(dataset, limit)
    assert len(np.unique(chosen)) == len(chosen) == min(limit, 67)
    assert set(dataset.labels[chosen]) == {0, 1, 2}


def test_a_limit_below_the_number_of_classes_is_refused(dataset: ImageFolder) -> None:
    with pytest.raises(DataError, match="limit of 2 pictures is too low"):
        subset(dataset, 2)


@pytest.mark.parametrize(
    ("text", "fractions"),
    [
        ("80/10/10", (0.8, 0.1, 0.1)),
        ("90/10", (0.9, 0.1)),
        ("0.5/0.5", (0.5, 0.5)),
        (" 70 / 15.5/14.5", (0.7, 0.155, 0.145)),
    ],
)
def test_fractions(text: str, fractions: tuple[float, ...]) -> None:
    assert parse_fractions(text) == fractions


@pytest.mark.parametrize(
    "text", ["", "80", "80/10", "100/0", "50/25/15/10", "a/b", "80/30/-10", "1/0/0", "1/2/0"]
)
def test_other_fractions_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="80/10/10"):
        parse_fractions(text)


def test_fractions_given_as_numbers_are_checked(dataset: ImageFolder) -> None:
    for fractions in [(0.8, 0.1), (1.0,), (0.5, 0.5, 0.0)]:
        with pytest.raises(UsageError, match="add up to 1"):
            stratified_split(dataset, fractions)
