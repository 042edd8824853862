"""benchmarks/gpu_check.py without a GPU: the dry run, what it finds, and how it outlives bad kernels."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
import time
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minialex.backend import to_device
from minialex.kernels.activations import relu_forward
from minialex.kernels.convolution import conv2d_backward, conv2d_forward
from minialex.kernels.max_pooling import max_pool2d_forward
from minialex.kernels.sgd import sgd_torch

CHECKOUT = Path(__file__).resolve().parents[1]
SCRIPTS = CHECKOUT / "benchmarks"
EMULATED = "cuda-emulated"
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts import one another by name."""
    monkeypatch.syspath_prepend(str(SCRIPTS))


def script(name: str) -> Any:
    return importlib.import_module(name)


def results(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What a section told in this process."""
    mark = script("gpu_check_worker").MARK
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(mark)]
    messages = [json.loads(line.removeprefix(mark)) for line in lines]
    return [message["result"] for message in messages if "result" in message]


def context(seconds: float = 600.0, **changes: Any) -> Any:
    return script("gpu_check_worker").Context(EMULATED, True, seconds, **changes)


# --------------------------------------------------------------------------------------------- the dry run


@needs_compiler
@pytest.mark.slow
def test_the_dry_run_is_right_and_leaves_nothing_out(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPTS / "gpu_check.py"), "--dry", "--out", str(tmp_path / "out.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "out.json").read_text())
    sections = {name: section["results"] for name, section in report["sections"].items()}
    assert list(sections) == list(script("gpu_check").SECTIONS)
    for name, found in sections.items():
        assert not [r for r in found if r["ok"] is False]
        assert name == "sanitizer" or any(r["ok"] for r in found)
        assert not any("no time" in r.get("note", "") for r in found)
    assert sections["kernels"][-1]["note"] == "every kernel was called"
    assert {r["kernel"] for r in sections["kernel-times"] if "kernel" in r} >= {"matmul", "sgd_torch"}
    assert {"copy", "fp32", "tf32", "bf16"} <= set(report["ceilings"])
    last = done.stdout.splitlines()
    assert any("nothing failed" in line for line in last[-2:])
    assert "every kernel" not in done.stderr
    assert len(done.stdout) < 12_000  # What is seen where only the end of an output is kept.


def test_help_and_mistakes() -> None:
    command = [sys.executable, str(SCRIPTS / "gpu_check.py")]
    done = subprocess.run([*command, "--only", "speed"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no such section: speed" in done.stderr


# ------------------------------------------------------------------------------------- what it would find


def planted(monkeypatch: pytest.MonkeyPatch, kernel: Any, wrong: Callable[..., None]) -> None:
    right = kernel.variants["cuda"]
    monkeypatch.setitem(kernel.variants, "cuda", lambda *args: wrong(right, *args))


def off_by_a_little(right: Any, x: Any, weight: Any, bias: Any, y: Any, *rest: Any) -> None:
    right(x, weight, bias, y, *rest)
    y.reshape(-1)[-1] *= y.dtype.type(1.001)


def unwritten(right: Any, x: Any, y: Any, argmax: Any, *rest: Any) -> None:
    before = argmax.reshape(-1)[-1:].copy()
    right(x, y, argmax, *rest)
    argmax.reshape(-1)[-1:] = before


def racing(right: Any, x: Any, y: Any) -> None:
    """The last bit of one element changes from run to run, within what rounding explains."""
    right(x, y)
    racing.runs = getattr(racing, "runs", 0) + 1  # type: ignore[attr-defined]
    if racing.runs % 2:  # type: ignore[attr-defined]
        y.reshape(-1)[:1] = np.nextafter(y.reshape(-1)[:1].get() + 1, np.inf).astype(y.dtype).view(type(y))


@needs_compiler
@pytest.mark.parametrize(
    ("kernel", "wrong", "note"),
    [
        (conv2d_forward, off_by_a_little, "conv2d_forward"),
        (max_pool2d_forward, unwritten, "max_pool2d_forward"),
        (relu_forward, racing, "two runs differ in their bits"),
    ],
)
def test_a_wrong_kernel_is_found_and_the_others_are_right(
    kernel: Any, wrong: Any, note: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planted(monkeypatch, kernel, wrong)
    script("gpu_check_kernels").check_kernels(context())
    found = results(capsys)
    failed = [r for r in found if r["ok"] is False]
    assert failed
    assert all(kernel.name in r["kernels"] for r in failed)
    assert note in failed[0]["note"]
    assert sum(r["ok"] is True for r in found) > 40


@needs_compiler
def test_a_kernel_that_raises_hides_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(right: Any, *args: Any) -> None:
        raise RuntimeError("no kernel image is available")

    planted(monkeypatch, conv2d_backward, broken)
    script("gpu_check_kernels").check_kernels(context())
    found = results(capsys)
    failed = [r for r in found if r["ok"] is False and "no kernel image" in r["note"]]
    assert failed
    assert all("conv2d" in r["label"] for r in failed)
    assert sum(r["ok"] is True for r in found) > 40


@needs_compiler
def test_a_step_that_is_off_or_not_the_same_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def shrinking(right: Any, weight: Any, grad: Any, velocity: Any, *rest: Any) -> None:
        right(weight, grad, velocity, *rest)
        calls.append(len(weight))
        weight *= weight.dtype.type(1 + 1e-2 * len(calls))

    together = sgd_torch.together

    def wrong(kernel: Any, many: Any) -> None:
        together(many)
        for call in many:
            shrinking(lambda *args: None, *call)

    monkeypatch.setattr(type(sgd_torch), "together", wrong)
    script("gpu_check_steps").check_step(context())
    failed = {r["label"] for r in results(capsys) if r["ok"] is False}
    assert {"lenet5 x 2, sgd, fp32", "lenet5 x 2, sgd, bits"} <= failed


def test_the_large_rows_fit_their_ops() -> None:
    rows = script("gpu_check_kernels").large_rows()
    assert len({label for label, _, _ in rows}) == len(rows) > 20
    for _, make, shapes in rows:
        assert all(extent >= 1 for extent in make().shape(*shapes))


# --------------------------------------------------------------------------- processes that die, or hang

WORKER = """
import json, os, sys, time
sys.path.insert(0, {scripts!r})
from gpu_check_worker import Context
job = json.loads(sys.argv[-1])
context = Context("cuda:0", True, job["seconds"], frozenset(job["skip"]), job["options"])
print("a line of its own")
context.run("first", lambda: {{"note": "right"}})
context.run("fails", lambda: 1 / 0)
context.run("dies", lambda: os._exit(3))
def sticky():
    raise RuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")
context.run("illegal", sticky)
context.run("again", lambda: {{"ok": "calm" in context.options, **({{}} if "calm" in context.options
                              else {{"again": "calm"}})}})
if {hangs}:
    context.run("hangs", lambda: time.sleep(600))
context.run("last", lambda: {{"note": f"after {{len(context.skip)}}"}})
"""


def section(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seconds: float, hangs: bool
) -> list[dict[str, Any]]:
    gpu_check = script("gpu_check")
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER.format(scripts=str(SCRIPTS), hangs=hangs))
    monkeypatch.setattr(
        gpu_check, "child_command", lambda job: [sys.executable, str(worker), json.dumps(job)]
    )
    monkeypatch.setattr(gpu_check, "GRACE", 0.0)
    options = argparse.Namespace(device="cuda:0", dry=True, verbose=False)
    return list(gpu_check.Section("kernels", time.monotonic() + seconds, options, {}).run())


def test_a_section_outlives_its_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = section(monkeypatch, tmp_path, 60.0, hangs=False)
    assert [(r["label"], r["ok"]) for r in found] == [
        ("first", True),
        ("fails", False),
        ("dies", False),
        ("illegal", False),
        ("again (calm)", False),
        ("again", True),
        ("last", True),
    ]
    notes = {r["label"]: r.get("note", "") for r in found}
    assert "ZeroDivisionError: division by zero" in notes["fails"]
    assert "the process died of it (3)" in notes["dies"]
    assert "an illegal memory access" in notes["illegal"]
    assert notes["last"] == "after 4"  # The last process had four labels behind it.
    out = capsys.readouterr().out
    assert "    a line of its own" in out
    assert "FAILED: fails: ZeroDivisionError" in out


def test_a_section_that_hangs_is_ended_and_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started = time.monotonic()
    found = section(monkeypatch, tmp_path, 3.0, hangs=True)
    assert time.monotonic() - started < 20
    by_label = {r["label"]: r for r in found}
    assert by_label["first"]["ok"] is True
    assert "took too long and was ended" in by_label["hangs"]["note"]
    assert found[-1]["ok"] is None
    assert "no time left" in found[-1]["note"]


def test_a_process_that_cannot_begin_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_check = script("gpu_check")
    code = "import sys; sys.exit('ImportError: no module cupy')"
    monkeypatch.setattr(gpu_check, "child_command", lambda job: [sys.executable, "-c", code])
    options = argparse.Namespace(device="cuda:0", dry=True, verbose=False)
    found = gpu_check.Section("kernels", time.monotonic() + 60, options, {}).run()
    assert [(r["label"], r["ok"]) for r in found] == [("kernels", False)]
    assert "no module cupy" in found[0]["note"]


def test_what_does_not_fit_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert not context(seconds=-1.0).run("late", dict)
    assert not context(seconds=30.0).run("long", dict, needs=60.0)
    assert [(r["label"], r["ok"], r["note"]) for r in results(capsys)] == [
        ("late", None, "no time left"),
        ("long", None, "no time left"),
    ]
    assert not context(skip=frozenset({"done"})).run("done", dict)
    assert results(capsys) == []


def test_a_result_is_always_json(capsys: pytest.CaptureFixture[str]) -> None:
    figures = {"nan": np.nan, "inf": np.float32(np.inf), "count": np.int64(3), "many": (np.float64(0.5),)}
    context().run("odd", lambda: {"figures": figures})
    assert results(capsys)[0]["figures"] == {"nan": "nan", "inf": "inf", "count": 3, "many": [0.5]}


# ------------------------------------------------------------------------------------- floors and times


def test_floors_follow_from_the_arguments() -> None:
    speed = script("gpu_check_speed")
    x, weight, bias = (np.ones(shape, np.float32) for shape in ((2, 6, 8, 8), (4, 3, 3, 3), (4,)))
    y = np.empty((2, 4, 8, 8), np.float32)
    where = ((1, 1), ((1, 1), (1, 1)), (1, 1), 2)
    forward = (x, weight, bias, y, *where, False)
    assert speed.flops_of(conv2d_forward, forward) == 2 * (2 * 4 * 8 * 8) * 27
    assert speed.bytes_of(conv2d_forward, forward) == 4 * (768 + 108 + 4 + 512)
    backward = (y, x, weight, None, x, weight, bias, *where)
    assert speed.flops_of(conv2d_backward, backward) == 2 * 2 * 512 * 27
    only_weight = (y, x, None, None, None, weight, bias, *where)
    assert speed.flops_of(conv2d_backward, only_weight) == 2 * 512 * 27
    # Weight and velocity are read and written, the gradient read: five times a parameter.
    flat = np.ones(100, np.float32)
    call = (flat, flat, flat, 0.01, 0.9, 0.0, False)
    assert speed.bytes_of(sgd_torch, call) == 5 * 400
    assert speed.bytes_of(sgd_torch, ([call, call],)) == 2 * 5 * 400


def test_copies_keep_their_layout() -> None:
    speed = script("gpu_check_speed")
    factor = np.arange(6.0).reshape(2, 3).T
    (again, name), number = speed.copied(((factor, "name"), 3))
    assert again.flags.f_contiguous
    assert not np.shares_memory(again, factor)
    np.testing.assert_array_equal(again, factor)
    assert (name, number) == ("name", 3)


def test_events_are_divided_by_the_calls_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for CuPy: its clock is the number of calls, half a millisecond each."""
    calls: list[Any] = []
    spins: list[Any] = []

    class Event:
        at = 0

        def record(self) -> None:
            self.at = len(calls)

        def synchronize(self) -> None:
            assert spins

    cuda = types.SimpleNamespace(
        Event=Event,
        get_elapsed_time=lambda first, last: 0.5 * (last.at - first.at),
        Device=lambda: types.SimpleNamespace(synchronize=lambda: None),
    )
    cupy = types.ModuleType("cupy")
    cupy.cuda = cuda  # type: ignore[attr-defined]
    cupy.RawKernel = lambda code, name: lambda *launch: spins.append(launch)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    watch = script("gpu_check_speed").Stopwatch("cuda:0")
    times = watch.measure(calls.append, repeats=4, rounds=3)
    assert times == pytest.approx([5e-4] * 3)
    assert calls == [0, 1, 2, 0, 1, 2, 3, *([0, 1, 2, 3] * 3)]
    assert len(spins) == 3


def test_engines_take_turns_and_one_that_fails_is_left_out() -> None:
    torch_script, order, failures = script("gpu_check_torch"), [], {}

    def engine(name: str, i: int) -> None:
        order.append(name)
        if name == "bad" and len(order) > 4:
            raise RuntimeError("out of memory")

    steps = {name: partial(engine, name) for name in ("good", "bad", "other")}
    times = torch_script.take_turns(steps, context(), failures)
    assert set(times) == {"good", "other"}
    assert failures == {"bad": "RuntimeError: out of memory"}
    assert order[-3:] == ["good", "bad", "other"]


# ------------------------------------------------------------------------------------------ what is said


def test_ratios_are_to_the_best_of_pytorch() -> None:
    report = script("gpu_check_report")
    row = {"ok": True, "label": "x", "model": "single", "batch": 128, "precision": "fp32"}
    eager = {**row, "seconds": {"minialex": 0.010, "torch eager": 0.016, "torch graph": 0.014}}
    compiled = {**row, "seconds": {"minialex": 0.011, "torch compile": 0.013}}
    text = report.steps_text([eager, compiled, {"ok": None, "label": "y", "note": "no time left"}])
    line = text.splitlines()[-1]
    assert line.split()[:4] == ["single", "x", "128,", "fp32"]
    assert line.split()[4:] == ["10.00", "16.00", "14.00", "13.00", "1.30", "x"]


def test_the_report_stays_short_and_ends_with_the_verdict() -> None:
    report_of = script("gpu_check_report").report_text
    wrong = [
        {"label": f"row {i} " + "x" * 200, "ok": False, "note": "off " * 200, "worst": "inf", "calls": 2}
        for i in range(300)
    ]
    left = [{"label": f"late {i}", "ok": None, "note": "no time left"} for i in range(300)]
    slow = [
        {
            "label": f"single x 128: kernel {i} {'(1,2,3)' * 20}, fp32",
            "ok": True,
            "precision": "fp32",
            "count": 1,
            "seconds": 1e-3 * i,
            "floor": "nan" if i == 7 else 5e-4,
            "times_floor": 2.0 * i,
            "bound": "memory",
        }
        for i in range(80)
    ]
    report = {
        "dry": False,
        "device": "cuda:0",
        "ceilings": {"copy": 4e12, "fp32": 5e13},
        "sections": {
            "kernels": {"seconds": 80.0, "results": wrong + left},
            "kernel-times": {"seconds": 50.0, "results": slow},
        },
    }
    text = report_of(report)
    assert len(text) < 12_000
    assert text.splitlines()[-1] == "gpu_check, cuda:0: 680 results in 130 s, 300 FAILED, 300 not run"
    assert "... and 284 more failures, in the JSON" in text
    assert "kernels, not run: no time left: late 0; late 1; late 2 and 297 more" in text


SANITIZER = """#!/bin/sh
echo "$GPU_CHECK_PLAIN_MEMORY $*" > {seen}
echo '@@gpu_check {{"result": {{}}}}'
echo "========= Invalid __global__ read of size 4 bytes"
echo "========= {summary}"
"""


@pytest.mark.parametrize(
    ("summary", "ok"),
    [("ERROR SUMMARY: 0 errors", True), ("ERROR SUMMARY: 3 errors", False), ("Device not supported", None)],
)
def test_what_compute_sanitizer_says(
    summary: str, ok: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a stand-in for it."""
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(SANITIZER.format(seen=tmp_path / "seen", summary=summary))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    options = argparse.Namespace(device="cuda:0", dry=False)
    found = script("gpu_check").sanitize(time.monotonic() + 60, options)
    assert [(r["label"], r["ok"]) for r in found] == [("memcheck", ok), ("racecheck", ok)]
    seen = (tmp_path / "seen").read_text()
    assert seen.startswith("1 --tool racecheck")
    assert '"dry": true' in seen
    assert ("Invalid __global__ read" in found[0]["note"]) == (ok is not True)


def test_without_a_device_the_rest_is_not_run() -> None:
    is_there = script("gpu_check").is_there
    assert not is_there([{"label": "minialex doctor", "doctor": {"facts": {"chosen": "none"}}}])
    assert is_there([{"label": "minialex doctor", "doctor": {"facts": {"chosen": "cuda:0"}}}])
    assert is_there([{"label": "minialex doctor", "ok": False, "note": "it raised"}])


def test_ceilings_are_the_best_of_each() -> None:
    found = [
        {"bytes_per_second": 3e12},
        {"precision": "fp32", "flops_per_second": 4e13},
        {"precision": "fp32", "flops_per_second": 5e13},
        {"ok": None, "note": "no time left"},
    ]
    assert script("gpu_check").ceilings_of(found) == {"copy": 3e12, "fp32": 5e13}


@needs_compiler
def test_poison_is_in_the_emulated_devices_memory() -> None:
    """What the check of kernels stands on."""
    from minialex.backend import empty

    x = to_device(np.ones(3, np.float32), EMULATED)
    assert np.isnan(empty((5,), x).get()).all()
