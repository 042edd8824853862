"""ImageNet's layouts, on trees of a few made-up pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from noise_pictures import noise

from minialex.data import divide, open_dataset
from minialex.data.imagenet import ImageNet, find_imagenet
from minialex.errors import DataError

TENCH, KIT_FOX, CRANE, OTHER_CRANE = "n01440764", "n02119789", "n02012849", "n03126707"
# In the development kit's own order, which is not that of the names.
BY_NUMBER = [KIT_FOX, TENCH, OTHER_CRANE, CRANE]
WORDS = {
    TENCH: "tench, Tinca tinca",
    KIT_FOX: "kit fox, Vulpes macrotis",
    CRANE: "crane",
    OTHER_CRANE: "crane",
}
# The class of each validation picture, from 1: two a class.
TRUTH = [2, 1, 4, 3, 2, 1, 4, 3]


def pictures(folder: Path, names: Sequence[str], first: int) -> None:
    folder.mkdir(parents=True)
    for number, name in enumerate(names, first):
        noise(number).save(folder / name, "JPEG")


def train(root: Path, count: int = 3) -> Path:
    for place, synset in enumerate(BY_NUMBER):
        pictures(root / "train" / synset, [f"{synset}_{i}.JPEG" for i in range(count)], 10 * place)
    return root


def flat_val(root: Path) -> Path:
    pictures(root / "val", [f"ILSVRC2012_val_{i:08d}.JPEG" for i in range(1, len(TRUTH) + 1)], 100)
    return root


def ground_truth(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{number}\n" for number in TRUTH)
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text(text)


def numbers(folder: Path) -> None:
    lines = [
        f"{synset} {number} {WORDS[synset].split(',')[0].replace(' ', '_')}\n"
        for number, synset in enumerate(BY_NUMBER, 1)
    ]
    (folder / "map_clsloc.txt").write_text("".join(lines))


def words(path: Path) -> None:
    path.write_text("".join(f"{synset} {WORDS[synset]}\n" for synset in sorted(WORDS)))


def solution(path: Path) -> None:
    lines = ["ImageId,PredictionString"]
    for i, number in reversed(list(enumerate(TRUTH, 1))):
        boxes = f"{BY_NUMBER[number - 1]} 1 2 3 4 " * (1 + i % 2)
        lines.append(f"ILSVRC2012_val_{i:08d},{boxes}")
    path.write_text("\n".join(lines) + "\n")


def matlab(path: Path) -> None:
    """A meta.mat with the fields of the genuine one, and a group of classes."""
    io = pytest.importorskip("scipy.io")
    rows = [(number, synset, WORDS[synset], "a gloss", 0) for number, synset in enumerate(BY_NUMBER, 1)] + [
        (5, "n00000001", "animal", "a group", 2)
    ]
    kinds = [
        ("ILSVRC2012_ID", "f8"),
        *((name, "O") for name in ("WNID", "words", "gloss")),
        ("num_children", "f8"),
    ]
    io.savemat(path, {"synsets": np.array(rows, dtype=kinds).reshape(-1, 1)})


def check(root: Path, dataset: ImageNet, classes: list[str]) -> None:
    """12 pictures to train on, and each validation picture in the class that TRUTH says."""
    assert dataset.synsets == sorted(WORDS)
    assert dataset.classes == classes
    assert dataset.test_indices.tolist() == list(range(12, 20))
    for index in range(12):
        assert dataset.names[index].split("/")[1] == dataset.synsets[dataset.labels[index]]
    for index in range(12, 20):
        number = TRUTH[int(dataset.names[index][-13:-5]) - 1]
        assert dataset.synsets[dataset.labels[index]] == BY_NUMBER[number - 1]
    split = divide(dataset, (0.5, 0.25, 0.25))
    assert (len(split.train), len(split.validation), split.test.tolist()) == (8, 4, list(range(12, 20)))
    assert dataset.example_path(12) == str(root / dataset.names[12])


IN_WORDS = ["tench", f"crane ({CRANE})", "kit fox", f"crane ({OTHER_CRANE})"]


@pytest.mark.parametrize("kit", [".", "ILSVRC2012_devkit_t12/data", "devkit/data"])
def test_the_development_kits_ground_truth(tmp_path: Path, kit: str) -> None:
    root = flat_val(train(tmp_path))
    ground_truth(root / kit)
    numbers(root / kit)
    dataset, description = open_dataset(root)
    check(root, dataset, IN_WORDS)
    assert description == (
        f"20 pictures in 4 classes from {root} (ImageNet's train and val, val by "
        "ILSVRC2012_validation_ground_truth.txt, classes by map_clsloc.txt; 8 of them are "
        "the official test part)"
    )


def test_the_development_kits_matlab_file(tmp_path: Path) -> None:
    root = flat_val(train(tmp_path))
    ground_truth(root)
    matlab(root / "meta.mat")
    check(root, open_dataset(root)[0], IN_WORDS)
    (root / "meta.mat").write_bytes((root / "meta.mat").read_bytes()[:200])
    with pytest.raises(DataError, match=r"meta\.mat cannot be read"):
        open_dataset(root)


def test_kaggles_layout(tmp_path: Path) -> None:
    root = flat_val(train(tmp_path / "ILSVRC/Data/CLS-LOC"))
    pictures(root / "test", ["ILSVRC2012_test_00000001.JPEG"], 200)
    solution(tmp_path / "LOC_val_solution.csv")
    words(tmp_path / "LOC_synset_mapping.txt")
    for named in (tmp_path, root):
        dataset, description = open_dataset(named)
        check(root, dataset, IN_WORDS)
        assert "val by LOC_val_solution.csv, classes by LOC_synset_mapping.txt" in description


def test_val_in_class_folders_and_no_list(tmp_path: Path) -> None:
    root = train(tmp_path)
    for place, synset in enumerate(BY_NUMBER):
        names = [f"ILSVRC2012_val_{i:08d}.JPEG" for i, n in enumerate(TRUTH, 1) if BY_NUMBER[n - 1] == synset]
        pictures(root / "val" / synset, names, 100 + 10 * place)
    dataset, description = open_dataset(root)
    check(root, dataset, sorted(WORDS))
    assert description.endswith("(ImageNet's train and val; 8 of them are the official test part)")


def test_one_part_is_divided_as_any_data(tmp_path: Path) -> None:
    dataset, _ = open_dataset(train(tmp_path / "a"))
    assert (len(dataset), dataset.test_indices) == (12, None)
    ground_truth(flat_val(tmp_path / "b"))
    numbers(tmp_path / "b")
    dataset, _ = open_dataset(tmp_path / "b")
    assert (len(dataset), dataset.test_indices) == (8, None)


def test_words_that_several_classes_share(tmp_path: Path) -> None:
    root = train(tmp_path)
    lines = {**WORDS, CRANE: "crane, a bird", OTHER_CRANE: "crane, a machine"}
    (root / "synset_words.txt").write_text("".join(f"{synset} {text}\n" for synset, text in lines.items()))
    assert open_dataset(root)[0].classes == ["tench", "crane, a bird", "kit fox", "crane, a machine"]


def test_a_list_in_the_order_of_names_is_not_taken_for_numbers(tmp_path: Path) -> None:
    root = flat_val(train(tmp_path))
    ground_truth(root)
    words(root / "synset_words.txt")
    with pytest.raises(
        DataError, match=r"an order of its own, which map_clsloc\.txt or meta\.mat.*every class"
    ):
        open_dataset(root)


def test_plain_folders_of_such_names_stay_plain(tmp_path: Path) -> None:
    root = train(tmp_path) / "train"
    assert find_imagenet(root) is None
    assert open_dataset(root)[0].classes == sorted(BY_NUMBER)
    (tmp_path / "train" / "other").mkdir()
    assert find_imagenet(tmp_path) is None


def remove_truth(root: Path) -> None:
    (root / "ILSVRC2012_validation_ground_truth.txt").unlink()


def add(name: str, text: str | bytes) -> object:
    def change(root: Path) -> None:
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            remove_truth,
            r"holds 8 pictures whose classes nobody says\. Put them into folders.*LOC_val_solution",
        ),
        (
            add("ILSVRC2012_validation_ground_truth.txt", "1\n2\n"),
            "has 2 lines, and none for ILSVRC2012_val_00000003",
        ),
        (
            add("ILSVRC2012_validation_ground_truth.txt", "9\n" * 8),
            "truth.txt, line 1: '9' is no class's number",
        ),
        (add("ILSVRC2012_validation_ground_truth.txt", b"\xff"), "cannot be read as text"),
        # Line i is of picture i: without the empty line, all after it would be another picture's.
        (
            add("ILSVRC2012_validation_ground_truth.txt", "1\n\n" + "2\n" * 8),
            "line 2: '' is no class's number",
        ),
        (add("LOC_val_solution.csv", "x" * 200_000 + f",{TENCH} 1 2 3 4\n"), "does not say the classes of 8"),
        (add("LOC_val_solution.csv", f"\n\nx,{TENCH} 1 2 3 4,\n"), "csv, line 3: expected a picture"),
        (
            add("map_clsloc.txt", "n01440764 tench\n"),
            "map_clsloc.txt, line 1: expected a line such as n02119789 1",
        ),
        (add("map_clsloc.txt", f"{TENCH} 1 a\n{TENCH} 2 b\n"), "line 2: n01440764 is there twice"),
        (add("map_clsloc.txt", f"{TENCH} 1 a\n{CRANE} 1 b\n"), "line 2: 1 is there twice"),
        (
            add("LOC_val_solution.csv", "ImageId,PredictionString\n"),
            "does not say the classes of 8 of the 8 .*val_00000001",
        ),
        (
            add("LOC_val_solution.csv", "ILSVRC2012_val_00000001,tench 1 2 3 4\n"),
            "csv, line 1: expected a picture",
        ),
        (
            add("LOC_val_solution.csv", f"ILSVRC2012_val_00000001,{TENCH} 1 2 3 4 {CRANE} 1 2 3 4\n"),
            "csv, line 1: expected a picture",
        ),
        (add("LOC_synset_mapping.txt", f"{TENCH} tench\n"), "has no words for n02012849"),
        (add("LOC_synset_mapping.txt", "tench\n"), "line 1: expected a line such as n01440764 tench, Tinca"),
        (add("val/photo.jpg", "x"), "neither in a class folder nor named as ILSVRC2012_val_00000001.JPEG"),
        (add("train/n00000009/note.txt", "x"), "train/n00000009 holds no pictures"),
    ],
)
def test_what_is_missing_or_wrong_is_named(tmp_path: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    root = flat_val(train(tmp_path))
    ground_truth(root)
    numbers(root)
    change(root)
    with pytest.raises(DataError, match=message):
        open_dataset(root)


def test_a_class_to_test_on_but_not_to_train_on(tmp_path: Path) -> None:
    root = train(tmp_path)
    pictures(root / "val" / "n00000007", ["1.JPEG"], 50)
    with pytest.raises(DataError, match=r"val has classes of which train has no picture: n00000007"):
        open_dataset(root)
