"""PyTorch models with the layers, the names and the shapes of ours.

`describe` turns one of our models into plain data; `build` turns that into PyTorch's. The two halves can run
in two processes, so that a process whose memory is measured has to import only one of the libraries.
"""

from __future__ import annotations

from typing import Any


def describe(layer: Any) -> dict[str, Any]:
    """A layer, or a model made of `features` and `classifier`, as data that JSON can hold.

    {"kind": a name of `build`, "arguments": PyTorch's arguments} or, with layers inside,
    {"kind": "Sequential", "children": [[name, layer], ...]}.
    """
    from minialex import nn

    match layer:
        case nn.Conv2d():
            arguments: dict[str, Any] = {
                "in_channels": layer.in_channels,
                "out_channels": layer.out_channels,
                "kernel_size": layer.kernel_size,
                "stride": layer.stride,
                "padding": equal_sides(layer.padding),
                "dilation": layer.dilation,
                "groups": layer.groups,
                "bias": layer.bias is not None,
            }
        case nn.Linear():
            arguments = {
                "in_features": layer.in_features,
                "out_features": layer.out_features,
                "bias": layer.bias is not None,
            }
        case nn.LocalResponseNorm():
            return _described_norm(layer)
        case nn.MaxPool2d():
            arguments = _described_window(layer)
        case nn.AvgPool2d():
            arguments = {**_described_window(layer), "count_include_pad": layer.count_include_pad}
        case nn.AdaptiveAvgPool2d():
            arguments = {"output_size": layer.target}
        case nn.Dropout():
            arguments = {"p": layer.p}
        case nn.ReLU() | nn.Sigmoid() | nn.Flatten():
            arguments = {}
        case _:
            return _described_tree(layer)
    return {"kind": type(layer).__name__, "arguments": arguments}


def _described_tree(layer: Any) -> dict[str, Any]:
    children = [[name, describe(child)] for name, child in layer.named_children()]
    if not children:
        raise TypeError(f"no PyTorch layer for {type(layer).__name__}")
    names = [name for name, _ in children]
    if "features" in names and "classifier" in names:
        # Our AlexNet flattens between the two; a second Flatten, as in LeNet-5, changes nothing.
        flatten = ["flatten_before_classifier", {"kind": "Flatten", "arguments": {}}]
        children.insert(names.index("classifier"), flatten)
    return {"kind": "Sequential", "children": children}


def _described_window(layer: Any) -> dict[str, Any]:
    return {
        "kernel_size": layer.kernel_size,
        "stride": layer.stride,
        "padding": equal_sides(layer.padding),
        "ceil_mode": layer.ceil_mode,
    }


def _described_norm(layer: Any) -> dict[str, Any]:
    """The paper's dialect by PyTorch's operation, which divides alpha by size: ours goes in times size."""
    if layer.dialect == "paper" and layer.size % 2 == 0:
        raise ValueError("PyTorch's window of an even size is another one than the paper's")
    alpha = layer.alpha * (layer.size if layer.dialect == "paper" else 1)
    arguments = {"size": layer.size, "alpha": alpha, "beta": layer.beta, "k": layer.k}
    return {"kind": "LocalResponseNorm", "arguments": arguments}


def equal_sides(padding: tuple[tuple[int, int], tuple[int, int]]) -> tuple[int, int]:
    """(ph, pw), which is all that PyTorch's layers take."""
    (top, bottom), (left, right) = padding
    if (top, left) != (bottom, right):
        raise ValueError(f"PyTorch's layers take no padding such as {padding}, different on two sides")
    return top, left


def build(description: dict[str, Any]) -> Any:
    """The PyTorch module of a description, with PyTorch's first weights."""
    import torch

    if description["kind"] != "Sequential":
        return getattr(torch.nn, description["kind"])(**description["arguments"])
    module = torch.nn.Sequential()
    for name, child in description["children"]:
        module.add_module(name, build(child))
    return module


def as_torch(layer: Any) -> Any:
    """PyTorch's layer or model for one of ours, weights apart."""
    return build(describe(layer))


def twin(model: Any) -> Any:
    """A PyTorch model with the names and the weights of ours."""
    import torch

    theirs = as_torch(model)
    theirs.load_state_dict({name: torch.tensor(array) for name, array in model.state_dict().items()})
    return theirs
