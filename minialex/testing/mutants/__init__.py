"""Planted bugs: wrong versions of ops and kernels, to prove that check_op can fail.

    with MUTANTS[0].planted():
        ...             # the op is wrong in here

Each is a mistake that people make. A mutant replaces one attribute of a class, or the code of one kernel, and
nothing else; what was there is put back when the block ends.
"""

from minialex.testing.mutants import arithmetic, fused, manners, networks, optimisers, pictures, windows
from minialex.testing.mutants.planting import MUTANTS, Mutant

__all__ = [
    "MUTANTS",
    "Mutant",
    "arithmetic",
    "fused",
    "manners",
    "networks",
    "optimisers",
    "pictures",
    "windows",
]
