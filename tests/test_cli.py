"""The `minialex` command: what users type, what they read, and the exit code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file
from typer.testing import CliRunner, Result

from minialex.cli import app, training_script
from minialex.errors import DataError
from minialex.models import MODEL_NAMES
from minialex.train import TrainConfig
from minialex.train.arguments import picture_files
from minialex.version import __version__

Run = Callable[..., Result]
EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "train_flowers.py"


@pytest.fixture(scope="module")
def minialex() -> Run:
    def run(*arguments: object) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark and bright grey pictures, ten of each."""
    folder = tmp_path_factory.mktemp("photos")
    numbers = np.random.default_rng(0)
    for name, low in (("bright", 150), ("dark", 0)):
        (folder / name).mkdir()
        for i in range(10):
            pixels = numbers.integers(low, low + 100, (28, 28, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def trained(minialex: Run, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("runs") / "one"
    options = ["--data", photos, "--model", "lenet5", "--device", "cpu", "--epochs", 2, "--workers", 0]
    return out, minialex("train", *options, "--batch-size", 4, "--lr", 0.01, "--out", out)


def test_train(trained: tuple[Path, Result]) -> None:
    out, result = trained
    assert result.exit_code == 0, result.output
    assert "[epoch 2] train_loss: " in result.output
    assert "95 % interval" in result.output
    assert (out / "best.safetensors").exists()


def test_the_predict_command_that_training_suggests(trained: tuple[Path, Result], minialex: Run) -> None:
    _, result = trained
    command = result.output.strip().splitlines()[-1].split()
    assert minialex(*command[command.index("predict") :]).exit_code == 0


def test_resume(trained: tuple[Path, Result], minialex: Run) -> None:
    out, _ = trained
    result = minialex("train", "--resume", out, "--epochs", 3)
    assert result.exit_code == 0, result.output
    assert "[epoch 3]" in result.output
    assert "[epoch 2]" not in result.output
    result = minialex("train", "--resume", out, "--seed", 7)
    assert result.exit_code == 2
    assert "--seed 7: the run was begun with 0" in result.output


def test_predict(trained: tuple[Path, Result], minialex: Run, photos: Path) -> None:
    best = trained[0] / "best.safetensors"
    result = minialex("predict", best, photos / "dark" / "0.png")
    lines = result.output.splitlines()
    assert lines[0] == str(photos / "dark" / "0.png")
    assert [line.split()[1] for line in lines[1:3]] in (["dark", "bright"], ["bright", "dark"])
    assert float(lines[1].split()[0]) >= float(lines[2].split()[0])


def test_predict_folders_as_json(trained: tuple[Path, Result], minialex: Run, photos: Path) -> None:
    best = trained[0] / "best.safetensors"
    result = minialex("predict", best, photos, photos / "dark" / "0.png", "--json")
    answers = json.loads(result.output)
    assert len(answers) == 21
    assert answers[0]["image"] == str(photos / "bright" / "0.png")
    shares = [entry["probability"] for entry in answers[0]["predictions"]]
    assert sum(shares) == pytest.approx(1)


def test_predict_goes_on_after_a_bad_picture(
    trained: tuple[Path, Result], minialex: Run, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.jpg").write_text("no picture")
    result = minialex("predict", trained[0] / "best.safetensors", tmp_path, photos / "dark" / "0.png")
    assert result.exit_code == 3
    assert "bad.jpg" in result.stderr
    assert "dark/0.png" in result.stdout


def test_evaluate(trained: tuple[Path, Result], minialex: Run, photos: Path) -> None:
    best = trained[0] / "best.safetensors"
    result = minialex("evaluate", best, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "test accuracy: " in result.output
    figures = json.loads(minialex("evaluate", best, "--part", "all", "--data", photos, "--json").stdout)
    assert figures["pictures"] == 20
    assert np.trace(figures["confusion"]) == figures["correct"]


def test_summary(minialex: Run) -> None:
    text = minialex("summary", "lenet5", "--batch-size", 3).output
    assert "61,706" in text
    assert "the process, at batch 3" in text
    assert "14,591,685" in minialex("summary", "flowers", "--classes", 5).output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "--nonsense"], 2, "nonsense"),
        (["train", "--epochs", "many"], 2, "epochs"),
        (["train", "--epochs", "0"], 2, "--epochs must be at least 1"),
        (["train", "--model", "flower"], 2, "flowers"),
        (["train", "--data", "nowhere"], 3, "nowhere does not exist"),
        (["train", "--resume", "nowhere"], 4, "no such folder or checkpoint"),
        (["train", "--device", "cuda:99"], 5, "cuda:99"),
        (["predict", "nowhere.safetensors", "."], 4, "no checkpoint at nowhere.safetensors"),
        (["predict", "foreign.safetensors", "."], 4, "not a checkpoint of minialex"),
        (["predict", "broken.safetensors", "."], 4, "not a whole safetensors file"),
        (["evaluate", "nowhere.safetensors"], 4, "no checkpoint"),
        (["summary", "vgg"], 2, "lenet5"),
        (["summary", "lenet5", "--classes", "0"], 2, "--classes must be at least 1"),
        (["summary", "flowers", "--image-size", "20"], 2, "images of 20 x 20 are too small"),
        (["summary", "lenet5", "--image-size", "60"], 2, "28 x 28 only"),
        (["summary", "flowers", "--batch", "1000000000000000000"], 2, ""),
        (["train", "--model", "alexnet"], 2, "the AlexNets are called flowers, single, grouped, owt"),
        (["train", "--device", "tpu"], 5, "expected 'auto', 'cpu', 'cuda' or 'cuda:N'"),
        (["predict", "picture.png", "foreign.safetensors"], 2, "is a picture; the checkpoint comes first"),
        (["predict", "foreign.safetensors", "x" * 5000], 3, "File name too long"),
        (["predict", ".", "picture.png"], 4, "holds no best.safetensors"),
    ],
)
def test_mistakes(
    minialex: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (9, 9)).save("picture.png")
    save_file({"weight": np.zeros(1)}, "foreign.safetensors")
    Path("broken.safetensors").write_bytes(Path("foreign.safetensors").read_bytes()[:-3])
    result = minialex(*arguments)
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not Path("runs").exists() or not any(Path("runs").iterdir())


def test_unwritable_output(minialex: Run, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = minialex("train", "--data", photos, "--model", "lenet5", "--out", tmp_path / "file")
    assert result.exit_code == 7
    assert "a file stands where a folder is needed" in result.stderr


def test_an_older_run(trained: tuple[Path, Result], minialex: Run, photos: Path) -> None:
    result = minialex("train", "--data", photos, "--model", "lenet5", "--out", trained[0])
    assert result.exit_code == 7
    assert "already holds a run" in result.stderr


def test_which_pictures_are_meant(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    assert picture_files([tmp_path]) == [tmp_path / "a.png", tmp_path / "b.JPG"]
    # A file that is named is meant, whatever it is called.
    assert picture_files([tmp_path / "notes.txt"]) == [tmp_path / "notes.txt"]
    with pytest.raises(DataError, match="no picture or folder"):
        picture_files([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no pictures"):
        picture_files([tmp_path / "empty"])


def test_scripts_share_the_options() -> None:
    seen: list[TrainConfig] = []
    script = training_script(seen.append)
    result = CliRunner().invoke(script, ["--epochs", "10", "--no-augment"])
    assert result.exit_code == 0, result.output
    assert seen[0].epochs == 10
    assert not seen[0].augment
    assert seen[0].given == {"epochs", "augment"}
    assert seen[0].lr is None


def test_help_lists_every_option_of_a_run(minialex: Run) -> None:
    text = minialex("train", "--help").output
    for name in TrainConfig.__dataclass_fields__:
        assert name == "given" or f"--{name.replace('_', '-')}" in text


def test_module_and_version() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "minialex", "--version"],
        capture_output=True,
        text=True,
        check=True,
        cwd=EXAMPLE.parents[1],
    )
    assert result.stdout == f"minialex {__version__}\n"


INTERRUPTED = """
import os, signal, sys
class Finder:
    def find_spec(name, path, target=None):
        if name == "minialex.cli":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder)
sys.argv = ["minialex", "--version"]
"""


def test_ctrl_c_before_the_command_has_begun() -> None:
    start = "import runpy; runpy.run_module('minialex', None, '__main__')"
    result = subprocess.run(
        [sys.executable, "-c", INTERRUPTED + start], capture_output=True, text=True, env=environment()
    )
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "\nstopped\n")


@pytest.mark.parametrize("command", ["train", "predict", "evaluate", "summary", "profile", "doctor"])
def test_help_speaks_no_python(minialex: Run, command: str) -> None:
    text = minialex(command, "--help").output
    assert not re.search(r"[{}]|list\[", text)
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("command", ["train", "summary", "profile", "gradcheck"])
def test_help_names_every_model(minialex: Run, command: str) -> None:
    words = set(re.findall(r"[\w-]+", minialex(command, "--help").output))
    assert words >= set(MODEL_NAMES)


def test_the_example(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = [
        "--data",
        photos,
        "--model",
        "lenet5",
        "--device",
        "cpu",
        "--epochs",
        1,
        "--workers",
        0,
        "--out",
        out,
    ]
    result = subprocess.run(
        [sys.executable, str(EXAMPLE), *map(str, options)],
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert result.returncode == 0, result.stderr
    assert "test accuracy" in result.stdout
    assert "dark" in result.stdout.splitlines()[-1] + result.stdout.splitlines()[-2]


def environment() -> dict[str, str]:
    """Variables with which a script imports this minialex, installed or not."""
    import os

    paths = (str(EXAMPLE.parents[1]), os.environ.get("PYTHONPATH", ""))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
