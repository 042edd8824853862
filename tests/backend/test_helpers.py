"""Compiled functions that call each other, across modules and processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import minialex

CALLER = """
from helper_module import doubled
from minialex.backend import jit

@jit
def work(x):
    return doubled(x) + 1

@jit
def more_work(x):
    return work(x) + 10
"""
HELPER = """
from minialex.backend import jit

@jit
def doubled(x):
    return x * {factor}
"""
SCRIPT = """
from caller_module import more_work
from minialex.backend import compilations
print(more_work(3), len(compilations()))
"""


def run(folder: Path) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(folder), str(Path(minialex.__file__).parents[1])]),
        "NUMBA_CACHE_DIR": str(folder / "cache"),
    }
    command = [sys.executable, "-W", "error", "-c", SCRIPT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_change_in_a_helpers_file_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "caller_module.py").write_text(CALLER)
    helper = tmp_path / "helper_module.py"
    helper.write_text(HELPER.format(factor=2))
    assert run(tmp_path) == "17 1"
    assert run(tmp_path) == "17 0", "what lies on disk must be found again"
    helper.write_text(HELPER.format(factor=200))
    assert run(tmp_path) == "611 1"
