"""The fixture that others test their own operations with."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytest_plugins = ("pytester",)

PROJECT = Path(__file__).resolve().parents[1]

TEST = """
import numpy as np
from minialex.cost import Cost
from minialex.tensor import Op
from minialex.testing import grid

class CubeOp(Op):
    '''y = x ** 3. Shapes: any -> the same.'''
    def shape(self, x): return x
    def cost(self, x, itemsize=4): return Cost.of(2 * int(np.prod(x)), x, x, itemsize=itemsize)
    def forward(self, x):
        self.save(x)
        return x * x * x
    def backward(self, dy): return ({factor} * self.saved[0] ** 2 * dy,)

def test_cube(check_op):
    result = check_op(CubeOp, [grid(2, 3)])
    assert result.relative_error < 1e-6
"""


def test_the_fixture_passes_an_honest_op(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TEST.replace("{factor}", "3"))
    pytester.runpytest_subprocess("-p", "minialex.pytest_plugin").assert_outcomes(passed=1)


def test_the_fixture_fails_a_wrong_one_with_the_report_and_no_traceback(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TEST.replace("{factor}", "2"))
    result = pytester.runpytest_subprocess("-p", "minialex.pytest_plugin")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["cube (2,3)", "*gradients: gradcheck: 6 of 6 elements have a wrong gradient"]
    )
    result.stdout.fnmatch_lines(["*likely fault: every element is 1.5 times too small*"])
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*During handling of*")
    result.stdout.no_fnmatch_line("*check.py:*")


def test_loading_it_costs_little() -> None:
    """Every run of pytest in the environment pays for it."""
    heavy = ("numba", "cupy", "matplotlib", "PIL", "rich", "typer", "minialex.testing", "minialex.cli")
    script = f"import sys, minialex.pytest_plugin; print([n for n in {heavy!r} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_pytest_is_told_of_it() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"minialex.pytest_plugin": "minialex.pytest_plugin"}
