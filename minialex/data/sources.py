"""Finding the data: what the user named, else the nearest flowers, and never a silent choice."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minialex.data.audit import Progress, report
from minialex.data.digits import open_digits
from minialex.data.download import DownloadError
from minialex.data.files import OnBadImage
from minialex.data.flowers import FOLDER, fetch_flowers
from minialex.data.folder import equal_files
from minialex.data.images import PIXEL_LIMIT
from minialex.data.recognition import open_path
from minialex.errors import DataError, OutputError
from minialex.folders import cache_folder

__all__ = ["NAMED_DATA", "open_dataset"]

Say = Callable[[str], None]

DRAWN, DIGITS = "drawn", "digits"
# What `data` may be that is no path: a folder of that name must be written ./drawn.
NAMED_DATA = (DRAWN, DIGITS)
DRAWN_PER_CLASS = 250
DRAWN_SEED = 0


def open_dataset(
    data: str | Path | None = None,
    *,
    on_bad_image: OnBadImage = "stop",
    pixel_limit: int = PIXEL_LIMIT,
    say: Say = print,
    progress: Progress | None = None,
    audit_progress: Progress | None = None,
    per_class: int = DRAWN_PER_CLASS,
    drawn_seed: int = DRAWN_SEED,
) -> tuple[Any, str]:
    """The data set and a line that says which it is and why.

    `data` is a path to anything in docs/data.md; or "drawn" for the flowers drawn by code, or "digits" for
    scikit-learn's (write ./drawn for a folder of that name).
    Without it: flower_photos in the folder MINIALEX_DATA; else in the cache; else downloaded into the cache;
    else, where there is no network, the drawn flowers, which is said aloud with the reason.

    What is returned obeys `Dataset` and has test_indices (of an official test part, or None), kind (what it
    was recognised as) and example_path(index) (a file of that picture alone, or None). `divide` splits it.

    Args:   say: called with every line that the user should read. progress: called with (bytes, bytes in
            all) during a download; audit_progress with (files, files in all) while the pictures are checked.
            per_class, drawn_seed: which flowers are drawn.
    Raises: DataError for data that are missing, not understood or cannot be used, also for a MINIALEX_DATA
            without flowers.
    """
    source = ""
    if data is not None and str(data) == DIGITS:
        dataset = open_digits()
    else:
        path, source = _find(data, say, progress, per_class, drawn_seed)
        dataset = open_path(path.expanduser(), on_bad_image, pixel_limit, audit_progress)
    _say_findings(dataset, say)
    words = [text for text in (dataset.kind, _official(dataset), source) if text]
    counts = f"{len(dataset):,} pictures in {len(dataset.classes)} classes"
    return dataset, f"{counts} from {dataset.root}" + (f" ({'; '.join(words)})" if words else "")


def _official(dataset: Any) -> str:
    """What is said of data that come with a test part."""
    test = dataset.test_indices
    return "" if test is None else f"{len(test):,} of them are the official test part"


def _find(
    data: str | Path | None, say: Say, progress: Progress | None, per_class: int, seed: int
) -> tuple[Path, str]:
    """The path, and in words where it was found: none for one that the user named."""
    if data is not None and str(data) == DRAWN:
        return _draw(say, per_class, seed), "flowers drawn by code"
    if data is not None:
        return Path(data), ""
    if named := os.environ.get("MINIALEX_DATA"):
        return _in_named_folder(Path(named).expanduser()), "MINIALEX_DATA"
    cache = cache_folder()
    if (cache / FOLDER).is_dir():
        return cache / FOLDER, "downloaded earlier"
    say("No data was named (--data, MINIALEX_DATA), and none was downloaded earlier.")
    try:
        return fetch_flowers(cache, say, progress), "downloaded now"
    except DownloadError as error:
        say(
            f"{error}\nUsing flowers DRAWN BY CODE instead of photographs. For photographs, connect to the "
            "network or give --data FOLDER."
        )
        return _draw(
            say, per_class, seed
        ), "flowers drawn by code, as the photographs could not be downloaded"


def _in_named_folder(named: Path) -> Path:
    """flower_photos in MINIALEX_DATA. Its absence is an error: whoever set it means to use it."""
    folder = named / FOLDER
    if folder.is_dir():
        return folder
    if not named.is_dir():
        what = "which is no folder"
    else:
        inside = sorted(path.name for path in named.iterdir() if not path.name.startswith("."))
        what = f"which holds {', '.join(inside[:10]) or 'nothing'}, but no {FOLDER}"
    raise DataError(
        f"MINIALEX_DATA is {named}, {what}. Put {FOLDER} there, name other data (--data FOLDER), use flowers "
        "drawn by code (--data drawn), or unset MINIALEX_DATA to have the photographs downloaded."
    )


def _draw(say: Say, per_class: int, seed: int) -> Path:
    from minialex.data import drawn  # only who needs it waits for it

    folder = cache_folder() / f"drawn-{per_class}-{seed}"
    try:
        return drawn.ensure_drawn(folder, per_class, seed, say)
    except OutputError as error:
        raise OutputError(f"{error}. Set MINIALEX_CACHE to a folder that can be written to.") from error


def _say_findings(dataset: Any, say: Say) -> None:
    """What the user would otherwise wonder about: pictures left out, files passed over, equal files."""
    skipped, extra = getattr(dataset, "skipped", []), getattr(dataset, "extra", [])
    if count := len(skipped):
        what = "picture cannot be used and is" if count == 1 else "pictures cannot be used and are"
        say(f"{count:,} {what} left out:\n{report(skipped)}")
    if count := len(extra):
        what = "file is no picture and is" if count == 1 else "files are no pictures and are"
        say(f"{count:,} {what} passed over: {', '.join(extra[:5])}{', ...' if count > 5 else ''}")
    twins = equal_files(dataset)
    if count := sum(len(group) - 1 for group in twins):
        what = "picture is a copy of another" if count == 1 else "pictures are copies of others"
        say(f"{count:,} {what}; equal files stay together when the data are split.")
    _say_copies_of_the_test(dataset, twins, say)
    mixed = [group for group in twins if len({int(dataset.labels[index]) for index in group}) > 1]
    if mixed:
        names = " = ".join(dataset.names[index] for index in mixed[0])
        say(f"Equal files are in more than one class, for example {names}: which class is right?")


def _say_copies_of_the_test(dataset: Any, twins: list[list[int]], say: Say) -> None:
    test = set() if dataset.test_indices is None else set(dataset.test_indices.tolist())
    count = sum(len(set(group) - test) for group in twins if not test.isdisjoint(group))
    if count:
        what = "picture to train on is" if count == 1 else "pictures to train on are"
        say(f"{count:,} {what} also in the official test part, and left out of training.")
