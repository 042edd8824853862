"""The examples run, and print what they promise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def output_of(name: str) -> str:
    command = [sys.executable, "-W", "error", str(EXAMPLES / name)]
    # From the checkout's root, and with the checkout's own package where none is installed.
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    done = subprocess.run(
        command, cwd=EXAMPLES.parent, env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert all(len(line) <= 110 for line in done.stdout.splitlines())
    return done.stdout


def test_the_chain_rule() -> None:
    text = output_of("01_chain_rule.py")
    cells = [line.split() for line in text.splitlines() if line.startswith("   d")]
    rows = [row[:3] for row in cells if len(row) == 4]
    assert rows == [["dx", "18", "18"], ["dw", "12", "12"], ["db", "6", "6"], ["dt", "-6", "-6"]]
    assert "sub  is handed   6 and passes back (6, -6)" in text
    assert "L falls from 9 to 2.25" in text


def test_convolution_by_hand() -> None:
    text = output_of("02_conv_by_hand.py")
    for number in range(1, 8):
        assert f"{number}. " in text
    # The filter at the top left of the picture, zeros left out.
    assert "y[0, 0] = 1*(1) + 0*(-1) + 4*(2) + 5*(-2) + 3*(3) = 8" in text
    assert text.count("equal, all") == 3


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_every_example_says_how_to_run_it(name: str) -> None:
    source = (EXAMPLES / name).read_text(encoding="utf-8")
    assert source.startswith('"""')
    assert f"python examples/{name}" in source
