"""Train LeNet-5 on handwritten digits, and look at those that it gets wrong.

python examples/train_lenet.py                                     scikit-learn's 1,797 digits: no download
python examples/train_lenet.py --data mnist                        MNIST: the folder of its idx files
python examples/train_lenet.py --data mnist --model lenet5-relu    with ReLUs and max-pooling
python examples/train_lenet.py --help                              everything that can be changed
"""

from __future__ import annotations

import numpy as np

from minialex.cli import training_script
from minialex.train import TrainConfig, train
from minialex.train.commands import script_command

# Where these differ from those of `minialex train`: a mirrored 2 is no digit, and small grey pictures are
# learnt in minutes. Found with the validation digits of MNIST alone; see docs/experiments.md.
DEFAULTS = {
    "data": "digits",
    "model": "lenet5",
    "augment": False,
    "epochs": 20,
    "lr": 3e-3,
    "schedule": "cosine",
}


def main(config: TrainConfig) -> None:
    """Train LeNet-5 on handwritten digits, and look at those that it gets wrong."""
    # 1. Train. After every epoch the validation digits are looked at; the test digits once, at the very end,
    #    with the network of the epoch that was best on the validation digits.
    result = train(config, program=script_command())

    # 2. Look. A network is known by its mistakes: which digits it takes for which.
    confusion = result.confusion - np.diag(np.diag(result.confusion))
    truth, answer = np.unravel_index(confusion.argmax(), confusion.shape)
    print(f"\n{confusion.sum()} of {result.confusion.sum()} {result.part} digits are wrong", end="")
    print(f"; most often a {truth} is taken for a {answer}." if confusion.any() else ".")
    print(f"The surest of the wrong answers: {result.out / 'mistakes.png'}")
    print(f"How it learnt: {result.out / 'history.png'}")


if __name__ == "__main__":
    training_script(main)(default_map=DEFAULTS)
