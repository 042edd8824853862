"""LeNet-5."""

from __future__ import annotations

from minialex import nn
from minialex.nn import init
from minialex.shapes import ShapeError
from minialex.tensor import Tensor

__all__ = ["LeNet", "lenet5"]


class LeNet(nn.Module):
    """Two convolutions (`features`) and three fully connected layers (`classifier`), sigmoids between.

    The form that is taught today: 28 x 28 images with padding 2 in place of 32 x 32, average pooling without
    weights, every filter of the second convolution connected to all maps of the first, logits instead of
    radial basis functions.

    Shapes: x (N, 1, 28, 28) -> logits (N, num_classes).
    With `fused`, which can be set at any time, the layers of `features` run by fused operations (see
    `nn.run_fused`): less time and memory for the same numbers.
    Source: LeCun, Bottou, Bengio, Haffner 1998.
    """

    fused = True

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.name, self.num_classes, self.image_size, self.channels = "lenet5", num_classes, 28, 1
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, kernel_size=5, padding=2),
            nn.Sigmoid(),
            nn.AvgPool2d(2),
            nn.Conv2d(6, 16, kernel_size=5),
            nn.Sigmoid(),
            nn.AvgPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(16 * 5 * 5, 120),
            nn.Sigmoid(),
            nn.Linear(120, 84),
            nn.Sigmoid(),
            nn.Linear(84, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        expected = (self.channels, self.image_size, self.image_size)
        if x.shape[1:] != expected or x.ndim != 4:
            raise ShapeError(
                f"{self.name}: images must be (N, {', '.join(map(str, expected))}), got shape {x.shape}"
            )
        return self.classifier(nn.run_fused(self.features, x) if self.fused else self.features(x))


def lenet5(num_classes: int = 10) -> LeNet:
    """LeNet-5 with logits for `num_classes` classes: 61,706 parameters with ten.

    Weights start from Xavier's uniform distribution with the gain of sigmoids, 4. With a gain of 1, or with
    PyTorch's default, stacked sigmoids hardly pass a gradient and the loss stays at ln(classes) for hundreds
    of steps.
    """
    with init.without_init():
        model = LeNet(num_classes)
    if not init.is_skipped():
        init.xavier_(model, gain=4.0)
    return model
