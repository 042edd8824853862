"""scikit-learn's digits: the same as its own loader gives, and without importing it."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minialex.data import digits, divide, open_dataset
from minialex.errors import DataError


@pytest.fixture(autouse=True)
def installed() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")


def test_the_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    theirs = load_digits()
    dataset, description = open_dataset("digits")
    assert description.startswith("1,797 pictures in 10 classes from ")
    assert description.endswith("(scikit-learn's handwritten digits, 8 x 8, grey)")
    assert dataset.classes == [str(name) for name in theirs.target_names]
    assert np.array_equal(dataset.labels, theirs.target)
    assert (dataset.pixels.dtype, dataset.pixels.min(), dataset.pixels.max()) == (np.uint8, 0, 255)
    assert np.abs(dataset.pixels * (16 / 255) - theirs.images).max() < 0.5 * 16 / 255 + 1e-9
    assert np.asarray(dataset.load(0)).shape == (8, 8, 3)
    assert open_dataset(dataset.root)[0].digest(5) == dataset.digest(5)  # as a run that is resumed finds them


def test_the_split_is_the_same_everywhere() -> None:
    split = divide(open_dataset("digits")[0], (0.8, 0.1, 0.1), seed=0)
    assert (len(split.train), len(split.validation), len(split.test)) == (1439, 179, 179)
    assert split.test[:5].tolist() == [10, 17, 23, 33, 73]


def test_scikit_learn_is_not_imported() -> None:
    script = (
        "import sys; from minialex.data import open_dataset; open_dataset('digits'); "
        "print([name for name in ('sklearn', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install scikit-learn"):
        open_dataset("digits")


@pytest.mark.parametrize(
    "content",
    [b"", gzip.compress(b"1,2,3\n"), gzip.compress(b"x\n"), gzip.compress(b"17," * 64 + b"1\n")],
    ids=["empty", "short", "no numbers", "too large"],  # gzip writes the time down: bytes would be new names.
)
def test_a_damaged_file_is_named(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "digits.csv.gz"
    path.write_bytes(content)
    monkeypatch.setattr(digits, "_find_file", lambda: path)
    with pytest.raises(DataError, match="Install scikit-learn again") as caught:
        open_dataset("digits")
    assert str(path) in str(caught.value)


def test_a_folder_of_that_name_is_written_with_a_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert len(open_dataset("digits")[0]) == 1797
    with pytest.raises(DataError, match="holds no folders"):
        open_dataset("./digits")
