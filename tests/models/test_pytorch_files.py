"""PyTorch's checkpoints are read without PyTorch: all three formats, and what people put into them."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import pytorch_made
from pytorch_writer import (
    ORDERED_DICT,
    Call,
    Global,
    Raw,
    Reference,
    encoded,
    old_file,
    old_storage,
    ordered_dict,
    pickled,
    records,
    state_dict,
    storage,
    tar_file,
    tensor,
    zip_file,
    zipped,
)

from minialex import models
from minialex.errors import CheckpointError

Read = Callable[[bytes], dict[str, npt.NDArray[Any]]]

FORMATS = {"zip": zip_file, "pickles": old_file, "tar": tar_file}

ARRAYS: dict[str, npt.NDArray[Any]] = {
    "features.0.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2) / 7,
    "features.0.bias": np.array([0.5, -1.25]),
    "half": np.array([1.5, 65504], np.float16),
    "wide": np.array([[2**62, -1]]),
    "int32": np.array([2**31 - 1], np.int32),
    "int16": np.array([-(2**15)], np.int16),
    "int8": np.array([-128, 127], np.int8),
    "uint8": np.array([255], np.uint8),
    "bool": np.array([True, False]),
    "scalar": np.array(3.5, np.float32),
    "empty": np.zeros((0, 4), np.float32),
}


TENSOR_ON_VIEW = pickled((100, 7, Global("torch", "FloatTensor")))


def assert_same(got: dict[str, npt.NDArray[Any]], expected: dict[str, npt.NDArray[Any]]) -> None:
    assert list(got) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array, strict=True)
        assert got[name].dtype.isnative


@pytest.mark.parametrize("kind", FORMATS)
def test_every_kind_of_number_in_every_format(kind: str, read: Read) -> None:
    assert_same(read(FORMATS[kind](ARRAYS)), ARRAYS)


@pytest.mark.parametrize("data", [pytorch_made.ZIP, pytorch_made.PICKLES], ids=["zip", "pickles"])
def test_files_that_pytorch_made(data: bytes, read: Read) -> None:
    expected = {"weight": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.float32([0.5, -0.5])}
    assert_same(read(data), expected)


def test_nothing_of_pytorch_is_imported(tmp_path: Path) -> None:
    path = tmp_path / "linear.pth"
    path.write_bytes(pytorch_made.ZIP)
    script = (
        "import sys\n"
        "sys.modules['torch'] = None  # Importing it raises ImportError.\n"
        "from minialex import models\n"
        f"print(sorted(models.read_state_dict({str(path)!r})))\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("['bias', 'weight']\n", "")


def test_zip_files_of_other_writers(read: Read, tmp_path: Path) -> None:
    """Without zip64, with sizes in front, with a folder's own entry, in a folder of another name."""
    files = records(ARRAYS, folder="my model/epoch 3")
    for file in files:
        file.flags = 0
    assert_same(read(zipped(files, zip64=False)), ARRAYS)
    path = tmp_path / "stored.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.mkdir("model")
        for file in records(ARRAYS, folder="model"):
            archive.writestr(file.name, file.data)
    assert_same(models.read_state_dict(path), ARRAYS)


def test_no_checksums_at_all(read: Read) -> None:
    """What torch.serialization.set_crc32_options(False) leaves."""
    files = records(ARRAYS)
    for file in files:
        file.crc = 0
    assert_same(read(zipped(files)), ARRAYS)


def test_big_endian_machines(read: Read) -> None:
    arrays = {name: a for name, a in ARRAYS.items() if name != "half"}
    files = records({name: a.byteswap() for name, a in arrays.items()})
    for file in files:
        file.data = b"big" if file.name == "archive/byteorder" else file.data
    assert_same(read(zipped(files)), arrays)


def test_before_there_was_a_byte_order(read: Read) -> None:
    files = [file for file in records(ARRAYS) if "byteorder" not in file.name and "/." not in file.name]
    assert_same(read(zipped(files)), ARRAYS)


def test_bfloat16_becomes_float32(read: Read) -> None:
    numbers = np.array([1.0, -2.5, 3.140625], np.float32)
    halves = (numbers.view(np.uint32) >> 16).astype(np.uint16)
    where = Reference(("storage", Global("torch", "BFloat16Storage"), "0", "cpu", 3))
    files = records({"0": halves.view(np.int16)}, pickled({"w": tensor(where, (3,))}))
    assert_same(read(zipped(files)), {"w": numbers})


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict"])
def test_a_state_dict_beside_other_things(wrapper: str, read: Read) -> None:
    optimizer = {
        "state": {0: {"step": 7}},
        "param_groups": [{"lr": 0.1, "params": [0, 1], "betas": (0.9, 0.99)}],
    }
    arrays = {"w": np.float32([1, 2])}
    checkpoint = {"epoch": 3, wrapper: state_dict(arrays), "optimizer": optimizer, "best": 0.5, "name": None}
    assert_same(read(zip_file(arrays, pickled(checkpoint))), arrays)


def test_what_is_not_wanted_is_not_read(read: Read) -> None:
    """The optimiser's numbers may even be damaged."""
    arrays = {"w": np.float32([1, 2]), "momentum": np.float32([3, 4])}
    moments = {"state": tensor(storage(arrays["momentum"], "1"), (2,))}
    files = records(arrays, pickled({"model": state_dict({"w": arrays["w"]}), "optimizer": moments}))
    files[5].crc = 1
    assert files[5].name == "archive/data/1"
    assert_same(read(zipped(files)), {"w": arrays["w"]})


def test_parameters(read: Read) -> None:
    """As PyTorch pickles them today, and as version 0.1 did, with and without the tensor in the state."""
    array = np.float32([1, 2])
    plain = tensor(storage(array, "0"), (2,))
    parameter = Global("torch.nn.parameter", "Parameter")
    rebuild = Global("torch._utils", "_rebuild_parameter")
    ways = {
        "today": Call(rebuild, (plain, True, Call(ORDERED_DICT, ()))),
        "old": Call(parameter, (plain,), (True, False, None), opcode=b"\x81"),
        "oldest": Call(parameter, (), (plain, None, None, True, False), opcode=b"\x81"),
        "first": Call(Global("torch._utils", "_rebuild_tensor"), (storage(array, "0"), 0, (2,), (1,))),
    }
    assert_same(read(zip_file({"": array}, pickled(ways))), dict.fromkeys(ways, array))


def test_python_2_pickled_an_ordered_dict_as_pairs_and_names_as_bytes(read: Read) -> None:
    array = np.float32([1, 2])
    pair = b"](U\x01w" + encoded(tensor(old_storage(array, "0"), (2,))) + b"e"
    checkpoint = Call(ORDERED_DICT, ([Raw(pair)],))
    assert_same(read(old_file({"w": array}, checkpoint)), {"w": array})


# ------------------------------------------------------------------------------------------ views and ties


def test_views_of_one_storage(read: Read) -> None:
    """Parts of a flat array, columns of a matrix, and another order of the axes."""
    flat = np.arange(24, dtype=np.float32)
    where = storage(flat, "0")
    views = {
        "first": tensor(where, (2, 3)),
        "left": tensor(where, (3, 2), (4, 1), offset=6),
        "right": tensor(where, (3, 2), (4, 1), offset=8),
        "transposed": tensor(where, (2, 3), (1, 2), offset=18),
    }
    expected = {
        "first": flat[:6].reshape(2, 3),
        "left": flat[6:18].reshape(3, 4)[:, :2],
        "right": flat[6:18].reshape(3, 4)[:, 2:],
        "transposed": flat[18:].reshape(3, 2).T,
    }
    assert_same(read(zip_file({"": flat}, pickled(views))), expected)


def test_tied_weights_share_their_memory(read: Read) -> None:
    flat = np.arange(6, dtype=np.float32)
    where = storage(flat, "0")
    ties = {
        "encoder": tensor(where, (2, 3)),
        "decoder": tensor(where, (2, 3)),
        "turned": tensor(where, (3, 2), (1, 3)),
        "flat": tensor(where, (6,)),
    }
    got = read(zip_file({"": flat}, pickled(ties)))
    matrix = flat.reshape(2, 3)
    assert_same(got, {"encoder": matrix, "decoder": matrix, "turned": matrix.T, "flat": flat})
    got["encoder"][0, 1] = 99
    assert got["turned"][1, 0] == got["flat"][1] == got["decoder"][0, 1] == 99


def test_parts_of_storages_as_before_0_4(read: Read) -> None:
    flat = np.arange(10, dtype=np.float32)
    part = old_storage(flat, "0", ("7", 4, 5))
    checkpoint = ordered_dict({"w": tensor(part, (2, 2), offset=1)})
    assert_same(read(old_file({"": flat}, checkpoint)), {"w": flat[5:9].reshape(2, 2)})
    # Of the tar format: tensor 100 is on storage 0, which is made a view of storage 1 here.
    data = tar_file({"w": flat[:5], "all": flat}, {"w": Reference("100")}, views=[(7, 1, 4, 5)])
    on_the_view = data.replace(pickled((100, 0, Global("torch", "FloatTensor"))), TENSOR_ON_VIEW)
    assert_same(read(on_the_view), {"w": flat[4:9]})


def test_extended_headers_in_tar_files(read: Read) -> None:
    dates = b"27 mtime=1480000000.123456\n"
    data = tar_file({"w": ARRAYS["wide"]}, members=[("PaxHeaders/extra", dates, b"x"), ("extra", b"")])
    assert_same(read(data), {"w": ARRAYS["wide"]})


# ---------------------------------------------------------------------------------- what is said of others


@pytest.mark.parametrize(
    ("beginning", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html>", "a web page; download the file itself"),
        (b"", "neither a whole safetensors file nor one of PyTorch's"),
        (b"\x89HDF\r\n", "neither a whole"),
        (pickled({"w": 1.5}), "a pickle, but not a checkpoint of PyTorch"),
        (zipped([]), "not one of torch.save"),
        (bytes(600), "neither a whole"),
        (b"\x02" + bytes(7) + b"{]", "not a whole safetensors file"),
    ],
)
def test_other_files(beginning: bytes, words: str, read: Read) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        read(beginning)
    assert "weights.bin" in str(caught.value)


@pytest.mark.parametrize(
    ("checkpoint", "words"),
    [
        ({"w": 4}, "entry 'w' is not a tensor"),
        ([1, 2], "no state dict"),
        ({}, "no state dict"),
        ({"args": Call(Global("argparse", "Namespace"), ())}, "argparse.Namespace"),
        (Call(Global("torchvision.models.alexnet", "AlexNet"), ()), "torchvision.models.alexnet.AlexNet"),
        ({"\x1b[2J": 1}, "no parameter's name"),
        ({5: 1}, "no parameter's name"),
    ],
)
def test_other_checkpoints(checkpoint: Any, words: str, read: Read) -> None:
    with pytest.raises(CheckpointError, match=words):
        read(zip_file({}, pickled(checkpoint)))


def test_programs(read: Read) -> None:
    files = records(ARRAYS)
    files[1].name = "archive/constants.pkl"
    with pytest.raises(CheckpointError, match="TorchScript"):
        read(zipped(files))
    module = Reference(("module", Global("torch", "FloatStorage"), "file.py", "source"))
    with pytest.raises(CheckpointError, match="a whole model with its program"):
        read(old_file({}, module))


def test_places_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no weights file"):
        models.read_state_dict(tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="a folder or a device"):
        models.read_state_dict(tmp_path)
