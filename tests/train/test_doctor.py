"""`minialex doctor` tells situations apart, by facts that are made up, and proves what does run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from minialex.backend.diagnosis import CudaFacts, GpuFacts, Trial
from minialex.cli import app
from minialex.kernels.max_pooling import max_pool2d_forward
from minialex.train import doctor
from minialex.train.doctor import Diagnosis, check_kernels, diagnosis_text, examine
from minialex.train.findings import CheckedKernel, Facts, all_findings

TRIALS = ("copy to the GPU and back", "kernel compiled by NVRTC", "CuPy's element-wise kernel", "cuBLAS")
NO_FP16 = 'RuntimeError: NVRTC_ERROR_COMPILATION (6): probe.cu(1): cannot open source file "cuda_fp16.h"'
INSUFFICIENT = "CUDARuntimeError: cudaErrorInsufficientDriver: CUDA driver version is insufficient"


def gpu(**changes: Any) -> CudaFacts:
    """A GPU on which everything is as it should be, with changes."""
    well = CudaFacts(
        packages=("cupy-cuda13x 14.2.0",),
        cupy="14.2.0",
        driver=13000,
        runtime=13020,
        nvrtc=13000,
        headers="/cuda/include",
        headers_version=13000,
        gpus=(GpuFacts("NVIDIA H100", "9.0", 80 << 30, 79 << 30),),
        trials=tuple(map(Trial, TRIALS)),
    )
    return dataclasses.replace(well, **changes)


def facts(cuda: CudaFacts, device: str = "auto", chosen: str = "cuda:0", **changes: Any) -> Facts:
    """The facts of a machine; kernels ran well where a GPU was chosen."""
    kernels = (CheckedKernel("max_pool2d", "cuda", 3e-8, 1e-5),)
    known = {"numpy": "2.4.6", "numba": "0.68.1", "kernels": kernels if chosen.startswith("cuda") else ()}
    return Facts(device=device, chosen=chosen, cuda=cuda, **{**known, **changes})


NOTHING: dict[str, Any] = {"gpus": (), "trials": ()}
UNIMPORTED: dict[str, Any] = {**NOTHING, "cupy": "", "runtime": 0, "nvrtc": 0, "headers_version": 0}
NO_CUPY = CudaFacts(driver=13000, import_error="ModuleNotFoundError: No module named 'cupy'")

# What is known, and then: the findings' names, and what the first one's fix has in it.
SITUATIONS: dict[str, tuple[Facts, list[str], str]] = {
    "all is well": (facts(gpu()), [], ""),
    "no CuPy": (facts(NO_CUPY, chosen="cpu"), ["no CuPy"], 'pip install "cupy-cuda13x[ctk]>=14"'),
    "no CuPy, an old driver": (
        facts(dataclasses.replace(NO_CUPY, driver=12040), chosen="cpu"),
        ["no CuPy"],
        'pip install "cupy-cuda12x[ctk]>=14"',
    ),
    "neither CuPy nor driver": (
        facts(dataclasses.replace(NO_CUPY, driver=0), chosen="cpu"),
        ["no driver", "no CuPy"],
        "580.65.06 or newer",
    ),
    "macOS, for which there is neither": (
        facts(dataclasses.replace(NO_CUPY, driver=0), chosen="cpu", system="Darwin arm64"),
        ["no driver"],
        "--device cpu",
    ),
    "two CuPys that happen to work": (
        facts(gpu(packages=("cupy-cuda12x 13.6.0", "cupy-cuda13x 14.2.0"))),
        ["two CuPys"],
        "pip uninstall -y cupy-cuda12x cupy-cuda13x",
    ),
    "CuPy without a driver": (
        facts(gpu(driver=0, devices_error=INSUFFICIENT, **NOTHING), chosen="cpu"),
        ["no driver"],
        "580.65.06 or newer",
    ),
    "a driver for CUDA 12, CuPy for 13": (
        facts(gpu(driver=12040, devices_error=INSUFFICIENT, **NOTHING), chosen="cpu", driver="550.54"),
        ["driver too old"],
        "pip uninstall -y cupy-cuda13x",
    ),
    "a driver that no CuPy serves": (
        facts(gpu(driver=11040, devices_error=INSUFFICIENT, **NOTHING), chosen="cpu"),
        ["driver too old"],
        "A newer driver: 580.65.06",
    ),
    "headers missing": (
        facts(gpu(headers_error=NO_FP16, trials=(Trial(TRIALS[0]), Trial(TRIALS[2], NO_FP16)))),
        ["headers missing"],
        '"cupy-cuda13x[ctk]"',
    ),
    "headers mixed, and they do not compile": (
        facts(gpu(headers_version=12040, headers_error="RuntimeError: identifier is undefined")),
        ["headers mixed"],
        "unset CUDA_PATH",
    ),
    "headers mixed, to no harm": (facts(gpu(headers_version=13020)), ["headers mixed"], "unset CUDA_PATH"),
    "NVRTC of another major version": (
        facts(gpu(nvrtc=12040, headers_version=12040)),
        ["headers mixed"],
        "unset CUDA_PATH",
    ),
    "no NVRTC": (
        facts(gpu(nvrtc=0, nvrtc_error='DynamicLibNotFoundError: Failure finding "libnvrtc.so.13"')),
        ["library missing"],
        '"cupy-cuda13x[ctk]"',
    ),
    "no cuBLAS": (
        facts(
            gpu(trials=(Trial(TRIALS[3], "ImportError: libcublas.so.13: cannot open shared object file"),))
        ),
        ["library missing"],
        '"cupy-cuda13x[ctk]"',
    ),
    "no device": (
        facts(gpu(devices_error="CUDARuntimeError: cudaErrorNoDevice", **NOTHING), chosen="cpu"),
        ["no device"],
        "nvidia-smi",
    ),
    "a device that is hidden": (
        facts(gpu(visible="", devices_error="CUDARuntimeError: cudaErrorNoDevice", **NOTHING), chosen="cpu"),
        ["no device"],
        "unset CUDA_VISIBLE_DEVICES",
    ),
    "no second device": (
        facts(gpu(trials=()), device="cuda:1", chosen="none"),
        ["no device"],
        "--device cuda:0",
    ),
    "out of memory": (
        facts(gpu(trials=(Trial(TRIALS[0], "OutOfMemoryError: Out of memory allocating 512 bytes"),))),
        ["out of memory"],
        "nvidia-smi",
    ),
    "a broken import": (
        facts(
            gpu(import_error="ImportError: numpy.dtype size changed, may indicate ...", **UNIMPORTED),
            chosen="cpu",
        ),
        ["broken import"],
        "--force-reinstall",
    ),
    "an import that misses a package": (
        facts(gpu(import_error="ModuleNotFoundError: No module named 'cuda'", **UNIMPORTED), chosen="cpu"),
        ["broken import"],
        "--upgrade",
    ),
    "a wrong answer": (
        facts(gpu(), kernels=(CheckedKernel("max_pool2d", "cuda", 0.5, 1e-5),)),
        ["wrong answer"],
        "kernel_cache",
    ),
    "not a number": (
        facts(gpu(), kernels=(CheckedKernel("max_pool2d", "cuda", float("nan"), 1e-5),)),
        ["wrong answer"],
        "kernel_cache",
    ),
    "a failure that nobody knows": (
        facts(gpu(trials=(Trial(TRIALS[1], "CUDADriverError: CUDA_ERROR_ILLEGAL_INSTRUCTION"),))),
        ["failed"],
        "cupy-cuda13x",
    ),
    "Numba broken": (
        facts(
            CudaFacts(), device="cpu", chosen="cpu", numba_error="ImportError: Numba needs NumPy 2.3 or less"
        ),
        ["broken Numba"],
        "install --upgrade numba numpy",
    ),
    "the emulator without a compiler": (
        facts(CudaFacts(), device="cuda-emulated", chosen="cuda-emulated", compiler=""),
        ["no g++"],
        "apt-get install g++",
    ),
    "the CPU alone, and no word of GPUs": (facts(NO_CUPY, device="cpu", chosen="cpu"), [], ""),
}


@pytest.mark.parametrize(("known", "names", "fix"), SITUATIONS.values(), ids=SITUATIONS)
def test_every_situation_is_told_apart(known: Facts, names: list[str], fix: str) -> None:
    found = all_findings(known)
    assert [finding.name for finding in found] == names
    if names:
        assert fix in "\n".join(found[0].fix)
        assert found[0].problem.endswith(".")
    text = diagnosis_text(Diagnosis(known, tuple(found)))
    for finding in found:
        assert finding.problem in text
        assert all(line in text for line in finding.fix)


HARMLESS = {"all is well", "headers mixed, to no harm"}


@pytest.mark.parametrize("name", SITUATIONS)
def test_the_exit_code_is_0_only_if_all_is_well(name: str) -> None:
    known = SITUATIONS[name][0]
    code = Diagnosis(known, tuple(all_findings(known))).exit_code
    # No kernel ran in "the CPU alone".
    expected = 0 if name in HARMLESS else 6 if name in ("a wrong answer", "not a number") else 5
    if name == "NVRTC of another major version":  # It compiled, and what it compiled was right.
        expected = 0
    assert code == expected


def test_what_cupy_computes_proves_nothing_about_our_kernels() -> None:
    known = facts(gpu(), kernels=(CheckedKernel("max_pool2d", "array", 3e-8, 1e-5),))
    assert Diagnosis(known, ()).exit_code == 5


def test_a_right_cpu_is_no_gpu() -> None:
    right = (CheckedKernel("max_pool2d", "numba", 3e-8, 1e-5),)
    assert Diagnosis(facts(NO_CUPY, "auto", "cpu", kernels=right), ()).exit_code == 5
    assert Diagnosis(facts(NO_CUPY, "cpu", "cpu", kernels=right), ()).exit_code == 0


# --------------------------------------------------------------------------------------- what does run


def test_the_cpus_kernels_are_run() -> None:
    kernels = check_kernels("cpu")
    assert [kernel.variant for kernel in kernels][:2] == ["numba", "numba"]
    assert all(kernel.right for kernel in kernels), kernels
    assert all(kernel.relative_error > 0 for kernel in kernels)  # float32 against float64: something ran.


def test_a_kernel_that_is_slightly_wrong_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = max_pool2d_forward.variants["numba"]

    def wrong(x: Any, y: Any, *rest: Any) -> None:
        right(x, y, *rest)
        y.flat[-1] *= np.float32(1.001)

    monkeypatch.setitem(max_pool2d_forward.variants, "numba", wrong)
    diagnosis = examine("cpu")
    assert [finding.name for finding in diagnosis.findings] == ["wrong answer"]
    assert diagnosis.exit_code == 6


def test_a_kernel_that_raises_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> None:
        raise RuntimeError("no such instruction")

    monkeypatch.setitem(max_pool2d_forward.variants, "numba", broken)
    diagnosis = examine("cpu")
    assert [finding.name for finding in diagnosis.findings] == ["failed"]
    assert "no such instruction" in diagnosis_text(diagnosis)
    assert diagnosis.exit_code == 5


@pytest.mark.emulator
def test_programs_that_are_missing_or_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.first_line("no-such-program-anywhere", "--version") == ""
    assert doctor.first_line("false") == ""
    assert doctor.first_line("printf", "one\\ntwo words\\n", word="two") == "two words"


# -------------------------------------------------------------------------------------- the command line


@pytest.fixture
def command() -> Callable[..., Any]:
    def run(*arguments: str) -> Any:
        result = CliRunner().invoke(app, ["doctor", *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


def test_cpu_only(command: Callable[..., Any]) -> None:
    result = command("--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "cpu: kernels ran and gave the right answers." in result.stdout
    assert "CuPy" not in result.stdout


def test_auto_on_a_machine_without_a_gpu(
    command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "cuda_facts", lambda number: NO_CUPY)
    monkeypatch.setattr(doctor, "_chosen", lambda device: "cpu")
    result = command()
    assert result.exit_code == 5
    assert "CuPy is not installed." in result.stdout
    assert "--device auto takes the CPU, where kernels ran and gave the right answers" in result.stdout
    assert "doctor --device cpu" in result.stdout.splitlines()[-1]


def test_cuda_on_a_machine_without_a_gpu(
    command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "cuda_facts", lambda number: NO_CUPY)
    monkeypatch.setattr(doctor, "_chosen", lambda device: None)
    result = command("--device", "cuda")
    assert result.exit_code == 5
    assert result.stdout.splitlines()[-1] == "cuda cannot be used as things are."
    assert "max_pool2d" not in result.stdout  # Nothing ran in its place.


def test_json(command: Callable[..., Any]) -> None:
    report = json.loads(command("--device", "cpu", "--json").stdout)
    assert report["exit_code"] == 0
    assert report["findings"] == []
    assert report["facts"]["kernels"][0]["variant"] == "numba"


def test_an_unknown_device(command: Callable[..., Any]) -> None:
    result = command("--device", "tpu")
    assert result.exit_code == 5
    assert "unknown device 'tpu': expected 'auto', 'cpu'" in result.stderr
