"""Who waits for a compiler is told so, once, and how long it took."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from minialex.backend import Compilation, compilation
from minialex.train import TrainConfig, train
from minialex.train.compiling import USUAL_SECONDS, CompileNotice
from minialex.train.step import Stepper


def compile_one(name: str, seconds: float, kept: bool = True) -> None:
    for told in (Compilation(name, None, kept), Compilation(name, seconds, kept)):
        for callback in list(compilation._callbacks):
            callback(told)


def test_two_lines_about_any_number_of_kernels() -> None:
    lines: list[str] = []
    with CompileNotice(lines.append) as notice:
        compile_one("relu", 1.25)
        compile_one("lrn", 2.5)
        notice.step_done()
        notice.step_done()
        compile_one("softmax", 0.5)
    compile_one("after the end", 1.0)
    first = f"compiling kernels for this machine, once: about {USUAL_SECONDS} s"
    assert lines == [first, "compiled 2 kernels in 3.8 s"]


def test_nothing_is_said_when_nothing_is_compiled() -> None:
    lines: list[str] = []
    with CompileNotice(lines.append) as notice:
        notice.step_done()
    assert lines == []


def test_what_is_compiled_in_a_later_step_is_told_of_too() -> None:
    lines: list[str] = []
    with CompileNotice(lines.append) as notice:
        notice.step_done()
        compile_one("relu", 1.0)
    assert lines[1:] == ["compiled 1 kernels in 1.0 s"]


def test_without_a_folder_for_compiled_kernels_the_line_says_what_to_do() -> None:
    lines: list[str] = []
    with CompileNotice(lines.append):
        compile_one("relu", 1.0, kept=False)
    assert "in every run" in lines[0]
    assert "NUMBA_CACHE_DIR" in lines[0]


def test_a_training_run_says_it_on_standard_error(
    config: Callable[..., TrainConfig],
    reporter: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    add_gradients = Stepper.add_gradients

    def add_and_compile(self: Stepper, *arguments: Any) -> None:
        compile_one("relu", 0.5)
        add_gradients(self, *arguments)

    monkeypatch.setattr(Stepper, "add_gradients", add_and_compile)
    train(config(epochs=1), reporter)
    said = capsys.readouterr()
    # The kernels of the small network itself may be compiled in this process, too.
    first, second = [line for line in said.err.splitlines() if "compil" in line]
    assert first.startswith("compiling kernels for this machine, once")
    assert second.startswith("compiled ")
    assert said.out == ""
