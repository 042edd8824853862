"""The code in docs/interchange.md runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from minialex import models

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "interchange.md"


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[test]'")
    (block,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    exec(compile(block, str(DOCUMENT), "exec"), namespace)
    assert {path.name for path in tmp_path.iterdir()} == {"net.safetensors", "net.onnx"}
    net = namespace["net"]
    assert isinstance(net, models.LeNet)
    assert set(models.read_state_dict("net.safetensors")) == set(net.state_dict())
