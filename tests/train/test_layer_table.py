"""The tables of lectures: sizes and parameters, with the numbers filled in."""

from __future__ import annotations

import pytest

import minialex as mx
from minialex import models, nn, ops
from minialex.nn import init
from minialex.train import summarize

SINGLE = """\
layer     kernel   number  padding  stride  output size N
------------------------------------------------------------------------
input                   3                   227
conv1     11 x 11      96  0        4       (227 - 11 + 2*0)/4 + 1 = 55
norm1                                       55, over 5 channels
maxpool1  3 x 3            0        2       (55 - 3 + 2*0)/2 + 1 = 27
conv2     5 x 5       256  2        1       (27 - 5 + 2*2)/1 + 1 = 27
norm2                                       27, over 5 channels
maxpool2  3 x 3            0        2       (27 - 3 + 2*0)/2 + 1 = 13
conv3     3 x 3       384  1        1       (13 - 3 + 2*1)/1 + 1 = 13
conv4     3 x 3       384  1        1       (13 - 3 + 2*1)/1 + 1 = 13
conv5     3 x 3       256  1        1       (13 - 3 + 2*1)/1 + 1 = 13
maxpool3  3 x 3            0        2       (13 - 3 + 2*0)/2 + 1 = 6
fc1                 4,096                   6 x 6 x 256 = 9,216 -> 4,096
fc2                 4,096                   4,096 -> 4,096
fc3                 1,000                   4,096 -> 1,000

layer  place                               weights  biases  parameters
----------------------------------------------------------------------
conv1  features.0        11 x 11 x 3 x 96 = 34,848      96      34,944
conv2  features.4       5 x 5 x 96 x 256 = 614,400     256     614,656
conv3  features.8      3 x 3 x 256 x 384 = 884,736     384     885,120
conv4  features.10   3 x 3 x 384 x 384 = 1,327,104     384   1,327,488
conv5  features.12     3 x 3 x 384 x 256 = 884,736     256     884,992
fc1    classifier.1     9,216 x 4,096 = 37,748,736   4,096  37,752,832
fc2    classifier.4     4,096 x 4,096 = 16,777,216   4,096  16,781,312
fc3    classifier.6      4,096 x 1,000 = 4,096,000   1,000   4,097,000
all                                     62,367,776  10,568  62,378,344"""


def tables(name: str, *arguments: int, batch: int = 1) -> str:
    with init.without_init():
        return summarize(models.build(name, *arguments), name, batch).layer_tables


def test_the_papers_network() -> None:
    rule, _, rest = tables("single").partition("\n\n")
    assert rule.splitlines()[0] == "N = (W - F + 2P)/S + 1, rounded down"
    assert rest == SINGLE
    assert tables("single", batch=2) == tables("single"), "of one picture, whatever the batch"


@pytest.mark.parametrize(
    ("name", "arguments", "lines"),
    [
        (
            "single",
            (1000, 224),
            ["conv1     11 x 11      96  1 + 2    4       (224 - 11 + 1 + 2)/4 + 1 = 55"],
        ),
        (
            "flowers",
            (5,),
            ["conv1     11 x 11      48  2        4       (224 - 11 + 2*2)/4 + 1 = 55.25 -> 55"],
        ),
        (
            "grouped",
            (1000,),
            [
                "conv4     3 x 3    2 x 192  1        1       (13 - 3 + 2*1)/1 + 1 = 13",
                "conv4  features.10   3 x 3 x 192 x 384 = 663,552     384     663,936",
            ],
        ),
        ("six-conv", (), ["conv6     3 x 3       256  1        1       (6 - 3 + 2*1)/1 + 1 = 6"]),
        ("owt", (1000, 300), ["avgpool1                                    8 -> 6, adaptive"]),
        (
            "lenet5",
            (),
            [
                "avgpool1  2 x 2           0        2       (28 - 2 + 2*0)/2 + 1 = 14",
                "fc1                  120                   5 x 5 x 16 = 400 -> 120",
            ],
        ),
        ("lenet5-relu", (), ["maxpool2  2 x 2           0        2       (10 - 2 + 2*0)/2 + 1 = 5"]),
        ("cifar-4", (), ["maxpool1  3 x 3           0        2       (32 - 3 + 2*0)/2 + 1 = 15.5 -> 15"]),
    ],
)
def test_lines(name: str, arguments: tuple[int, ...], lines: list[str]) -> None:
    printed = tables(name, *arguments).splitlines()
    assert [line for line in lines if line not in printed] == []


def test_only_the_first_fully_connected_layer_sees_a_picture() -> None:
    """2 x 2 x 8 = 32 numbers go in, 32 come out, and no picture is what the second one sees."""
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.Flatten(), nn.Linear(32, 32), nn.Linear(32, 1), nn.Linear(1, 3)
    )
    net.channels, net.image_size = 1, 4  # type: ignore[assignment]
    outputs = [layer.output for layer in summarize(net).layers[1:]]
    assert outputs == ["2 x 2 x 8 = 32 -> 32", "32 -> 1", "1 -> 3"]


class Odd(nn.Module):
    """Windows that are not square, a layer without biases and one that is called twice."""

    channels, image_size = 2, 9

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=((0, 1), (1, 1)), dilation=2, bias=False)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.linear = nn.Linear(5, 5)
        self.scale = nn.Parameter(3.0)

    def forward(self, x: mx.Tensor) -> mx.Tensor:
        x = self.pool(self.conv(x))
        x = ops.mean(x, axis=(1, 2)) * self.scale
        return self.linear(self.linear(x))


def test_a_network_of_somebody_elses() -> None:
    printed = summarize(Odd()).layer_tables.splitlines()
    for line in (
        "conv1     3 x 2        4  0 + 1; 1  2; 1    "
        "(9 - 5 + 0 + 1)/2 + 1 = 3.5 -> 3; (9 - 3 + 2*1)/1 + 1 = 9",
        "maxpool1  2 x 2           0         2       "
        "(3 - 2 + 2*0)/2 + 1 = 1.5 -> 2; (9 - 2 + 2*0)/2 + 1 = 4.5 -> 5",
        "fc1                    5                    5 -> 5",
        "fc2                    5                    5 -> 5",
        "conv1  conv    3 x 2 x 2 x 4 = 48       0          48",
        "mul1                            1       0           1",
        "fc1    linear          5 x 5 = 25       5          30",
        "all                            74       5          79",
    ):
        assert line in printed, "\n".join(printed)
