"""What layers make of pictures: the right layer's numbers, for the right pictures, in the right order."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from minialex import models, nn, ops
from minialex.cli import app
from minialex.data import Loader, open_dataset
from minialex.errors import DataError, UsageError
from minialex.nn import init
from minialex.tensor import Tensor, no_grad
from minialex.train import Predictor, TrainResult, load
from minialex.train.features import (
    Notes,
    choose_layer,
    extract_features,
    last_hidden_layer,
    layer_outputs,
    part_indices,
    save_features,
)

Finished = tuple[TrainResult, object]


@pytest.fixture
def predictor(finished: Finished) -> Predictor:
    return load(finished[0].checkpoint)


@pytest.fixture
def files(pictures: Path) -> list[Path]:
    return sorted(pictures.rglob("*.png"))[::7]


def images_of(predictor: Predictor, files: list[Path]) -> np.ndarray:
    dataset, _ = open_dataset(files[0].parents[1], say=lambda text: None)
    numbers = {str(dataset.path(i)): i for i in range(len(dataset))}
    return np.stack([predictor.transform(dataset.load(numbers[str(file)])) for file in files])


def test_outputs_are_those_of_the_layers_one_by_one() -> None:
    """Also where the network runs fused: every layer is seen."""
    net = models.lenet5()
    x = np.random.default_rng(0).random((3, 1, 28, 28), dtype=np.float32)
    outputs = layer_outputs(net, x)
    assert list(outputs) == [*(f"features.{i}" for i in range(6)), *(f"classifier.{i}" for i in range(6))]
    value = Tensor(x)
    with no_grad():
        for name, layer in [*net.features.named_children(), *net.classifier.named_children()]:
            value = layer(value)
            part = "features" if value.ndim == 4 else "classifier"
            np.testing.assert_allclose(outputs[f"{part}.{name}"], value.numpy(), rtol=1e-5, atol=1e-6)
    assert net.fused


def test_outputs_leave_the_mode_alone_and_drop_nothing() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            self.first, self.dropout, self.last = nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.dropout(ops.relu(self.first(x))))

    net, x = Net(), np.ones((1, 4), dtype=np.float32)
    first, second = layer_outputs(net, x), layer_outputs(net, x)
    assert list(first) == ["first", "last"]
    np.testing.assert_array_equal(first["last"], second["last"])
    assert net.training
    assert net.dropout.training


def test_a_layer_that_runs_twice_is_listed_where_it_ran_last() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            self.layer, self.relu = nn.Linear(2, 2), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.relu(self.layer(x)))

    net = Net()
    x = np.array([[1.0, -1.0]], dtype=np.float32)
    outputs = layer_outputs(net, x)
    assert list(outputs) == ["relu", "layer"]
    with no_grad():
        np.testing.assert_array_equal(outputs["layer"], net(Tensor(x)).numpy())


@pytest.mark.parametrize(("name", "layer"), [("flowers", "classifier.5"), ("lenet5", "classifier.4")])
def test_the_last_hidden_layer(name: str, layer: str) -> None:
    with init.without_init():  # Which layers there are does not depend on their values.
        net = models.build(name)
    assert last_hidden_layer(net) == layer


def test_a_network_of_one_layer_has_no_hidden_one() -> None:
    net = nn.Sequential(nn.Linear(3, 2))
    net.channels, net.image_size = 1, 3
    with pytest.raises(UsageError, match="no layer before its last"):
        last_hidden_layer(net)


def test_a_wrong_layer_lists_the_layers(predictor: Predictor) -> None:
    assert choose_layer(predictor.model, "features") == "features"
    with pytest.raises(UsageError, match=r"no layer 'classifier.9'(.|\n)*classifier.3  ReLU, 24"):
        choose_layer(predictor.model, "classifier.9")
    with pytest.raises(UsageError, match=r"classifier.1 \(Dropout\) does nothing except in training"):
        choose_layer(predictor.model, "classifier.1")
    with pytest.raises(UsageError, match="no layer 'feat'"):  # The beginning of a name is none.
        choose_layer(predictor.model, "feat")


def test_features_of_files(predictor: Predictor, files: list[Path]) -> None:
    names, rows = extract_features(predictor, files)
    assert names == [str(file) for file in files]
    assert (rows.shape, rows.dtype) == ((len(files), 24), np.float32)
    outputs = layer_outputs(predictor.model, images_of(predictor, files))
    np.testing.assert_allclose(rows, outputs["classifier.3"], rtol=1e-5, atol=1e-6)
    # And what the last layer makes of them is what the network answers.
    last = predictor.model.classifier[4]
    with no_grad():
        shares = ops.softmax(last(Tensor(rows)), axis=-1).numpy()
    for file, row in zip(files, shares, strict=True):
        assert dict(predictor.predict(file)) == pytest.approx(
            dict(zip(predictor.classes, row.tolist(), strict=True)), abs=1e-5
        )


def test_features_of_a_loader_in_batches(predictor: Predictor, files: list[Path], pictures: Path) -> None:
    dataset, _ = open_dataset(pictures, say=lambda text: None)
    indices = [41, 3, 17, 8, 59]
    seen: list[tuple[int, int]] = []
    with Loader(dataset, indices, predictor.transform, 2) as loader:
        names, rows = extract_features(
            predictor, loader, "features.2", lambda done, count: seen.append((done, count))
        )
    assert names == [dataset.names[i] for i in indices]
    assert seen == [(2, 5), (4, 5), (5, 5)]
    alone = extract_features(predictor, [dataset.path(i) for i in indices], "features")[1]
    np.testing.assert_array_equal(rows, alone)
    assert rows.shape == (5, 54)  # Six maps of 3 x 3.


def test_a_bad_picture_is_named(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("no picture")
    with pytest.raises(DataError, match=r"bad\.png"):
        extract_features(predictor, [tmp_path / "bad.png"])


def test_parts_are_the_runs_own(finished: Finished, predictor: Predictor, pictures: Path) -> None:
    dataset, _ = open_dataset(pictures, say=lambda text: None)
    path = finished[0].checkpoint
    parts = [part_indices(predictor, path, dataset, part) for part in ("train", "validation", "test")]
    manifest = json.loads((path.parent / "split.json").read_text(encoding="utf-8"))["parts"]
    for part, indices in zip(("train", "validation", "test"), parts, strict=True):
        assert [dataset.names[i] for i in indices] == [entry["name"] for entry in manifest[part]]
    assert sorted(np.concatenate(parts)) == part_indices(predictor, path, dataset, "all").tolist()
    with pytest.raises(UsageError, match="--part must be one of"):
        part_indices(predictor, path, dataset, "some")


def test_notes_are_told_now_and_then() -> None:
    told: list[str] = []
    Notes(told.append, interval=60)(1, 2)
    assert told == []
    Notes(told.append, interval=0)(1000, 2000)
    assert told == ["1,000 of 2,000 pictures"]


def test_saved_features(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).random((3, 4), dtype=np.float32)
    save_features(tmp_path / "f.npy", rows, {"names": ["ä", "b", "c"]})
    np.testing.assert_array_equal(np.load(tmp_path / "f.npy"), rows)
    assert json.loads((tmp_path / "f.json").read_text(encoding="utf-8")) == {"names": ["ä", "b", "c"]}


# ------------------------------------------------------------------------------------------- the command


def command(*arguments: object) -> Result:
    result = CliRunner().invoke(app, ["features", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_the_command(finished: Finished, predictor: Predictor, tmp_path: Path) -> None:
    out = tmp_path / "test.npy"
    result = command(finished[0].out, "--part", "test", "--out", out, "--device", "cpu", "--batch-size", 4)
    assert result.exit_code == 0, result.output
    about = json.loads((tmp_path / "test.json").read_text(encoding="utf-8"))
    rows = np.load(out)
    assert list(rows.shape) == about["shape"] == [6, 24]
    assert (about["layer"], about["part"]) == ("classifier.3", "test")
    root = Path(about["data"])
    for name, label, row in zip(about["names"], about["labels"], rows, strict=True):
        assert name.startswith(about["classes"][label] + "/")
        np.testing.assert_allclose(
            extract_features(predictor, [root / name])[1][0], row, rtol=1e-5, atol=1e-6
        )


def test_the_command_on_other_pictures(finished: Finished, tmp_path: Path, pictures: Path) -> None:
    """Classes that the network does not know are no hindrance: no question is asked about them."""
    for name in ("dots", "new"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for file in sorted((pictures / "dots").iterdir())[:2]:
            (tmp_path / "data" / name / file.name).write_bytes(file.read_bytes())
    result = command(finished[0].out, tmp_path / "data", "--out", tmp_path / "f.npy", "--layer", "features.0")
    assert result.exit_code == 0, result.output
    assert np.load(tmp_path / "f.npy").shape == (4, 6 * 6 * 6)
    result = command(finished[0].out, tmp_path / "data", "--out", tmp_path / "f.npy", "--part", "test")
    assert result.exit_code == 3, result.output


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--layer", "fc7"], 2, "no layer 'fc7'"),
        (["--part", "some"], 2, "--part must be one of"),
        (["--batch-size", "0"], 2, "--batch-size must be at least 1"),
        (["--out", "features.csv"], 2, "--out must end in .npy"),
        (["--out", "nowhere/f.npy"], 7, "no folder nowhere"),
    ],
)
def test_mistakes(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], code: int,
    message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    result = command(finished[0].out.resolve(), *options)
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []
