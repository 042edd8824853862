"""`minialex doctor`: whether kernels run on a device and give the right answer, and if not, what mends it."""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import numpy as np

from minialex import ops
from minialex.backend import Array, parse_device, to_numpy, use_variant
from minialex.backend.diagnosis import CudaFacts, cuda_facts, import_error
from minialex.errors import DeviceError, NumericalError
from minialex.kernels.local_response_norm import lrn_forward
from minialex.kernels.max_pooling import max_pool2d_forward
from minialex.rng import Stream
from minialex.tensor import Tensor
from minialex.train.commands import minialex_command, python_command
from minialex.train.device import check_device_name, choose_device
from minialex.train.findings import CheckedKernel, Facts, Finding, all_findings, version_text
from minialex.train.machine import package_version, processor
from minialex.train.reporter import table
from minialex.version import __version__

# float32 rounds to 6e-8; the longest sum below has a few terms.
TOLERANCE = 1e-5
SECONDS_TO_ANSWER = 10


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """The facts, what they come to, and the exit code: 0 only if kernels ran on the device and were right."""

    facts: Facts
    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """0; that of a NumericalError if a kernel gave a wrong answer, else that of a DeviceError."""
        if self.facts.healthy and not any(finding.blocking for finding in self.findings):
            return 0
        wrong = any(finding.name == "wrong answer" for finding in self.findings)
        return NumericalError.exit_code if wrong else DeviceError.exit_code


def examine(device: str) -> Diagnosis:
    """Look at everything that `device` needs, and run kernels on it.

    Args:   device: "auto", "cpu", "cuda", "cuda:N" or "cuda-emulated"; auto means a GPU, and says what is
            missing for it.
    Raises: DeviceError for a device of another name.
    """
    facts = gather(device)
    return Diagnosis(facts, tuple(all_findings(facts)))


def gather(device: str) -> Facts:
    """The facts about this machine that concern `device`."""
    check_device_name(device)
    kind, number = ("cuda", 0) if device == "auto" else parse_device(device)
    cuda = cuda_facts(number) if kind == "cuda" else CudaFacts()
    chosen = _chosen(device)
    return Facts(
        device=device,
        chosen=chosen or "none",
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        numpy=np.__version__,
        numba=package_version("numba"),
        numba_error=import_error("numba"),
        compiler=first_line(os.environ.get("CXX") or "g++", "--version"),
        nvcc=first_line("nvcc", "--version", word="release"),
        driver=first_line("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        pip=f"{python_command()} -m pip",
        cuda=cuda,
        kernels=check_kernels(chosen) if chosen else (),
    )


def _chosen(device: str) -> str | None:
    """What the trainer would take for `device`; None if it would refuse."""
    try:
        return choose_device(device, lambda _: None)
    except DeviceError:
        return None


def first_line(*command: str, word: str = "") -> str:
    """The first line with `word` of what a program prints; "" if it is not there, or fails."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_TO_ANSWER, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return next((line.strip() for line in done.stdout.splitlines() if line.strip() and word in line), "")


# --------------------------------------------------------------------------------------------- kernels


def check_kernels(device: str) -> tuple[CheckedKernel, ...]:
    """Run a few of minialex's own kernels there, forward and backward, against plain loops on the CPU."""
    kind = parse_device(device)[0]
    x = Stream(0, "test").normal(shape=(2, 3, 7, 9)).astype(np.float32)
    weight = Stream(1, "test").normal(shape=(5, 20)).astype(np.float32)
    norm: dict[str, Any] = {"size": 3, "alpha": 1.0, "beta": 0.75, "k": 2.0, "dialect": "paper"}
    rows: tuple[tuple[str, str, Callable[[Any], Tensor], Array], ...] = (
        ("max_pool2d", max_pool2d_forward.select(kind), lambda x: ops.max_pool2d(x, 3, 2), x),
        ("local_response_norm", lrn_forward.select(kind), lambda x: ops.local_response_norm(x, **norm), x),
        ("linear", "BLAS" if kind != "cuda" else "cuBLAS", lambda w: ops.linear(w, w), weight),
    )
    return tuple(
        _checked(name, variant, function, values, device) for name, variant, function, values in rows
    )


def _checked(
    name: str, variant: str, function: Callable[[Any], Tensor], values: Array, device: str
) -> CheckedKernel:
    try:
        got = _both_passes(function, values, device)
    except Exception as error:  # Whatever it is, it is the answer.
        return CheckedKernel(name, variant, error=f"{type(error).__name__}: {error}")
    with use_variant("reference"):
        wanted = _both_passes(function, values.astype(np.float64), "cpu")
    pairs = list(zip(got, wanted, strict=True))
    errors = [np.linalg.norm(a.astype(np.float64) - b) / np.linalg.norm(b) for a, b in pairs]
    return CheckedKernel(name, variant, float(np.max(errors)), TOLERANCE)


def _both_passes(function: Callable[[Any], Tensor], values: Array, device: str) -> list[Array]:
    """The output and the gradient, on the host, for the cotangent 1, 2, 3, ... / size."""
    x = Tensor(values, requires_grad=True, device=device)
    y = function(x)
    dy = (1.0 + np.arange(y.size, dtype=values.dtype).reshape(y.shape)) / y.size
    y.backward(Tensor(dy, device=device).data)
    assert x.grad is not None
    return [y.numpy(), to_numpy(x.grad)]


# ----------------------------------------------------------------------------------------- what is said


def diagnosis_text(diagnosis: Diagnosis) -> str:
    """Versions, what ran, the findings with what mends them, and a last line with the verdict."""
    facts = diagnosis.facts
    parts = [table([("what", "found"), *_versions(facts)])]
    tried = [(trial.name, "", trial.error.partition("\n")[0] or "ok") for trial in facts.cuda.trials]
    tried += [(f"minialex: {k.name}", k.variant, _outcome(k)) for k in facts.kernels]
    if tried:
        parts.append(table([(f"on {facts.chosen}", "by", "answer"), *tried]))
    parts += [finding_text(finding) for finding in diagnosis.findings]
    return "\n\n".join([*parts, _verdict(diagnosis)])


def _outcome(kernel: CheckedKernel) -> str:
    if kernel.error:
        return kernel.error.partition("\n")[0]
    return f"{'right' if kernel.right else 'WRONG'}, off by {kernel.relative_error:.1e} in norm"


def _versions(facts: Facts) -> list[tuple[str, str]]:
    cuda = facts.cuda
    rows = [
        ("minialex", __version__),
        ("Python", f"{facts.python}, {facts.system}"),
        ("processor", processor()),
        ("NumPy", facts.numpy),
        ("Numba", facts.numba),
        ("g++", facts.compiler or "none"),
        ("nvcc", facts.nvcc or "none; not needed to run"),
    ]
    if facts.kind not in ("auto", "cuda"):
        return rows
    served = f"serves CUDA {version_text(cuda.driver)}" if cuda.driver else "none"
    rows += [
        ("CuPy", ", ".join(cuda.packages) or cuda.cupy or "none"),
        (
            "CUDA of CuPy",
            version_text(cuda.runtime) if cuda.runtime else "none" if not cuda.packages else "unknown",
        ),
        ("driver", f"{facts.driver}, {served}" if facts.driver else served),
        ("NVRTC", version_text(cuda.nvrtc) if cuda.nvrtc else "none"),
        (
            "headers",
            f"{version_text(cuda.headers_version)}, {cuda.headers}" if cuda.headers_version else "none",
        ),
    ]
    for number, gpu in enumerate(cuda.gpus):
        size = f"{gpu.memory / 2**30:.1f} GiB, {gpu.free / 2**30:.1f} free"
        rows.append((f"cuda:{number}", f"{gpu.name}, compute capability {gpu.capability}, {size}"))
    return rows


def finding_text(finding: Finding) -> str:
    """The problem, what the machine said, and what to type."""
    lines = [f"{'problem' if finding.blocking else 'note'}: {finding.problem}"]
    details = [line.strip() for line in finding.details.splitlines() if line.strip()]
    lines += [f"    | {line}" for line in details[:6]]
    if finding.fix:
        lines += ["  to mend it:", *(f"    {line}" for line in finding.fix)]
    return "\n".join(lines)


def _verdict(diagnosis: Diagnosis) -> str:
    facts = diagnosis.facts
    if diagnosis.exit_code == 0:
        return f"{facts.chosen}: kernels ran and gave the right answers."
    if facts.kind != "auto" or facts.chosen != "cpu":
        return f"{facts.device} cannot be used as things are."
    right = facts.kernels and all(kernel.right for kernel in facts.kernels)
    state = "where kernels ran and gave the right answers" if right else "where kernels fail as well"
    return (
        f"No GPU can be used: --device auto takes the CPU, {state}.\n"
        f"If no GPU is wanted: {minialex_command()} doctor --device cpu"
    )


def diagnosis_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """Everything, for another program."""
    return {
        "exit_code": diagnosis.exit_code,
        "facts": dataclasses.asdict(diagnosis.facts),
        "findings": [dataclasses.asdict(finding) for finding in diagnosis.findings],
    }
