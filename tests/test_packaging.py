"""What a user installs works away from the checkout, with the CUDA source in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from minialex.backend import sources
from minialex.errors import DeviceError

CHECKOUT = Path(__file__).resolve().parents[1]

TRAIN_ONE_STEP = """
import numpy as np
import minialex as mx
from minialex import nn, ops, optim
from minialex.backend.sources import cuda_source_dir

mx.manual_seed(0)
net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, 2), nn.Flatten())
net = nn.Sequential(net, nn.Linear(64, 5))
optimiser = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
before = {name: array.copy() for name, array in net.state_dict().items()}
images = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
loss = ops.cross_entropy(net(mx.Tensor(images)), np.array([1, 4]))
loss.backward()
optimiser.step()
assert np.isfinite(loss.item())
for name, array in net.state_dict().items():
    assert not np.array_equal(array, before[name]), name
print(mx.__file__)
print(cuda_source_dir())
print(mx.__version__)
"""


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Standard output of a command that must succeed; both outputs are shown if it does not."""
    kept = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "NUMBA_CACHE_DIR")
    }
    environment = {**kept, **variables}
    words = list(map(str, command))
    done = subprocess.run(
        words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(kind: str, source: Path, out: Path) -> Path:
    """Build a "wheel" or an "sdist" with the backend of the test environment: no network."""
    pytest.importorskip("hatchling", reason="hatchling is not installed: pip install -e '.[test]'")
    run(sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", out, cwd=source)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", CHECKOUT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel in it; what it depends on is lent by the one the tests run in."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home, symlinks=os.name != "nt")
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home).strip())
    # Folders named in a .pth come after this environment's own packages, and .pth files in them, such as that
    # of an editable minialex, are not read.
    lent = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "dependencies.pth").write_text("\n".join(sorted(lent)), encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    run(*pip, "install", "-qq", "--no-deps", "--no-index", "--force-reinstall", wheel, cwd=home)
    return python


def test_a_wheel_trains_one_step_and_finds_its_cuda_source(installed: Path, tmp_path: Path) -> None:
    output = run(installed, "-I", "-W", "error", "-c", TRAIN_ONE_STEP, cwd=tmp_path)
    package, cuda, version = output.splitlines()
    environment = installed.parents[1].resolve()
    assert Path(package).resolve().is_relative_to(environment)
    assert Path(cuda).resolve().is_relative_to(environment)
    assert Path(cuda).name == "_cuda"
    assert (Path(cuda) / "common.cuh").read_bytes() == (CHECKOUT / "kernels" / "common.cuh").read_bytes()
    assert version in (CHECKOUT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_compiled_kernels_are_kept_though_the_package_cannot_be_written(
    installed: Path, tmp_path: Path
) -> None:
    """Numba then takes a folder of the user's. A file where it wants a folder stops the superuser, too."""
    script = "import minialex.kernels; print(minialex.kernels.__path__[0])"
    beside = Path(run(installed, "-I", "-c", script, cwd=tmp_path).strip()) / "__pycache__"
    if beside.is_dir():
        shutil.rmtree(beside)
    beside.touch()
    variables = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    count = "from minialex.backend import compilations; print(len(compilations()))"
    compiled = [
        int(run(installed, "-I", "-c", TRAIN_ONE_STEP + count, cwd=tmp_path, **variables).splitlines()[-1])
        for _ in range(2)
    ]
    beside.unlink()
    assert compiled[0] > 0
    assert compiled[1] == 0
    assert any(tmp_path.rglob("*.nbi"))


def test_a_wheel_brings_the_command(installed: Path, tmp_path: Path) -> None:
    assert "train" in run(installed.parent / "minialex", "--help", cwd=tmp_path)
    assert "train" in run(installed, "-I", "-m", "minialex", "--help", cwd=tmp_path)


def test_a_wheel_checks_gradients(installed: Path, tmp_path: Path) -> None:
    command = installed.parent / "minialex", "gradcheck"
    variables = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    assert "rows hold" in run(*command, "index", cwd=tmp_path, **variables)
    shapes = "conv2d", "--x", "1,2,5,5", "--weight", "2,2,3,3"
    assert "the gradients are right" in run(*command, *shapes, cwd=tmp_path, **variables)
    assert "mutation score 100 %" in run(*command, "div", "--mutate", cwd=tmp_path, **variables)
    assert "What is it?" in run(*command, "--lesson", "2", cwd=tmp_path, **variables)
    (tmp_path / "homework.py").write_text("def square(x):\n    return x * x\n")
    function = "--function", "homework.py:square", "--x", "3", "--plot", "square.png"
    assert "the gradients are right" in run(*command, *function, cwd=tmp_path, **variables)
    assert (tmp_path / "square.png").exists()


def test_a_wheel_holds_the_package_and_the_kernels_alone(wheel: Path) -> None:
    files = [path for path in (CHECKOUT / "minialex").rglob("*") if path.is_file()]
    package = {path.relative_to(CHECKOUT).as_posix() for path in files if path.parent.name != "__pycache__"}
    kernels = {f"minialex/_cuda/{path.name}" for path in (CHECKOUT / "kernels").iterdir()}
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert shipped == package | kernels


def test_the_source_distribution_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    sdist = build("sdist", CHECKOUT, tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (source,) = (tmp_path / "unpacked").iterdir()
    again = build("wheel", source, tmp_path / "again")
    assert sorted(zipfile.ZipFile(again).namelist()) == sorted(zipfile.ZipFile(wheel).namelist())


def test_a_bare_checkout_finds_its_cuda_source(tmp_path: Path) -> None:
    script = f"import sys; sys.path.insert(0, {str(CHECKOUT)!r})\n"
    script += "from minialex.backend import sources; print(sources.cuda_source_dir())"
    assert Path(run(sys.executable, "-I", "-c", script, cwd=tmp_path).strip()) == CHECKOUT / "kernels"


def test_missing_cuda_source_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A folder of the same name that belongs to somebody else.
    (tmp_path / "kernels").mkdir()
    monkeypatch.setattr(sources, "__file__", str(tmp_path / "minialex" / "backend" / "sources.py"))
    with pytest.raises(DeviceError, match=r"no common\.cuh in .*_cuda or .*kernels"):
        sources.cuda_source_dir()
