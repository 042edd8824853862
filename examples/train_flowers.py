"""Train an AlexNet on photographs of flowers, and ask it about one of them.

python examples/train_flowers.py --device cuda        on a GPU
python examples/train_flowers.py --data drawn         on flowers that are drawn by code: no download
python examples/train_flowers.py --data my_photos     on a folder with one folder of photographs a class
python examples/train_flowers.py --help               everything that can be changed
"""

from __future__ import annotations

import minialex as mx
from minialex.cli import training_script
from minialex.train import TrainConfig, train
from minialex.train.commands import script_command


def main(config: TrainConfig) -> None:
    """Train an AlexNet on photographs of flowers, and ask it about one of them."""
    # 1. Train. The loop is in minialex/train/loop.py: for every batch forward, loss, backward, step; after
    #    every epoch a look at pictures that are not trained on; at the end the best epoch is tested.
    result = train(config, program=script_command())

    # 2. Use it: the checkpoint knows the network, the names of the classes and how to prepare a picture.
    prediction = mx.load(result.checkpoint).predict(result.example)
    print(f"\nwhat the network says to {result.example}:\n{prediction}")


if __name__ == "__main__":
    training_script(main)()
