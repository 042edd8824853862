"""Kernels are compiled when something has changed, and not otherwise; what is missing is said."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import minialex as mx
from minialex import ops
from minialex.backend import Compilation, on_compile
from minialex.emulator import building, run
from minialex.emulator.translation import find_entries, translate
from minialex.errors import DeviceError, KernelError, OutputError

SOURCE = '#include "two.cuh"\nextern "C" __global__ void number(Out<int> y) { y[0] = 10 * TWO; }\n'
HEADER = """
#define TWO {two}
typedef long long index_t;
template <class T> using Out = minialex::OutPointer<T>;
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel with a header of its own, and an empty cache."""
    monkeypatch.setenv("MINIALEX_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "kernels"
    folder.mkdir()
    (folder / "two.cuh").write_text(HEADER.format(two=2), encoding="utf-8")
    (folder / "number.cu").write_text(SOURCE, encoding="utf-8")
    return folder / "number.cu"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was compiled."""
    names, compile_ = [], building._compile

    def counting(compiler: str, text: str, source: Path, library: Path) -> None:
        names.append(library.name)
        compile_(compiler, text, source, library)

    monkeypatch.setattr(building, "_compile", counting)
    return names


def result(source: Path) -> int:
    y = np.zeros(1, np.int32)
    run("number", source, "number", 1, 1, [y])
    return int(y[0])


def test_a_header_that_changes_is_noticed(source: Path, compiled: list[str]) -> None:
    assert [result(source), result(source), len(compiled)] == [20, 20, 1]
    header = source.with_name("two.cuh")
    header.write_text(HEADER.format(two=3), encoding="utf-8")
    os.utime(header, ns=(1, 1))  # Even if the clock stands still.
    assert [result(source), len(compiled)] == [30, 2]
    header.write_text(HEADER.format(two=2), encoding="utf-8")
    assert [result(source), len(compiled)] == [20, 2]  # Found on disk.


def test_the_same_kernels_elsewhere_are_not_compiled_again(
    source: Path, compiled: list[str], tmp_path: Path
) -> None:
    assert result(source) == 20
    os.rename(source.parent, tmp_path / "moved")
    assert result(tmp_path / "moved" / "number.cu") == 20
    assert len(compiled) == 1


def test_other_flags_are_another_library(
    source: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    result(source)
    monkeypatch.setattr(building, "FLAGS", (*building.FLAGS, "-O0"))
    building._memory.clear()
    result(source)
    assert len(set(compiled)) == 2


def test_libraries_that_nobody_used_for_long_are_deleted(source: Path, tmp_path: Path) -> None:
    result(source)
    (library,) = (tmp_path / "cache" / "emulator").glob("*.so")
    old = library.stat().st_mtime - (building.KEPT_DAYS + 1) * 24 * 3600
    forgotten, kept = library.with_name("forgotten.so"), library.with_name("kept.so")
    for path in (forgotten, kept):
        path.write_bytes(b"")
    os.utime(forgotten, (old, old))
    source.write_text(SOURCE.replace("10", "100"), encoding="utf-8")
    assert result(source) == 200
    assert sorted(path.name for path in library.parent.iterdir()) == sorted(
        {kept.name, library.name, Path(building._memory[str(source), str(source.parent)][1].path).name}
    )


def test_no_compiler_says_what_to_install(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        DeviceError, match=r"no-such-compiler, which is not on PATH: install it .*apt install"
    ):
        result(source)
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(source.parent))
    with pytest.raises(DeviceError, match=r"g\+\+, which is not on PATH"):
        result(source)


def test_a_cache_that_cannot_be_written_to(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIALEX_CACHE", str(source))  # A file, where a folder should be.
    with pytest.raises(OutputError, match="Set MINIALEX_CACHE to a folder"):
        result(source)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match=r"nowhere.cu: there is no such file of kernels"):
        run("nowhere", tmp_path / "nowhere.cu", "f", 1, 1, [])


@pytest.mark.parametrize(
    ("declaration", "expected"),
    [
        ("__shared__ float a[4];", 'float, (4)> a(minialex_a, "a");'),
        ("__shared__ T a[N][M + 1];", 'T, (N), (M + 1)> a(minialex_a, "a");'),
        ("static __shared__ volatile unsigned int a [ 2 ] ;", 'unsigned int, (2)> a(minialex_a, "a");'),
        ("__shared__ __align__(16) double total;", 'double> total(minialex_total, "total");'),
        ("__shared__ Pair<A, B> a[f(2, 3)];", 'Pair<A, B>, (f(2, 3))> a(minialex_a, "a");'),
        ("__shared__ int a[4], b[8][2];", 'int, (8), (2)> b(minialex_b, "b");'),
        ("__shared__ int a\n    [4],\n    b;", 'int> b(minialex_b, "b");'),
    ],
)
def test_declarations_of_shared_memory(declaration: str, expected: str) -> None:
    text, _ = translate(f"before\n{declaration}\nafter\n")
    assert "__shared__" not in text
    assert f"::minialex::Shared<{expected}" in text
    # Lines stay where they were, behind the line that includes the emulator.
    assert text.split("\n").index("after") == 2 + declaration.count("\n") + 1


def test_kernels_are_found() -> None:
    text = """# 1 "kernels.cu"
        template <class T> __global__ void never(T x) {}
        template <class T, int N = (2 > 1)>
        __global__ void neither(T x) {}
        template __global__ void never<float>(float);
        extern "C" __global__ void first(const float *x, In<Pair<A, B>> pairs, int n[2]) {}
        extern "C" { int a() { return 0; } __global__ __launch_bounds__(8 * (2 + 2), 1) void second() {} }
        extern "C" void __global__ __launch_bounds__(64)
        third(const Table<Out<float>>& ys, index_t) {}
        extern "C" __global__ void fourth(int declared);
        __global__ void fourth(int declared) {}
    """
    entries = find_entries(text)
    assert [(e.name, e.bound) for e in entries] == [
        ("first", "0"),
        ("second", "8 * (2 + 2)"),
        ("third", "64"),
        ("fourth", "0"),
    ]
    assert [e.marker for e in entries] == [f'# {n} "kernels.cu"\n' for n in (5, 6, 7, 10)]
    assert entries[0].parameters == ("x", "pairs", "n")
    assert entries[1].parameters == ()


@pytest.mark.parametrize(
    "text",
    [
        "__global__ void f() {}",
        'extern "C" __global__ void e() {} __global__ void f() {}',
        'extern "C" { __global__ void e() {} } __global__ void f() {}',
        "static __global__ void __launch_bounds__(64) f(int n) {}",
    ],
)
def test_a_kernel_that_no_gpu_would_find_by_its_name(text: str) -> None:
    with pytest.raises(KernelError, match=r'^a.cu:7: kernel f needs extern "C" in front of __global__'):
        find_entries(f'# 7 "a.cu"\n{text}\n')


def test_who_listens_is_told_of_what_is_compiled(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, float | None]] = []
    monkeypatch.setattr(building, "build_listeners", [lambda *args: told.append(args)])
    result(source)
    (first, nothing), (second, seconds) = told
    assert (first, nothing, second) == ("number.cu", None, "number.cu")
    assert seconds is not None
    assert 0 < seconds < 100
    building._memory.clear()
    result(source)
    assert len(told) == 2  # Found on disk.
    source.write_text(SOURCE.replace("10", "nonsense"), encoding="utf-8")
    with pytest.raises(KernelError):
        result(source)
    assert [name for name, _ in told[2:]] == ["number.cu"] * 2


def test_a_program_hears_of_it_as_it_does_of_numbas_compilations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINIALEX_CACHE", str(tmp_path))
    monkeypatch.setattr(building, "_memory", {})
    told: list[Compilation] = []
    for _ in range(2):
        with on_compile(told.append), mx.use_variant("cuda"):
            ops.relu(mx.Tensor(np.ones(3)))
    assert [(c.name, c.seconds is None, c.kept) for c in told] == [
        ("activations.cu", True, True),
        ("activations.cu", False, True),
    ]
