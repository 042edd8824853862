"""ONNX files: onnxruntime gives the logits that we give, for every network and every kind of layer."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minialex import Tensor, interchange, models, nn, no_grad, ops, rng
from minialex.errors import UsageError
from minialex.interchange import export_onnx, onnx_file
from minialex.nn import init

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[test]'")
onnxruntime = pytest.importorskip(
    "onnxruntime", reason="onnxruntime is not installed: pip install -e '.[test]'"
)


def images(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return rng.Stream(0, "test").normal(shape=shape).astype(np.float32)


def run(path: Path, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What onnxruntime gives, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {"images": x})
    return np.asarray(answer)


def ours(net: nn.Module, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    net.eval()
    with no_grad():
        return net(Tensor(x)).numpy()


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """AlexNets whose hidden layers have 16 numbers: the same layers with a tenth of the weights."""
    for name, row in models.VARIANTS.items():
        monkeypatch.setitem(models.VARIANTS, name, dataclasses.replace(row, hidden=16))


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("name", models.MODEL_NAMES)
def test_every_network(name: str, tmp_path: Path) -> None:
    with init.without_init():
        net = models.build(name, 5)
    init.kaiming_(net)  # Activations keep their size, so that normalisation has something to do.
    path = tmp_path / "net.onnx"
    net.train()
    export_onnx(net, path)
    assert all(module.training for module in net.modules())
    x = images((3, net.channels, net.image_size, net.image_size))
    expected = ours(net, x)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(run(path, x), expected, atol=1e-4)
    np.testing.assert_allclose(run(path, x[:1]), expected[:1], atol=1e-4)


class Layer(nn.Module):
    """Layers in a row, or a function, as a network."""

    def __init__(self, *layers: nn.Module, function: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.body = nn.Sequential(*layers)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return x if self.function is None else self.function(x)


def norm(size: int, dialect: str) -> nn.LocalResponseNorm:
    return nn.LocalResponseNorm(size, alpha=1.0, beta=0.6, k=1.5, dialect=dialect)


LAYERS: dict[str, Callable[[], Layer]] = {
    "convolution": lambda: Layer(
        nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=((1, 2), (0, 1)), dilation=(1, 2), groups=2)
    ),
    "without a bias": lambda: Layer(nn.Conv2d(4, 3, 2, bias=False)),
    "paper's norm": lambda: Layer(norm(3, "paper")),
    "paper's norm, even": lambda: Layer(norm(2, "paper")),
    "torch's norm": lambda: Layer(norm(3, "torch")),
    "max": lambda: Layer(nn.MaxPool2d(3, 2, padding=((1, 0), (0, 1)))),
    "max, rounded up": lambda: Layer(nn.MaxPool2d(3, 2, ceil_mode=True)),
    "max, last window dropped": lambda: Layer(nn.MaxPool2d(2, 3, padding=1, ceil_mode=True)),
    "max, rounded up and padded": lambda: Layer(nn.MaxPool2d((2, 4), 3, padding=(1, 2), ceil_mode=True)),
    "average": lambda: Layer(nn.AvgPool2d(2)),
    "average, padded": lambda: Layer(nn.AvgPool2d(3, 2, padding=1)),
    "average, padding not counted": lambda: Layer(nn.AvgPool2d(3, 2, padding=1, count_include_pad=False)),
    "average, rounded up": lambda: Layer(nn.AvgPool2d(3, 2, ceil_mode=True)),
    "average, rounded up and padded": lambda: Layer(nn.AvgPool2d(4, 3, padding=2, ceil_mode=True)),
    "average, all of it": lambda: Layer(
        nn.AvgPool2d(4, 3, padding=2, ceil_mode=True, count_include_pad=False)
    ),
    "adaptive, uneven": lambda: Layer(nn.AdaptiveAvgPool2d((3, 4))),
    "adaptive, even": lambda: Layer(nn.AdaptiveAvgPool2d((2, 3))),
    "adaptive, one": lambda: Layer(nn.AdaptiveAvgPool2d(1)),
    "adaptive, larger": lambda: Layer(nn.AdaptiveAvgPool2d((11, 12))),
    "adaptive, the same": lambda: Layer(nn.AdaptiveAvgPool2d((8, 9))),
    "activations": lambda: Layer(nn.Tanh(), nn.Sigmoid(), nn.ReLU(), nn.Softmax(1), nn.LogSoftmax()),
    "dropout": lambda: Layer(nn.Dropout(0.5), nn.Dropout(0.25, mode="paper"), nn.Identity()),
    "linear": lambda: Layer(nn.Flatten(), nn.Linear(288, 7), nn.ReLU(), nn.Linear(7, 2, bias=False)),
    "reshape": lambda: Layer(function=lambda x: ops.reshape(x, (x.shape[0], 8, -1))),
    "arithmetic": lambda: Layer(function=lambda x: (2.0 * x + x) / (x * x + 1.0) - 0.5),
    "one layer twice": lambda: _twice(nn.Conv2d(4, 4, 3, padding=1)),
    "nothing to do": lambda: Layer(nn.Flatten(3)),
}


def _twice(layer: nn.Module) -> Layer:
    return Layer(layer, nn.ReLU(), layer)


@pytest.mark.parametrize("kind", LAYERS)
def test_every_kind_of_layer(kind: str, tmp_path: Path) -> None:
    with rng.random_scope(0):
        net = LAYERS[kind]()
    path = tmp_path / "net.onnx"
    export_onnx(net, path, input_shape=(4, 8, 9))
    x = images((3, 4, 8, 9))
    np.testing.assert_allclose(run(path, x), ours(net, x), atol=1e-5, strict=True)


def test_names_metadata_and_versions(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    net = models.lenet5(num_classes=3)
    export_onnx(net, path, metadata={"classes": '["a", "b", "c"]'})
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert {p.key: p.value for p in proto.metadata_props} == {"classes": '["a", "b", "c"]'}
    assert [tensor.name for tensor in proto.graph.initializer] == list(net.state_dict())
    assert [node.name for node in proto.graph.node][:2] == ["features.0", "features.1"]
    assert (proto.opset_import[0].version, proto.producer_name) == (13, "minialex")
    (given,), (found,) = proto.graph.input, proto.graph.output
    extents = [dim.dim_param or dim.dim_value for dim in given.type.tensor_type.shape.dim]
    assert (given.name, extents, found.name) == ("images", ["N", 1, 28, 28], "logits")


def test_layers_whose_names_are_those_of_the_ends(tmp_path: Path) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.images, self.logits = nn.ReLU(), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return ops.softmax(self.logits(ops.flatten(self.images(x))))

    net = Named()
    export_onnx(net, tmp_path / "net.onnx", input_shape=(3, 1, 1))
    x = images((4, 3, 1, 1))
    np.testing.assert_allclose(run(tmp_path / "net.onnx", x), ours(net, x), atol=1e-6)


def test_a_fixed_number_of_pictures(tmp_path: Path) -> None:
    net = models.lenet5()
    export_onnx(net, tmp_path / "net.onnx", batch=2)
    x = images((3, 1, 28, 28))
    np.testing.assert_allclose(run(tmp_path / "net.onnx", x[:2]), ours(net, x[:2]), atol=1e-5)
    with pytest.raises(Exception, match="Expected: 2"):
        run(tmp_path / "net.onnx", x)


def test_a_model_in_double_precision_becomes_single(tmp_path: Path) -> None:
    net = Layer(nn.Flatten(), nn.Linear(6, 2), nn.Tanh()).astype("float64")
    export_onnx(net, tmp_path / "net.onnx", input_shape=(1, 2, 3))
    x = images((4, 1, 2, 3))
    np.testing.assert_allclose(run(tmp_path / "net.onnx", x), ours(net, x.astype("float64")), atol=1e-6)


def test_what_onnx_cannot_say(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"

    def refused(net: nn.Module, words: str) -> None:
        with pytest.raises(UsageError, match=words):
            export_onnx(net, path, input_shape=(4, 8, 9))
        assert not path.exists()

    refused(Layer(norm(4, "torch")), r"body\.0: ONNX's window of 4 channels")
    refused(Layer(function=lambda x: ops.reshape(x, (-1, 2))), "mixes pictures of a batch")
    refused(Layer(function=lambda x: ops.transpose(x, (1, 0, 2, 3))), "no ONNX for the operation transpose")
    refused(Layer(nn.Linear(9, 2)), "flatten first")
    refused(Layer(), "does nothing")


def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = models.lenet5()
    with pytest.raises(UsageError, match="batch must be 'dynamic' or a number"):
        export_onnx(net, tmp_path / "net.onnx", batch=0)
    with pytest.raises(UsageError, match="does not say what it takes"):
        export_onnx(Layer(nn.ReLU()), tmp_path / "net.onnx")
    monkeypatch.setattr(onnx_file, "MAX_BYTES", 246_823)
    with pytest.raises(UsageError, match="246,824 bytes, and an ONNX file at most 246,823"):
        export_onnx(net, tmp_path / "net.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UsageError, match=r"pip install 'minialex\[onnx\]'"):
        export_onnx(net, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []
    assert "onnx_file" in vars(interchange)
