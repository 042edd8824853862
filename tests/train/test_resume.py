"""A run that was stopped anywhere, by anything, and resumed ends with the bits of one that was not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stopping import StopAfter

from minialex.errors import CheckpointError, DataError, UsageError
from minialex.train import Interrupted, TrainConfig, load_checkpoint, train
from minialex.train import loop as loop_module
from minialex.train.report import nothing_left
from minialex.train.run_folder import LAST

Make = Callable[..., TrainConfig]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": "sgd", "lr": 0.01, "schedule": "plateau:0"},
        {"schedule": "cosine", "accumulate": 2, "clip_norm": 0.5},
    ],
)
def test_stopped_after_every_step(
    config: Make,
    reporter: Any,
    harness: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
) -> None:
    """Stopped after each step, after each validation batch, and after each epoch, until it is done."""
    train(config(**options, out=str(tmp_path / "unbroken")), reporter)
    codes: list[int] = []
    current = config(**options)
    # One look is let pass, so that each attempt gets one step or one batch further.
    monkeypatch.setattr(loop_module, "StopRequest", lambda: StopAfter(1))
    while True:
        try:
            train(current, reporter)
            break
        except Interrupted as stop:
            codes.append(stop.exit_code)
            assert len(codes) < 50, "the run gets nowhere"
            current = TrainConfig(resume=str(tmp_path / "run"))
    assert len(codes) >= 5
    assert set(codes) == {143}
    assert harness.fingerprint(tmp_path / "run") == harness.fingerprint(tmp_path / "unbroken")


def test_killed_at_random_moments(harness: Any, pictures: Path, tmp_path: Path) -> None:
    """The quick form of benchmarks/kill_and_resume.py: one run, killed three times."""
    seconds = harness.finish_run(pictures, tmp_path / "unbroken")
    choose = random.Random(1)
    moments = [seconds * choose.uniform(0.4, 0.95) for _ in range(3)]
    told = harness.trial(pictures, tmp_path / "run", moments)
    assert harness.fingerprint(tmp_path / "run") == harness.fingerprint(tmp_path / "unbroken"), told


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_says_how_to_go_on(
    harness: Any, pictures: Path, tmp_path: Path, number: int, code: int
) -> None:
    out = tmp_path / "a run"
    options = ["--data", pictures, "--model", "small", "--device", "cpu", "--workers", 1, "--out", out]
    arguments = ["minialex", "train", *map(str, options), "--epochs", "100000"]
    lines = [
        "import sys",
        "if __name__ == '__main__':",  # The loader's workers may import this file.
        f"    sys.path.insert(0, {str(Path(harness.__file__).parent)!r})",
        "    import kill_and_resume",
        "    from minialex.cli import main",
        "    kill_and_resume.use_small_net()",
        f"    sys.argv = {arguments!r}",
        "    main()",
    ]
    (tmp_path / "program.py").write_text("\n".join(lines))
    command = [sys.executable, str(tmp_path / "program.py")]
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=harness.child_environment(),
    ) as process:
        deadline = time.monotonic() + 60
        while not (out / "history.csv").exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        if process.poll() is None:
            os.killpg(process.pid, number)  # As a terminal does: to all processes of the run.
        _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "saved. Go on with:" in errors
    assert f"minialex train --resume '{out}'" in errors
    assert "Traceback" not in errors
    assert load_checkpoint(out / LAST).position.step > 0
    assert not left_behind(process.pid)


def left_behind(group: int, patience: float = 10) -> list[str]:
    """What still runs of a process group, once it has had some time to end."""
    deadline = time.monotonic() + patience
    while (running := list(members(group))) and time.monotonic() < deadline:
        time.sleep(0.05)
    return running


def members(group: int) -> Iterator[str]:
    """The /proc/N/stat lines of the processes in a group, without those that only wait to be counted."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            line = path.read_text()
        except OSError:  # It ended just now.
            continue
        state, _, its_group = line.rpartition(")")[2].split()[:3]
        if int(its_group) == group and state not in "ZX":
            yield line


def stopped(config: TrainConfig, reporter: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was stopped after three steps."""
    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "StopRequest", lambda: StopAfter(2))
        with pytest.raises(Interrupted, match=r"stopped at epoch 1, batch 3, saved"):
            train(config, reporter)
    return Path(str(config.out))


def test_other_pictures(config: Make, reporter: Any, harness: Any, tmp_path: Path, monkeypatch: Any) -> None:
    out = stopped(config(), reporter, monkeypatch)
    other = harness.make_pictures(tmp_path / "other", per_class=19)
    with pytest.raises(DataError, match="not those that the run was begun with: it had 60"):
        train(TrainConfig(resume=str(out), data=str(other)), reporter)


def test_the_same_pictures_elsewhere(
    config: Make, reporter: Any, harness: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    out = stopped(config(), reporter, monkeypatch)
    moved = harness.make_pictures(tmp_path / "moved")
    assert len(train(TrainConfig(resume=str(out), data=str(moved)), reporter).history) == 2


def test_another_machine_is_warned_of(config: Make, reporter: Any, monkeypatch: Any) -> None:
    out = stopped(config(), reporter, monkeypatch)
    monkeypatch.setattr("minialex.train.machine.processor", lambda: "another processor")
    train(TrainConfig(resume=str(out)), reporter)
    assert "another processor" in reporter.warnings[0]
    assert "its last digits may differ" in reporter.warnings[0]


def test_a_finished_run_only_reports_again(config: Make, reporter: Any, tmp_path: Path) -> None:
    first = train(config(epochs=1), reporter)
    (tmp_path / "run" / "confusion.png").unlink()
    again = train(TrainConfig(resume=str(tmp_path / "run")), reporter)
    assert again.accuracy == first.accuracy
    assert again.history == first.history
    assert (tmp_path / "run" / "confusion.png").exists()
    assert "the run has done all its 1 epochs" not in reporter.text
    assert "the run has done its only epoch; nothing left to train" in reporter.text
    assert "resuming" not in reporter.text


def test_nothing_left_to_train() -> None:
    said = nothing_left(20, TrainConfig(epochs=20))
    assert said == "the run has done all its 20 epochs; nothing left to train; raise --epochs to go on"
    assert "has done 20 epochs already, and --epochs asks for 5" in nothing_left(20, TrainConfig(epochs=5))
    said = nothing_left(20, TrainConfig(epochs=20, schedule="cosine"))
    assert said.endswith("--schedule cosine ends here, and more epochs need a new run")


def test_stopped_at_once(
    config: Make, reporter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second Ctrl-C, or one while a run to be resumed is being prepared."""

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop_module.Loop, "_step", interrupted)
        with pytest.raises(
            Interrupted, match=rf"stopped at once.*\n  flowers --resume {tmp_path}/run"
        ) as stop:
            train(config(), reporter, program="flowers")
    assert stop.value.exit_code == 130
    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "prepare", interrupted)
        with pytest.raises(Interrupted, match=rf"\n  flowers --resume {tmp_path}/run"):
            train(TrainConfig(resume=str(tmp_path / "run")), reporter, program="flowers")
        with pytest.raises(KeyboardInterrupt):
            train(config(), reporter)
    assert len(train(TrainConfig(resume=str(tmp_path / "run")), reporter).history) == 2


def test_more_epochs(config: Make, reporter: Any, harness: Any, tmp_path: Path) -> None:
    train(config(epochs=3, schedule="constant", out=str(tmp_path / "unbroken")), reporter)
    train(config(epochs=1, schedule="constant"), reporter)
    train(TrainConfig(resume=str(tmp_path / "run"), epochs=3), reporter)
    assert harness.fingerprint(tmp_path / "run") == harness.fingerprint(tmp_path / "unbroken")


def test_another_folder(config: Make, reporter: Any, tmp_path: Path, monkeypatch: Any) -> None:
    out = stopped(config(), reporter, monkeypatch)
    before = (out / LAST).read_bytes()
    result = train(TrainConfig(resume=str(out / LAST), out=str(tmp_path / "elsewhere")), reporter)
    assert result.out == tmp_path / "elsewhere"
    assert (out / LAST).read_bytes() == before


def test_another_folder_gets_the_best_network_too(config: Make, reporter: Any, tmp_path: Path) -> None:
    first = train(config(), reporter)
    moved = train(TrainConfig(resume=str(first.out), out=str(tmp_path / "elsewhere")), reporter)
    assert moved.checkpoint.read_bytes() == first.checkpoint.read_bytes()
    lone = tmp_path / "lone" / LAST
    lone.parent.mkdir()
    lone.write_bytes((first.out / LAST).read_bytes())
    if first.best_epoch == 2:
        assert train(TrainConfig(resume=str(lone)), reporter).accuracy == first.accuracy
    else:
        with pytest.raises(CheckpointError, match="the best so far; put it back"):
            train(TrainConfig(resume=str(lone)), reporter)


def test_what_cannot_be_resumed(config: Make, reporter: Any, tmp_path: Path, monkeypatch: Any) -> None:
    with pytest.raises(CheckpointError, match="no such folder or checkpoint"):
        train(TrainConfig(resume=str(tmp_path / "nowhere")), reporter)
    out = stopped(config(), reporter, monkeypatch)
    with pytest.raises(UsageError, match="--batch-size 9: the run was begun with 8"):
        train(TrainConfig(resume=str(out), batch_size=9), reporter)
    content = (out / LAST).read_bytes()
    (out / LAST).write_bytes(content[:-100])
    with pytest.raises(CheckpointError, match="cut short"):
        train(TrainConfig(resume=str(out)), reporter)
