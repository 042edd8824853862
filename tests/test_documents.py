"""The code in README.md and CONTRIBUTING.md runs, and their links lead somewhere."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import minialex as mx
from minialex.backend import cuda, cuda_source_dir, use_variant
from minialex.cli import app
from minialex.gradient_check.diagnosis import VERDICTS
from minialex.gradient_check.faults import KINDS
from minialex.testing import CheckError, cases, check_op, references
from minialex.testing.mutants import networks, planting

CHECKOUT = Path(__file__).resolve().parents[1]


def python_blocks(document: str) -> list[str]:
    text = (CHECKOUT / document).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def test_the_readmes_alexnet_trains(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = python_blocks("README.md")
    namespace: dict[str, object] = {"__name__": "readme"}
    exec(compile(block, "README.md", "exec"), namespace)
    losses = [float(line.split()[1]) for line in capsys.readouterr().out.splitlines()]
    assert len(losses) == 3
    assert np.isfinite(losses).all()
    assert sum(p.size for p in namespace["net"].parameters()) == 14_591_685  # type: ignore[attr-defined]


def test_the_examples_of_the_page_on_speed_are_true() -> None:
    namespace: dict[str, object] = {}
    blocks = python_blocks("docs/speed.md")
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "docs/speed.md", "exec"), namespace)


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is missing: the emulator cannot compile kernels")
def test_the_page_on_the_emulator_shows_what_its_examples_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (CHECKOUT / "docs/emulator.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (kernel,) = re.findall(r"^```cuda\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    Path("row_sums.cu").write_text(kernel, encoding="utf-8")
    shown = r"^```python\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?"
    blocks = re.findall(shown, text, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) > 8
    namespace: dict[str, object] = {}
    for block, printed in blocks:
        exec(compile(block, "docs/emulator.md", "exec"), namespace)
        assert capsys.readouterr().out == printed


@pytest.mark.emulator
def test_the_examples_of_the_page_on_devices_are_true() -> None:
    namespace: dict[str, object] = {}
    blocks = python_blocks("docs/cuda.md")
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, "docs/cuda.md", "exec"), namespace)


GRADIENT_CHECKS = "docs/gradient_checks.md"


def test_the_code_of_the_page_on_gradient_checks_holds() -> None:
    namespace: dict[str, object] = {"__name__": "page"}
    blocks = python_blocks(GRADIENT_CHECKS)
    assert len(blocks) == 5
    for block in blocks:
        exec(compile(block, GRADIENT_CHECKS, "exec"), namespace)


def consoles(document: str) -> list[tuple[str, list[str]]]:
    """Each command that a page shows, and the lines of its output that it shows."""
    text = (CHECKOUT / document).read_text(encoding="utf-8")
    shown = re.findall(r"^```console\n\$ (.*?)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return [(command, output.splitlines()) for command, output in shown]


@pytest.mark.parametrize(("command", "shown"), consoles(GRADIENT_CHECKS), ids=lambda value: str(value)[-40:])
def test_the_page_on_gradient_checks_shows_what_is_printed(
    command: str, shown: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Line by line; the last digits of an error are rounding, and differ between machines."""
    text = (CHECKOUT / GRADIENT_CHECKS).read_text(encoding="utf-8")
    files = re.findall(r"^```python homework\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    (tmp_path / "homework.py").write_text("\n\n".join(files), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    program, *words = command.split()
    assert program == "minialex"
    printed = [without_rounding(line) for line in CliRunner().invoke(app, words).stdout.splitlines()]
    for line in shown:
        if line != "...":
            assert without_rounding(line) in printed
            del printed[: printed.index(without_rounding(line)) + 1]


def test_the_readme_shows_the_same_report() -> None:
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    (report,) = re.findall(r"^```\n(gradcheck: .*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    assert report in (CHECKOUT / GRADIENT_CHECKS).read_text(encoding="utf-8")


def without_rounding(line: str) -> str:
    """The line without errors below 1e-7."""
    return re.sub(r"\b\d\.\d+e-(0[89]|1\d)\b", "...", line)


def test_the_page_on_gradient_checks_knows_every_fault_and_verdict() -> None:
    text = (CHECKOUT / GRADIENT_CHECKS).read_text(encoding="utf-8")
    first_cells = re.findall(r"^\| ([^|]+?) \|", text, flags=re.MULTILINE)
    assert set(first_cells) - {"verdict", "in brackets"} == {*KINDS, *VERDICTS}


def run_block(block: str, module: ModuleType) -> ModuleType:
    exec(compile(block, "CONTRIBUTING.md", "exec"), module.__dict__)
    return module


def extended(original: ModuleType, **names: object) -> ModuleType:
    """What a file of the package would be with more names in it, without touching the file."""
    module = ModuleType(original.__name__)
    module.__dict__.update({**vars(original), **names})
    return module


@pytest.fixture
def clipping(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Every piece of code that CONTRIBUTING.md shows for an operation, run where the page says it belongs."""
    kernel, op, reference, row, mutant = python_blocks("CONTRIBUTING.md")
    modules = []
    for name, block in (("minialex.kernels.clipping", kernel), ("minialex.ops.clipping", op)):
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        modules.append(run_block(block, module))
    kernels, ops = modules
    loops = run_block(reference, extended(references, clipping=kernels))
    rows = run_block(row, extended(cases, ClipOp=ops.ClipOp, references=loops))
    planted: list[planting.Mutant] = []
    monkeypatch.setattr(planting, "MUTANTS", planted)
    run_block(mutant, extended(networks, ClipOp=ops.ClipOp, clipping=kernels))
    return SimpleNamespace(kernels=kernels, ops=ops, cases=rows._clips(), mutants=planted)


def test_the_operation_in_contributing_passes_every_check(clipping: SimpleNamespace) -> None:
    (case,) = clipping.cases
    assert check_op(case).relative_error < 1e-8
    (x,), limits = case.inputs, case.params
    for part in (x < limits["low"], x > limits["high"], (limits["low"] < x) & (x < limits["high"])):
        assert part.any()
    y = clipping.ops.clip(mx.Tensor(x), **limits)
    np.testing.assert_array_equal(y.numpy(), np.clip(x, limits["low"], limits["high"]).astype(y.dtype))
    with pytest.raises(ValueError, match="low=1 must not be above high=0"):
        clipping.ops.clip(mx.Tensor(x), 1, 0)


def test_the_kernels_in_contributing_agree(clipping: SimpleNamespace) -> None:
    kernels, x = clipping.kernels, np.linspace(-1.9, 1.9, 12).reshape(3, 4)
    results = []
    for variant in ("reference", "array"):
        y, dx = np.empty_like(x), np.empty_like(x)
        with use_variant(variant):
            kernels.clip_forward(x, y, -1.0, 0.5)
            kernels.clip_backward(x * x, x, dx, -1.0, 0.5)
        results.append((y, dx))
    np.testing.assert_array_equal(results[0], results[1])


def test_the_planted_bug_in_contributing_is_caught(clipping: SimpleNamespace) -> None:
    (mutant,) = clipping.mutants
    with mutant.planted(), pytest.raises(CheckError, match="gradient"):
        check_op(clipping.cases[0])
    check_op(clipping.cases[0])


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is missing: the emulator cannot compile kernels")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_cuda_kernels_in_contributing_agree(
    dtype: Any, clipping: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (CHECKOUT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"^```cuda\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    (block,) = re.findall(r"^```python cuda\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    shutil.copy(cuda_source_dir() / "common.cuh", tmp_path)
    (tmp_path / "clipping.cu").write_text(source, encoding="utf-8")
    monkeypatch.setattr(cuda, "cuda_source_dir", lambda: tmp_path)
    variants = run_block(block, extended(clipping.kernels))
    x = np.linspace(-1.9, 1.9, 24, dtype=dtype).reshape(3, 8)[:, ::2]  # Not contiguous.
    for launch, wanted, inputs in (
        (variants.clip_cuda, clipping.kernels.clip_reference, (x,)),
        (variants.clip_backward_cuda, clipping.kernels.clip_backward_reference, (x * x, x)),
    ):
        got, right = np.full(x.shape, np.nan, dtype), np.empty(x.shape, dtype)
        launch(*inputs, got, -1, 0.5)
        wanted(*inputs, right, -1, 0.5)
        np.testing.assert_array_equal(got, right)


PAGES = tuple(sorted(path.stem for path in (CHECKOUT / "docs").glob("*.md")))


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", *(f"docs/{page}.md" for page in PAGES)])
def test_links_lead_somewhere(document: str) -> None:
    text = (CHECKOUT / document).read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#]+)\)", text)
    named = re.findall(r"`((?:minialex|examples|tests|docs|benchmarks|kernels)/[\w./]*)`", text)
    made_up = {"minialex/kernels/clipping.py", "minialex/ops/clipping.py", "kernels/clipping.cu"}
    made_up |= {"minialex/kernels/NAME.py", "kernels/NAME.cu"}  # What every such file is called.
    folder = (CHECKOUT / document).parent
    missing = [path for path in named if path not in made_up and not (CHECKOUT / path).exists()]
    missing += [path for path in targets if "://" not in path and not (folder / path).exists()]
    assert missing == []


def test_the_readme_has_no_gaps() -> None:
    assert "TODO" not in (CHECKOUT / "README.md").read_text(encoding="utf-8")
