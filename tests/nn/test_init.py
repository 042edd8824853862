"""First values: their distributions, and that a seed repeats them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minialex import nn, rng
from minialex.nn import init
from minialex.shapes import ShapeError
from minialex.tensor import Tensor


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(np.zeros(shape, np.float32))


def test_fans() -> None:
    assert init.fans((96, 3, 11, 11)) == (3 * 121, 96 * 121)
    assert init.fans((4096, 9216)) == (9216, 4096)
    for bad in [(5,), (3, 0)]:
        with pytest.raises(ShapeError):
            init.fans(bad)


@pytest.mark.parametrize(
    ("fill", "std"),
    [
        (lambda w: init.normal_(w, 0.0, 0.3), 0.3),
        (lambda w: init.kaiming_normal_(w, mode="fan_in", nonlinearity="relu"), math.sqrt(2 / (8 * 9))),
        (lambda w: init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu"), math.sqrt(2 / (512 * 9))),
        (lambda w: init.kaiming_normal_(w, nonlinearity="tanh"), 5 / 3 / math.sqrt(8 * 9)),
        (lambda w: init.kaiming_uniform_(w, a=math.sqrt(5)), 1 / math.sqrt(3 * 8 * 9)),
        (lambda w: init.xavier_uniform_(w), math.sqrt(2 / ((8 + 512) * 9))),
        (lambda w: init.uniform_(w, -0.5, 0.5), 1 / math.sqrt(12)),
    ],
)
def test_standard_deviations(fill, std: float) -> None:  # type: ignore[no-untyped-def]
    w = weight(512, 8, 3, 3)
    rng.manual_seed(0)
    assert fill(w) is w
    values = w.numpy()
    assert values.dtype == np.float32
    # 36,864 draws: the standard error of both is below 0.6 %.
    assert values.std() == pytest.approx(std, rel=0.03)
    assert abs(values.mean()) < 0.03 * std


def test_uniform_bounds() -> None:
    w = init.kaiming_uniform_(weight(64, 100), a=math.sqrt(5)).numpy()
    assert np.abs(w).max() <= 0.1
    assert np.abs(w).max() > 0.099


def test_constants() -> None:
    w = weight(3)
    assert init.constant_(w, 2.5).numpy().tolist() == [2.5] * 3
    assert init.zeros_(w).numpy().tolist() == [0.0] * 3
    assert w.version.count == 2


def test_bad_words() -> None:
    with pytest.raises(ValueError, match="fan_avg"):
        init.kaiming_normal_(weight(2, 2), mode="fan_avg")
    with pytest.raises(ValueError, match="swish"):
        init.calculate_gain("swish")


def test_a_seed_repeats_a_model_and_another_does_not() -> None:
    def build(seed: int) -> dict[str, np.ndarray]:
        rng.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 5)).state_dict()

    a, b, c = build(1), build(1), build(2)
    assert all((a[name] == b[name]).all() for name in a)
    assert not any((a[name] == c[name]).any() for name in a)


def test_values_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    for threads in ("1", "3"):
        monkeypatch.setenv("MINIALEX_NUM_THREADS", threads)
        with rng.random_scope(5):
            drawn.append(init.normal_(weight(3 * init.CHUNK + 7)).numpy())
    np.testing.assert_array_equal(*drawn)
    # The chunks are one stream: the same numbers as drawn one chunk after another.
    stream = rng.random_scope(5)
    with stream as scope:
        first = scope.stream("init")
        parts = [first.normal(shape=(init.CHUNK,)) for _ in range(2)]
    np.testing.assert_array_equal(drawn[0][: 2 * init.CHUNK], np.concatenate(parts).astype(np.float32))


def test_float64_and_plain_tensors() -> None:
    t = Tensor(np.zeros(10))
    assert init.normal_(t).numpy().dtype == np.float64
    assert len(set(t.numpy().tolist())) == 10


def small_alexnet() -> nn.Sequential:
    convolutions = [nn.Conv2d(8, 8, 3) for _ in range(5)]
    return nn.Sequential(*convolutions, nn.Linear(200, 100), nn.Linear(100, 100), nn.Linear(100, 5))


def biases(net: nn.Sequential) -> list[float]:
    values = [array for name, array in net.state_dict().items() if name.endswith("bias")]
    assert all((array == array[0]).all() for array in values)
    return [float(array[0]) for array in values]


def test_course() -> None:
    net = small_alexnet()
    init.course_(net)
    assert biases(net) == [0.0] * 8
    state = net.state_dict()
    assert state["0.weight"].std() == pytest.approx(math.sqrt(2 / 72), rel=0.15)
    assert state["5.weight"].std() == pytest.approx(0.01, rel=0.03)


def test_paper() -> None:
    net = small_alexnet()
    init.paper_(net)
    assert biases(net) == [0, 1, 0, 1, 1, 1, 1, 0]
    assert net.state_dict()["0.weight"].std() == pytest.approx(0.01, rel=0.15)


def test_pytorch_is_what_new_layers_have() -> None:
    with rng.random_scope(4):
        made = small_alexnet().state_dict()
    again = small_alexnet()
    with rng.random_scope(4):
        init.pytorch_(again)
    for name, array in again.state_dict().items():
        np.testing.assert_array_equal(array, made[name])
    assert np.abs(made["5.bias"]).max() <= 1 / math.sqrt(200)


def test_xavier() -> None:
    net = small_alexnet()
    init.xavier_(net)
    assert biases(net) == [0.0] * 8
    assert net.state_dict()["6.weight"].std() == pytest.approx(0.1, rel=0.03)
    init.xavier_(net, gain=4.0)
    assert net.state_dict()["6.weight"].std() == pytest.approx(0.4, rel=0.03)
    assert net.state_dict()["7.weight"].std() == pytest.approx(math.sqrt(2 / 105), rel=0.1)


def test_kaiming() -> None:
    net = small_alexnet()
    init.kaiming_(net)
    assert biases(net) == [0.0] * 8
    weights = [array for name, array in net.state_dict().items() if name.endswith("weight")]
    for index, weight in enumerate(weights):
        gain = 1.0 if index == len(weights) - 1 else 2.0
        fan_in = weight[0].size
        assert weight.std() == pytest.approx(math.sqrt(gain / fan_in), rel=0.1 if weight.size > 500 else 0.2)


def test_without_init_draws_nothing() -> None:
    with rng.random_scope(0) as scope:
        with init.without_init():
            net = nn.Linear(3, 3)
        assert scope.drawn == {}
    assert not net.weight.numpy().any()
    assert nn.Linear(3, 3).weight.numpy().any()


def test_large_weights_are_drawn_like_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiled generator gives the same bits, also for a last chunk that fills no block."""
    drawn = []
    for many in (1, 1 << 40):
        monkeypatch.setattr(init, "MANY", many)
        rng.manual_seed(2**40 + 3)
        drawn.append([fill(weight(3, 7, 1601)).numpy() for fill in (init.normal_, init.uniform_)])
    for compiled, plain in zip(*drawn, strict=True):
        np.testing.assert_array_equal(compiled, plain)
