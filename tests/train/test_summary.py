"""What a network is made of and costs, against figures worked out by hand."""

from __future__ import annotations

import pytest

from minialex import models
from minialex.nn import init
from minialex.train import summarize
from minialex.train.summary import _scaled


def test_lenet5() -> None:
    summary = summarize(models.build("lenet5"), "lenet5")
    assert summary.parameters == 61_706
    first = summary.rows[0]
    # 6 maps of 28 x 28, each value from 25 products and sums.
    assert (first.layer, first.op, first.shape) == ("features.0", "conv2d", (1, 6, 28, 28))
    assert first.flops == 2 * 25 * 6 * 28 * 28
    assert first.parameters == 6 * 25 + 6
    assert first.bytes == 4 * 6 * 28 * 28
    last = summary.rows[-1]
    assert (last.layer, last.op, last.shape, last.parameters) == ("classifier.5", "linear", (1, 10), 850)
    assert summary.flops == sum(row.flops for row in summary.rows)
    assert summary.bytes == sum(row.bytes for row in summary.rows)


def test_a_dropout_that_lets_everything_pass_is_no_part_of_the_layer_before_it() -> None:
    model = models.build("flowers", 3, 67)
    layers = [row.layer for row in summarize(model).rows]
    assert "classifier.2" in layers
    assert not [layer for layer in layers if "-" in layer], "one by one"


def test_a_batch_multiplies_the_work_and_not_the_parameters() -> None:
    model = models.build("lenet5")
    one, four = summarize(model), summarize(model, batch=4)
    assert four.parameters == one.parameters
    assert four.flops == 4 * one.flops
    assert four.bytes == 4 * one.bytes


def test_the_text_has_a_line_a_layer_and_the_totals() -> None:
    lines = str(summarize(models.build("lenet5"), "lenet5")).splitlines()
    assert lines[0] == "lenet5, forward pass of 1 x 1 x 28 x 28"
    assert f"{summarize(models.build('lenet5')).flops:,} FLOPs" in lines[1]
    assert lines[-1].split()[:2] == ["all", "61,706"]
    assert len(lines) == 5 + 12 + 1
    assert len({len(line) for line in lines[5:]}) == 1, "columns are aligned"


def test_the_model_is_left_as_it_was() -> None:
    model = models.build("lenet5")
    model.train()
    summarize(model)
    assert model.training
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", models.MODEL_NAMES)
def test_the_tables_fit_a_terminal_and_their_sums_are_the_networks(name: str) -> None:
    with init.without_init():
        model = models.build(name)
        summary = summarize(model, name, batch=2)
    lines = [*str(summary).splitlines(), *summary.layer_tables.splitlines()]
    assert max(map(len, lines)) <= 80
    assert summary.parameters == model.num_parameters()
    assert sum(layer.parameters for layer in summary.layers) == model.num_parameters()
    assert lines[-1].split()[-1] == f"{model.num_parameters():,}"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (1000, "1.00 k"), (9995, "10.0 k"), (99_949, "99.9 k"), (99_950, "100 k"),
     (999_499, "999 k"), (999_500, "1.00 M"), (105_415_200, "105 M"), (27_000_000_000, "27.0 G")],
)  # fmt: skip
def test_three_digits(count: int, text: str) -> None:
    assert _scaled(count) == text
