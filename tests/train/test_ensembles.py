"""Several networks judged together: what they say, and which may not be judged together."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minialex as mx
from minialex.errors import UsageError
from minialex.train import TrainResult, train
from minialex.train.ensembles import Comparison, Effect, Row, judge_together, load_networks
from minialex.train.error_tables import comparison_lines, difference_text, effect_line, error_lines
from minialex.train.judging import judge
from minialex.train.metrics import Evaluation
from minialex.train.paired import McNemar, PairedDifference
from minialex.train.reporter import SilentReporter
from minialex.train.run_folder import BEST


@pytest.fixture(scope="session")
def others(
    harness: Any,
    pictures: Path,
    noisy_run: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """Runs beside `finished`: "alike" divided the pictures as it did, "apart" did not, "grey" is LeNet-5."""
    folder = tmp_path_factory.mktemp("others")
    build, names = mx.models.build, mx.models.MODEL_NAMES
    harness.use_small_net()
    try:
        for name, changes in (("apart", {"seed": 12}), ("grey", {"model": "lenet5"})):
            options = harness.small_config(pictures, folder / name, epochs=1, save_every=99, **changes)
            train(options, SilentReporter())
    finally:
        mx.models.build, mx.models.MODEL_NAMES = build, names
    noisy_run(folder / "alike", 0.05, 1)
    return {path.name: path for path in folder.iterdir()}


def test_three_networks_with_one_crop_and_ten(
    finished: tuple[TrainResult, Any], others: dict[str, Path], reporter: Any
) -> None:
    """One of them takes pictures of another size, and grey ones."""
    paths = [finished[0].out, others["alike"], others["grey"]]
    result = judge_together(load_networks(paths), reporter, crops=10, batch_size=4)
    assert [(len(row.names), row.crops) for row in result.rows] == [*[(1, 1), (1, 10)] * 3, (3, 1), (3, 10)]
    assert not reporter.warnings
    for path, one, ten in zip(paths, result.singles(1), result.singles(10), strict=True):
        assert one.names == ten.names == (str(path),)
        for row in (one, ten):
            alone = judge(mx.load(path), path, reporter, crops=row.crops, batch_size=4)
            np.testing.assert_array_equal(row.evaluation.probabilities, alone.evaluation.probabilities)
    for crops in (1, 10):
        average = result.average(crops)
        assert average is not None
        mean = np.mean([row.evaluation.probabilities for row in result.singles(crops)], axis=0)
        np.testing.assert_allclose(average.evaluation.probabilities, mean, atol=1e-6)
    figures = result.to_json()
    assert len(figures["results"]) == 8
    assert figures["results"][-1]["checkpoints"] == [str(path) for path in paths]
    assert [effect["of"] for effect in figures["effects"]] == [
        "3 networks, each alone",
        "the average of 3",
        "10 crops",
    ]


def test_networks_keep_their_weights_alone(finished: tuple[TrainResult, Any]) -> None:
    (network,) = load_networks([finished[0].out])
    assert not network.predictor.checkpoint.weights
    assert not network.predictor.checkpoint.optimizer_arrays
    assert network.predictor.classes == ("dots", "plain", "stripes")


def test_one_network_has_no_average(finished: tuple[TrainResult, Any], reporter: Any) -> None:
    networks = load_networks([finished[0].out])
    result = judge_together(networks, reporter, crops=10)
    assert result.average(10) is None
    assert [effect.of for effect in result.effects()] == ["one network"]
    assert judge_together(networks, reporter).effects() == []


def test_what_one_was_trained_on_must_not_test_the_average(
    finished: tuple[TrainResult, Any], others: dict[str, Path], reporter: Any, tmp_path: Path
) -> None:
    networks = load_networks([finished[0].out, others["apart"]])
    message = r"apart was trained on \d of the 6 test pictures of .*same --split-seed"
    with pytest.raises(UsageError, match=message):
        judge_together(networks, reporter)
    assert not any("network 1/2" in line for line in reporter.lines)  # Before anything is measured.
    # Known without its manifest too, as long as the pictures are there to be divided again.
    shutil.copy(others["apart"] / BEST, tmp_path)
    with pytest.raises(UsageError, match=message.replace("apart", "best.safetensors")):
        judge_together(load_networks([finished[0].out, tmp_path / BEST]), reporter)
    # Whoever asks for all pictures gets all.
    assert judge_together(networks, reporter, part="all").average(1) is not None


def test_new_pictures_are_for_everybody(
    finished: tuple[TrainResult, Any], others: dict[str, Path], reporter: Any, harness: Any, tmp_path: Path
) -> None:
    new = harness.make_pictures(tmp_path / "new", per_class=3, size=25)
    result = judge_together(load_networks([finished[0].out, others["apart"]]), reporter, data=str(new))
    assert (result.part, len(result.rows[0].evaluation.labels)) == ("all", 9)
    assert not reporter.warnings
    # Nine of these are the runs' own.
    old = harness.make_pictures(tmp_path / "old", per_class=3)
    judge_together(load_networks([finished[0].out, others["apart"]]), reporter, data=str(old))
    assert "the network was trained on" in reporter.warnings[0]
    assert "apart was trained on" in reporter.warnings[1]


def test_a_network_of_unknown_pictures_is_warned_of(
    finished: tuple[TrainResult, Any], others: dict[str, Path], reporter: Any, harness: Any, tmp_path: Path
) -> None:
    new = harness.make_pictures(tmp_path / "new", per_class=3, size=25)
    (tmp_path / "alone").mkdir()
    shutil.copy(others["alike"] / BEST, tmp_path / "alone")
    networks = load_networks([finished[0].out, tmp_path / "alone"])
    judge_together(networks, reporter, data=str(new))
    assert len(reporter.warnings) == 1
    assert "nothing tells on which pictures" in reporter.warnings[0]


def test_the_other_parts(finished: tuple[TrainResult, Any], others: dict[str, Path], reporter: Any) -> None:
    apart = load_networks([finished[0].out, others["apart"]])
    with pytest.raises(UsageError, match="of the 6 validation pictures"):
        judge_together(apart, reporter, part="validation")
    judge_together(apart, reporter, part="train")
    assert "of these 48 pictures only" in reporter.warnings[0]


def test_an_epoch_chosen_by_the_test_pictures(
    finished: tuple[TrainResult, Any], others: dict[str, Path], reporter: Any, tmp_path: Path
) -> None:
    run = tmp_path / "chosen"
    shutil.copytree(others["alike"], run)
    manifest = run / "split.json"
    text = manifest.read_text().replace('"test"', '"swapped"').replace('"validation"', '"test"')
    manifest.write_text(text.replace('"swapped"', '"validation"'))
    judge_together(load_networks([finished[0].out, run]), reporter)
    assert "the best epoch of" in reporter.warnings[0]
    assert "was chosen by 6 of these pictures" in reporter.warnings[0]


def test_networks_that_do_not_belong_together(
    finished: tuple[TrainResult, Any], others: dict[str, Path], harness: Any, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="is named twice"):
        load_networks([finished[0].out, finished[0].checkpoint])
    data = harness.make_pictures(tmp_path / "data", per_class=5)
    (data / "plain").rename(data / "checks")
    train(harness.small_config(data, tmp_path / "run", epochs=1), SilentReporter())
    message = "answers with the classes checks, dots, stripes, and .* with dots, plain, stripes"
    with pytest.raises(UsageError, match=message):
        load_networks([finished[0].out, tmp_path / "run"])


# ----------------------------------------------------------------------------------------- in words


def comparison(classes: int, *rows: Row) -> Comparison:
    return Comparison(rows, "test", None, "", tuple(map(str, range(classes))))


def evaluation(right: int, count: int, classes: int) -> Evaluation:
    """`right` first answers right, the others' true class the last but one."""
    probabilities = np.tile(np.arange(classes, 0, -1, dtype=np.float32), (count, 1))
    labels = np.full(count, classes - 2)
    labels[:right] = 0
    return Evaluation(1.0, probabilities, labels, np.arange(count))


def test_the_table_is_the_papers() -> None:
    rows = [Row(("a",), 1, evaluation(80, 100, 7)), Row(("b",), 1, evaluation(90, 100, 7))]
    rows.append(Row(("a", "b"), 1, evaluation(95, 100, 7)))
    lines = "\n".join(comparison_lines(comparison(7, *rows))).splitlines()
    assert [" ".join(line.split()) for line in lines if not line.startswith("--")][:6] == [
        "100 test pictures",
        "",
        "networks crops top-1 error 95 % interval top-5 error 95 % interval",
        "1 CNN, a 1 20.0 % 13.3 to 28.9 % 20.0 % 13.3 to 28.9 %",
        "1 CNN, b 1 10.0 % 5.5 to 17.4 % 10.0 % 5.5 to 17.4 %",
        "2 CNNs, averaged 1 5.0 % 2.2 to 11.2 % 5.0 % 2.2 to 11.2 %",
    ]
    assert lines[-1].startswith(
        "the average of 2 networks instead of one of them, on average (1 crop): helps, +10.0 points"
    )


@pytest.mark.parametrize(("classes", "says_something"), [(3, False), (5, False), (6, True)])
def test_top_5_says_something_from_six_classes_on(classes: int, says_something: bool) -> None:
    made = evaluation(6, 10, classes)
    text = "\n".join(comparison_lines(comparison(classes, Row(("a",), 1, made))))
    line = "\n".join(error_lines(made, "test"))
    for said in (text, line):
        assert (f"top-5 error says nothing with {classes} classes" in said) is not says_something
    assert "test top-1 error: 40.0 %, 95 % interval 16.8 to 68.7 %" in line
    assert ("test top-5 error: 0.0 %" in line) is says_something
    assert error_lines(made, "all")[0].startswith("top-1 error on all pictures: 40.0 %")
    figures = comparison(classes, Row(("a",), 1, made)).to_json()["results"][0]
    assert figures["top1_error"] == 0.4
    assert figures["top5_error"] == (0.0 if says_something else None)


@pytest.mark.parametrize(
    ("difference", "low", "high", "p", "words"),
    [
        (
            0.021,
            0.009,
            0.033,
            0.00123,
            "helps, +2.1 points of accuracy (95 % interval +0.9 to +3.3, p = 0.0012)",
        ),
        (
            -0.03,
            -0.05,
            -0.01,
            1e-7,
            "does harm, -3.0 points of accuracy (95 % interval -5.0 to -1.0, p < 0.0001)",
        ),
        (
            0.01,
            -0.01,
            0.03,
            0.3,
            "no help shown, +1.0 points of accuracy (95 % interval -1.0 to +3.0, p = 0.3)",
        ),
        (
            0.04,
            0.01,
            0.08,
            0.125,
            "no help shown, +4.0 points of accuracy (95 % interval +1.0 to +8.0, p = 0.12)",
        ),
        (0.0, 0.0, 0.0, 1.0, "no help shown, +0.0 points of accuracy (95 % interval +0.0 to +0.0, p = 1)"),
    ],
)
def test_what_does_not_help_is_said(difference: float, low: float, high: float, p: float, words: str) -> None:
    found = PairedDifference(difference, low, high, McNemar(1, 2, p), 100)
    assert effect_line(Effect("10 crops instead of 1", "one network", found)) == (
        f"10 crops instead of 1 (one network): {words}"
    )
    assert words.endswith(difference_text(found))
