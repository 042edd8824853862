"""Running layers by fused operations: the same numbers in fewer passes over memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from minialex import ops
from minialex.nn.activations import ReLU, Sigmoid
from minialex.nn.layers import Conv2d, LocalResponseNorm
from minialex.nn.module import Module
from minialex.nn.pooling import AvgPool2d, MaxPool2d
from minialex.tensor import Tensor

__all__ = ["run_fused", "unfused"]

# Exactly these: a subclass may compute something else.
FUSIBLE = (AvgPool2d, Conv2d, LocalResponseNorm, MaxPool2d, ReLU, Sigmoid)


def run_fused(layers: Iterable[Module], x: Tensor) -> Tensor:
    """x through the layers in turn, by one operation for each of these runs of them:

        ReLU, LocalResponseNorm, MaxPool2d    relu_lrn_max_pool2d
        ReLU, MaxPool2d                       relu_max_pool2d
        Conv2d, ReLU (and no pooling next)    conv2d_relu
        Sigmoid, AvgPool2d                    sigmoid_avg_pool2d
        Conv2d, Sigmoid, AvgPool2d            conv2d_sigmoid_avg_pool2d

    Every other layer is called by itself, also a subclass of these, or one whose `forward` was replaced.
    Parameters and settings are the layers'.
    """
    rest = list(layers)
    while rest:
        match [layer if _is_as_written(layer) else None for layer in rest[:3]]:
            case [ReLU(), LocalResponseNorm() as norm, MaxPool2d() as pool]:
                x, count = _relu_lrn_max_pool2d(x, norm, pool), 3
            case [ReLU(), MaxPool2d() as pool, *_]:
                x = ops.relu_max_pool2d(x, pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode)
                count = 2
            case [Sigmoid(), AvgPool2d() as pool, *_]:
                window = (pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode)
                x, count = ops.sigmoid_avg_pool2d(x, *window, pool.count_include_pad), 2
            case [Conv2d() as conv, Sigmoid(), AvgPool2d() as pool]:
                x, count = _conv2d_sigmoid_avg_pool2d(x, conv, pool), 3
            case [Conv2d(), ReLU(), LocalResponseNorm() | MaxPool2d()]:
                x, count = rest[0](x), 1  # The ReLU goes with what follows it.
            case [Conv2d() as conv, ReLU(), *_]:
                geometry = (conv.stride, conv.padding, conv.dilation, conv.groups)
                x, count = ops.conv2d_relu(x, conv.weight, conv.bias, *geometry), 2
            case _:
                x, count = rest[0](x), 1
        rest = rest[count:]
    return x


def _is_as_written(layer: Module) -> bool:
    return type(layer) in FUSIBLE and "forward" not in vars(layer)


def _conv2d_sigmoid_avg_pool2d(x: Tensor, conv: Conv2d, pool: AvgPool2d) -> Tensor:
    return ops.conv2d_sigmoid_avg_pool2d(
        x,
        conv.weight,
        conv.bias,
        conv.stride,
        conv.padding,
        conv.dilation,
        conv.groups,
        kernel_size=pool.kernel_size,
        pool_stride=pool.stride,
        pool_padding=pool.padding,
        ceil_mode=pool.ceil_mode,
        count_include_pad=pool.count_include_pad,
    )


def _relu_lrn_max_pool2d(x: Tensor, norm: LocalResponseNorm, pool: MaxPool2d) -> Tensor:
    return ops.relu_lrn_max_pool2d(
        x,
        norm.size,
        norm.alpha,
        norm.beta,
        norm.k,
        dialect=norm.dialect,
        kernel_size=pool.kernel_size,
        stride=pool.stride,
        padding=pool.padding,
        ceil_mode=pool.ceil_mode,
    )


@contextmanager
def unfused(model: Module) -> Iterator[None]:
    """Inside, the model and every module in it run their layers one by one: observers see each of them."""
    switched = [module for module in model.modules() if getattr(module, "fused", False)]
    for module in switched:
        module.fused = False
    try:
        yield
    finally:
        for module in switched:
            module.fused = True
