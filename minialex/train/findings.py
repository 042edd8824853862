"""What `minialex doctor` makes of the facts: findings, each a problem in plain words and what mends it.

A finding is a function of the facts alone, so that every situation can be tested on any machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from minialex.backend.diagnosis import CudaFacts

# The oldest drivers for Linux that serve CUDA 12 and 13 (CUDA's release notes, table of driver versions).
OLDEST_DRIVER = {12: "525.60.13", 13: "580.65.06"}
OLDEST_CUPY = "14"  # As in pyproject.toml.


@dataclass(frozen=True)
class CheckedKernel:
    """A kernel of minialex that was run, and how far its answer is from plain loops in float64.

    Args: name: of the kernel; variant: "numba", "cuda" or another; relative_error: in norm; tolerance: for
          it; error: what was raised, "" if nothing was.
    """

    name: str
    variant: str
    relative_error: float = float("nan")
    tolerance: float = 0.0
    error: str = ""

    @property
    def right(self) -> bool:
        """Whether it ran and gave the right answer; NaN is none."""
        return not self.error and self.relative_error <= self.tolerance


@dataclass(frozen=True)
class Facts:
    """What is known of this machine.

    Args: device: what was asked for: "auto", "cpu", "cuda", "cuda:N" or "cuda-emulated"; chosen: what that
          comes to; system: "Linux x86_64"; python, numpy, numba: versions, "not installed"; numba_error: what
          importing Numba raised; compiler, nvcc: their first line of --version, "" without; driver: the
          driver's own version, "" if nobody says; pip: the command that installs into this environment;
          kernels: what was run on the chosen device.
    """

    device: str = "auto"
    chosen: str = "cpu"
    system: str = "Linux x86_64"
    python: str = ""
    numpy: str = ""
    numba: str = ""
    numba_error: str = ""
    compiler: str = ""
    nvcc: str = ""
    driver: str = ""
    pip: str = "python -m pip"
    cuda: CudaFacts = field(default_factory=CudaFacts)
    kernels: tuple[CheckedKernel, ...] = ()

    @property
    def kind(self) -> str:
        """What was asked for, without a number."""
        return self.device.partition(":")[0]

    @property
    def number(self) -> int:
        """The number of the GPU that was asked for."""
        return int(self.device.partition(":")[2] or 0)

    @property
    def healthy(self) -> bool:
        """Whether kernels ran on the device that was asked for, a GPU for auto, and all were right.

        A GPU's kernels are those in CUDA C++: CuPy's own operations prove nothing about them.
        """
        wanted = "cuda" if self.kind == "auto" else self.kind
        there = self.chosen.partition(":")[0] == wanted
        ours = wanted == "cpu" or any(kernel.variant == "cuda" for kernel in self.kernels)
        return there and ours and bool(self.kernels) and all(kernel.right for kernel in self.kernels)


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Args: name: short, for programs; problem: in a sentence or two; fix: commands or steps, one a line;
          details: what the machine said; blocking: False for what is only worth knowing.
    """

    name: str
    problem: str
    fix: tuple[str, ...] = ()
    details: str = ""
    blocking: bool = True


def version_text(number: int) -> str:
    """CUDA's 13020 as 13.2."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _wheel(facts: Facts) -> str:
    """The CuPy for this driver, with CUDA's libraries and headers; the newest where there is no driver."""
    old = 12000 <= facts.cuda.driver < 13000
    return f'"cupy-cuda{12 if old else 13}x[ctk]>={OLDEST_CUPY}"'


def _names(facts: Facts) -> list[str]:
    return [package.split()[0] for package in facts.cuda.packages]


def _toolkit(facts: Facts) -> str:
    """The command that brings the CUDA libraries and headers that fit the installed CuPy."""
    wheel = next((name for name in _names(facts) if re.fullmatch(r"cupy-cuda\d+x", name)), None)
    wanted = f'"{wheel}[ctk]"' if wheel else _wheel(facts)
    return f"{facts.pip} install --upgrade --force-reinstall {wanted}"


# -------------------------------------------------------------------------------- CuPy and the driver


def no_cupy(facts: Facts) -> Finding | None:
    """CuPy is not installed. For macOS there is none, and the driver's finding says all."""
    if not _without_cupy(facts) or facts.system.startswith("Darwin"):
        return None
    return Finding("no CuPy", "CuPy is not installed.", (f"{facts.pip} install {_wheel(facts)}",))


def _without_cupy(facts: Facts) -> bool:
    there = facts.cuda.packages or facts.cuda.cupy
    return not there and "No module named 'cupy'" in facts.cuda.import_error


def two_cupys(facts: Facts) -> Finding | None:
    """Two distributions of CuPy share one folder and overwrite each other's files."""
    if len(facts.cuda.packages) < 2:
        return None
    return Finding(
        "two CuPys",
        f"{len(facts.cuda.packages)} CuPys are installed ({', '.join(facts.cuda.packages)}): they overwrite "
        "each other's files.",
        (
            f"{facts.pip} uninstall -y {' '.join(_names(facts))}",
            f"{facts.pip} install {_wheel(facts)}",
        ),
    )


def broken_import(facts: Facts) -> Finding | None:
    """CuPy is installed, and importing it fails."""
    error = facts.cuda.import_error
    if not error or _without_cupy(facts):
        return None
    if re.search(r"numpy\.dtype size changed|numpy.*ABI|compiled using NumPy|_ARRAY_API|multiarray", error):
        problem = f"CuPy was built for another NumPy than {facts.numpy}: it cannot be imported."
        fix = f'{facts.pip} install --upgrade --force-reinstall "numpy>=2.0" {_wheel(facts)}'
    elif "No module named" in error and "'cupy" not in error:
        problem = "CuPy is installed without a package that it needs: it cannot be imported."
        fix = f"{facts.pip} install --upgrade {_wheel(facts)}"
    else:
        problem = "CuPy is installed, and cannot be imported."
        fix = f"{facts.pip} install --upgrade --force-reinstall {_wheel(facts)}"
    return Finding("broken import", problem, (fix,), error)


def no_driver(facts: Facts) -> Finding | None:
    """Nothing here speaks to a GPU."""
    if facts.cuda.driver:
        return None
    with_cupy = "CuPy is installed, but no" if facts.cuda.cupy else "No"
    if facts.system.startswith("Darwin"):
        return Finding("no driver", "CUDA does not exist for macOS.", ("minialex doctor --device cpu",))
    return Finding(
        "no driver",
        f"{with_cupy} NVIDIA driver was found (libcuda).",
        (
            f"On a machine with an NVIDIA GPU: install its driver, {OLDEST_DRIVER[13]} or newer.",
            "In a container: start it with the GPU, as in docker run --gpus all ...",
            "Without one there is nothing to mend: use --device cpu, or, to try the CUDA kernels slowly, "
            "--device cuda-emulated.",
        ),
    )


def driver_too_old(facts: Facts) -> Finding | None:
    """The driver serves an older CUDA than CuPy was built for. Within a major version any driver will do."""
    cuda = facts.cuda
    refused = "InsufficientDriver" in cuda.devices_error or any(
        "InsufficientDriver" in trial.error for trial in cuda.trials
    )
    if not cuda.driver or not cuda.runtime:
        return None
    if not refused and cuda.driver // 1000 >= cuda.runtime // 1000:
        return None
    oldest = OLDEST_DRIVER.get(cuda.runtime // 1000)
    newer = f"Or a newer driver: {oldest} or newer" if oldest else "Or a newer driver"
    fix = [f"{newer} (for Linux), from https://www.nvidia.com/drivers, and restart."]
    if cuda.driver >= 12000 and cuda.driver // 1000 < cuda.runtime // 1000:
        fix[:0] = [
            f"{facts.pip} uninstall -y {' '.join(_names(facts)) or 'cupy'}",
            f"{facts.pip} install {_wheel(facts)}",
        ]
    else:
        fix[0] = fix[0].replace("Or a newer driver", "A newer driver")
    named = f" ({facts.driver})" if facts.driver else ""
    return Finding(
        "driver too old",
        f"The driver{named} serves CUDA {version_text(cuda.driver)}, and CuPy was built for CUDA "
        f"{version_text(cuda.runtime)}.",
        tuple(fix),
        cuda.devices_error,
    )


def no_device(facts: Facts) -> Finding | None:
    """There is a driver, and no GPU for it, or none of that number."""
    cuda = facts.cuda
    if not cuda.cupy or not cuda.driver or driver_too_old(facts) is not None:
        return None
    if facts.number < len(cuda.gpus):
        return None
    if cuda.gpus:
        known = f"cuda:0 to cuda:{len(cuda.gpus) - 1}" if len(cuda.gpus) > 1 else "cuda:0"
        problem = f"There is no {facts.device}: this machine has {known}."
        return Finding("no device", problem, ("minialex doctor --device cuda:0",))
    if cuda.visible is not None:
        hidden = f"CUDA_VISIBLE_DEVICES is set to {cuda.visible!r}, which leaves no GPU to be seen."
        return Finding("no device", hidden, ("unset CUDA_VISIBLE_DEVICES",), cuda.devices_error)
    return Finding(
        "no device",
        "The driver is there, and reports no GPU.",
        (
            "nvidia-smi    # does it list the GPU? If not, its messages say why",
            "In a container: start it with the GPU, as in docker run --gpus all ...",
        ),
        cuda.devices_error,
    )


# ----------------------------------------------------------------------------- libraries and headers


def library_missing(facts: Facts) -> Finding | None:
    """CuPy's wheel carries neither NVRTC nor cuBLAS; they come from [ctk] or from a CUDA toolkit."""
    errors = [facts.cuda.nvrtc_error, *(trial.error for trial in facts.cuda.trials)]
    missing = next((e for e in errors if re.search(r"DynamicLib|lib\w+\.so|cannot open shared|\.dll", e)), "")
    if not facts.cuda.cupy or not missing:
        return None
    found = re.search(r"lib(\w+)\.so|(\w+?)\d*_?\d*\.dll", missing)
    what = f" ({found[1] or found[2]})" if found else ""
    return Finding(
        "library missing", f"CuPy does not find a library of CUDA{what}.", (_toolkit(facts),), missing
    )


def headers_missing(facts: Facts) -> Finding | None:
    """NVRTC compiles, and does not find CUDA's headers, which CuPy's own kernels include."""
    errors = [facts.cuda.headers_error, *(trial.error for trial in facts.cuda.trials)]
    missing = next((e for e in errors if re.search(r"cannot open source file|could not open source", e)), "")
    if not missing:
        return None
    found = re.search(r'open source file "([^"]+)"', missing)
    what = found[1] if found else "cuda_fp16.h"
    where = f" in {facts.cuda.headers}" if facts.cuda.headers else ""
    return Finding(
        "headers missing",
        f"CUDA's headers are missing: NVRTC does not find {what}{where}.",
        (_toolkit(facts),),
        missing,
    )


def headers_mixed(facts: Facts) -> Finding | None:
    """Headers of one CUDA and the compiler of another. Harmless as long as they compile."""
    cuda = facts.cuda
    if not cuda.headers_version or not cuda.nvrtc or headers_missing(facts) is not None:
        return None
    other_major = cuda.runtime and cuda.nvrtc // 1000 != cuda.runtime // 1000
    if cuda.headers_version // 10 == cuda.nvrtc // 10 and not other_major:
        return None
    if cuda.headers_version // 10 != cuda.nvrtc // 10:
        problem = (
            f"CUDA's headers are of {version_text(cuda.headers_version)} ({cuda.headers}), and the run-time "
            f"compiler NVRTC is of {version_text(cuda.nvrtc)}."
        )
    else:
        problem = (
            f"The run-time compiler NVRTC is of CUDA {version_text(cuda.nvrtc)}, and CuPy was built for CUDA "
            f"{version_text(cuda.runtime)}."
        )
    blocking = bool(cuda.headers_error) or any(trial.error for trial in cuda.trials)
    problem += "" if blocking else " They compile together."
    fix = ("unset CUDA_PATH CUDA_HOME    # where one points to another CUDA", _toolkit(facts))
    return Finding("headers mixed", problem, fix, cuda.headers_error, blocking)


# ---------------------------------------------------------------------------------- what did not run


def out_of_memory(facts: Facts) -> Finding | None:
    """Something else fills the GPU."""
    errors = [trial.error for trial in facts.cuda.trials] + [kernel.error for kernel in facts.kernels]
    full = next((e for e in errors if re.search(r"OutOfMemory|MemoryAllocation|out of memory", e)), "")
    if not full:
        return None
    gpu = facts.cuda.gpus[facts.number] if facts.number < len(facts.cuda.gpus) else None
    room = f" ({gpu.free / 2**20:.0f} of {gpu.memory / 2**20:.0f} MiB free)" if gpu else ""
    fix = (
        "nvidia-smi    # which processes hold the memory; end those that are yours",
        f"CUDA_VISIBLE_DEVICES={facts.number + 1} minialex doctor    # or another GPU",
    )
    return Finding("out of memory", f"The GPU's memory is full{room}.", fix[: 2 if _many(facts) else 1], full)


def _many(facts: Facts) -> bool:
    return len(facts.cuda.gpus) > facts.number + 1


def numba_broken(facts: Facts) -> Finding | None:
    """Numba compiles the CPU's kernels."""
    if not facts.numba_error:
        return None
    return Finding(
        "broken Numba",
        f"Numba ({facts.numba}) cannot be imported beside NumPy {facts.numpy}.",
        (f"{facts.pip} install --upgrade numba numpy",),
        facts.numba_error,
    )


def no_compiler(facts: Facts) -> Finding | None:
    """The emulator compiles kernels with g++."""
    if facts.kind != "cuda-emulated" or facts.compiler:
        return None
    return Finding(
        "no g++",
        "The emulator compiles kernels with g++, or with what CXX names, which is not on PATH.",
        (
            "apt-get install g++    # Debian and Ubuntu; dnf install gcc-c++ on Fedora",
            "unset CXX    # where it names a compiler that is not there",
        ),
    )


def wrong_answer(facts: Facts) -> Finding | None:
    """A kernel ran, and its numbers are wrong."""
    wrong = [kernel for kernel in facts.kernels if not kernel.error and not kernel.right]
    answers = [trial for trial in facts.cuda.trials if trial.error.startswith("ArithmeticError")]
    if not wrong and not answers:
        return None
    said = [
        f"{k.name} ({k.variant}): off by {k.relative_error:.1e}, at most {k.tolerance:.0e}" for k in wrong
    ]
    said += [f"{trial.name}: {trial.error}" for trial in answers]
    fix: tuple[str, ...] = (
        "rm -rf ~/.cupy/kernel_cache    # compiled kernels of another version",
        _toolkit(facts),
    )
    if facts.chosen == "cpu":
        fix = ("NUMBA_CACHE_DIR=$(mktemp -d) minialex doctor --device cpu    # compiles everything anew",)
    if facts.kind == "cuda-emulated":
        fix = ("minialex parity lenet5 --device cuda-emulated    # which layer is wrong",)
    return Finding(
        "wrong answer", f"A kernel ran on {facts.chosen} and gave a wrong answer.", fix, "\n".join(said)
    )


def failed(facts: Facts, explained: bool) -> Finding | None:
    """Something failed that nothing above explains."""
    errors = [f"{trial.name}: {trial.error}" for trial in facts.cuda.trials if trial.error]
    errors += [
        f"{kernel.name} ({kernel.variant}): {kernel.error}" for kernel in facts.kernels if kernel.error
    ]
    if not errors or explained:
        return None
    fix = (_toolkit(facts),) if facts.chosen.partition(":")[0] == "cuda" else ()
    return Finding("failed", f"A kernel failed on {facts.chosen}.", fix, "\n".join(errors))


# What only matters with a GPU stands below what says that there is none.
GPU_FINDINGS: tuple[Callable[[Facts], Finding | None], ...] = (
    no_driver,
    no_cupy,
    two_cupys,
    broken_import,
    driver_too_old,
    no_device,
    library_missing,
    headers_missing,
    headers_mixed,
    out_of_memory,
)
ALWAYS: tuple[Callable[[Facts], Finding | None], ...] = (numba_broken, no_compiler, wrong_answer)


def all_findings(facts: Facts) -> list[Finding]:
    """All that is wrong, or worth knowing, about the device that was asked for; the first stands first."""
    asked = (*GPU_FINDINGS, *ALWAYS) if facts.kind in ("auto", "cuda") else ALWAYS
    found = [finding for find in asked if (finding := find(facts)) is not None]
    rest = failed(facts, explained=any(finding.blocking for finding in found))
    return [*found, *([rest] if rest else [])]
