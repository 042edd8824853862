"""Runs the kernels of kernels/*.cu on the CPU, thread by thread, and says what is wrong with them.

g++ compiles a .cu file against the headers in include/, which give it threadIdx, __shared__, barriers and
shuffles; `run` launches a kernel from it on NumPy arrays. docs/emulator.md shows how to learn from it.
"""

from __future__ import annotations

from minialex.emulator.building import build_listeners
from minialex.emulator.launching import run, use_seed

__all__ = ["build_listeners", "run", "use_seed"]
