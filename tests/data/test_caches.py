"""Caches of decoded pictures: no bit changes, no budget is passed, and nothing damaged comes out."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from loader_datasets import Pictures
from PIL import ImageOps

import minialex
from minialex.data import (
    Compose,
    DiskCache,
    Greyscale,
    ImageFolder,
    Loader,
    MemoryCache,
    Normalize,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    disk_cache,
    memory_budget,
    parse_bytes,
    picture_cache,
)
from minialex.data.recipe import split_transform
from minialex.errors import UsageError

MakeFolder = Callable[..., Path]

AUGMENT = Compose([RandomResizedCrop(8), RandomHorizontalFlip(), Normalize((0.4, 0.5, 0.6), 0.3)])
TRANSFORMS = {
    "whole": AUGMENT,
    "fixed": Compose([Resize((6, 5)), Normalize()]),
    "grey": Compose([Greyscale(), RandomResizedCrop(8), Normalize()]),
}
ROOM = 10**6
DIGEST = "ab" * 32


def pixels(number: int, height: int = 10) -> Any:
    return np.full((height, 10, 3), number, np.uint8)


class Counted(ImageFolder):
    """A folder that counts how often it decodes."""

    way = "as ImageFolder does"
    loads = 0

    def load(self, index: int) -> Any:
        self.loads += 1
        return super().load(index)


class Inverted(ImageFolder):
    """A folder whose pictures a setting turns into negatives; it does not say so."""

    def __init__(self, root: Path, invert: bool) -> None:
        super().__init__(root)
        self.invert = invert

    def load(self, index: int) -> Any:
        picture = super().load(index)
        return ImageOps.invert(picture) if self.invert else picture


class Named(Inverted):
    """And one that says so."""

    @property
    def way(self) -> str:
        return f"inverted {self.invert}"


class Darker(Named):
    """Loads in another way and inherits the name of its parent's."""

    def load(self, index: int) -> Any:
        return super().load(index).point(lambda value: value // 2)


@pytest.fixture(params=["memory", "disk"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> MemoryCache | DiskCache:
    return MemoryCache(ROOM) if request.param == "memory" else DiskCache(tmp_path / "pictures", ROOM)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def batches(dataset: Any, transform: Any, cache: Any = None, **options: int) -> bytes:
    everything = range(len(dataset))
    with Loader(dataset, everything, transform, 5, shuffle=True, cache=cache, **options) as loader:
        return b"".join(batch.images.tobytes() for epoch in (1, 2) for batch in loader.epoch(epoch))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_bits_are_the_same_with_and_without(name: str, cache: Any, make_folder: MakeFolder) -> None:
    dataset = Counted(make_folder({"a": 6, "b": 7}))
    expected = batches(dataset, TRANSFORMS[name])
    dataset.loads = 0
    assert batches(dataset, TRANSFORMS[name], cache) == expected
    assert dataset.loads == 13  # of two epochs and a look at the first picture's shape
    assert batches(dataset, TRANSFORMS[name], cache, threads=3) == expected


@pytest.mark.parametrize("kind", [Inverted, Named])
def test_settings_and_a_load_of_its_own_never_meet_other_pictures(
    kind: type[Inverted], cache: Any, make_folder: MakeFolder
) -> None:
    root = make_folder({"a": 3, "b": 2})
    makers = [ImageFolder(root), kind(root, False), kind(root, True), Darker(root, False), Darker(root, True)]
    expected = [batches(dataset, AUGMENT) for dataset in makers]
    assert len(set(expected)) == 4, "not inverting is what an ImageFolder does"
    for _ in range(2):
        assert [batches(dataset, AUGMENT, cache) for dataset in makers] == expected


@pytest.mark.parametrize(("kind", "kept"), [(Inverted, 0), (Named, 5), (Darker, 5)])
def test_only_data_sets_that_say_how_they_load_are_kept(
    kind: type[Inverted], kept: int, make_folder: MakeFolder, tmp_path: Path
) -> None:
    dataset = kind(make_folder({"a": 3, "b": 2}), True)
    memory, disk = MemoryCache(ROOM), DiskCache(tmp_path / "pictures", ROOM)
    for cache in (memory, disk):
        batches(dataset, AUGMENT, cache)
    assert (len(memory), len(files(disk.folder))) == (kept, kept)


def test_workers_and_threads_share_a_disk_cache(make_folder: MakeFolder, tmp_path: Path) -> None:
    dataset = ImageFolder(make_folder({"a": 6, "b": 7}))
    cache = DiskCache(tmp_path / "pictures", ROOM)
    expected = batches(dataset, AUGMENT)
    assert batches(dataset, AUGMENT, cache, workers=2) == expected
    assert len(files(cache.folder)) == 13
    assert batches(dataset, AUGMENT, cache, threads=4) == expected


def test_workers_cannot_share_memory() -> None:
    with pytest.raises(UsageError, match="workers is 2, but other processes cannot see"):
        Loader(Pictures(4), range(4), AUGMENT, 2, workers=2, cache=MemoryCache(ROOM))


def test_a_budget_is_kept_and_the_rest_decoded(make_folder: MakeFolder, tmp_path: Path) -> None:
    dataset = Counted(make_folder({"a": 6, "b": 7}))
    expected = batches(dataset, AUGMENT)
    size = 26 * 20 * 3
    for cache in (MemoryCache(4 * size), DiskCache(tmp_path / "pictures", 4 * size + 200)):
        dataset.loads = 0
        assert batches(dataset, AUGMENT, cache) == expected
        used = cache.used if isinstance(cache, MemoryCache) else cache.used()
        assert 2 * size < used <= cache.budget
        assert 13 < dataset.loads < 26


def test_several_processes_stay_within_the_budget(tmp_path: Path) -> None:
    budget = 300 * 1000
    caches = [DiskCache(tmp_path, budget) for _ in range(4)]  # none knows of the others
    for number in range(600):
        caches[number % 4].keep(hashlib.sha256(b"%d" % number).hexdigest(), "way", pixels(number % 256, 33))
    assert budget * 0.9 < caches[0].used() <= budget + 3 * 1000


def test_a_disk_is_never_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    for free in (10**9, usage.total // 20):
        monkeypatch.setattr(disk_cache.shutil, "disk_usage", lambda _, f=free: usage._replace(free=f))
        cache = DiskCache(tmp_path / "pictures")
        cache.keep(DIGEST, "way", pixels(1))
        assert not cache.folder.exists()


def test_a_disk_that_cannot_be_written_to_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "pictures").write_text("a file where the folder should be")
    cache = DiskCache(tmp_path / "pictures", ROOM)
    cache.keep(DIGEST, "way", pixels(1))
    assert cache.read(DIGEST, "way") is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: b"",
        lambda data: data[:10],
        lambda data: data[:-5] + bytes([data[-5] ^ 1]) + data[-4:],
        lambda data: data[:8] + data[12:16] + data[8:12] + data[16:],  # height and width exchanged
        lambda data: bytes(len(data)),
    ],
)
def test_damage_is_noticed_and_mended(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, ROOM)
    cache.keep(DIGEST, "way", pixels(7, height=12))
    (file,) = files(tmp_path)
    file.write_bytes(damage(file.read_bytes()))
    assert cache.read(DIGEST, "way") is None
    assert not file.exists()
    cache.keep(DIGEST, "way", pixels(7, height=12))
    np.testing.assert_array_equal(cache.read(DIGEST, "way"), pixels(7, height=12), strict=True)


def test_a_file_under_another_name_is_no_picture(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, ROOM)
    cache.keep(DIGEST, "way", pixels(7))
    os.rename(cache.path(DIGEST, "way"), cache.path(DIGEST, "way").with_name("cd" * 31))
    assert cache.read(DIGEST[:2] + "cd" * 31, "way") is None


def test_a_picture_is_known_by_its_content_and_its_making(
    make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder({"a": 2, "b": 2})
    cache = DiskCache(tmp_path / "pictures", ROOM)
    batches(ImageFolder(root), AUGMENT, cache)
    assert len(files(cache.folder)) == 4
    batches(ImageFolder(root), TRANSFORMS["fixed"], cache)  # another fixed beginning
    assert len(files(cache.folder)) == 8
    shutil.copy(root / "a/000.png", root / "b/renamed.png")  # the same content
    (root / "b/001.png").write_bytes((root / "a/001.png").read_bytes())  # a changed file
    dataset = ImageFolder(root)
    assert batches(dataset, AUGMENT, cache) == batches(dataset, AUGMENT)
    assert len(files(cache.folder)) == 8
    monkeypatch.setattr(disk_cache, "pillow_version", f"{PIL.__version__}.1")
    assert DiskCache(cache.folder).read(dataset.digest(0), "way") is None
    batches(dataset, AUGMENT, DiskCache(cache.folder, ROOM))
    assert len(files(cache.folder)) == 11


def test_a_file_that_changes_after_the_audit_is_not_kept(make_folder: MakeFolder, cache: Any) -> None:
    root = make_folder({"a": 2, "b": 2})
    dataset = ImageFolder(root)
    shutil.copy(root / "a/000.png", root / "b/001.png")
    batches(dataset, AUGMENT, cache)
    held = [cache.read(dataset.digest(i), Loader(dataset, [0], AUGMENT, 1).recipe._way) for i in range(4)]
    assert [picture is None for picture in held] == [False, False, False, True]


def test_only_known_transforms_that_are_not_random_are_cached() -> None:
    class Own(Resize):
        pass

    resize, flip, normalize = Resize((6, 5)), RandomHorizontalFlip(), Normalize()
    grey = Greyscale()
    assert split_transform(Compose([grey, resize, normalize])) == ((grey, resize), (), None, normalize)
    assert split_transform(Compose([flip, resize, normalize])) == ((), (flip, resize), None, normalize)
    assert split_transform(Compose([Own(4), normalize])) == ((), (Own(4),), None, normalize)
    assert split_transform(normalize) == ((), (), None, normalize)
    assert split_transform(resize) == ((resize,), (), None, None)


def test_trimming_leaves_half_to_other_data_sets_and_the_newest_stay(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 3000)
    digests = [hashlib.sha256(b"%d" % number).hexdigest() for number in range(9)]
    for age, digest in enumerate(digests):
        cache.keep(digest, "way", pixels(age))
        os.utime(cache.path(digest, "way"), (10**9 - age, 10**9 - age))
    (tmp_path / "left.part").write_bytes(b"")
    os.utime(tmp_path / "left.part", (10**9, 10**9))
    (tmp_path / "new.part").write_bytes(b"")
    cache.trim(frozenset(digests[7:]))
    left = [number for number, digest in enumerate(digests) if cache.read(digest, "way") is not None]
    assert left == [0, 1, 2, 3, 7, 8]
    assert [path.name for path in tmp_path.glob("*.part")] == ["new.part"]


def test_many_threads_write_and_read_the_same_pictures(cache: Any) -> None:
    digests = [hashlib.sha256(b"%d" % number).hexdigest() for number in range(20)]
    wrong = []

    def work() -> None:
        for _ in range(10):
            for number, digest in enumerate(digests):
                found = cache.read(digest, "way")
                if found is None:
                    cache.keep(digest, "way", pixels(number))
                elif not np.array_equal(found, pixels(number)):
                    wrong.append(number)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert all(np.array_equal(cache.read(digest, "way"), pixels(n)) for n, digest in enumerate(digests))


WRITER = """
import sys
sys.path[:0] = [{package!r}]
import numpy as np
from minialex.data import DiskCache
cache = DiskCache({folder!r}, 10**8)
print("begun", flush=True)
while True:
    for number in range(50):
        digest = f"{{number:064x}}"
        cache.keep(digest, "way", np.full((300, 300, 3), number, np.uint8))
"""


def test_processes_write_at_once_and_one_is_killed(tmp_path: Path) -> None:
    package = str(Path(minialex.__file__).parents[1])
    script = WRITER.format(package=package, folder=str(tmp_path))
    writers = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "begun\n"
    cache, seen = DiskCache(tmp_path), 0
    deadline = time.monotonic() + 1.5
    while time.monotonic() < deadline:
        for number in range(50):
            found = cache.read(f"{number:064x}", "way")
            if found is not None:
                seen += 1
                assert found.shape == (300, 300, 3)
                assert (found == number).all()
    for writer in writers:
        writer.kill()
        writer.communicate()
    assert seen > 0
    for number in range(50):
        found = cache.read(f"{number:064x}", "way")
        assert found is None or (found == number).all()


def test_a_disk_cache_travels_to_a_worker(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, ROOM)
    cache.keep(DIGEST, "way", pixels(3))
    twin = pickle.loads(pickle.dumps(cache))
    np.testing.assert_array_equal(twin.read(DIGEST, "way"), pixels(3))
    assert (twin.folder, twin.budget) == (cache.folder, cache.budget)
    assert repr(twin) == f"324 B of 1.0 MB in {tmp_path}"


@pytest.mark.parametrize(
    ("text", "count"), [("2GB", 2 * 10**9), ("500 mb", 5 * 10**8), ("1.5gb", 1_500_000_000), ("12", 12)]
)
def test_sizes_in_words(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "0GB", "1e3", "2 apples", "nan"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="is no number of bytes"):
        parse_bytes(text)


def test_memory_is_never_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_cache, "available_memory", lambda: 4 * 10**9)
    assert (memory_budget(None), memory_budget(10**9), memory_budget(10**12)) == (10**9, 10**9, 3 * 10**9)
    monkeypatch.setattr(picture_cache, "available_memory", lambda: 10**12)
    assert memory_budget(None) == 2 * 10**9
    monkeypatch.setattr(picture_cache, "available_memory", lambda: None)
    assert (memory_budget(None), memory_budget(10**12)) == (2 * 10**9, 10**12)


def test_the_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_cache, "CGROUP", tmp_path)
    unlimited = picture_cache.available_memory()
    (tmp_path / "memory.current").write_text("6000000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert (unlimited is None) == (picture_cache.available_memory() is None)
    (tmp_path / "memory.max").write_text("10000000\n")
    assert picture_cache.available_memory() == 4_000_000


def test_a_cache_in_memory_can_be_cleared() -> None:
    cache = MemoryCache(ROOM)
    cache.keep(DIGEST, "way", pixels(1))
    assert len(cache) == 1
    cache.clear()
    assert (len(cache), cache.used, cache.read(DIGEST, "way")) == (0, 0, None)
    assert repr(MemoryCache(2 * 10**9)) == "in memory, up to 2.0 GB"
