"""Commands in messages are commands that work."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from minialex.train.commands import minialex_command, python_command, script_command


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in with an environment .venv, in which nothing but ls is on PATH."""
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("python", "minialex"):
        (programs / name).touch()
        (programs / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setattr(sys, "argv", ["examples/train_flowers.py", "--data", "drawn"])
    return programs


def test_python_below_the_working_folder(environment: Path) -> None:
    assert python_command() == ".venv/bin/python"
    assert script_command() == ".venv/bin/python examples/train_flowers.py"


def test_python_elsewhere(environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a b").mkdir()
    monkeypatch.chdir(tmp_path / "a b")
    assert python_command() == str(environment / "python")
    monkeypatch.setenv("PATH", str(environment))
    assert python_command() == "python"


def test_the_installed_command(environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert minialex_command() == ".venv/bin/minialex", "called by a script"
    monkeypatch.setattr(sys, "argv", [".venv/bin/minialex", "train"])
    assert minialex_command() == ".venv/bin/minialex", "not on PATH: as it was called"
    monkeypatch.setattr(sys, "argv", [str(environment / "minialex"), "train"])
    monkeypatch.setenv("PATH", str(environment))
    assert minialex_command() == "minialex"
    monkeypatch.setattr(sys, "argv", ["/some where/minialex", "train"])
    assert minialex_command() == "'/some where/minialex'", "another one is on PATH"
    monkeypatch.setattr(sys, "argv", ["/x/minialex/__main__.py", "train"])
    assert minialex_command() == ".venv/bin/python -m minialex"
