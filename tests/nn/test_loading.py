"""state_dict and load_state_dict."""

from __future__ import annotations

import numpy as np
import pytest

from minialex import nn
from minialex.errors import CheckpointError
from minialex.tensor import GraphError, Tensor


def small_net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))


def test_state_dict_holds_copies() -> None:
    net = small_net()
    state = net.state_dict()
    assert {name: array.shape for name, array in state.items()} == {
        "0.weight": (3, 2),
        "0.bias": (3,),
        "2.weight": (1, 3),
        "2.bias": (1,),
    }
    net[0].weight.data[...] = 9.0  # type: ignore[attr-defined]
    assert not (state["0.weight"] == 9.0).any()


def test_round_trip_keeps_bits_and_objects() -> None:
    source, target = small_net(), small_net()
    before = list(target.parameters())
    result = target.load_state_dict(source.state_dict())
    assert result == ([], [])
    for name, array in target.state_dict().items():
        np.testing.assert_array_equal(array, source.state_dict()[name], strict=True)
    assert all(a is b for a, b in zip(before, target.parameters(), strict=True))


def test_tensors_lists_and_other_dtypes_are_taken_and_the_models_dtype_stays() -> None:
    net = nn.Linear(2, 1)
    net.load_state_dict({"weight": Tensor(np.array([[1.5, 2.0]], np.float64)), "bias": [3]})
    assert net.weight.dtype == np.float32
    assert net.weight.numpy().tolist() == [[1.5, 2.0]]
    assert net.bias is not None
    assert net.bias.item() == 3.0


@pytest.mark.parametrize("strict", [True, False])
def test_an_error_lists_everything_and_loads_nothing(strict: bool) -> None:
    net = small_net()
    before = net.state_dict()
    foreign = {
        "0.weight": np.ones((3, 2)),
        "0.bias": np.ones(4),
        "2.weight": np.ones((1, 3)),
        "3.weight": np.ones(1),
    }
    with pytest.raises(nn.StateDictError) as caught:
        net.load_state_dict(foreign, strict=strict)
    assert caught.value.missing == ["2.bias"]
    assert caught.value.unexpected == ["3.weight"]
    assert caught.value.mismatched == ["0.bias (state dict (4,), model (3,))"]
    assert str(caught.value) == (
        "this state dict does not fit Sequential; nothing was loaded\n"
        "  missing (1): 2.bias\n"
        "  unexpected (1): 3.weight\n"
        "  mismatched (1): 0.bias (state dict (4,), model (3,))"
    )
    assert isinstance(caught.value, CheckpointError)
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_not_strict_loads_what_fits_and_says_what_does_not() -> None:
    net = small_net()
    result = net.load_state_dict({"2.bias": np.array([5.0]), "head.bias": np.ones(3)}, strict=False)
    assert result.missing == ["0.weight", "0.bias", "2.weight"]
    assert result.unexpected == ["head.bias"]
    assert net.state_dict()["2.bias"].tolist() == [5.0]


def test_words_are_no_weights() -> None:
    with pytest.raises(nn.StateDictError, match="dtype <U3"):
        nn.Linear(1, 1).load_state_dict({"weight": [["one"]], "bias": [1.0]})
    with pytest.raises(TypeError, match="expected a mapping"):
        nn.Linear(1, 1).load_state_dict("weights.safetensors")  # type: ignore[arg-type]


def test_long_lists_are_cut_in_the_message_only() -> None:
    with pytest.raises(nn.StateDictError, match="and 5 more") as caught:
        nn.Identity().load_state_dict({f"n{i}": np.ones(1) for i in range(25)})
    assert len(caught.value.unexpected) == 25


def test_a_backward_pass_notices_that_weights_were_loaded() -> None:
    net = nn.Linear(2, 1)
    y = net(Tensor(np.ones((1, 2), np.float32), requires_grad=True)).sum()
    net.load_state_dict(net.state_dict())
    with pytest.raises(GraphError, match="edited in place"):
        y.backward()
