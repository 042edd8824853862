"""What the user does to an array after the forward pass does not reach the gradient."""

from __future__ import annotations

import numpy as np

from minialex import ops
from minialex.tensor import Tensor


def test_labels_may_be_reused() -> None:
    labels = np.array([0, 1])
    gradients = []
    for later in (labels.copy(), np.array([1, 1])):
        logits = Tensor(np.array([[1.0, 2.0], [0.5, 0.0]]), requires_grad=True)
        labels[:] = [0, 1]
        loss = ops.cross_entropy(logits, labels)
        labels[:] = later
        loss.backward()
        gradients.append(logits.grad)
    np.testing.assert_array_equal(gradients[0], gradients[1])


def test_arrays_given_to_an_op_may_be_reused() -> None:
    x = np.ones((1, 1, 3, 3), np.float32)
    weight = Tensor(np.ones((1, 1, 2, 2), np.float32), requires_grad=True)
    y = ops.conv2d(x, weight)  # type: ignore[arg-type]
    x[:] = 100.0
    y.sum().backward()
    np.testing.assert_array_equal(weight.grad, np.full((1, 1, 2, 2), 4.0))
