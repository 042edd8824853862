"""The code in README.md and CONTRIBUTING.md runs, and their links lead somewhere."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import minialex as mx
from minialex.backend import use_variant
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


def test_the_examples_of_the_page_on_devices_are_true() -> None:
    namespace: dict[str, object] = {}
    blocks = python_blocks("docs/cuda.md")
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, "docs/cuda.md", "exec"), namespace)


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


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "docs/cuda.md", "docs/emulator.md"])
def test_links_lead_somewhere(document: str) -> None:
    text = (CHECKOUT / document).read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#]+)\)", text)
    named = re.findall(r"`((?:minialex|examples|tests|docs|benchmarks|kernels)/[\w./]*)`", text)
    made_up = {"minialex/kernels/clipping.py", "minialex/ops/clipping.py"}
    folder = (CHECKOUT / document).parent
    missing = [path for path in named if path not in made_up and not (CHECKOUT / path).exists()]
    missing += [path for path in targets if "://" not in path and not (folder / path).exists()]
    assert missing == []


def test_the_readme_has_no_gaps() -> None:
    assert "TODO" not in (CHECKOUT / "README.md").read_text(encoding="utf-8")
