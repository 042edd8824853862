"""What a network answers to a part of the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from minialex import ops
from minialex.backend import on_device, to_numpy
from minialex.tensor import no_grad
from minialex.train.input_pipeline import ahead, input_tensor
from minialex.train.metrics import Evaluation, RunningMean

Noted = Callable[[int, RunningMean], object]


def evaluate(model: Any, batches: Iterable[Any], device: str, noted: Noted | None = None) -> Evaluation:
    """Run the model over batches as it will be used: no dropout, no gradients.

    Args: batches: of a loader that does not shuffle; noted: called after each batch with (1, figures so far).
    """
    was_training = model.training
    model.eval()
    mean = RunningMean()
    probabilities, labels, indices = [], [], []
    with no_grad(), on_device(device):
        for batch in ahead(batches, device):
            logits = model(input_tensor(batch, device))
            loss = ops.cross_entropy(logits, batch.labels).item()
            shares = to_numpy(ops.softmax(logits, axis=-1).data)
            mean.add(loss, int((shares.argmax(axis=1) == batch.labels).sum()), len(batch.labels))
            probabilities.append(np.asarray(shares, dtype=np.float32))
            labels.append(np.asarray(batch.labels, dtype=np.int64))
            indices.append(np.asarray(batch.indices, dtype=np.int64))
            if noted is not None:
                noted(1, mean)
    if was_training:
        model.train()
    return Evaluation(
        mean.loss, np.concatenate(probabilities), np.concatenate(labels), np.concatenate(indices)
    )
