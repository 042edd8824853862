"""The same weights and the same batches, no dropout: thirty steps of SGD give PyTorch's losses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minialex as mx
from minialex import models, nn, ops, optim
from minialex.rng import Stream

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'minialex[bench]'")


class TorchLocalResponseNorm(torch.nn.Module):
    """The paper's dialect by PyTorch's operation, which divides alpha by size: ours goes in times size."""

    def __init__(self, layer: nn.LocalResponseNorm) -> None:
        super().__init__()
        assert layer.size % 2 == 1
        self.norm = torch.nn.LocalResponseNorm(layer.size, layer.alpha * layer.size, layer.beta, layer.k)

    def forward(self, x: Any) -> Any:
        return self.norm(x)


def as_torch(layer: nn.Module) -> Any:
    """PyTorch's layer for one of ours, weights apart."""
    match layer:
        case nn.Sequential():
            return torch.nn.Sequential(*(as_torch(child) for child in layer))
        case nn.Conv2d():
            filters, per_group, *kernel = layer.weight.shape
            (top, bottom), (left, right) = layer.padding
            assert (top, left) == (bottom, right)
            channels = per_group * layer.groups
            return torch.nn.Conv2d(
                channels, filters, kernel, layer.stride, (top, left), layer.dilation, layer.groups
            )
        case nn.Linear():
            return torch.nn.Linear(*reversed(layer.weight.shape))
        case nn.LocalResponseNorm():
            return TorchLocalResponseNorm(layer)
        case nn.MaxPool2d():
            return torch.nn.MaxPool2d(layer.kernel_size, layer.stride)
        case nn.AvgPool2d():
            return torch.nn.AvgPool2d(layer.kernel_size, layer.stride)
        case nn.AdaptiveAvgPool2d():
            return torch.nn.AdaptiveAvgPool2d(layer.output_size)
        case nn.Dropout():
            return torch.nn.Identity()
        case nn.ReLU() | nn.Sigmoid() | nn.Flatten():
            return getattr(torch.nn, type(layer).__name__)()
    raise AssertionError(f"no PyTorch layer for {type(layer).__name__}")


def twin(model: nn.Module) -> Any:
    """A PyTorch model with the names and the weights of ours."""
    children = {name: as_torch(child) for name, child in model.named_children()}
    theirs = torch.nn.Sequential()
    for name, child in children.items():
        if name == "classifier" and "features" in children:
            theirs.add_module("flatten_before_classifier", torch.nn.Flatten())
        theirs.add_module(name, child)
    theirs.load_state_dict({name: torch.tensor(array) for name, array in model.state_dict().items()})
    return theirs


# Float32 rounds differently in every library, and a training run that jumps about multiplies the difference:
# it is compared at a rate at which the loss falls steadily, and in float64 at one at which it does not.
@pytest.mark.parametrize(
    ("name", "classes", "batch", "lr", "steps", "dtype", "tolerance"),
    [
        ("lenet5", 10, 32, 0.5, 30, "float32", 1e-3),
        ("flowers", 5, 8, 0.002, 30, "float32", 1e-3),
        ("flowers", 5, 4, 0.01, 30, "float64", 1e-9),
        ("grouped", 5, 2, 0.002, 8, "float32", 1e-3),
    ],
)
def test_steps_of_sgd_give_the_losses_of_pytorch(
    name: str, classes: int, batch: int, lr: float, steps: int, dtype: str, tolerance: float
) -> None:
    mx.manual_seed(3)
    model = models.build(name, classes).astype(dtype)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    theirs = twin(model).to(getattr(torch, dtype))
    mine = optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
    their_optimizer = torch.optim.SGD(theirs.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
    losses = []
    for step in range(steps):
        stream = Stream(1, "test", step=step)
        labels = stream.integers(0, classes, (batch,))
        # Each class is a brightness, so that there is something to learn.
        shape = (batch, model.channels, model.image_size, model.image_size)
        pictures = stream.normal(shape=shape) + labels[:, None, None, None] / classes
        pictures = pictures.astype(dtype)

        loss = ops.cross_entropy(model(mx.Tensor(pictures)), labels)
        mine.zero_grad()
        loss.backward()
        mine.step()

        their_loss = torch.nn.functional.cross_entropy(theirs(torch.tensor(pictures)), torch.tensor(labels))
        their_optimizer.zero_grad()
        their_loss.backward()
        their_optimizer.step()
        losses.append((loss.item(), their_loss.item()))
    got, expected = np.array(losses).T
    print(f"{name} {dtype}: largest relative difference {np.max(np.abs(got / expected - 1)):.1e}")
    assert np.ptp(expected) > 0.02, "the loss never moved, so nothing was compared"
    np.testing.assert_allclose(got, expected, rtol=tolerance)
