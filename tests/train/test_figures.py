"""What every picture is drawn with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minialex.errors import OutputError
from minialex.train.figures import (
    around_zero,
    bars,
    curves,
    figure,
    grid,
    plain,
    save,
    shortened,
    show_picture,
    tiled,
)


def test_tiles_stand_row_by_row_with_gaps() -> None:
    tiles = np.arange(1.0, 6.0)[:, None, None] * np.ones((5, 2, 3))
    sheet = tiled(tiles, columns=3, gap=1, ground=0.0)
    assert sheet.shape == (5, 11)
    np.testing.assert_array_equal(sheet[0], [1, 1, 1, 0, 2, 2, 2, 0, 3, 3, 3])
    np.testing.assert_array_equal(sheet[2], np.zeros(11))
    np.testing.assert_array_equal(sheet[4], [4, 4, 4, 0, 5, 5, 5, 0, 0, 0, 0])


def test_tiles_of_colours_and_a_single_row() -> None:
    tiles = np.random.default_rng(0).random((2, 4, 4, 3))
    sheet = tiled(tiles, columns=8, gap=2)
    assert sheet.shape == (4, 46, 3)
    np.testing.assert_array_equal(sheet[:, 6:10], tiles[1])
    assert (sheet[:, 10:] == 1).all()


def test_zero_is_grey_and_the_largest_weight_black_or_white() -> None:
    weights = np.array([[-2.0, 0.0, 1.0], [0.5, 0.0, -0.25], [0.0, 0.0, 0.0]])
    largest = np.abs(weights).max(axis=1, keepdims=True)
    np.testing.assert_array_equal(around_zero(weights, largest), [[0, 0.5, 0.75], [1, 0.5, 0.25], [0.5] * 3])
    np.testing.assert_array_equal(around_zero(weights, 2.0)[1], [0.625, 0.5, 0.4375])
    np.testing.assert_array_equal(around_zero(weights, 1.0)[0], [0, 0.5, 1])  # Never beyond black.


def test_names_are_no_formulas_and_not_too_long() -> None:
    assert plain("$5") == r"\$5"
    assert shortened("tulips") == "tulips"
    assert shortened("great white shark, white shark", 18) == "great white shark…"
    assert len(shortened("x" * 100, 10)) == 10


def test_a_grid_hides_what_is_left_over() -> None:
    sheet = figure(4, 4, "a $ and another $")
    cells = grid(sheet, 5, 3)
    assert len(cells) == 5
    assert [axes.axison for axes in sheet.axes] == [True] * 5 + [False]


def test_bars_show_names_and_shares() -> None:
    axes = figure(4, 2).subplots()
    bars(axes, ["daisy", "$5"], [0.75, 0.25], ["red", "blue"])
    assert [bar.get_width() for bar in axes.patches] == [0.75, 0.25]
    assert [text.get_text() for text in axes.texts] == ["75.0 %", "25.0 %"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["daisy", r"\$5"]
    bottom, top = axes.get_ylim()
    assert bottom > top  # The first bar is on top.


def test_curves_may_end_early() -> None:
    axes = figure(4, 3).subplots()
    curves(
        axes, [1, 2, 3], {"relu": [0.9, 0.5, 0.2], "tanh": [0.9, 0.8]}, xlabel="epoch", ylabel="error in $"
    )
    assert [len(line.get_xdata()) for line in axes.lines] == [3, 2]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["relu", "tanh"]
    assert axes.get_ylabel() == r"error in \$"
    assert len({line.get_color() for line in axes.lines}) == 2


def test_a_figure_becomes_a_png(tmp_path: Path) -> None:
    sheet = figure(2, 1, "title")
    show_picture(sheet.subplots(), Image.new("RGB", (8, 4), "red"))
    save(sheet, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        assert (image.format, image.size) == ("PNG", (240, 120))
        assert (np.asarray(image.convert("RGB")) == [255, 0, 0]).all(axis=2).any()
    with pytest.raises(OutputError, match="nowhere"):
        save(sheet, tmp_path / "nowhere" / "sheet.png")
