"""PyTorch's own files: what PyTorch reads, we read alike; what we accept, PyTorch accepts."""

from __future__ import annotations

import io
import itertools
import sys
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minialex import Tensor, models, no_grad, rng
from minialex.errors import CheckpointError
from minialex.interchange import write_safetensors
from minialex.nn import init

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'minialex[bench]'")

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))


def torchvision_alexnet(classes: int) -> Any:
    """torchvision's AlexNet: its layers, names and shapes."""
    nn = torch.nn

    class AlexNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(
                nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(kernel_size=3, stride=2),
                nn.Conv2d(64, 192, kernel_size=5, padding=2),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(kernel_size=3, stride=2),
                nn.Conv2d(192, 384, kernel_size=3, padding=1),
                nn.ReLU(inplace=True),
                nn.Conv2d(384, 256, kernel_size=3, padding=1),
                nn.ReLU(inplace=True),
                nn.Conv2d(256, 256, kernel_size=3, padding=1),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(kernel_size=3, stride=2),
            )
            self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
            self.classifier = nn.Sequential(
                nn.Dropout(),
                nn.Linear(256 * 6 * 6, 4096),
                nn.ReLU(inplace=True),
                nn.Dropout(),
                nn.Linear(4096, 4096),
                nn.ReLU(inplace=True),
                nn.Linear(4096, classes),
            )

        def forward(self, x: Any) -> Any:
            x = self.avgpool(self.features(x))
            return self.classifier(torch.flatten(x, 1))

    torch.manual_seed(0)
    return AlexNet().eval()


@pytest.fixture(scope="module")
def theirs() -> Any:
    return torchvision_alexnet(1000)


@pytest.mark.parametrize("zipped", [True, False])
def test_alexnet_gives_pytorchs_logits(theirs: Any, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "alexnet-owt.pth"
    torch.save(theirs.state_dict(), path, _use_new_zipfile_serialization=zipped)
    ours = models.alexnet("owt", weights=path).eval()
    x = rng.Stream(0, "test").normal(shape=(2, 3, 224, 224)).astype(np.float32)
    with torch.no_grad(), no_grad():
        expected = theirs(torch.tensor(x)).numpy()
        got = ours(Tensor(x)).numpy()
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_pytorch_reads_what_we_write(tmp_path: Path) -> None:
    load_file = pytest.importorskip("safetensors.torch").load_file
    with init.without_init():
        ours = models.build("cifar-4")
    init.kaiming_(ours)
    write_safetensors(ours, tmp_path / "net.safetensors")
    state = load_file(tmp_path / "net.safetensors")
    assert set(state) == set(ours.state_dict())
    assert all(torch.equal(state[name], torch.tensor(a)) for name, a in ours.state_dict().items())


def awkward() -> OrderedDict[str, Any]:
    """Every kind of number, views, ties, another memory format, scalars, nothing, a Parameter."""
    tied, flat = torch.randn(4, 5), torch.randn(100)
    kinds = ["float16", "float32", "float64", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "bool"]
    return OrderedDict(
        **{kind: (torch.randn(2, 3) * 5).to(getattr(torch, kind)) for kind in kinds},
        scalar=torch.tensor(3.5),
        empty=torch.zeros(0, 4),
        transposed=torch.randn(6, 8).t(),
        channels_last=torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        part=torch.randn(7, 9)[2:5, 1::2],
        parameter=torch.nn.Parameter(torch.randn(2, 2)),
        frozen=torch.nn.Parameter(torch.randn(2), requires_grad=False),
        tie_1=tied,
        tie_2=tied,
        tie_3=tied.t(),
        flat_1=flat[:20].view(4, 5),
        flat_2=flat[20:60],
    )


def as_numpy(tensor: Any) -> np.ndarray[Any, Any]:
    """As we read it: NumPy has no bfloat16."""
    detached = tensor.detach()
    return (detached.float() if tensor.dtype == torch.bfloat16 else detached).numpy()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_every_kind_of_tensor(zipped: bool, protocol: int, tmp_path: Path) -> None:
    state = awkward()
    path = tmp_path / "state.pth"
    torch.save(state, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    got = models.read_state_dict(path)
    assert list(got) == list(state)
    for name, tensor in state.items():
        np.testing.assert_array_equal(got[name], as_numpy(tensor), strict=True)
    assert np.shares_memory(got["tie_1"], got["tie_2"])
    assert np.shares_memory(got["tie_1"], got["tie_3"])


def test_a_training_scripts_checkpoint(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    checkpoint = {"epoch": 2, "state_dict": net.state_dict(), "optimizer": optimizer.state_dict(), "lr": 0.1}
    torch.save(checkpoint, tmp_path / "checkpoint.pth.tar")
    got = models.read_state_dict(tmp_path / "checkpoint.pth.tar")
    assert set(got) == set(net.state_dict())
    assert got["1.num_batches_tracked"] == 1


def test_without_checksums(tmp_path: Path) -> None:
    state = {"w": torch.randn(3)}
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state, tmp_path / "w.pth")
    finally:
        torch.serialization.set_crc32_options(before)
    np.testing.assert_array_equal(models.read_state_dict(tmp_path / "w.pth")["w"], state["w"].numpy())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: torch.nn.Linear(2, 3), "torch.nn.modules.linear.Linear"),
        (lambda: {"w": torch.zeros(3, dtype=torch.complex64)}, "torch.ComplexFloatStorage"),
        (lambda: {"w": torch.zeros(2, 2).to_sparse()}, "torch._utils._rebuild_sparse_tensor"),
        (lambda: {"w": torch.zeros(2, device="meta")}, "_rebuild_meta_tensor_no_storage"),
        (
            lambda: {"w": torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.qint8)},
            "torch._utils._rebuild_qtensor",
        ),
        (lambda: {"w": torch.randn(3).expand(4, 3)}, "same numbers more than once"),
        (lambda: _overlapping(torch.randn(9)), "shares some of its numbers"),
        (lambda: {"w": np.float64(3)}, "numpy.*scalar"),
    ],
)
def test_what_is_refused(make: Any, words: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of PyTorch, on quantised tensors.
        torch.save(make(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=words):
        models.read_state_dict(tmp_path / "w.pth")


def _overlapping(flat: Any) -> dict[str, Any]:
    return {"w": flat[:5], "v": flat[4:]}


def test_pytorch_reads_the_files_of_our_tests() -> None:
    """The writer of tests/models, on which the tests without PyTorch stand."""
    import test_pytorch_files as tests
    from pytorch_writer import old_file, zip_file

    for make in (zip_file, old_file):
        state = torch.load(io.BytesIO(make(tests.ARRAYS)), weights_only=True)
        assert list(state) == list(tests.ARRAYS)
        for name, array in tests.ARRAYS.items():
            np.testing.assert_array_equal(state[name].numpy(), array, strict=True)


def test_pytorch_reads_the_tar_files_of_our_tests(tmp_path: Path) -> None:
    from pytorch_writer import tar_file

    arrays = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([0.5, 1.5])}
    path = tmp_path / "w.pth"
    path.write_bytes(tar_file(arrays))
    state = torch.load(path, weights_only=False)
    for name, array in arrays.items():
        assert isinstance(state[name], torch.nn.Parameter)
        np.testing.assert_array_equal(state[name].detach().numpy(), array)


def test_of_damaged_files_we_read_what_pytorch_reads(tmp_path: Path) -> None:
    """Whatever we accept of the mutated files, PyTorch reads as the same numbers, or refuses."""
    import test_pytorch_mutations as tests

    both = ours_alone = 0
    for kind in ("zip-pickle", "pickles"):
        for data in itertools.islice(tests.FILES[kind](), 1000):
            got = tests.answer(tmp_path / "weights", data)
            if got is None:
                continue
            try:
                state = torch.load(io.BytesIO(data), weights_only=True)
            except Exception:  # Of any kind: PyTorch says it in many ways.
                ours_alone += 1
                continue
            both += 1
            state = state.get("state_dict", state)
            assert list(got) == list(state)
            for name, array in got.items():
                np.testing.assert_array_equal(array, as_numpy(state[name]))
    assert both > 100
    assert ours_alone < both / 2
