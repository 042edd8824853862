"""The tree of Modules: names, modes, moves and what it refuses."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest

from minialex import nn, ops
from minialex.errors import DeviceError
from minialex.tensor import Event, Tensor, observe


class Block(nn.Module):
    """Two layers and a weight of its own, made without super().__init__()."""

    def __init__(self) -> None:
        self.scale = nn.Parameter([2.0])
        self.first = nn.Linear(3, 4)
        self.second = nn.Sequential(nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 2, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x)) * self.scale


def test_names_are_attribute_paths_in_the_order_of_assignment() -> None:
    names = [name for name, _ in Block().named_parameters()]
    assert names == ["scale", "first.weight", "first.bias", "second.2.weight"]
    modules = [name for name, _ in Block().named_modules()]
    assert modules == ["", "first", "second", "second.0", "second.1", "second.2"]
    assert next(Block().named_parameters("net"))[0] == "net.scale"
    assert Block().num_parameters() == 1 + 12 + 4 + 8


def test_everything_works_without_super_init() -> None:
    block = Block()
    assert block.training
    assert not block.eval().training
    assert block(Tensor(np.ones((5, 3), np.float32))).shape == (5, 2)


def test_shared_parameters_come_once_but_keep_all_their_names() -> None:
    net = nn.Module()
    net.a, net.b = nn.Linear(2, 2), nn.Linear(2, 2)
    net.b.weight = net.a.weight
    assert [name for name, _ in net.named_parameters()] == ["a.weight", "a.bias", "b.bias"]
    assert list(net.state_dict()) == ["a.weight", "a.bias", "b.weight", "b.bias"]
    shared = nn.Linear(2, 2)
    assert len(list(nn.Sequential(shared, nn.ReLU(), shared).modules())) == 3


def test_train_and_eval_reach_every_module_and_give_the_model() -> None:
    block = Block()
    assert block.eval() is block
    assert [module.training for module in block.modules()] == [False] * 6
    block.train()
    assert all(module.training for module in block.modules())


def test_gradients_reach_parameters_and_zero_grad_forgets_them() -> None:
    block = Block().eval()
    block(Tensor(np.ones((1, 3), np.float32))).sum().backward()
    assert all(parameter.grad is not None for parameter in block.parameters())
    block.zero_grad()
    assert all(parameter.grad is None for parameter in block.parameters())


def test_frozen_parameters_get_no_gradient() -> None:
    block = Block().eval()
    block.first.requires_grad_(False)
    block(Tensor(np.ones((1, 3), np.float32))).sum().backward()
    assert block.first.weight.grad is None
    assert block.second[2].weight.grad is not None


def test_apply_goes_from_the_leaves_to_the_root() -> None:
    seen: list[str] = []
    Block().apply(lambda module: seen.append(type(module).__name__))
    assert seen == ["Linear", "ReLU", "Dropout", "Linear", "Sequential", "Block"]


def test_to_keeps_the_parameters_and_refuses_devices_that_are_missing() -> None:
    block = Block()
    before = list(block.parameters())
    assert block.to("cpu") is block
    assert all(a is b for a, b in zip(before, block.parameters(), strict=True))
    with pytest.raises(DeviceError):
        block.to("tpu")


def test_astype_converts_for_gradient_checks() -> None:
    block = Block().astype("float64")
    assert {str(parameter.dtype) for parameter in block.parameters()} == {"float64"}
    with pytest.raises(TypeError, match="int32"):
        block.astype("int32")


@pytest.mark.parametrize("move", [lambda net: net.to("cpu"), lambda net: net.astype("float32")])
def test_a_move_to_where_it_is_leaves_a_recorded_graph_alone(move: Callable[[nn.Module], object]) -> None:
    block = Block().eval()
    block.second[2].weight.grad = np.ones((2, 4), np.float32)
    arrays = [parameter.data for parameter in block.parameters()]
    loss = block(Tensor(np.ones((1, 3), np.float32))).sum()
    move(block)
    loss.backward()
    assert all(a is p.data for a, p in zip(arrays, block.parameters(), strict=True))
    # What was there before the move is still there to be added to.
    hidden = np.maximum(block.first(Tensor(np.ones((1, 3), np.float32))).numpy(), 0)
    expected = 1.0 + 2.0 * np.repeat(hidden, 2, axis=0)
    np.testing.assert_allclose(block.second[2].weight.grad, expected, rtol=1e-6)


def test_astype_that_converts_forgets_gradients() -> None:
    block = Block()
    block.scale.grad = np.ones(1, np.float32)
    assert block.astype("float64").scale.grad is None


def test_active_module_is_the_innermost_call() -> None:
    seen: list[tuple[str, str]] = []

    def note(event: Event) -> None:
        seen.append((event.op.name, type(nn.active_module()).__name__))

    assert nn.active_module() is None
    with observe(note):
        Block().eval()(Tensor(np.ones((1, 3), np.float32)))
    assert ("linear", "Linear") in seen
    assert ("relu", "ReLU") in seen
    assert seen[-1] == ("mul", "Block")
    assert nn.active_module() is None


def test_active_module_is_forgotten_after_an_error() -> None:
    with pytest.raises(NotImplementedError, match="Module must define forward"):
        nn.Module()(1)
    assert nn.active_module() is None


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("layer", nn.ReLU, r"ReLU is a class; make a layer of it: ReLU\(\.\.\.\)"),
        ("layers", [nn.ReLU()], "use nn.Sequential"),
        ("layers", {"a": nn.Parameter([1.0])}, "use nn.Sequential"),
        ("first", 3, "expected a Module or None, got int"),
        ("scale", np.ones(1), "expected a Parameter or None, got ndarray"),
        ("scale", Tensor([1.0]), "expected a Parameter or None, got Tensor"),
    ],
)
def test_assignments_that_would_lose_weights_are_refused(name: str, value: object, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        setattr(Block(), name, value)


def test_names_that_cannot_be_are_refused() -> None:
    block = Block()
    with pytest.raises(ValueError, match="train is a method"):
        block.train = nn.ReLU()  # type: ignore[assignment, method-assign]
    with pytest.raises(ValueError, match="dot"):
        setattr(block, "a.b", nn.ReLU())
    with pytest.raises(ValueError, match="cannot contain itself"):
        block.me = block


def test_none_takes_a_layer_away() -> None:
    block = Block()
    block.scale = None  # type: ignore[assignment]
    assert "scale" not in block.state_dict()


def test_copies_are_independent() -> None:
    block = Block()
    for twin in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert list(twin.state_dict()) == list(block.state_dict())
        twin.scale.data[...] = 7.0
        assert block.scale.item() == 2.0


def test_repr_shows_the_tree_as_pytorch_does() -> None:
    assert repr(Block()) == (
        "Block(\n"
        "  (first): Linear(in_features=3, out_features=4)\n"
        "  (second): Sequential(\n"
        "    (0): ReLU()\n"
        "    (1): Dropout(p=0.5)\n"
        "    (2): Linear(in_features=4, out_features=2, bias=False)\n"
        "  )\n"
        ")"
    )


def test_parameter_requires_a_gradient_and_copies() -> None:
    array = np.ones(2, np.float32)
    parameter = nn.Parameter(array)
    array[0] = 5
    assert parameter.requires_grad
    assert parameter.numpy().tolist() == [1.0, 1.0]
    assert repr(parameter).startswith("Parameter Tensor([1., 1.]")
    assert type(ops.relu(parameter)) is Tensor


class TestSequential:
    def test_indexing_and_slicing_give_the_same_modules(self) -> None:
        layers = [nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4)]
        net = nn.Sequential(*layers)
        assert len(net) == 3
        assert list(net) == layers
        assert net[0] is layers[0]
        assert net[-1] is layers[2]
        assert list(net[1:]) == layers[1:]
        assert [name for name, _ in net[1:].named_parameters()] == ["1.weight", "1.bias"]

    def test_append_and_replace(self) -> None:
        net = nn.Sequential().append(nn.ReLU()).append(nn.Tanh())
        net[-1] = nn.Identity()
        assert repr(net) == "Sequential(\n  (0): ReLU()\n  (1): Identity()\n)"

    def test_an_empty_one_gives_what_it_gets(self) -> None:
        x = Tensor([1.0])
        assert nn.Sequential()(x) is x

    @pytest.mark.parametrize("index", [2, -3])
    def test_out_of_range(self, index: int) -> None:
        with pytest.raises(IndexError, match=f"{index} is out of range for 2"):
            nn.Sequential(nn.ReLU(), nn.ReLU())[index]

    def test_only_modules(self) -> None:
        with pytest.raises(TypeError, match=r"item 1 must be a Module.*did you mean ReLU\(\)\?"):
            nn.Sequential(nn.ReLU(), nn.ReLU)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="item 0 must be a Module"):
            nn.Sequential(ops.relu)  # type: ignore[arg-type]
