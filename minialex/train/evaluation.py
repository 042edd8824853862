"""What a network answers to a part of the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from minialex import ops
from minialex.backend import on_device, to_numpy
from minialex.tensor import no_grad
from minialex.train.input_pipeline import ahead, input_tensor
from minialex.train.metrics import Evaluation, IntArray, RunningMean

Noted = Callable[[int, RunningMean], object]


def evaluate(
    model: Any, batches: Iterable[Any], device: str, noted: Noted | None = None, views: int = 1
) -> Evaluation:
    """Run the model over batches as it will be used: no dropout, no gradients.

    Args: batches: of a loader that does not shuffle; noted: called after each batch with (1, figures so far);
          views: so many batches in a row show the same pictures in other ways, and count as one, whose
          probabilities are the mean of theirs (`TenCrops.batches` gives ten).
    """
    was_training = model.training
    model.eval()
    mean = RunningMean()
    answers, labels, indices = [], [], []
    seen: list[npt.NDArray[Any]] = []
    with no_grad(), on_device(device):
        for batch in ahead(batches, device):
            logits = model(input_tensor(batch, device))
            seen.append(to_numpy(ops.softmax(logits, axis=-1).data))
            if len(seen) < views:
                continue
            if views == 1:
                shares, loss = seen[0], ops.cross_entropy(logits, batch.labels).item()
            else:
                shares = mean_probabilities(seen)
                loss = log_loss(shares, batch.labels)
            mean.add(loss, int((shares.argmax(axis=1) == batch.labels).sum()), len(batch.labels))
            answers.append(np.asarray(shares, dtype=np.float32))
            labels.append(np.asarray(batch.labels, dtype=np.int64))
            indices.append(np.asarray(batch.indices, dtype=np.int64))
            seen.clear()
            if noted is not None:
                noted(1, mean)
    assert not seen, f"the batches do not come in groups of {views}"
    if was_training:
        model.train()
    return Evaluation(mean.loss, np.concatenate(answers), np.concatenate(labels), np.concatenate(indices))


def averaged(evaluations: Sequence[Evaluation]) -> Evaluation:
    """The answers of several networks to the same pictures as one: the mean of their probabilities.

    Source: Krizhevsky, Sutskever, Hinton 2012, section 6: "5 CNNs" averages the answers of five networks.
    Raises: ValueError if they are not about the same pictures in the same order.
    """
    first = evaluations[0]
    for other in evaluations[1:]:
        if not (np.array_equal(first.indices, other.indices) and np.array_equal(first.labels, other.labels)):
            raise ValueError("averaged: the evaluations are not of the same pictures in the same order")
    probabilities = mean_probabilities([evaluation.probabilities for evaluation in evaluations])
    return Evaluation(log_loss(probabilities, first.labels), probabilities, first.labels, first.indices)


def mean_probabilities(several: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
    """The mean of several answers, summed in float64, in order. Shapes: each (N, classes) -> the same."""
    total = np.zeros(several[0].shape)
    for probabilities in several:
        total += probabilities
    return np.asarray(total / len(several), dtype=np.float32)


def log_loss(probabilities: npt.NDArray[Any], labels: IntArray) -> float:
    """The mean of -log(probability of the true class), of probabilities instead of logits.

    Shapes: probabilities (N, classes), labels (N,).
    """
    right = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    # The logarithm of a probability that float32 has rounded to zero would be infinite.
    return float(-np.log(np.maximum(right, 1e-38)).mean())
