"""The code in README.md and CONTRIBUTING.md runs, and their links lead somewhere."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import minialex as mx

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


def test_the_operation_in_contributing_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    namespaces = []
    blocks = python_blocks("CONTRIBUTING.md")
    for name, block in zip(("minialex.kernels.clipping", "minialex.ops.clipping"), blocks, strict=True):
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(block, "CONTRIBUTING.md", "exec"), module.__dict__)
        namespaces.append(module)
    kernels, ops = namespaces
    x = np.linspace(-1.9, 1.9, 12).reshape(3, 4)
    results = {}
    for variant in ("reference", "array"):
        y, dx = np.empty_like(x), np.empty_like(x)
        kernels.clip_forward.variants[variant](x, y, -1.0, 0.5)
        kernels.clip_backward.variants[variant](x * x, x, dx, -1.0, 0.5)
        results[variant] = (y, dx)
    np.testing.assert_array_equal(results["reference"], results["array"])
    assert mx.gradcheck(lambda t: ops.clip(t, -1.0, 0.5), [mx.Tensor(x, requires_grad=True)])


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(document: str) -> None:
    text = (CHECKOUT / document).read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#]+)\)", text)
    named = re.findall(r"`((?:minialex|examples|tests|docs|benchmarks|kernels)/[\w./]*)`", text)
    made_up = {"minialex/kernels/clipping.py", "minialex/ops/clipping.py"}
    missing = [path for path in {*targets, *named} - made_up if not (CHECKOUT / path).exists()]
    assert missing == []
