"""The worked examples of lectures on AlexNet: what a student computes by hand is what comes out here."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import minialex as mx
from minialex import models, nn, ops
from minialex.cli import app
from minialex.nn import init
from minialex.shapes import conv_output_size, pool_output_size


def convolved(size: int, kernel: int, stride: int, padding: object) -> tuple[int, ...]:
    """Height and width that a convolution really gives."""
    x = mx.Tensor(np.zeros((1, 1, size, size), np.float32))
    weight = mx.Tensor(np.zeros((1, 1, kernel, kernel), np.float32))
    return ops.conv2d(x, weight, None, stride, padding).shape[2:]  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("size", "padding", "rule", "expected"),
    [
        (224, ((1, 2), (1, 2)), "(224 - 11 + 1 + 2)/4 + 1 = 55", 55),
        (224, 0, "(224 - 11 + 2*0)/4 + 1 = 54.25 -> 54", 54),
        (224, 2, "(224 - 11 + 2*2)/4 + 1 = 55.25 -> 55", 55),
        (227, 0, "(227 - 11 + 2*0)/4 + 1 = 55", 55),
    ],
)
def test_conv1(size: int, padding: object, rule: str, expected: int) -> None:
    """The paper says 224; with its 11 x 11 windows, 4 apart, that is 55 only with 3 columns of zeros."""
    pads = (padding, padding) if isinstance(padding, int) else padding[0]  # type: ignore[index]
    assert conv_output_size(size, 11, 4, pads) == expected
    assert convolved(size, 11, 4, padding) == (expected, expected)
    assert models.size_by_rule(size, 11, 4, pads) == rule


@pytest.mark.parametrize(
    ("size", "kernel", "down", "up"),
    [(55, 3, 27, 27), (27, 3, 13, 13), (13, 3, 6, 6), (32, 3, 15, 16), (54, 3, 26, 27), (55, 2, 27, 28)],
)
def test_pooling_rounds_down_or_up(size: int, kernel: int, down: int, up: int) -> None:
    """Stride 2: (32 - 3)/2 + 1 = 15.5 is 15 windows, or 16 of which the last is cut off."""
    x = mx.Tensor(np.arange(size * size, dtype=np.float32).reshape(1, 1, size, size))
    for ceil_mode, expected in ((False, down), (True, up)):
        assert pool_output_size(size, kernel, 2, (0, 0), ceil_mode) == expected
        y = ops.max_pool2d(x, kernel, 2, ceil_mode=ceil_mode)
        assert y.shape == (1, 1, expected, expected)
        rule = models.size_by_rule(size, kernel, 2, (0, 0), ceil_mode=ceil_mode)
        assert int(rule.split()[-1]) == expected
        last = min(2 * (expected - 1) + kernel, size) - 1
        assert y.numpy()[0, 0, -1, -1] == last * size + last, "the last pixel that the last window sees"


def test_a_last_window_without_a_pixel_is_dropped() -> None:
    """3 pixels and a padding of 1, windows of 2, 3 apart: the third would start in the padding behind."""
    assert models.size_by_rule(3, 2, 2, (1, 1), ceil_mode=True) == "(3 - 2 + 2*1)/2 + 1 = 2.5 -> 2"
    x = mx.Tensor(np.zeros((1, 1, 3, 3), np.float32))
    assert ops.max_pool2d(x, 2, 2, 1, ceil_mode=True).shape == (1, 1, 2, 2)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Narrow hidden layers, where the 250 MB of the full ones would show nothing more."""
    for name, row in models.VARIANTS.items():
        monkeypatch.setitem(models.VARIANTS, name, dataclasses.replace(row, hidden=200))


def sides(name: str, image_size: int | None = None) -> list[int]:
    """Pixels a side after each layer that changes them, or could."""
    with init.without_init():
        net = models.build(name, image_size=image_size)
    result = [net.image_size]
    for layer in net.features:
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            height, width = layer.output_size((result[-1], result[-1]))
            assert height == width
            result.append(height)
    return result


@pytest.mark.parametrize(
    ("name", "image_size", "expected"),
    [
        ("single", None, [227, 55, 27, 27, 13, 13, 13, 13, 6]),
        ("single", 224, [224, 55, 27, 27, 13, 13, 13, 13, 6]),
        ("grouped", None, [227, 55, 27, 27, 13, 13, 13, 13, 6]),
        ("owt", None, [224, 55, 27, 27, 13, 13, 13, 13, 6]),
        ("flowers", None, [224, 55, 27, 27, 13, 13, 13, 13, 6]),
        ("flowers-tf", None, [224, 55, 27, 27, 13, 13, 13, 13, 6]),
        ("six-conv", None, [227, 55, 27, 27, 13, 13, 13, 13, 6, 6]),
        ("lenet5", None, [28, 28, 14, 10, 5]),
        ("lenet5-relu", None, [28, 28, 14, 10, 5]),
        ("cifar-4", None, [32, 32, 15, 15, 7, 7, 3]),
    ],
)
@pytest.mark.usefixtures("narrow")
def test_sizes_from_layer_to_layer(name: str, image_size: int | None, expected: list[int]) -> None:
    assert sides(name, image_size) == expected


# ---------------------------------------------------------------------------------------- parameters


def window(kernel: int, channels: int, filters: int) -> int:
    """Weights and biases of a convolution."""
    return kernel * kernel * channels * filters + filters


def connected(inputs: int, outputs: int) -> int:
    """Weights and biases of a fully connected layer."""
    return inputs * outputs + outputs


LAST_CONV_OF_SIX = window(3, 256, 256)
SINGLE = (
    [window(11, 3, 96), window(5, 96, 256), window(3, 256, 384), window(3, 384, 384), window(3, 384, 256)],
    [connected(6 * 6 * 256, 4096), connected(4096, 4096), connected(4096, 1000)],
)
FLOWERS = (
    [window(11, 3, 48), window(5, 48, 128), window(3, 128, 192), window(3, 192, 192), window(3, 192, 128)],
    [connected(6 * 6 * 128, 2048), connected(2048, 2048), connected(2048, 5)],
)
LENET = (
    [window(5, 1, 6), window(5, 6, 16)],
    [connected(5 * 5 * 16, 120), connected(120, 84), connected(84, 10)],
)
BY_HAND = {
    ("single", 1000): (62_378_344, SINGLE),
    ("grouped", 1000): (
        60_965_224,  # In two groups a filter sees half of the channels.
        (
            [SINGLE[0][0], window(5, 48, 256), SINGLE[0][2], window(3, 192, 384), window(3, 192, 256)],
            SINGLE[1],
        ),
    ),
    ("six-conv", 1000): (62_968_424, ([*SINGLE[0], LAST_CONV_OF_SIX], SINGLE[1])),
    ("owt", 1000): (
        61_100_840,
        (
            [
                window(11, 3, 64),
                window(5, 64, 192),
                window(3, 192, 384),
                window(3, 384, 256),
                window(3, 256, 256),
            ],
            SINGLE[1],
        ),
    ),
    ("flowers", 5): (14_591_685, FLOWERS),
    ("flowers-tf", 5): (14_591_685, FLOWERS),
    ("lenet5", 10): (61_706, LENET),
    ("lenet5-relu", 10): (61_706, LENET),
    ("cifar-4", 10): (
        71_082,
        ([window(5, 3, 16), window(5, 16, 32), window(5, 32, 64)], [connected(3 * 3 * 64, 10)]),
    ),
}


def test_every_network_is_counted() -> None:
    assert {name for name, _ in BY_HAND} == set(models.MODEL_NAMES)


@pytest.mark.parametrize(("name", "classes"), BY_HAND)
def test_parameters_layer_by_layer(name: str, classes: int) -> None:
    total, (convolutions, layers) = BY_HAND[name, classes]
    with init.without_init():
        net = models.build(name, classes)
    found = [module.num_parameters() for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert found == [*convolutions, *layers]
    assert net.num_parameters() == sum(found) == total


def test_the_sixth_convolution_costs_what_it_says() -> None:
    assert 62_968_424 - 62_378_344 == LAST_CONV_OF_SIX == 590_080


# ------------------------------------------------------------------------------ normalisation, dropout


def test_lrn_of_five_ones_is_a_sixth() -> None:
    """k = alpha = beta = 1, n = 5: 1 / (1 + five squares of 1) in the middle, 1 / (1 + 3) at the edge."""
    x = mx.Tensor(np.ones((1, 5, 1, 1), np.float64))
    y = ops.local_response_norm(x, 5, alpha=1.0, beta=1.0, k=1.0, dialect="paper").numpy().ravel()
    np.testing.assert_allclose(y, [1 / 4, 1 / 5, 1 / 6, 1 / 5, 1 / 4], rtol=1e-12)


@pytest.mark.usefixtures("narrow")
def test_lrn_with_the_papers_numbers() -> None:
    """k = 2, n = 5, alpha = 1e-4, beta = 0.75, all of them 100: over (2 + 1e-4 * 5 * 100**2) ** 0.75."""
    with init.without_init():
        (norm, _) = [m for m in models.build("single").features if isinstance(m, nn.LocalResponseNorm)]
    y = norm(mx.Tensor(np.full((1, 96, 1, 1), 100.0))).numpy().ravel()
    np.testing.assert_allclose(y[2:-2], 100 / 7**0.75, rtol=1e-12)
    np.testing.assert_allclose(y[[0, -1]], 100 / 5**0.75, rtol=1e-12)


@pytest.mark.parametrize(("name", "p"), [("single", 0.5), ("flowers", 0.5), ("flowers-tf", 0.2)])
@pytest.mark.usefixtures("narrow")
def test_dropout_before_both_hidden_layers(name: str, p: float) -> None:
    with init.without_init():
        layers = list(models.build(name).classifier)
    places = [i for i, layer in enumerate(layers) if isinstance(layer, nn.Dropout)]
    assert [layers[i].p for i in places] == [p, p]  # type: ignore[attr-defined]
    assert all(isinstance(layers[i + 1], nn.Linear) for i in places)


@pytest.mark.usefixtures("narrow")
def test_zeros_around_the_picture_and_then_conv1_is_conv1_with_that_padding() -> None:
    """The course's TensorFlow version has a layer of zeros before a convolution without padding."""
    with mx.random_scope(0):
        conv1 = models.build("flowers-tf", 5, 67).features[0]
    assert isinstance(conv1, nn.Conv2d)
    assert conv1.padding == ((1, 2), (1, 2))
    x = mx.rng.Stream(0, "test").normal(shape=(2, 3, 67, 67)).astype(np.float32)
    padded = mx.Tensor(np.pad(x, ((0, 0), (0, 0), (1, 2), (1, 2))))
    expected = ops.conv2d(padded, conv1.weight, conv1.bias, conv1.stride)
    np.testing.assert_allclose(conv1(mx.Tensor(x)).numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)


def test_first_values_of_keras() -> None:
    """Glorot's uniform: all weights within sqrt(6 / (fan_in + fan_out)), and spread over it; zero biases."""
    with mx.random_scope(0):
        state = models.build("flowers-tf", 5, 67).state_dict()
    assert not any(array.any() for name, array in state.items() if name.endswith("bias"))
    for name, fans in (("features.3", 25 * (48 + 128)), ("classifier.4", 2048 + 2048)):
        weight, bound = state[f"{name}.weight"], np.sqrt(6 / fans)
        assert 0.999 * bound < abs(weight).max() <= bound * (1 + 1e-6)
        assert weight.std() == pytest.approx(bound / np.sqrt(3), rel=0.01)


# ------------------------------------------------------------------------------------------ the page

PAGE = (Path(__file__).resolve().parents[1] / "docs/networks.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "classes"), BY_HAND)
def test_the_page_on_networks_has_the_numbers(name: str, classes: int) -> None:
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |")]
    assert f"{BY_HAND[name, classes][0]:,}" in row


@pytest.mark.usefixtures("narrow")
def test_the_code_of_the_page_on_networks_prints_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    printed = re.findall(r"^```text\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    assert (len(blocks), len(printed)) == (2, 1)
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/networks.md", "exec"), namespace)
    assert capsys.readouterr().out == printed[0]


@pytest.mark.usefixtures("narrow")
def test_the_commands_of_the_page_on_networks_print_what_it_shows() -> None:
    shown = re.findall(r"^```console\n\$ minialex (.*?)\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    assert len(shown) == 2
    for command, text in shown:
        result = CliRunner().invoke(app, command.split())
        assert text.removesuffix("...\n") in result.output
