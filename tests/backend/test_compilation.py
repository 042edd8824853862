"""What is compiled is told of, once; what lies on disk is not compiled again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]

TWO_FUNCTIONS = """
from minialex.backend import compilations, jit, on_compile

@jit
def inner(x):
    return x + 1

@jit
def outer(x):
    return 2 * inner(x)

told = []
with on_compile(told.append):
    assert outer(3) == 8
    assert outer(4) == 10
assert outer(1.5) == 5.0  # Another type: compiled as well, and nobody listens.
print([(c.name, c.seconds is None, c.kept) for c in told])
print([c.name for c in compilations()])
assert all(c.seconds > 0 for c in compilations())
"""

CALLER = """
from helper import inner
from minialex.backend import compilations, jit

@jit
def outer(x):
    return 2 * inner(x)

print(outer(3), [c.name for c in compilations()])
"""

# Every kernel that the models' training steps use.
TRAIN = """
import numpy as np
import minialex as mx
from minialex import models, ops, optim
from minialex.backend import compilations

for name, side in (("lenet5", 28), ("flowers", 67), ("single", 67)):
    model = models.build(name, 10, side).train()
    x = np.ones((2, model.channels, side, side), np.float32)
    for rule in (optim.Adam, optim.SGD):
        optimizer = rule(model.parameters(), lr=1e-3)
        optimizer.zero_grad()
        ops.cross_entropy(model(mx.Tensor(x)), np.array([0, 1])).backward()
        optimizer.step()
print([c.name for c in compilations()])
"""


def output_of(script: Path | str, **variables: str) -> list[str]:
    command = [sys.executable, "-W", "error", *(("-c", script) if isinstance(script, str) else (script,))]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "the library itself says nothing"
    return done.stdout.splitlines()


def test_every_compilation_is_told_of_and_a_part_counts_with_the_whole(tmp_path: Path) -> None:
    script = tmp_path / "functions.py"
    script.write_text(TWO_FUNCTIONS, encoding="utf-8")
    cache = str(tmp_path / "cache")
    told, compiled = output_of(script, NUMBA_CACHE_DIR=cache)
    assert told == "[('outer', True, True), ('outer', False, True)]"
    assert compiled == "['outer', 'outer']"
    told, compiled = output_of(script, NUMBA_CACHE_DIR=cache)
    assert (told, compiled) == ("[]", "[]"), "the second process found both on disk"


def test_what_no_folder_can_keep_is_told_of_as_such() -> None:
    """A function that came from no file: every process compiles it."""
    told, _ = output_of(TWO_FUNCTIONS)
    assert told == "[('outer', True, False), ('outer', False, False)]"


def test_a_second_process_compiles_nothing() -> None:
    output_of(TRAIN)
    assert output_of(TRAIN) == ["[]"]


def test_a_helper_that_changed_in_another_file_is_compiled_anew(tmp_path: Path) -> None:
    (tmp_path / "caller.py").write_text(CALLER, encoding="utf-8")
    answers = []
    for summand in (1, 1, 20):
        text = f"from minialex.backend import jit\n\n@jit\ndef inner(x):\n    return x + {summand}\n"
        if summand == 20 or not answers:
            (tmp_path / "helper.py").write_text(text, encoding="utf-8")
        answers.append(output_of(tmp_path / "caller.py", NUMBA_CACHE_DIR=str(tmp_path / "cache")))
    assert answers == [["8 ['outer']"], ["8 []"], ["46 ['outer']"]]
