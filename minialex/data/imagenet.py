"""ImageNet's folders, as the challenge of 2012 and Kaggle hand them out.

train/ has a folder a class, named by its WordNet number (n01440764), and val/ has such folders too, or the
50,000 pictures in a row and their classes in a file of their own:
- LOC_val_solution.csv (Kaggle), which names a picture's WordNet number; or
- ILSVRC2012_validation_ground_truth.txt (the development kit), whose line i is the class of picture i, by a
  number from 1 to 1000 that has an order of its own: not that of the sorted names, in which most lists of
  ImageNet's classes are. So it is only read with a list that says the numbers: map_clsloc.txt, or meta.mat.

Classes are numbered by their sorted WordNet numbers, as PyTorch's trained networks are.
Source: Russakovsky et al. 2015, "ImageNet Large Scale Visual Recognition Challenge".
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from minialex.data.audit import Progress
from minialex.data.files import (
    OnBadImage,
    PictureFile,
    PictureFiles,
    files_in,
    is_hidden,
    is_picture,
    normalise,
)
from minialex.data.images import PIXEL_LIMIT
from minialex.errors import DataError

__all__ = ["ImageNet", "find_imagenet"]

SYNSET = re.compile(r"n\d{8}")
VALIDATION = re.compile(r"ILSVRC2012_val_(\d{8})")
INSIDE = ("", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")
# Where lists may lie, seen from the folder that holds train/ and val/.
PLACES = (".", "ILSVRC2012_devkit_t12/data", "devkit/data", "val")
ABOVE = ("../../..", "../..")  # Kaggle's folder, and ILSVRC in it
KAGGLE, GROUND_TRUTH = "LOC_val_solution.csv", "ILSVRC2012_validation_ground_truth.txt"
NUMBERS, MATLAB = "map_clsloc.txt", "meta.mat"
WORDS = ("LOC_synset_mapping.txt", "synset_words.txt", NUMBERS)


def find_imagenet(folder: Path) -> Path | None:
    """The folder, this one or Kaggle's CLS-LOC in it, that holds ImageNet's train/ or val/; or None."""
    return next((folder / inside for inside in INSIDE if _is_imagenet(folder / inside)), None)


def _is_imagenet(folder: Path) -> bool:
    train, val = folder / "train", folder / "val"
    if train.is_dir() and not _synsets(train):
        return False
    return train.is_dir() or (val.is_dir() and bool(_synsets(val) or any(map(_is_numbered, val.iterdir()))))


def _synsets(folder: Path) -> list[str]:
    """The WordNet numbers of a folder's folders, sorted; none if there are other folders among them."""
    names = [path.name for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name)]
    return sorted(names) if all(map(SYNSET.fullmatch, names)) else []


def _is_numbered(path: Path) -> bool:
    return VALIDATION.fullmatch(path.stem) is not None and is_picture(path.name)


class ImageNet(PictureFiles):
    """The pictures of `root`/train and `root`/val, which `find_imagenet` gave; val is the test part.

    Args:   ImageFolder's.
    Attributes: ImageFolder's; and synsets: the classes' WordNet numbers, in order. `classes` are in words
            where a list of them lies there.
    Raises: DataError for lists that are missing, malformed, or of other pictures.
    """

    way = ""

    def __init__(
        self,
        root: Path,
        on_bad_image: OnBadImage = "stop",
        pixel_limit: int = PIXEL_LIMIT,
        progress: Progress | None = None,
    ) -> None:
        found, extra = _training(root)
        known = {synset for synset, _, _ in found}
        validation, truth, others = _validation(root)
        unknown = sorted({synset for synset, _, _ in validation} - known)
        if known and unknown:
            raise DataError(
                f"{root}/val has classes of which train has no picture: {', '.join(unknown[:10])}. "
                "Add them to train, or remove their pictures from val."
            )
        self.synsets = sorted(known | set(unknown))
        if len(self.synsets) < 2:
            raise DataError(f"{root} holds one class only, {self.synsets[0]}; a classifier needs two.")
        numbers = {synset: label for label, synset in enumerate(self.synsets)}
        files = [PictureFile(numbers[synset], name, path) for synset, name, path in found]
        files += [PictureFile(numbers[synset], name, path, bool(found)) for synset, name, path in validation]
        classes, source = _in_words(root, self.synsets)
        parts = " and ".join(name for name, own in (("train", found), ("val", validation)) if own)
        kind = f"ImageNet's {parts}{truth}{source}"
        extra += others
        super().__init__(root, classes, files, extra, on_bad_image, pixel_limit, progress, kind=kind)


Labelled = list[tuple[str, str, str]]  # WordNet number, name, path


def _in_class_folders(root: Path, part: str) -> tuple[Labelled, list[str]]:
    found, extra = [], []
    for synset in _synsets(root / part):
        pictures, others = files_in(root, root / part / synset)
        if not pictures:
            raise DataError(f"{root / part / synset} holds no pictures. Add them, or remove the folder.")
        found += [(synset, name, path) for name, path in pictures]
        extra += others
    return found, extra


def _training(root: Path) -> tuple[Labelled, list[str]]:
    return _in_class_folders(root, "train") if (root / "train").is_dir() else ([], [])


def _validation(root: Path) -> tuple[Labelled, str, list[str]]:
    """The pictures of val/ with their classes, where those are from in words, and other files' names."""
    val = root / "val"
    if not val.is_dir():
        return [], "", []
    if _synsets(val):
        found, extra = _in_class_folders(root, "val")
        return found, "", extra
    pictures, extra = files_in(root, val)
    if not pictures:
        raise DataError(f"{val} holds no pictures. Put the validation pictures there, or remove the folder.")
    stems = [Path(name).stem for name, _ in pictures]
    if wrong := [
        name for (name, _), stem in zip(pictures, stems, strict=True) if not VALIDATION.fullmatch(stem)
    ]:
        raise DataError(
            f"{root / wrong[0]} is neither in a class folder nor named as ILSVRC2012_val_00000001.JPEG is."
        )
    classes, source = _ground_truth(root, stems)
    found = [(classes[stem], *pair) for stem, pair in zip(stems, pictures, strict=True)]
    return found, f", val by {source}", [name for name in extra if not name.endswith((KAGGLE, GROUND_TRUTH))]


def _look_for(root: Path, *names: str) -> Path | None:
    """The first of these files that is there."""
    places = [root / place for place in (*PLACES, *(ABOVE if root.name == "CLS-LOC" else ()))]
    paths = (place / name for name in names for place in places)
    return next((path for path in paths if path.is_file()), None)


def _ground_truth(root: Path, stems: list[str]) -> tuple[Mapping[str, str], str]:
    """The WordNet number of each picture of val/, and the file that says so."""
    if kaggle := _look_for(root, KAGGLE):
        classes = _kaggle_solution(kaggle)
        if missing := [stem for stem in stems if stem not in classes]:
            raise DataError(
                f"{kaggle} does not say the classes of {len(missing):,} of the {len(stems):,} pictures in "
                f"{root / 'val'}, such as {missing[0]}. Get the file again, or remove them."
            )
        return classes, KAGGLE
    truth = _look_for(root, GROUND_TRUTH)
    if truth is None:
        raise DataError(
            f"{root / 'val'} holds {len(stems):,} pictures whose classes nobody says. Put them into folders "
            f"such as n01440764, or put beside val/ the file {KAGGLE} (Kaggle), or {GROUND_TRUTH} and "
            f"{NUMBERS} or {MATLAB} (the development kit)."
        )
    numbers = _numbers(root, truth)
    lines = [line.strip() for line in _lines(truth)]
    classes = {}
    for stem in stems:
        line = int(stem[-8:])
        if not 1 <= line <= len(lines):
            raise DataError(f"{truth} has {len(lines):,} lines, and none for {stem}. Get the file again.")
        if (number := lines[line - 1]) not in numbers:
            raise DataError(
                f"{truth}, line {line:,}: {number[:20]!a} is no class's number. Get the file again."
            )
        classes[stem] = numbers[number]
    return classes, GROUND_TRUTH


def _kaggle_solution(path: Path) -> dict[str, str]:
    """ImageId,PredictionString: the WordNet number and a box, for each of the boxes."""
    classes = {}
    for number, line in _numbered(path):
        row = line.split(",")
        if number == 1 and row[0] == "ImageId":
            continue
        synsets = set(row[1].split()[::5]) if len(row) == 2 else set()
        if len(synsets) != 1 or not SYNSET.fullmatch(next(iter(synsets))):
            raise DataError(
                f"{path}, line {number:,}: expected a picture, a comma, and a WordNet number with a box, "
                "such as ILSVRC2012_val_00000001,n01440764 10 20 110 120; got "
                f"{line[:60]!a}."
            )
        classes[row[0]] = synsets.pop()
    return classes


def _numbers(root: Path, truth: Path) -> dict[str, str]:
    """The development kit's class numbers, as text, with their WordNet numbers."""
    if (path := _look_for(root, NUMBERS)) is not None:
        pairs = {number: synset for synset, number, _ in _numbered_lines(path)}
    elif (path := _look_for(root, MATLAB)) is not None:
        pairs = {number: synset for number, synset, _ in _matlab(path)}
    else:
        raise DataError(
            f"{truth} counts the classes in an order of its own, which {NUMBERS} or {MATLAB} of the "
            "development kit tell. Put one of them beside it. Lists in the order of WordNet numbers, such as "
            "synset_words.txt, do not help: every class would be wrong."
        )
    return pairs


def _numbered_lines(path: Path) -> Iterator[tuple[str, str, str]]:
    """(WordNet number, class number, words) for lines such as "n02119789 1 kit_fox"."""
    seen: set[str] = set()
    for line_number, line in _numbered(path):
        fields = line.split(maxsplit=2)
        if len(fields) != 3 or not SYNSET.fullmatch(fields[0]) or not fields[1].isdecimal():
            raise DataError(
                f"{path}, line {line_number:,}: expected a line such as n02119789 1 kit_fox, got "
                f"{line[:60]!a}."
            )
        for field in fields[:2]:
            if field in seen:
                raise DataError(f"{path}, line {line_number:,}: {field} is there twice. Get the file again.")
            seen.add(field)
        yield fields[0], fields[1], fields[2].strip().replace("_", " ")


def _matlab(path: Path) -> list[tuple[str, str, str]]:
    """(class number, WordNet number, words) of the classes in the development kit's meta.mat."""
    try:
        from scipy.io import loadmat  # late, and it comes with scikit-learn

        synsets = loadmat(path, squeeze_me=True)["synsets"]
        return [
            (str(int(row["ILSVRC2012_ID"])), str(row["WNID"]), str(row["words"]))
            for row in synsets
            if int(row["num_children"]) == 0  # the others are groups of classes
        ]
    except Exception as error:  # a file of MATLAB's that is damaged raises anything
        raise DataError(f"{path} cannot be read ({type(error).__name__}: {error}). Get it again.") from error


def _in_words(root: Path, synsets: list[str]) -> tuple[list[str], str]:
    """A name for each class, and where it is from: the first word of a list that has it, and more if several
    classes have the same (there are two cranes); WordNet numbers where no list lies there."""
    path = _look_for(root, *WORDS)
    if path is not None and path.name == NUMBERS:
        words = {synset: name for synset, _, name in _numbered_lines(path)}
    elif path is not None:
        words = dict(_words(path))
    elif (path := _look_for(root, MATLAB)) is not None:
        words = {synset: name for _, synset, name in _matlab(path)}
    else:
        return list(synsets), ""
    if missing := [synset for synset in synsets if synset not in words]:
        raise DataError(f"{path} has no words for {', '.join(missing[:10])}. Get a list of all classes.")
    first = collections.Counter(words[synset].split(",")[0] for synset in synsets)
    whole = collections.Counter(words[synset] for synset in synsets)
    names = []
    for synset in synsets:
        short, full = words[synset].split(",")[0], words[synset]
        names.append(short if first[short] == 1 else full if whole[full] == 1 else f"{full} ({synset})")
    return names, f", classes by {path.name}"


def _words(path: Path) -> Iterator[tuple[str, str]]:
    """Lines such as "n01440764 tench, Tinca tinca"."""
    for number, line in _numbered(path):
        synset, _, words = line.strip().partition(" ")
        if not SYNSET.fullmatch(synset) or not words.strip():
            raise DataError(
                f"{path}, line {number:,}: expected a line such as n01440764 tench, Tinca tinca; got "
                f"{line[:60]!a}."
            )
        yield synset, normalise(words.strip())


def _lines(path: Path) -> list[str]:
    """The lines of a text, up to the last one that is not empty."""
    try:
        return path.read_text(encoding="utf-8").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text: {error}.") from error


def _numbered(path: Path) -> list[tuple[int, str]]:
    """(number of the line, line) for those that are not empty."""
    return [(number, line) for number, line in enumerate(_lines(path), 1) if line.strip()]
