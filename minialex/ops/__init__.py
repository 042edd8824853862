"""Operations on Tensors: a file for each, with the Op class and the function that users call."""

from minialex.ops.activations import ReluOp, SigmoidOp, TanhOp, relu, sigmoid, tanh
from minialex.ops.basic import exp, flatten, log, matmul, mean, reshape, sum, transpose
from minialex.ops.concatenation import ConcatenateOp, concatenate
from minialex.ops.convolution import Conv2dOp, Conv2dReluOp, conv2d, conv2d_relu
from minialex.ops.convolution_pooling import Conv2dSigmoidAvgPool2dOp, conv2d_sigmoid_avg_pool2d
from minialex.ops.fully_connected import LinearOp, linear
from minialex.ops.fused_pooling import (
    ReluLrnMaxPool2dOp,
    ReluMaxPool2dOp,
    relu_lrn_max_pool2d,
    relu_max_pool2d,
)
from minialex.ops.losses import CrossEntropyOp, cross_entropy
from minialex.ops.normalization import LocalResponseNormOp, local_response_norm
from minialex.ops.pooling import (
    AdaptiveAvgPool2dOp,
    AvgPool2dOp,
    MaxPool2dOp,
    adaptive_avg_pool2d,
    avg_pool2d,
    max_pool2d,
)
from minialex.ops.probabilities import LogSoftmaxOp, SoftmaxOp, log_softmax, softmax
from minialex.ops.regularization import DropoutOp, dropout
from minialex.ops.sigmoid_pooling import SigmoidAvgPool2dOp, sigmoid_avg_pool2d

__all__ = [
    "AdaptiveAvgPool2dOp",
    "AvgPool2dOp",
    "ConcatenateOp",
    "Conv2dOp",
    "Conv2dReluOp",
    "Conv2dSigmoidAvgPool2dOp",
    "CrossEntropyOp",
    "DropoutOp",
    "LinearOp",
    "LocalResponseNormOp",
    "LogSoftmaxOp",
    "MaxPool2dOp",
    "ReluLrnMaxPool2dOp",
    "ReluMaxPool2dOp",
    "ReluOp",
    "SigmoidAvgPool2dOp",
    "SigmoidOp",
    "SoftmaxOp",
    "TanhOp",
    "adaptive_avg_pool2d",
    "avg_pool2d",
    "concatenate",
    "conv2d",
    "conv2d_relu",
    "conv2d_sigmoid_avg_pool2d",
    "cross_entropy",
    "dropout",
    "exp",
    "flatten",
    "linear",
    "local_response_norm",
    "log",
    "log_softmax",
    "matmul",
    "max_pool2d",
    "mean",
    "relu",
    "relu_lrn_max_pool2d",
    "relu_max_pool2d",
    "reshape",
    "sigmoid",
    "sigmoid_avg_pool2d",
    "softmax",
    "sum",
    "tanh",
    "transpose",
]
