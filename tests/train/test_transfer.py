"""Starting from weights of another run, and training only a part of a network."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stopping import StopAfter

from minialex import models
from minialex.errors import CheckpointError, UsageError
from minialex.models import weights as weights_module
from minialex.tensor import Event, observe
from minialex.train import Checkpoint, Interrupted, TrainConfig, load_checkpoint, save_checkpoint, train
from minialex.train import loop as loop_module
from minialex.train.networks import build_model, check_network, freeze_modules
from minialex.train.report import parameter_table
from minialex.train.run_folder import BEST, LAST
from minialex.train.setup import prepare

Make = Callable[..., TrainConfig]


@pytest.fixture
def trained(config: Make, reporter: Any, tmp_path: Path) -> Path:
    """The folder of a run of three classes, as it is after an epoch."""
    run = prepare(config(out=str(tmp_path / "first")), reporter)
    run.save(BEST)
    run.folder.close()
    return run.folder.path


@pytest.fixture
def two_classes(pictures: Path, tmp_path: Path) -> str:
    for name in ("dots", "plain"):
        shutil.copytree(pictures / name, tmp_path / "two" / name)
    return str(tmp_path / "two")


def begun(config: TrainConfig, reporter: Any) -> Checkpoint:
    """A new run before its first step."""
    run = prepare(config, reporter)
    run.folder.close()
    return load_checkpoint(run.folder / LAST)


# ------------------------------------------------------------------------------------------- --weights


def test_the_same_classes_take_everything(config: Make, reporter: Any, trained: Path) -> None:
    theirs = load_checkpoint(trained / BEST).weights
    for source in (trained, trained / BEST):  # A run's folder stands for its best network.
        mine = begun(config(weights=str(source), seed=5, overwrite=True), reporter).weights
        assert all(np.array_equal(mine[name], theirs[name]) for name in theirs)
        assert f"weights: from {trained / BEST}" in reporter.lines


def test_other_classes_take_all_but_the_last_layer(
    config: Make, reporter: Any, trained: Path, two_classes: str, tmp_path: Path
) -> None:
    theirs = load_checkpoint(trained / BEST).weights
    options = config(data=two_classes, weights=str(trained), seed=5)
    mine = begun(options, reporter).weights
    without = dataclasses.replace(options, weights=None, out=str(tmp_path / "without"))
    fresh = begun(without, reporter).weights
    for name in theirs:
        expected = fresh if name.startswith("classifier.4.") else theirs
        assert np.array_equal(mine[name], expected[name]), name
    assert (
        f"weights: from {trained / BEST}, all but classifier.4: it is for another number of classes there "
        "than the 2 here, and is learnt anew"
    ) in reporter.lines


@pytest.mark.parametrize("longer", ["{}", "module.{}"])
def test_other_classes_in_a_file_of_another_program(
    longer: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """DataParallel puts `module.` before all names, that of the last layer too."""
    from safetensors.numpy import save_file

    theirs = build_model(TrainConfig(model="lenet5", seed=1), 7, "cpu").state_dict()
    path = tmp_path / "seven.safetensors"
    save_file({longer.format(name): array for name, array in theirs.items()}, path)
    # A file may be a gigabyte: it is read once.
    read, times = weights_module.read_state_dict, []
    monkeypatch.setattr(weights_module, "read_state_dict", lambda file: times.append(file) or read(file))
    said: list[str] = []
    options = TrainConfig(model="lenet5", weights=str(path))
    mine = build_model(options, 10, "cpu", said.append).state_dict()
    fresh = build_model(TrainConfig(model="lenet5"), 10, "cpu").state_dict()
    for name, array in mine.items():
        expected = fresh if name.startswith("classifier.5.") else theirs
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
    assert times == [path]
    assert said == [
        f"weights: from {path}, all but classifier.5: it is for another number of classes there than the 10 "
        "here, and is learnt anew"
    ]


def test_a_new_last_layer_cannot_be_frozen(
    config: Make, reporter: Any, trained: Path, two_classes: str
) -> None:
    with pytest.raises(
        UsageError, match=r"the last layer, classifier\.4, begins anew, .* must be learnt; leave"
    ):
        prepare(config(data=two_classes, weights=str(trained), freeze="classifier"), reporter)
    run = prepare(config(weights=str(trained), freeze="classifier"), reporter)  # Of the same classes it can.
    run.folder.close()


def test_weights_that_cannot_be_used(config: Make, trained: Path, reporter: Any, tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("no weights at all")
    (tmp_path / "empty").mkdir()
    for weights, message in (
        (tmp_path / "nowhere.pth", "--weights .*nowhere.pth: there is no such file; check the path"),
        (tmp_path / "empty", "--weights .*empty: the folder .*empty holds no best.safetensors"),
        (tmp_path / "text.safetensors", "--weights .*text.safetensors is "),
    ):
        with pytest.raises(CheckpointError, match=message):
            train(config(weights=str(weights)), reporter)
    with pytest.raises(
        CheckpointError, match=r"(?s)--weights .*These are the weights of small: give --model small"
    ):
        train(config(weights=str(trained), model="lenet5"), reporter)
    assert not (tmp_path / "run").exists()


def test_weights_of_another_program_that_are_of_another_network(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"conv.weight": np.zeros((2, 3), np.float32)}, tmp_path / "other.safetensors")
    options = TrainConfig(model="lenet5", weights=str(tmp_path / "other.safetensors"))
    with pytest.raises(
        CheckpointError, match=r"(?s)--weights .*other.safetensors: .*features.0.weight"
    ) as told:
        build_model(options, 10, "cpu", lambda line: None)
    # Not all names of the network are listed.
    assert "classifier.5.bias" not in str(told.value)
    assert "unexpected (1): conv.weight" in str(told.value)


# -------------------------------------------------------------------------------------------- --freeze


def test_what_is_frozen_stays(config: Make, reporter: Any, trained: Path) -> None:
    result = train(config(weights=str(trained), freeze="features", optimizer="sgd", epochs=1), reporter)
    before, after = load_checkpoint(trained / BEST), load_checkpoint(result.out / LAST)
    for name in before.weights:
        same = np.array_equal(before.weights[name], after.weights[name])
        assert same == name.startswith("features."), name
    # The optimiser knows of nothing else: two layers, of a weight and a bias each.
    assert [name for name in after.optimizer_arrays if "." in name] == [f"momentum.{i}" for i in range(4)]
    assert "features.0.weight    6 x 3 x 5 x 5    450  frozen" in reporter.text
    assert "trained                             1,395" in reporter.text


def test_a_frozen_part_takes_no_time_backwards(config: Make, reporter: Any) -> None:
    phases: dict[str, list[str]] = {}

    def note(event: Event) -> None:
        phases.setdefault(event.phase, []).append(event.op.name)

    for freeze in (None, "features"):
        run = prepare(config(freeze=freeze, overwrite=True), reporter)
        run.folder.close()
        loop = loop_module.Loop(run, None, "", None)  # type: ignore[arg-type]
        batch = next(iter(loop.loader("train").epoch(1)))
        phases.clear()
        with observe(note):
            loop.stepper.add_gradients(batch, 0, 1.0, run.running)
        loop.close()
        learnt = {name for name, p in run.model.named_parameters() if p.grad is not None}
        assert ("conv2d" in phases["backward"]) == (freeze is None)
        assert ("features.0.weight" in learnt) == (freeze is None)
        assert {"conv2d", "linear"} <= set(phases["forward"])
        assert "classifier.2.weight" in learnt


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            "feature",
            "--freeze 'feature': the network has no such part .*; did you mean features[?] there are",
        ),
        (
            "features,head",
            "--freeze 'head': the network has no such part with parameters; there are features, ",
        ),
        (
            "features.1",
            "--freeze 'features.1': the network has no such part",
        ),  # A Sigmoid has nothing to freeze.
        ("", "--freeze '': the network has no such part"),
        ("features,classifier", "--freeze features,classifier leaves nothing to train"),
    ],
)
def test_freezing_what_is_not_there(names: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_network(TrainConfig(model="lenet5", freeze=names))


def test_the_pages_example_of_fine_tuning() -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    namespace: dict[str, Any] = {}
    exec(compile(block, "docs/training.md", "exec"), namespace)
    net, optimiser = namespace["net"], namespace["optimiser"]
    assert net.num_classes == 3
    assert {id(p) for p in optimiser.params} == {id(p) for p in net.classifier.parameters()}


def test_several_parts_can_be_frozen() -> None:
    model = models.lenet5()
    freeze_modules(model, "features.0, classifier.1")
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"features.0.weight", "features.0.bias", "classifier.1.weight", "classifier.1.bias"}
    trained = 61_706 - (6 * 25 + 6) - (400 * 120 + 120)
    assert parameter_table("lenet5", model).splitlines()[-1].split() == ["trained", f"{trained:,}"]


# ----------------------------------------------------------------------------------------- all together


def test_stopped_and_resumed_with_everything(
    config: Make, reporter: Any, harness: Any, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mean image, colour jitter, frozen convolutions, the paper's parts and rule: still the same bits."""
    options = {"weights": str(trained), "freeze": "features", "normalize": "mean-image", "pca_jitter": 0.1}
    options |= {"crops": "paper", "optimizer": "sgd", "sgd_rule": "paper", "schedule": "plateau-error:0"}
    options |= {"split_seed": 3, "lr": 1e-3, "momentum": 0.5, "weight_decay": 0.1}
    train(config(**options, out=str(tmp_path / "unbroken")), reporter)
    moved = tmp_path / "moved"
    stops = 0
    current = config(**options)
    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "StopRequest", lambda: StopAfter(4))
        while True:
            try:
                train(current, reporter)
                break
            except Interrupted:
                stops += 1
                if stops == 1:  # Neither the weights nor the mean are looked for again.
                    trained.rename(moved)
                current = TrainConfig(resume=str(tmp_path / "run"))
    assert stops >= 2
    assert harness.fingerprint(tmp_path / "run") == harness.fingerprint(tmp_path / "unbroken")
    arrays = [load_checkpoint(tmp_path / run / BEST).preprocessing_arrays for run in ("run", "unbroken")]
    assert arrays[0]["mean_image"].tobytes() == arrays[1]["mean_image"].tobytes()


def test_a_checkpoint_from_before_these_options(config: Make, reporter: Any, tmp_path: Path) -> None:
    """It has no such options, and goes on as it was begun."""
    train(config(epochs=1, schedule="constant"), reporter)
    last = tmp_path / "run" / LAST
    checkpoint = load_checkpoint(last)
    later = (
        "recipe split_seed dropout lrn pooling activation init sgd_rule normalize pca_jitter weights freeze"
    )
    older = {name: value for name, value in checkpoint.config.items() if name not in later.split()}
    assert len(older) == len(checkpoint.config) - 12
    save_checkpoint(last, dataclasses.replace(checkpoint, config=older))
    assert len(train(TrainConfig(resume=str(last), epochs=2), reporter).history) == 2
    options = json.loads((tmp_path / "run" / "config.json").read_text())["options"]
    assert (options["normalize"], options["sgd_rule"], options["freeze"]) == ("half", "torch", None)
