"""A profile: every op in a row, rows that add up to the step, and work counted as the ops count it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from minialex import models
from minialex.cli import app
from minialex.train.ceilings import Ceilings, measure_ceilings
from minialex.train.profile_report import chrome_trace, profile_json, profile_text
from minialex.train.profiling import Profile, ProfileRow, profile_step

CEILINGS = Ceilings(flops=100e9, bytes=10e9, threads=2)


@pytest.fixture(scope="module")
def profile() -> Profile:
    return profile_step(models.build("lenet5"), "lenet5", batch=4, steps=3, warmup=1, ceilings=CEILINGS)


def row_of(profile: Profile, layer: str, phase: str) -> ProfileRow:
    (row,) = [row for row in profile.rows if row.layer.split("-")[0] == layer and row.phase == phase]
    return row


def test_rows_add_up_to_the_step(profile: Profile) -> None:
    assert sum(row.seconds for row in profile.rows) == pytest.approx(profile.seconds)
    names = [row.layer for row in profile.rows if not row.phase]
    assert names == ["input", "optimiser", "other"]
    assert all(row.seconds >= 0 for row in profile.rows if row.layer != "other")


def test_what_no_row_counts_is_little_and_nothing_is_counted_twice() -> None:
    """With one step no medians of different steps are added: what is left over cannot be negative but by
    counting twice. A small network's ops are short, and much of the step is Python between them."""
    model = models.build("lenet5")
    rests = []
    for _ in range(3):
        one = profile_step(model, batch=64, steps=1, warmup=1, ceilings=CEILINGS)
        rests.append(one.rows[-1].seconds / one.seconds)
    assert min(rests) >= -0.01
    assert min(rests) <= 0.4


def test_work_is_counted_by_the_ops_and_a_backward_for_each_gradient(profile: Profile) -> None:
    last = [row_of(profile, "classifier.5", phase) for phase in ("forward", "backward")]
    multiply_and_bias = 2 * 4 * 84 * 10
    assert last[0].flops in (multiply_and_bias, multiply_and_bias + 4 * 10)
    assert last[1].flops == 2 * last[0].flops
    first = [row_of(profile, "features.0", phase) for phase in ("forward", "backward")]
    assert first[1].flops == first[0].flops, "nobody asks for the gradient of the pictures"
    optimiser = next(row for row in profile.rows if row.layer == "optimiser")
    assert optimiser.bytes == 7 * 4 * 61_706, "Adam reads four arrays and writes three"


def test_the_nearer_ceiling_is_the_bound() -> None:
    busy = ProfileRow("a", "conv2d", "forward", 0.02, flops=10**9, bytes=10**7)
    assert busy.bound(CEILINGS) == "arithmetic"
    assert busy.shares_of_ceilings(CEILINGS) == pytest.approx((0.5, 0.05))
    moving = ProfileRow("b", "relu", "forward", 0.02, flops=10**6, bytes=10**8)
    assert moving.bound(CEILINGS) == "memory"
    assert ProfileRow("c", "reshape", "forward", 0.02, 0, 0).bound(CEILINGS) == ""


def test_the_ceilings_are_those_of_a_computer() -> None:
    ceilings = measure_ceilings(side=256, copy_bytes=2**20)
    assert 1e8 < ceilings.flops < 1e14
    assert 1e7 < ceilings.bytes < 1e14


def test_the_table_names_every_layer(profile: Profile) -> None:
    text = profile_text(profile)
    assert "lenet5, a training step of 4 pictures" in text
    for place in (r"features\.0", r"classifier\.5", r"- +cross_entropy", "optimiser", "other", "step"):
        assert re.search(rf"^{place}\b", text, re.MULTILINE), place
    assert max(map(len, text.splitlines())) <= 110


def test_the_trace_is_one_that_chrome_reads(profile: Profile) -> None:
    events = chrome_trace(profile)["traceEvents"]
    spans = [event for event in events if event["ph"] == "X"]
    lanes = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert {lanes[span["tid"]] for span in spans} == {"step", "input", "forward", "backward", "optimiser"}
    steps = [span for span in spans if lanes[span["tid"]] == "step"]
    assert len(steps) == 3
    for span in spans:
        assert span["dur"] >= 0
        inside = [s for s in steps if s["ts"] - 1 <= span["ts"] <= s["ts"] + s["dur"] + 1]
        assert len(inside) == 1, "in microseconds, within its step"


def test_json_holds_every_figure(profile: Profile) -> None:
    figures = json.loads(json.dumps(profile_json(profile)))
    assert figures["batch"] == 4
    assert sum(row["share"] for row in figures["rows"]) == pytest.approx(1)
    assert {row["bound"] for row in figures["rows"]} <= {"", "arithmetic", "memory"}


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from minialex.train import profiling

    monkeypatch.setattr(profiling, "measure_ceilings", lambda: CEILINGS)
    trace = tmp_path / "trace.json"
    options = ["profile", "lenet5", "--batch-size", "2", "--steps", "2"]
    result = CliRunner().invoke(app, [*options, "--trace", str(trace), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["steps"] == 2
    assert json.loads(trace.read_text())["traceEvents"]
    assert "a training step of 2 pictures" in CliRunner().invoke(app, options).stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["vgg"], "unknown model"),
        (["lenet5", "--steps", "0"], "--steps must be at least 1"),
        (["lenet5", "--device", "cuda"], "only steps on the CPU"),
        (["flowers", "--image-size", "20"], "too small"),
    ],
)
def test_what_cannot_be_profiled_is_said(options: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["profile", *options])
    assert result.exit_code == 2
    assert message in result.output


def test_a_model_is_in_the_mode_it_was_in_and_without_gradients(profile: Profile) -> None:
    model: Any = models.build("lenet5").eval()
    profile_step(model, batch=2, steps=1, warmup=0, ceilings=CEILINGS)
    assert not model.training
    assert all(p.grad is None and np.isfinite(p.data).all() for p in model.parameters())
