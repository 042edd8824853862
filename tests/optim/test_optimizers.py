"""SGD and Adam on numbers small enough for paper, and what they refuse and remember."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from minialex import nn, optim
from minialex.backend import DTypeError
from minialex.errors import CheckpointError, DeviceError
from minialex.optim import optimizer as optimizer_module
from minialex.shapes import ShapeError
from minialex.tensor import GraphError, Tensor

Make = Callable[[list[Tensor]], optim.Optimizer]
MAKERS: dict[str, Make] = {
    "sgd": lambda params: optim.SGD(params, lr=0.1),
    "momentum": lambda params: optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=0.01),
    "paper": lambda params: optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=0.01, rule="paper"),
    "adam": lambda params: optim.Adam(params, lr=0.1),
}


def leaf(*values: float) -> Tensor:
    return Tensor(np.array(values), requires_grad=True)


def descend(optimizer: optim.Optimizer, gradients: list[float]) -> list[float]:
    """The first parameter after each step with these gradients."""
    seen = []
    for gradient in gradients:
        for param in optimizer.params:
            param.grad = np.full(param.shape, gradient, param.dtype)
        optimizer.step()
        seen.append(float(optimizer.params[0].data.flat[0]))
    return seen


def test_plain_descent_by_hand() -> None:
    assert descend(optim.SGD([leaf(1.0)], lr=0.5), [0.5, 1.0]) == [0.75, 0.25]


def test_weight_decay_by_hand() -> None:
    # 1 - 0.5 * (0 + 0.5 * 1) = 0.75
    assert descend(optim.SGD([leaf(1.0)], lr=0.5, weight_decay=0.5), [0.0]) == [0.75]


def test_momentum_by_hand() -> None:
    # v: 1, then 0.5 * 1 + 1 = 1.5, then 0.75
    assert descend(optim.SGD([leaf(0.0)], lr=1.0, momentum=0.5), [1.0, 1.0, 0.0]) == [-1.0, -2.5, -3.25]


def test_nesterov_by_hand() -> None:
    # v: 1 -> step 1 + 0.5 * 1; v: 1.5 -> step 1 + 0.5 * 1.5
    optimizer = optim.SGD([leaf(0.0)], lr=1.0, momentum=0.5, nesterov=True)
    assert descend(optimizer, [1.0, 1.0]) == [-1.5, -3.25]


def test_paper_rule_by_hand() -> None:
    # v = -0.5 * 1 * 2 - 1 * 1 = -2, w = 0; v = 0.5 * -2 - 0 - 1 = -2, w = -2
    optimizer = optim.SGD([leaf(2.0)], lr=1.0, momentum=0.5, weight_decay=0.5, rule="paper")
    assert descend(optimizer, [1.0, 1.0]) == [0.0, -2.0]


def test_the_rules_agree_until_the_rate_changes() -> None:
    pair = [optim.SGD([leaf(1.0)], 0.5, 0.5, 0.25, rule=rule) for rule in ("torch", "paper")]
    torch, paper = (descend(optimizer, [1.0, -2.0, 0.5]) for optimizer in pair)
    assert torch == pytest.approx(paper, abs=1e-15)
    for optimizer in pair:
        optimizer.lr = 0.05
    torch, paper = (descend(optimizer, [1.0])[0] for optimizer in pair)
    assert abs(torch - paper) > 1e-3


def test_adam_by_hand() -> None:
    optimizer = optim.Adam([leaf(1.0)], lr=0.1, betas=(0.5, 0.75), eps=0.0)
    # Step 1: mean 2 / 0.5 = 4, square 4 / 0.25 = 16: a step of 0.1 * 4 / 4.
    # Step 2: mean (0.5 * 2 + 0) / 0.75, square (0.75 * 4) / 0.4375.
    second = 0.9 - 0.1 * (1 / 0.75) / math.sqrt(3 / 0.4375)
    assert descend(optimizer, [4.0, 0.0]) == pytest.approx([0.9, second], abs=1e-15)


def test_adam_counts_the_updates_of_each_parameter() -> None:
    early, late = leaf(1.0), leaf(1.0)
    optimizer = optim.Adam([early, late], lr=0.1)
    early.grad = np.ones(1)
    optimizer.step()
    late.grad = np.ones(1)
    optimizer.step()
    assert late.data[0] == pytest.approx(0.9, abs=1e-6)
    assert optimizer.state_dict()["updates"].tolist() == [2, 1]


@pytest.mark.parametrize("name", MAKERS)
def test_parameters_without_gradient_are_skipped(name: str) -> None:
    still, moving = leaf(1.0), leaf(1.0)
    optimizer = MAKERS[name]([still, moving])
    moving.grad = np.ones(1)
    optimizer.step()
    assert still.data[0] == 1.0
    assert still.version.count == 0
    assert moving.data[0] < 1.0
    optimizer.zero_grad()
    assert moving.grad is None


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_and_memory_stay(name: str, dtype: str) -> None:
    param = Tensor(np.ones((2, 3), dtype), requires_grad=True)
    memory = param.data
    optimizer = MAKERS[name]([param])
    for _ in range(2):
        param.grad = np.ones((2, 3), dtype)
        optimizer.step()
    assert param.data is memory
    assert str(param.dtype) == dtype
    assert (param.data < 1.0).all()


@pytest.mark.parametrize("name", MAKERS)
def test_memory_in_another_order_is_updated_in_place(name: str) -> None:
    results = []
    for array in (np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3))):
        param = Tensor(array, requires_grad=True)
        param.data = array
        param.grad = np.arange(6.0, 0.0, -1.0).reshape(3, 2).T
        MAKERS[name]([param]).step()
        assert param.data is array
        results.append(array)
    np.testing.assert_array_equal(*results)
    assert not np.array_equal(results[0], np.arange(6.0).reshape(2, 3))


def test_a_step_between_forward_and_backward_is_noticed() -> None:
    w = leaf(2.0)
    x = leaf(3.0)
    y = (w * x).sum()
    w.grad = np.ones(1)
    optim.SGD([w], lr=0.1).step()
    with pytest.raises(GraphError, match="edited in place"):
        y.backward()


@pytest.mark.parametrize("name", MAKERS)
def test_nan_travels_on_without_a_warning(name: str) -> None:
    param = Tensor(np.ones(2, np.float32), requires_grad=True)
    param.grad = np.array([np.nan, np.inf], np.float32)
    MAKERS[name]([param]).step()
    assert not np.isfinite(param.data).any()


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: optim.SGD([], lr=0.1), ValueError, "no parameters"),
        (lambda: optim.SGD(leaf(1.0), lr=0.1), TypeError, r"write \[param\]"),
        (lambda: optim.SGD([np.ones(1)], lr=0.1), TypeError, "parameter 0 must be a Tensor, got ndarray"),
        (lambda: optim.SGD([leaf(1.0) * 2], lr=0.1), ValueError, "computed by mul"),
        (lambda: optim.SGD([PARAM, PARAM], lr=0.1), ValueError, "twice"),
        (lambda: optim.SGD([PARAM], lr=-0.1), ValueError, "lr must be at least 0 and finite, got -0.1"),
        (lambda: optim.Adam([PARAM], lr=float("nan")), ValueError, "Adam: lr .* got nan"),
        (lambda: optim.SGD([PARAM], lr=float("inf")), ValueError, "lr .* got inf"),
        (
            lambda: optim.SGD([PARAM], lr=0.1, momentum=1.0),
            ValueError,
            "momentum must be at least 0 and below 1",
        ),
        (lambda: optim.SGD([PARAM], lr=0.1, weight_decay=-1), ValueError, "weight_decay"),
        (lambda: optim.SGD([PARAM], lr=0.1, nesterov=True), ValueError, "nesterov needs momentum"),
        (lambda: optim.SGD([PARAM], lr=0.1, rule="caffe"), ValueError, "'caffe'"),
        (lambda: optim.Adam([PARAM], betas=(0.9, 1.0)), ValueError, r"betas\[1\]"),
        (lambda: optim.Adam([PARAM], eps=-1e-8), ValueError, "eps"),
    ],
)
def test_impossible_settings(make: Callable[[], object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()


PARAM = leaf(1.0)


def test_lr_is_checked_when_it_is_set() -> None:
    optimizer = optim.SGD([leaf(1.0)], lr=0.1)
    with pytest.raises(ValueError, match="lr"):
        optimizer.lr = float("nan")
    assert optimizer.lr == 0.1


class TestState:
    @pytest.mark.parametrize("name", MAKERS)
    def test_a_resumed_run_ends_with_the_same_bits(self, name: str, tmp_path: Path) -> None:
        from safetensors.numpy import load_file, save_file

        gradients = [0.3, -1.0, 0.7, 0.2]
        unbroken = MAKERS[name]([leaf(1.0, 2.0), leaf(3.0)])
        expected = descend(unbroken, gradients)
        first = MAKERS[name]([leaf(1.0, 2.0), leaf(3.0)])
        descend(first, gradients[:2])
        state = first.state_dict()
        arrays = {key: value for key, value in state.items() if isinstance(value, np.ndarray)}
        save_file(arrays, tmp_path / "state.safetensors")
        scalars = json.loads(json.dumps({key: state[key] for key in state if key not in arrays}))
        resumed = MAKERS[name]([Tensor(param.data, requires_grad=True) for param in first.params])
        resumed.lr = 7.0
        resumed.load_state_dict(scalars | load_file(tmp_path / "state.safetensors"))
        assert descend(resumed, gradients[2:]) == expected[2:]
        assert resumed.step_count == 4

    def test_it_is_flat_and_names_buffers_by_parameter(self) -> None:
        optimizer = optim.SGD([leaf(1.0, 2.0), leaf(3.0)], lr=0.1, momentum=0.9)
        descend(optimizer, [1.0])
        state = optimizer.state_dict()
        assert list(state) == [
            *("optimizer", "step", "lr", "momentum", "weight_decay", "nesterov", "rule", "updates"),
            *("momentum.0", "momentum.1"),
        ]
        state["momentum.0"][...] = 99.0
        assert optimizer.state_dict()["momentum.0"].tolist() == [1.0, 1.0]

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"momentum.0": np.ones(3)}, r"mismatched: momentum.0 \(state \(3,\), parameter \(2,\)\)"),
            ({"momentum.7": np.ones(2)}, "unexpected: momentum.7"),
            ({"optimizer": "Adam"}, "it is the state of Adam"),
            ({"updates": np.ones(5)}, "it has 5 parameters, this optimiser 1"),
            ({"lr": None}, "missing: lr"),
            ({"lr": -1.0}, "SGD: lr must be at least 0 and finite, got -1.0"),
            ({"lr": "fast"}, "str"),
            ({"rule": "banana"}, "rule must be 'torch' or 'paper', got 'banana'"),
            ({"rule": "paper", "nesterov": True}, "nesterov needs momentum and rule='torch'"),
            ({"nesterov": "yes"}, "nesterov must be True or False, got 'yes'"),
            ({"momentum": 1.0}, "momentum must be at least 0 and below 1"),
            ({"momentum": float("nan")}, "momentum .* got nan"),
            ({"weight_decay": -0.1}, "weight_decay"),
            ({"step": -1}, "step: -1 is not a whole number of at least 0"),
            ({"step": 1.5}, "step: 1.5 is not a whole number"),
            ({"step": float("inf")}, "infinity"),
            ({"updates": np.array([-2])}, "updates: -2 is not a whole number"),
            ({"updates": 7}, "it has 1 parameters, this optimiser 1"),
            ({"momentum.0": np.array(["a", "b"])}, "could not convert"),
        ],
    )
    def test_a_foreign_state_is_refused_whole(self, change: dict[str, object], words: str) -> None:
        optimizer = optim.SGD([leaf(1.0, 2.0)], lr=0.1, momentum=0.9)
        descend(optimizer, [1.0])
        before = optimizer.state_dict()
        state = before | {"lr": 5.0, "momentum": 0.5, "momentum.0": np.full(2, 9.0)} | change
        state = {key: value for key, value in state.items() if value is not None}
        with pytest.raises(CheckpointError, match=words):
            optimizer.load_state_dict(state)
        np.testing.assert_equal(optimizer.state_dict(), before)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"beta2": 1.0}, r"betas\[1\] must be at least 0 and below 1"),
            ({"eps": -1e-8}, "eps"),
            ({"mean.0": np.ones(3)}, "mismatched: mean.0"),
        ],
    )
    def test_adam_refuses_what_its_constructor_refuses(self, change: dict[str, object], words: str) -> None:
        optimizer = optim.Adam([leaf(1.0)], lr=0.1)
        descend(optimizer, [1.0])
        with pytest.raises(CheckpointError, match=words):
            optimizer.load_state_dict(optimizer.state_dict() | change)

    def test_a_state_is_loaded_whole(self) -> None:
        first = optim.SGD([leaf(1.0)], 0.3, 0.5, 0.01, nesterov=True)
        descend(first, [1.0, 2.0])
        second = optim.SGD([leaf(1.0)], 7.0)
        second.load_state_dict(first.state_dict())
        np.testing.assert_equal(second.state_dict(), first.state_dict())
        assert second.nesterov is True

    def test_repr_names_the_settings(self) -> None:
        assert repr(optim.Adam([leaf(1.0)], lr=0.5)) == (
            "Adam(1 parameters, lr=0.5, beta1=0.9, beta2=0.999, eps=1e-08, weight_decay=0.0)"
        )


class TestClipping:
    def test_by_hand(self) -> None:
        a, b, c = leaf(0.0), leaf(0.0, 0.0), leaf(0.0)
        a.grad, b.grad = np.array([3.0]), np.array([0.0, 4.0])
        assert optim.clip_grad_norm_([a, b, c], max_norm=1.0) == 5.0
        assert a.grad == pytest.approx(0.6, rel=1e-6)
        assert b.grad == pytest.approx([0.0, 0.8], rel=1e-6)
        assert c.grad is None

    def test_small_gradients_keep_their_bits(self) -> None:
        a = Tensor(np.zeros(3, np.float32), requires_grad=True)
        a.grad = np.array([0.1, 0.2, 0.3], np.float32)
        optim.clip_grad_norm_(iter([a]), 1.0)
        assert (a.grad == np.array([0.1, 0.2, 0.3], np.float32)).all()
        assert a.grad.dtype == np.float32

    def test_sums_in_float64_what_float32_cannot(self) -> None:
        a = Tensor(np.zeros(200_000, np.float32), requires_grad=True)
        a.grad = np.full(200_000, 1e-3, np.float32)
        a.grad[0] = 1e20
        assert optim.clip_grad_norm_([a], 1e30) == pytest.approx(1e20)
        a.grad[...] = 1e-30
        assert optim.clip_grad_norm_([a], 1.0) == pytest.approx(math.sqrt(200_000) * 1e-30, rel=1e-6)

    def test_nan_is_told_and_left_alone(self) -> None:
        a, b = leaf(0.0), leaf(0.0)
        a.grad, b.grad = np.array([np.nan]), np.array([100.0])
        assert math.isnan(optim.clip_grad_norm_([a, b], 1.0))
        assert b.grad == [100.0]

    @pytest.mark.parametrize("bad", [0.0, -1.0, float("nan")])
    def test_max_norm_must_be_positive(self, bad: float) -> None:
        with pytest.raises(ValueError, match="max_norm"):
            optim.clip_grad_norm_([leaf(1.0)], bad)

    def test_without_gradients_the_norm_is_zero(self) -> None:
        assert optim.clip_grad_norm_([leaf(1.0)], 1.0) == 0.0


def test_a_moved_or_converted_model_takes_its_buffers_along() -> None:
    net = nn.Linear(2, 1)
    optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    descend(optimizer, [1.0])
    net.astype("float64")
    descend(optimizer, [1.0])
    assert optimizer.state_dict()["momentum.0"].dtype == np.float64
    assert optimizer.state_dict()["momentum.0"] == pytest.approx(1.9)


def test_a_buffer_follows_the_parameter_from_one_gpu_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without GPUs: what tells where arrays are, and what moves them, are replaced."""
    param = leaf(1.0)
    sgd = optim.SGD([param], lr=0.1, momentum=0.9)
    descend(sgd, [1.0])
    buffer = sgd._memory[0]["momentum"]
    places: dict[int, str] = {id(buffer): "cuda:0"}
    moves = []

    def to_device(array: np.ndarray, device: str) -> np.ndarray:
        if places.get(id(array), "cuda:1") == device:
            return array
        moves.append((places[id(array)], device))
        return array.copy()

    monkeypatch.setattr(optimizer_module, "device_of", lambda array: places.get(id(array), "cuda:1"))
    monkeypatch.setattr(optimizer_module, "to_device", to_device)
    descend(sgd, [1.0, 1.0])
    assert moves == [("cuda:0", "cuda:1")]


class TestGradientsThatDoNotFit:
    """Tensor.grad refuses most of them when they are set; here they get past it."""

    def refused(self, error: type[Exception], words: str, params: list[Tensor]) -> None:
        sgd = optim.SGD(params, lr=0.1)
        before = [param.data.copy() for param in params]
        with pytest.raises(error, match=words):
            sgd.step()
        assert sgd.step_count == 0
        for param, array in zip(params, before, strict=True):
            np.testing.assert_array_equal(param.data, array)

    def good(self) -> Tensor:
        param = leaf(1.0)
        param.grad = np.ones(1)
        return param

    def test_shape(self) -> None:
        # One number would be spread over all.
        bad = leaf(1.0)
        bad.grad = np.ones(1)
        bad._data = np.ones(2)
        words = r"SGD: the gradient of parameter 1 has shape \(1,\), expected the parameter's \(2,\)"
        self.refused(ShapeError, words, [self.good(), bad])

    def test_dtype(self) -> None:
        bad = leaf(1.0)
        bad.grad = np.ones(1)
        bad._data = np.ones(1, np.float32)
        words = "gradient of parameter 1 is float64, expected the parameter's float32"
        self.refused(DTypeError, words, [self.good(), bad])

    def test_device(self, monkeypatch: pytest.MonkeyPatch) -> None:
        good, bad = self.good(), self.good()
        far = bad.grad
        monkeypatch.setattr(optimizer_module, "device_of", lambda a: "cuda:0" if a is far else "cpu")
        self.refused(DeviceError, "parameter 1 is on cuda:0, expected cpu", [good, bad])
