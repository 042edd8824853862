"""Layers: parameters and one op call each, in a tree with names."""

from minialex.nn import init
from minialex.nn.activations import LogSoftmax, ReLU, Sigmoid, Softmax, Tanh
from minialex.nn.fusion import run_fused, unfused
from minialex.nn.layers import Conv2d, Dropout, Flatten, Identity, Linear, LocalResponseNorm
from minialex.nn.loading import LoadResult, StateDictError
from minialex.nn.loss import CrossEntropyLoss
from minialex.nn.module import Module, active_module
from minialex.nn.parameter import Parameter
from minialex.nn.pooling import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from minialex.nn.sequential import Sequential

__all__ = [
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "Conv2d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "Identity",
    "Linear",
    "LoadResult",
    "LocalResponseNorm",
    "LogSoftmax",
    "MaxPool2d",
    "Module",
    "Parameter",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "StateDictError",
    "Tanh",
    "active_module",
    "init",
    "run_fused",
    "unfused",
]
