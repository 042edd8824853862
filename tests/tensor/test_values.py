"""Tensor: what it is made of, and what it gives back."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from minialex.backend import DTypeError
from minialex.errors import DeviceError
from minialex.shapes import ShapeError
from minialex.tensor import GraphError, Tensor, as_tensor


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8", "bool"])
def test_arrays_keep_their_dtype(dtype: str) -> None:
    assert Tensor(np.zeros(2, dtype)).dtype == np.dtype(dtype)


@pytest.mark.parametrize("data", [1, 1.5, [1, 2], [[1.0, 2.0]], (1, 2), []])
def test_numbers_and_lists_become_float32(data: object) -> None:
    assert Tensor(data).dtype == np.float32


def test_a_wanted_dtype() -> None:
    assert Tensor([1, 2], dtype="int64").dtype == np.int64
    assert Tensor(np.zeros(2), dtype="float32").dtype == np.float32
    # Not by way of float32, which has no 16,777,217.
    assert Tensor([2**24 + 1], dtype="int64").item() == 2**24 + 1


def test_data_are_copied() -> None:
    array = np.zeros(2)
    x = Tensor(array)
    array[0] = 1.0
    y = Tensor(x)
    x.data[1] = 2.0
    np.testing.assert_array_equal(x.data, [0.0, 2.0])
    np.testing.assert_array_equal(y.data, [0.0, 0.0])


@pytest.mark.parametrize("data", [np.zeros(2, complex), np.array(["a"]), np.array([None])])
def test_other_dtypes_are_refused(data: object) -> None:
    with pytest.raises(DTypeError, match="a Tensor holds float32, float64"):
        Tensor(data)


def test_integers_have_no_gradient() -> None:
    with pytest.raises(DTypeError, match="only floating Tensors can require gradients, got dtype int64"):
        Tensor(np.arange(3), requires_grad=True)


def test_attributes() -> None:
    x = Tensor(np.zeros((2, 3), np.float32), requires_grad=True)
    assert (x.shape, x.ndim, x.size, len(x), x.device, x.is_leaf) == ((2, 3), 2, 6, 2, "cpu", True)
    assert not (x + 1.0).is_leaf
    with pytest.raises(TypeError, match="no len"):
        len(Tensor(1.0))


def test_leaving_the_graph() -> None:
    x = Tensor([2.0], requires_grad=True)
    y = x * 2.0
    assert y.numpy() is y.data  # Also when gradients are required.
    assert (y.item(), float(y), bool(y)) == (4.0, 4.0, True)
    np.testing.assert_array_equal(np.asarray(y), [4.0])
    assert np.asarray(y, dtype=np.float64).dtype == np.float64
    with pytest.raises(ShapeError, match=r"one element, got shape \(2,\)"):
        Tensor([1.0, 2.0]).item()


def test_detach_shares_memory_and_stops_gradients() -> None:
    x = Tensor([2.0], requires_grad=True)
    still = (x * 3.0).detach()
    assert not still.requires_grad
    assert still.op is None
    (x * still).backward()
    np.testing.assert_array_equal(x.grad, [6.0])
    assert np.shares_memory(x.detach().data, x.data)


def test_repr_is_short_and_says_what_matters() -> None:
    x = Tensor(np.arange(3.0), requires_grad=True)
    assert repr(x) == "Tensor([0., 1., 2.], dtype=float64, requires_grad=True)"
    assert "op=exp" in repr(x.exp())
    assert len(repr(Tensor(np.zeros((100, 100))))) < 500


def test_data_can_be_replaced_by_the_same_shape() -> None:
    x = Tensor([1.0, 2.0])
    x.data = np.array([3.0, 4.0], np.float32)
    np.testing.assert_array_equal(x.numpy(), [3.0, 4.0])
    with pytest.raises(ShapeError, match=r"expected shape \(2,\), got \(3,\)"):
        x.data = np.zeros(3)


def test_as_tensor() -> None:
    x = Tensor([1.0])
    assert as_tensor(x) is x
    assert as_tensor([1, 2]).dtype == np.float32
    assert as_tensor(np.arange(2)).dtype == np.int64


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "CPU", ""])
def test_unknown_devices(device: str) -> None:
    with pytest.raises(DeviceError, match=r"unknown device .*expected 'cpu', 'cuda'"):
        Tensor([1.0], device=device)


@pytest.mark.skipif(importlib.util.find_spec("cupy") is not None, reason="CuPy is installed")
def test_cuda_without_cupy_is_an_error_and_no_fallback() -> None:
    for make in (lambda: Tensor([1.0], device="cuda"), lambda: Tensor([1.0]).to("cuda:1")):
        with pytest.raises(DeviceError, match=r"needs CuPy.*pip install 'cupy-cuda13x\[ctk\]'"):
            make()


def test_moving_where_it_is_already_changes_nothing() -> None:
    x = Tensor([1.0], requires_grad=True)
    assert x.to("cpu") is x
    assert (x * 2.0).to("cpu").requires_grad


def test_astype_is_a_leaf() -> None:
    x = Tensor([1.0]).astype("float64")
    assert x.dtype == np.float64
    assert x.op is None


def test_transpose_and_reshape_take_both_forms() -> None:
    x = Tensor(np.zeros((2, 3, 4)))
    assert x.transpose(2, 0, 1).shape == x.transpose((2, 0, 1)).shape == (4, 2, 3)
    assert x.transpose().shape == x.T.shape == (4, 3, 2)
    assert x.reshape(6, -1).shape == x.reshape((6, -1)).shape == x.reshape([6, 4]).shape == (6, 4)


def test_an_edit_of_a_tensor_that_requires_gradients_is_refused() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(GraphError, match="edit in place"):
        x[0] = 5.0
    with pytest.raises(GraphError, match="edit in place"):
        x.zero_()
