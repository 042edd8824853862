"""The examples run, and print what they promise."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from minialex import models, nn
from minialex.nn import init
from minialex.rng import Stream
from minialex.train import TrainConfig

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


# ---------------------------------------------------------------- experiments, at sizes that take seconds


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of twelve small pictures: noise, in which one colour is brighter than the others."""
    folder = tmp_path_factory.mktemp("coloured") / "pictures"
    for label, name in enumerate(("red", "green", "blue")):
        (folder / name).mkdir(parents=True)
        for number in range(12):
            pixels = Stream(0, "test", label, number).uniform(0, 120, (32, 32, 3))
            pixels[:, :, label] += 120
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


Run = Callable[..., str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run an example in this process, as a shell would: what it prints, or its error if `code` says so."""

    def as_script(name: str, *arguments: object, code: int = 0) -> str:
        monkeypatch.setattr("sys.argv", [f"examples/{name}", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        out, err = capsys.readouterr()
        assert end.value.code in ((0, None) if code == 0 else (code,)), err
        return out if code == 0 else err

    return as_script


def module_of(name: str) -> ModuleType:
    """An example as a module, without running it."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def is_picture(path: Path) -> bool:
    with Image.open(path) as image:
        return image.format == "PNG" and len(np.unique(np.asarray(image.convert("L")))) > 20


@pytest.mark.parametrize("model", ["lenet5", "lenet5-relu"])
def test_lenet_on_the_digits_that_need_no_network(run: Run, tmp_path: Path, model: str) -> None:
    out = tmp_path / "run"
    text = run(
        "train_lenet.py", "--model", model, "--limit", 200, "--epochs", 1, "--device", "cpu", "--out", out
    )
    assert f"{model}, all" in text
    assert "20 test digits are wrong; most often a " in text
    for name in ("mistakes.png", "history.png"):
        assert f": {out / name}" in text
        assert is_picture(out / name)
    config = json.loads((out / "config.json").read_text())["options"]
    assert (config["augment"], config["schedule"]) == (False, "cosine")


def test_lenet_learns_the_digits(run: Run, tmp_path: Path) -> None:
    """A third of the epochs of the defaults: far better than chance, or something is wrong with them."""
    options = ("--epochs", 7, "--device", "cpu", "--out", tmp_path)
    text = run("train_lenet.py", "--model", "lenet5-relu", *options)
    assert float(text.partition("test accuracy: ")[2].split()[0]) > 0.9


def test_the_help_of_lenet_shows_its_own_defaults(run: Run) -> None:
    text = " ".join(run("train_lenet.py", "--help").split())
    assert "[default: digits]" in text
    assert "[default: 0.003]" in text


def test_where_a_curve_meets_the_target() -> None:
    Curve = module_of("relu_vs_tanh").Curve
    curve = Curve("relu", 0.01, [0.9, 0.5, 0.2], 100, "25,000 pictures", 1.0)
    assert curve.epochs == [0.5, 1.5, 2.5]
    assert curve.epochs_to(0.25) == pytest.approx(1.5 + 0.25 / 0.3)
    assert curve.epochs_to(0.5) == 1.5
    assert curve.epochs_to(0.95) == 0.5
    assert curve.epochs_to(0.1) is None
    assert curve.says(0.25, curve) == "2.3 epochs"
    assert curve.says(0.1, curve) == "not reached in 3 epochs"


def test_what_is_said_of_curves_that_meet_the_target_and_of_others() -> None:
    module = module_of("relu_vs_tanh")
    fast = module.Curve("relu", 0.01, [0.5, 0.25, 0.1, 0.1, 0.1], 100, "25,000 pictures", 1.0)
    slow = module.Curve("tanh", 0.03, [0.9, 0.8, 0.7, 0.5, 0.25], 100, "25,000 pictures", 1.0)
    never = module.Curve("sigmoid", 0.1, [0.9, 0.9, 0.9, 0.9, 0.9], 100, "25,000 pictures", 1.0)
    text = module.compared([fast, slow, never], 0.25)
    assert "relu, rate 0.01: 1.5 epochs (" in text
    assert "tanh, rate 0.03: 4.5 epochs, 3.0 times as many as relu (" in text
    assert "sigmoid, rate 0.1: not reached in 5 epochs, more than 3.0 times as many as relu (" in text
    assert "times" not in module.compared([never, fast], 0.25)  # Nothing to compare with.


@pytest.mark.parametrize(
    ("target", "rate"),
    [(0.25, 0.03), (0.5, 0.01), (0.05, 0.03)],  # First at the target; so is another; neither: the lower end.
)
def test_of_two_rates_the_one_that_is_first_at_the_target_is_drawn(
    monkeypatch: pytest.MonkeyPatch, target: float, rate: float
) -> None:
    module = module_of("relu_vs_tanh")
    errors = {0.01: [0.8, 0.4, 0.35, 0.3], 0.03: [0.8, 0.6, 0.2, 0.1], 0.1: [0.9, 0.9, 0.01, 0.0]}

    def learnt(common: TrainConfig, lr: float, epochs: int) -> object:
        return module.Curve("relu", lr, errors[lr], 100, "25,000 pictures", 1.0)

    monkeypatch.setattr(module, "learn", learnt)
    curve, found = module.fastest(TrainConfig(activation="relu", epochs=4), list(errors), 2, target)
    assert curve.lr == rate
    assert found == {0.01: 0.4, 0.03: 0.6, 0.1: 0.9}  # The last one is out, whatever it might have done.


RELU_VS_TANH = ("--pictures", 36, "--epochs", 3, "--search-epochs", 1, "--device", "cpu", "--batch-size", 12)


def test_relu_against_tanh(run: Run, coloured: Path, tmp_path: Path) -> None:
    options = ("--data", coloured, *RELU_VS_TANH, "--activations", "relu,tanh", "--out", tmp_path)
    options = (*options, "--rates", "0.0001,0.01,0.03", "--target", 0.3)
    text = run("relu_vs_tanh.py", *options)
    assert text.count("in epoch 1\n") == 6
    assert f"the picture: {tmp_path / 'relu_vs_tanh.png'}" in text
    assert is_picture(tmp_path / "relu_vs_tanh.png")
    results = json.loads((tmp_path / "results.json").read_text())
    rows = list(csv.DictReader((tmp_path / "curves.csv").read_text().splitlines()))
    for curve in results["curves"]:
        name, rate = curve["activation"], curve["lr"]
        tried = {float(lr): error for lr, error in results["searches"][name].items()}
        best, second, _ = sorted(tried, key=lambda lr: tried[lr])
        assert f"{name} goes on with {best:g} and {second:g}" in text
        assert rate in (best, second)
        assert curve["errors"][0] == tried[rate]  # The curve is the search's own run, gone on with.
        assert curve["trained_on"] == 33
        own = [row for row in rows if row["activation"] == name]
        assert [float(row["epochs"]) for row in own] == [0.5, 1.5, 2.5]
        assert [float(row["training_error"]) for row in own] == pytest.approx(curve["errors"], rel=1e-5)
        config = json.loads((tmp_path / f"{name}-{rate:g}" / "config.json").read_text())["options"]
        regularisation = {"augment": False, "weight_decay": 0.0, "schedule": "constant", "lr": rate}
        assert {key: config[key] for key in regularisation} == regularisation
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/finished.json")}
    assert len(finished) == 6
    assert run("relu_vs_tanh.py", *options) == text
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


def test_a_rate_that_breaks_down_is_left_out(run: Run, coloured: Path, tmp_path: Path) -> None:
    options = ("--data", coloured, *RELU_VS_TANH, "--activations", "relu", "--out", tmp_path)
    error = run("relu_vs_tanh.py", *options, "--rates", "1e30", code=2)
    assert "relu broke down at every learning rate" in error
    text = run("relu_vs_tanh.py", *options, "--rates", "1e30,0.01")
    assert "relu, learning rate 1e+30: broke down" in text
    assert "relu goes on with 0.01, the last one tried on its side" in text


@pytest.mark.parametrize(
    ("option", "value"), [("--rates", "fast"), ("--activations", "elu"), ("--target", "25")]
)
def test_relu_against_tanh_says_what_it_cannot_use(
    run: Run, coloured: Path, tmp_path: Path, option: str, value: str
) -> None:
    error = run("relu_vs_tanh.py", "--data", coloured, option, value, "--out", tmp_path, code=2)
    assert value in error


def test_differences_are_seed_by_seed() -> None:
    module = module_of("ablation")
    accuracies = {
        "whole": [0.5, 0.6, 0.7],
        "without LRN": [0.51, 0.62, 0.73],
        "without dropout": [0.4, 0.5, 0.6],
    }
    assert module.differences(accuracies, "without LRN") == pytest.approx([1, 2, 3])
    assert module.half_width([1, 2, 3]) == pytest.approx(4.303 / math.sqrt(3), rel=1e-3)
    assert module.half_width([1]) == math.inf
    lines = module.as_table(accuracies, range(3)).splitlines()
    assert "60.0 %" in lines[2]
    assert lines[3].split("  ")[0] == "without LRN"
    assert "+2.0 ± 2.5" in lines[3]
    assert "+1.0, +2.0, +3.0" in lines[3]
    assert module.verdict(accuracies).endswith("larger than it:\n  without dropout worse")
    assert "One seed cannot tell" in module.verdict({"whole": [0.5], "without LRN": [0.9]})


def test_each_net_of_the_ablation_lacks_what_it_says() -> None:
    found = {}
    for name, config in module_of("ablation").NETS.items():
        options = {key: getattr(config, key) for key in ("dropout", "lrn", "pooling", "activation")}
        with init.without_init():
            layers = list(models.build(config.model, 5, **options).modules())
        norms = sum(isinstance(layer, nn.LocalResponseNorm) for layer in layers)
        windows = {layer.kernel_size for layer in layers if isinstance(layer, nn.MaxPool2d)}
        rates = {layer.p for layer in layers if isinstance(layer, nn.Dropout)}
        found[name] = (norms, windows, rates, config.augment)
    whole = (2, {(3, 3)}, {0.5}, True)
    assert found == {
        "whole": whole,
        "without LRN": (0, *whole[1:]),
        "without overlapping pooling": (2, {(2, 2)}, *whole[2:]),
        "without dropout": (*whole[:2], {0.0}, True),
        "without augmentation": (*whole[:3], False),
    }


def test_ablation(
    coloured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a small network in place of the flowers' one, which takes minutes."""
    module = module_of("ablation")
    small = TrainConfig(model="cifar-4")
    nets = {"whole": small, "without overlapping pooling": replace(small, pooling="separate")}
    monkeypatch.setattr(module, "NETS", nets)
    options = {
        "data": str(coloured),
        "pictures": 0,
        "seeds": 2,
        "epochs": 1,
        "device": "cpu",
        "out": tmp_path,
    }
    module.main(**options)
    text = capsys.readouterr().out
    assert "Trained on 27 of 36 pictures in 3 classes from pictures" in text
    assert "1 epoch; 6 test pictures" in text
    assert f"the picture: {tmp_path / 'ablation.png'}" in text
    assert is_picture(tmp_path / "ablation.png")
    kept = json.loads((tmp_path / "ablation.json").read_text())["accuracies"]
    assert {name: len(shares) for name, shares in kept.items()} == dict.fromkeys(nets, 2)
    splits = {(path.parent / "split.json").read_bytes() for path in tmp_path.glob("*/finished.json")}
    assert len(splits) == 1  # All seeds see the same photographs in the same parts.
    assert not list(tmp_path.glob("*/*.safetensors"))
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/finished.json")}
    module.main(**options)
    assert capsys.readouterr().out == text
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
