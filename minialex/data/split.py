"""Splitting a data set into training, validation and test pictures, and remembering how.

The split looks at what pictures hold, never at names or at the order in which a file system lists them: each
file's place in the order comes from its SHA-256 and the seed. The same photographs give the same split on
every machine, and one more photograph moves hardly any of the others. Equal files stay together: a photograph
that is trained on and tested on would make the test a lie. Nothing is copied; the manifest says which file is
where.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from minialex.data.folder import Dataset
from minialex.errors import DataError, UsageError
from minialex.rng import MASK32, PURPOSES, philox4x32, split_seed

__all__ = ["Split", "divide", "parse_fractions", "stratified_split", "subset"]

Indices = npt.NDArray[np.int64]

PARTS = ("train", "validation", "test")
FORMAT_VERSION = 1


@dataclass
class Split:
    """Which pictures are trained on, which choose the model, and which judge it.

    Attributes: train, validation, test: int64 indices into the data set, ascending; test is empty for a split
            in two. digest: SHA-256 of the manifest.
    """

    train: Indices
    validation: Indices
    test: Indices
    fractions: tuple[float, ...]
    seed: int
    classes: list[str]
    entries: dict[str, list[dict[str, Any]]] = field(repr=False)

    def manifest(self) -> dict[str, Any]:
        """The split as JSON can hold it: every picture of every part by name, SHA-256 and label."""
        return {
            "format_version": FORMAT_VERSION,
            "seed": self.seed,
            "fractions": list(self.fractions),
            "classes": list(self.classes),
            "parts": {part: [dict(entry) for entry in self.entries[part]] for part in PARTS},
        }

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest in canonical JSON, in hexadecimal."""
        text = json.dumps(self.manifest(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @staticmethod
    def from_manifest(manifest: Mapping[str, Any], dataset: Dataset) -> Split:
        """The split that a manifest describes, found again in `dataset`.

        Pictures are recognised by their hash, so that a renamed file is still found.

        Raises: DataError if the manifest is malformed, the classes differ, or pictures are gone or changed.
        """
        try:
            if manifest["format_version"] != FORMAT_VERSION:
                raise DataError(
                    f"The split manifest has format version {manifest['format_version']}, expected "
                    f"{FORMAT_VERSION}. Make the split again, or use the version of minialex that wrote it."
                )
            if list(manifest["classes"]) != list(dataset.classes):
                raise DataError(
                    f"The split is of the classes {', '.join(manifest['classes'])}, but {dataset.root} holds "
                    f"{', '.join(dataset.classes)}. Give the data that the split was made of (--data)."
                )
            parts = _find_parts(manifest["parts"], dataset)
            fractions = tuple(float(fraction) for fraction in manifest["fractions"])
            seed = int(manifest["seed"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"The split manifest is malformed ({error!r}). Make the split again.") from error
        return _make_split(dataset, parts, fractions, seed)


def stratified_split(
    dataset: Dataset,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    indices: Iterable[int] | None = None,
) -> Split:
    """Split each class by the same fractions; equal files share a part.

    Every class has at least one picture in every part, so that each part can say something about each class.

    Args:   fractions: of train, validation and, if there are three, test; they add up to 1.
            indices: split these pictures only (see `subset`), all by default.
    Raises: DataError if a class has fewer different pictures than the split has parts.
            UsageError for fractions that are no fractions.
    """
    shares = _check_fractions(fractions)
    chosen = (
        np.arange(len(dataset)) if indices is None else np.unique(np.asarray(list(indices), dtype=np.int64))
    )
    groups = _by_class(dataset, _ordered_groups(dataset, chosen.tolist(), seed, "split"))
    parts: list[list[int]] = [[] for _ in shares]
    short = []
    for name, own in zip(dataset.classes, groups, strict=True):
        if len(own) < len(shares):
            short.append(f"{name} ({len(own)})")
            continue
        for part, members in zip(parts, _divide(own, shares), strict=True):
            part.extend(members)
    if short:
        raise DataError(
            f"Too few pictures for a split into {len(shares)} parts: each class in {dataset.root} needs at "
            f"least {len(shares)} that differ, but {', '.join(short[:20])} "
            f"{'has' if len(short) == 1 else 'have'} fewer. Add pictures, raise --limit, or split into two "
            "parts (--split 90/10)."
        )
    return _make_split(dataset, parts, tuple(float(fraction) for fraction in fractions), seed)


def divide(
    dataset: Dataset, fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0, limit: int | None = None
) -> Split:
    """The data set in parts: its official test part as it is, if it has one, and the rest by the fractions.

    Without an official test part, `stratified_split` of the pictures that `subset` chooses. With one
    (`dataset.test_indices`), that is the test part, whatever the third fraction says and also where there is
    none, and the others are split as the first two fractions stand to each other. Of these, copies of
    pictures to test on are left out: the test would be a lie.

    Args:   limit: pictures in all, shared out to the official parts in proportion; None takes all.
    Raises: as `stratified_split` and `subset`.
    """
    test = getattr(dataset, "test_indices", None)
    if test is None:
        chosen = None if limit is None else subset(dataset, limit, seed)
        return stratified_split(dataset, fractions, seed, chosen)
    _check_fractions(fractions)
    copies = {dataset.digest(index) for index in test.tolist()}
    rest = np.setdiff1d(np.arange(len(dataset)), test)
    rest = np.array([index for index in rest.tolist() if dataset.digest(index) not in copies], dtype=np.int64)
    if limit is not None and limit < len(rest) + len(test):
        tested = _share_to_test(dataset, limit, len(rest), len(test))
        rest, test = subset(dataset, limit - tested, seed, rest), subset(dataset, tested, seed, test)
    two = fractions[0] + fractions[1]
    split = stratified_split(dataset, (fractions[0] / two, fractions[1] / two), seed, rest)
    parts = [split.train.tolist(), split.validation.tolist(), test.tolist()]
    return _make_split(dataset, parts, tuple(float(fraction) for fraction in fractions), seed)


def _share_to_test(dataset: Dataset, limit: int, rest: int, test: int) -> int:
    """How many of `limit` pictures are to test on: in proportion, but each part has room for all classes."""
    classes = len(dataset.classes)
    if limit < len(PARTS) * classes:
        raise DataError(
            f"A limit of {limit} pictures is too low: {dataset.root} has {classes} classes and a test part "
            f"of its own, and each of the three parts needs one of each. Give --limit {len(PARTS) * classes} "
            "or more."
        )
    return min(max(classes, limit * test // (rest + test)), limit - (len(PARTS) - 1) * classes)


def parse_fractions(text: str) -> tuple[float, ...]:
    """The fractions in "80/10/10" or "90/10" (percent, or fractions of 1); they add up to 1.

    Raises: UsageError that says what was expected.
    """
    try:
        numbers = [Fraction(piece.strip()) for piece in text.split("/")]
    except (ValueError, ZeroDivisionError):
        numbers = []
    total = sum(numbers)
    if len(numbers) not in (2, 3) or min(numbers) <= 0 or total not in (1, 100):
        raise UsageError(
            f"--split {text!r} is no split: expected two or three percentages above 0 that add up to 100, "
            "train/validation/test or train/validation, for example 80/10/10 or 90/10."
        )
    return tuple(float(number / total) for number in numbers)


def subset(dataset: Dataset, limit: int, seed: int = 0, indices: Indices | None = None) -> Indices:
    """The indices, ascending, of `limit` pictures in which the classes keep their shares.

    Which pictures depends on their contents and the seed alone; all of them if there are no more than
    `limit`.

    Args:   indices: choose among these pictures, ascending; None chooses among all.
    Raises: DataError if the limit is smaller than the number of classes.
    """
    classes = len(dataset.classes)
    if limit < classes:
        raise DataError(
            f"A limit of {limit} pictures is too low: {dataset.root} has {classes} classes, and each needs "
            f"at least one. Give --limit {classes} or more, several times that for a split."
        )
    among = np.arange(len(dataset), dtype=np.int64) if indices is None else indices
    if limit >= len(among):
        return among
    order = _ordered_groups(dataset, among.tolist(), seed, "data")
    pictures = _by_class(dataset, [[index] for group in order for index in group])
    chosen: list[int] = []
    for own, count in zip(pictures, _shares([len(own) for own in pictures], limit), strict=True):
        chosen.extend(index for (index,) in own[:count])
    return np.array(sorted(chosen), dtype=np.int64)


def _shares(counts: Sequence[int], limit: int) -> list[int]:
    """`limit` shared out in proportion to counts by largest remainders, at least one to each above 0."""
    exact = [Fraction(count * limit, sum(counts)) for count in counts]
    shares = [max(min(1, count), int(share)) for count, share in zip(counts, exact, strict=True)]
    while sum(shares) != limit:
        step = 1 if sum(shares) < limit else -1
        room = [i for i in range(len(counts)) if (shares[i] < counts[i] if step > 0 else shares[i] > 1)]
        shares[max(room, key=lambda i: (step * (exact[i] - shares[i]), -i))] += step
    return shares


def _ordered_groups(dataset: Dataset, indices: Iterable[int], seed: int, purpose: str) -> list[list[int]]:
    """Equal files grouped, the groups in an order that the files' contents and the seed decide."""
    groups: dict[str, list[int]] = {}
    for index in indices:
        groups.setdefault(dataset.digest(index), []).append(index)
    digests = sorted(groups)
    # The address of a random number is the file's own hash: no neighbour has a say in it.
    words = [[int(digest[i : i + 8], 16) & MASK32 for i in (0, 8, 16)] for digest in digests]
    counters = np.array([[PURPOSES[purpose], *word] for word in words], dtype=np.uint64).reshape(-1, 4)
    keys = philox4x32(counters, split_seed(seed)).astype(np.uint64)
    order = np.argsort((keys[:, 0] << np.uint64(32)) | keys[:, 1], kind="stable")
    return [groups[digests[i]] for i in order]


def _by_class(dataset: Dataset, groups: Sequence[list[int]]) -> list[list[list[int]]]:
    """The groups of each class, in order. Equal files in several classes count for that of the first."""
    classes: list[list[list[int]]] = [[] for _ in dataset.classes]
    for group in groups:
        classes[int(dataset.labels[group[0]])].append(group)
    return classes


def _divide(groups: Sequence[list[int]], shares: Sequence[Fraction]) -> list[list[int]]:
    """The groups of one class dealt to the parts: those after the first fill up in turn, the rest trains."""
    sizes = _sizes(sum(len(group) for group in groups), shares)
    dealt: list[list[list[int]]] = [[] for _ in shares]
    room = list(sizes)
    for group in groups:
        part = next((part for part in range(1, len(shares)) if len(group) <= room[part]), 0)
        dealt[part].append(group)
        room[part] -= len(group)
    for part in range(1, len(shares)):  # groups of many equal files may leave a part without any
        if not dealt[part]:
            fullest = max(dealt, key=len)
            smallest = min(fullest, key=len)
            fullest.remove(smallest)
            dealt[part].append(smallest)
    if not dealt[0]:
        dealt[0].append(max(dealt, key=len).pop())
    return [[index for group in part for index in group] for part in dealt]


def _sizes(count: int, shares: Sequence[Fraction]) -> list[int]:
    """How many of `count` pictures each part gets: rounded, at least one, the rest to the first."""
    sizes = [max(1, int(share * count + Fraction(1, 2))) for share in shares[1:]]
    while sum(sizes) >= count and max(sizes) > 1:
        sizes[sizes.index(max(sizes))] -= 1
    return [count - sum(sizes), *sizes]


def _check_fractions(fractions: Sequence[float]) -> list[Fraction]:
    if len(fractions) not in (2, 3) or min(fractions) <= 0 or abs(sum(fractions) - 1.0) > 1e-6:
        raise UsageError(
            f"The split's fractions are {tuple(fractions)}, expected two or three numbers above 0 that add "
            "up to 1, such as (0.8, 0.1, 0.1)."
        )
    return [Fraction(fraction).limit_denominator(1_000_000) for fraction in fractions]


def _make_split(
    dataset: Dataset, parts: Sequence[Sequence[int]], fractions: tuple[float, ...], seed: int
) -> Split:
    filled = [*parts, []] if len(parts) < len(PARTS) else parts
    train, validation, test = (np.array(sorted(part), dtype=np.int64) for part in filled)
    entries = {
        part: [
            {"name": dataset.names[i], "sha256": dataset.digest(i), "label": int(dataset.labels[i])}
            for i in array.tolist()
        ]
        for part, array in zip(PARTS, (train, validation, test), strict=True)
    }
    return Split(train, validation, test, fractions, seed, list(dataset.classes), entries)


def _find_parts(parts: Mapping[str, Any], dataset: Dataset) -> list[list[int]]:
    """The indices of a manifest's pictures, part by part."""
    by_content: dict[tuple[str, int], list[int]] = {}
    for index in range(len(dataset)):
        key = (dataset.digest(index), int(dataset.labels[index]))
        by_content.setdefault(key, []).append(index)
    found: list[list[int]] = []
    missing: list[str] = []
    for part in PARTS:
        found.append([])
        for entry in parts[part]:
            candidates = by_content.get((entry["sha256"], entry["label"]), [])
            same_name = [index for index in candidates if dataset.names[index] == entry["name"]]
            if not candidates:
                missing.append(f"  {entry['name']}")
                continue
            index = (same_name or candidates)[0]
            candidates.remove(index)
            found[-1].append(index)
    if missing:
        more = [f"  ... and {len(missing) - 20:,} more"] if len(missing) > 20 else []
        raise DataError(
            f"{len(missing):,} pictures of the split are gone from {dataset.root} or have changed:\n"
            + "\n".join([*missing[:20], *more])
            + "\nPut them back, or make a new split (start a new run)."
        )
    return found
