"""The examples that show a trained network: they draw what the network says, and write where they say."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from minialex import models, nn, ops
from minialex.backend import to_numpy
from minialex.data import load_image
from minialex.errors import DataError
from minialex.rng import random_scope
from minialex.tensor import Tensor, no_grad
from minialex.train import Reporter, TrainConfig, load, train
from minialex.train.showing import Album, open_album

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
CLASSES = ("bright", "dark", "striped")


class Quiet(Reporter):
    def say(self, text: str = "") -> None:
        """Nothing."""


def example(name: str) -> ModuleType:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Dataclasses look themselves up.
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def filters() -> ModuleType:
    return example("filters")


@pytest.fixture(scope="module")
def similar() -> ModuleType:
    return example("similar")


@pytest.fixture(scope="module")
def top5() -> ModuleType:
    return example("top5")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty small pictures of each of three classes that differ at a glance."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    numbers = np.random.default_rng(0)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for i in range(20):
            pixels = numbers.integers(0, 100, (28, 28, 3), dtype=np.uint8)
            if name != "dark":
                pixels[:, :: 1 if name == "bright" else 4] += 150
            Image.fromarray(pixels).save(folder / name / f"{i:02d}.png")
    return folder


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run of LeNet-5. Not to be written to."""
    out = tmp_path_factory.mktemp("runs") / "lenet5"
    options = {"model": "lenet5", "device": "cpu", "epochs": 2, "batch_size": 8, "lr": 0.01, "workers": 0}
    train(TrainConfig(data=str(photos), out=str(out), **options), Quiet())  # type: ignore[arg-type]
    return out


@pytest.fixture(scope="module")
def album(run: Path) -> Album:
    return open_album(load(run), run / "best.safetensors")


def called(module: ModuleType, *arguments: object) -> Result:
    result = CliRunner().invoke(module.main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def drawn(path: Path) -> tuple[int, int]:
    """The size of a picture that shows something."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert len(np.unique(np.asarray(image.convert("L")))) > 20
        return image.size


# ----------------------------------------------------------------------------------------- what they share


@pytest.mark.parametrize("name", ["filters", "similar", "top5"])
def test_without_a_network_they_say_how_to_get_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    module = example(name)
    result = called(module)
    assert result.exit_code == 2
    assert "minialex train --data drawn" in result.stderr
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "best.safetensors").touch()
    result = called(module)
    assert result.exit_code == 2
    assert result.stderr.strip().endswith("runs/mine")
    assert list(tmp_path.iterdir()) == [tmp_path / "runs"]


@pytest.mark.parametrize("name", ["filters", "similar", "top5"])
def test_what_cannot_be_used_is_said_without_a_traceback(name: str, run: Path, tmp_path: Path) -> None:
    module = example(name)
    result = called(module, tmp_path / "nowhere.safetensors")
    assert (result.exit_code, "no checkpoint" in result.stderr) == (4, True)
    result = called(module, run, "--out", tmp_path / "nowhere" / "picture.png")
    assert (result.exit_code, "nowhere" in result.stderr) == (7, True)
    assert list(tmp_path.iterdir()) == []


def test_a_script_runs_as_a_script(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["examples/top5.py", str(run), "--out", "top5.png"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(EXAMPLES / "top5.py"), run_name="__main__")
    assert end.value.code == 0
    assert capsys.readouterr().out.splitlines()[-1] == "written to top5.png"
    drawn(tmp_path / "top5.png")


def test_an_album_keeps_training_pictures_apart(run: Path, photos: Path, album: Album) -> None:
    assert not set(album.known) & set(album.fresh)
    assert (len(album.known), len(album.fresh)) == (48, 6)
    assert (album.known_words, album.fresh_words) == ("training pictures", "test pictures")
    few = album.limited(5, seed=0)
    assert len(few.known) == 5
    assert set(few.known) <= set(album.known)
    assert album.limited(1000, seed=0) is album


def test_an_album_of_other_pictures_says_so(run: Path, photos: Path, tmp_path: Path) -> None:
    for name in CLASSES[:2]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes((photos / name / "00.png").read_bytes())
    said: list[str] = []
    album = open_album(load(run), run / "best.safetensors", str(tmp_path), said.append)
    assert album.known.tolist() == album.fresh.tolist() == [0, 1]
    assert len(said) == 1
    assert "not the pictures of the network's run" in said[0]


def test_an_album_whose_pictures_have_changed(photos: Path, run: Path, tmp_path: Path) -> None:
    predictor = load(run)
    predictor.checkpoint.config["data"] = str(tmp_path)
    (tmp_path / "one").mkdir()
    with pytest.raises(DataError):
        open_album(predictor, run / "best.safetensors")


# --------------------------------------------------------------------------------------------- top5.py


def test_top5_shows_what_the_network_says(top5: ModuleType, run: Path, album: Album) -> None:
    predictor = load(run)
    answers = top5.answers_to_album(predictor, album, 4, seed=1)
    assert len(answers) == 4
    names = {str(album.dataset.names[i]) for i in album.fresh}
    for answer in answers:
        (file,) = [n for n in names if np.array_equal(load_image(album.dataset.root / n), answer.picture)]
        assert answer.truth == file.split("/")[0]
        assert dict(answer.prediction) == pytest.approx(
            dict(predictor.predict(album.dataset.root / file)), abs=1e-6
        )
    again = top5.answers_to_album(predictor, album, 4, seed=1)
    assert [a.truth for a in again] == [a.truth for a in answers]


def test_top5_of_own_photographs(top5: ModuleType, run: Path, photos: Path, tmp_path: Path) -> None:
    stray = tmp_path / "stray.png"
    stray.write_bytes((photos / "dark" / "00.png").read_bytes())
    files = [photos / "dark" / "00.png", stray]
    answers = top5.answers_to_files(load(run), files)
    assert [answer.truth for answer in answers] == ["dark", None]
    result = called(top5, run, *files, "--out", tmp_path / "out.png")
    assert result.exit_code == 0, result.output
    assert "of 1 photographs" in result.stdout
    drawn(tmp_path / "out.png")
    assert called(top5, run, tmp_path / "none.png", "--out", tmp_path / "out.png").exit_code == 3


def test_top5_draws_the_right_label_in_another_colour(
    top5: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With more than five labels the five most probable are shown, and the right one may be missing."""
    sheets: list[SimpleNamespace] = []
    monkeypatch.setattr(top5, "save", lambda sheet, path: sheets.append(sheet))
    names = tuple(f"class {i}" for i in range(7))
    shares = (0.4, 0.2, 0.15, 0.1, 0.08, 0.05, 0.02)
    prediction = top5.Prediction(names, shares)
    picture = Image.new("RGB", (9, 5))
    truths = ["class 1", "class 6", None]
    top5.draw(tmp_path / "x.png", [top5.Answer(picture, truth, prediction) for truth in truths], "title")
    charts = [axes for axes in sheets[0].axes if axes.patches]
    widths = [[bar.get_width() for bar in axes.patches] for axes in charts]
    assert widths == [list(shares[:5])] * 3
    colours = [[bar.get_facecolor() for bar in axes.patches] for axes in charts]
    assert [len(set(chart)) for chart in colours] == [2, 1, 1]
    assert colours[0].count(colours[0][1]) == 1
    assert [axes.get_title() for axes in charts] == ["class 1", "class 6", "?"]


# ------------------------------------------------------------------------------------------ similar.py


def test_nearest_by_euclidean_distance(similar: ModuleType) -> None:
    rows = np.array([[3.0, 4.0], [0.0, 1.0], [0.0, 0.0], [0.0, -1.0], [6.0, 8.0]], dtype=np.float32)
    query = similar.Query(Image.new("RGB", (1, 1)), None, "q", "copy", np.zeros(2, np.float32))
    found = similar.nearest(query, rows, ["a", "b", "copy", "d", "e"], 3)
    assert [(n.index, n.distance) for n in found] == [(1, 1.0), (3, 1.0), (0, 5.0)]


def test_one_of_each_class_in_turn(similar: ModuleType) -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    shuffled = np.array([4, 1, 0, 3, 2, 5])
    assert similar.one_of_each(labels, shuffled, 3).tolist() == [1, 4, 5]
    assert similar.one_of_each(labels, shuffled, 5).tolist() == [1, 0, 4, 3, 5]
    assert sorted(similar.one_of_each(labels, shuffled, 99).tolist()) == [0, 1, 2, 3, 4, 5]


def test_similar_finds_the_very_photograph(
    similar: ModuleType, run: Path, album: Album, photos: Path, tmp_path: Path
) -> None:
    """A training photograph with one pixel changed is nearest to itself; and not at all if nothing is."""
    name = album.dataset.names[int(album.known[7])]
    with Image.open(photos / name) as image:
        changed = image.copy()
    changed.putpixel((0, 0), (90, 90, 90))
    changed.save(tmp_path / "changed.png")
    files = [tmp_path / "changed.png", photos / name]
    result = called(similar, run, *files, "--neighbours", 2, "--out", tmp_path / "similar.png")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == str(files[0])
    assert lines[1].split()[1] == name
    own = lines.index(str(files[1]))
    assert name not in " ".join(lines[own + 1 : own + 3])
    drawn(tmp_path / "similar.png")


def test_similar_asks_about_new_photographs(
    similar: ModuleType, run: Path, album: Album, tmp_path: Path
) -> None:
    out = tmp_path / "similar.png"
    result = called(similar, run, "--queries", 3, "--limit", 20, "--out", out)
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stdout.splitlines() if ".png" in line and str(out) not in line]
    asked = [line for line in lines if not line.startswith(" ")]
    found = [line.split()[1] for line in lines if line.startswith(" ")]
    assert [name.split("/")[0] for name in asked] == list(CLASSES)
    assert len(found) == 3 * 6
    fresh, known = ({album.dataset.names[i] for i in part} for part in (album.fresh, album.known))
    assert set(asked) <= fresh
    assert set(found) <= known
    distances = [float(line.split()[0]) for line in lines if line.startswith(" ")]
    assert all(distances[i : i + 6] == sorted(distances[i : i + 6]) for i in (0, 6, 12))
    drawn(out)
    assert called(similar, run, "--layer", "fc7", "--out", out).exit_code == 2


# ------------------------------------------------------------------------------------------ filters.py


class Towers(nn.Module):
    """A first layer of eight filters, whose halves go two ways."""

    image_size, channels = 12, 3

    def __init__(self) -> None:
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 3, groups=2), nn.ReLU()
        )
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


def test_shades_of_filters(filters: ModuleType) -> None:
    weights = np.zeros((2, 3, 1, 2), dtype=np.float32)
    weights[0, 0] = [[2.0, -1.0]]
    weights[1, 2] = [[0.0, -0.5]]
    alone, together = filters.as_shades(weights, "filter"), filters.as_shades(weights, "all")
    assert alone.shape == (2, 1, 2, 3)
    np.testing.assert_array_equal(alone[0, 0, :, 0], [1.0, 0.25])
    np.testing.assert_array_equal(alone[1, 0, :, 2], [0.5, 0.0])
    np.testing.assert_array_equal(together[1, 0, :, 2], [0.5, 0.375])
    np.testing.assert_array_equal(alone[:, :, :, 1], 0.5)


def test_two_towers_are_drawn_apart(
    filters: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sheets: list[SimpleNamespace] = []
    monkeypatch.setattr(filters, "save", lambda sheet, path: sheets.append(sheet))
    for model in (Towers(), models.lenet5()):
        filters.draw_filters(tmp_path / "x.png", filters.first_filters(model), "title", "filter")
    towers, whole = ([axes.get_title() for axes in sheet.axes] for sheet in sheets)
    assert towers == ["tower 1: filters 1 to 4", "tower 2: filters 5 to 8"]
    assert whole == [""]


def test_the_papers_network_has_two_towers(filters: ModuleType) -> None:
    with nn.init.without_init():
        assert filters.first_filters(models.alexnet("grouped", 2, image_size=67)).towers == 2


@pytest.mark.parametrize(
    ("count", "towers", "columns"),
    [(96, 1, 16), (48, 2, 16), (48, 1, 12), (64, 1, 16), (6, 1, 6), (34, 1, 12)],
)
def test_filters_stand_in_full_rows(filters: ModuleType, count: int, towers: int, columns: int) -> None:
    assert filters.columns_for(count, towers) == columns


def test_what_was_learnt_is_the_change_since_the_first_step(
    filters: ModuleType, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawings: dict[str, np.ndarray] = {}
    monkeypatch.setattr(
        filters, "draw_filters", lambda path, what, *_: drawings.update({path.name: what.weights})
    )
    assert called(filters, run, "--out", tmp_path).exit_code == 0
    first = drawings["filters.png"] - drawings["learnt_filters.png"]
    with random_scope(0):
        np.testing.assert_allclose(first, models.lenet5(3).features[0].weight.numpy(), atol=1e-7)
    assert np.abs(drawings["learnt_filters.png"]).max() > 1e-3


def test_first_weights_that_are_gone(
    filters: ModuleType, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictor = load(run)
    predictor.checkpoint.config["weights"] = str(tmp_path / "gone.safetensors")
    assert filters.before(predictor) is None
    assert "gone.safetensors" in capsys.readouterr().out


def test_maps_are_what_the_layers_give(filters: ModuleType) -> None:
    net = Towers()
    image = np.random.default_rng(0).random((3, 12, 12), dtype=np.float32)
    found = filters.maps_of(net, image, 3)
    assert [maps.what for maps in found] == [
        "conv1 + ReLU (features.1): 3 of 8 maps of 8 x 8",
        "pool1 (features.2): 3 of 8 maps of 4 x 4",
        "conv2 + ReLU (features.4): 3 of 4 maps of 2 x 2",
    ]
    with no_grad():
        maps = to_numpy(ops.relu(net.features[0](Tensor(image[None]))).data)[0]
    first = maps[maps.mean(axis=(1, 2)).argmax()]
    expected = (first - first.min()) / (first.max() - first.min())
    np.testing.assert_allclose(found[0].shades[0], expected, rtol=1e-4, atol=1e-5)


def test_maps_that_are_flat_are_dark(filters: ModuleType) -> None:
    np.testing.assert_array_equal(filters.strongest(np.full((2, 3, 3), 4.0), 5), np.zeros((2, 3, 3)))


def test_filters_of_a_run(filters: ModuleType, run: Path, tmp_path: Path) -> None:
    result = called(filters, run, "--out", tmp_path, "--scale", "all", "--maps", 4)
    assert result.exit_code == 0, result.output
    drawn(tmp_path / "filters.png")
    drawn(tmp_path / "learnt_filters.png")
    drawn(tmp_path / "feature_maps.png")
    assert "random" not in result.stdout


def test_filters_of_an_untrained_network(filters: ModuleType, photos: Path, tmp_path: Path) -> None:
    picture = photos / "striped" / "00.png"
    result = called(filters, "--model", "lenet5", "--picture", picture, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "the weights are random" in result.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["feature_maps.png", "filters.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scale", "loud"], "--scale must be filter or all"),
        (["--maps", "0"], "--maps must be at least 1"),
        (["--model", "lenet6"], "lenet5"),
        (["RUN", "--model", "lenet5"], "leave out one of the two"),
    ],
)
def test_mistakes_with_filters(filters: ModuleType, run: Path, options: list[str], message: str) -> None:
    result = called(filters, *[str(run) if option == "RUN" else option for option in options])
    assert result.exit_code == 2, result.output
    assert message in result.stderr
