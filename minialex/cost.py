"""What an operation costs: floating-point operations and bytes moved, by one counting convention.

- One addition, subtraction, negation, multiplication, division, comparison, maximum, exponential, logarithm,
  hyperbolic tangent, power or square root of scalars counts 1; a multiply-accumulate therefore counts 2.
  Index arithmetic, copies, casts and tests for NaN are free.
- A convolution's padding counts as if it were there: im2col multiplies its zeros. Windows of pooling and of
  normalisation are cut at the edge, and only what lies inside counts.
- Bytes are the least that must move: every input read once, every output written once. Two rules for ops
  that leave most of an input alone: an op that only makes a view of its input (reshape, transpose) moves 0;
  one that picks elements (indexing) reads and writes those alone, twice the size of its output.
- The cost of an Op is that of its forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass

from minialex.shapes import Shape, numel


@dataclass(frozen=True)
class Cost:
    """Work of one call.

    Args: flops: floating-point operations; bytes: memory that must be read and written.
    """

    flops: int
    bytes: int

    @classmethod
    def of(cls, flops: int, *shapes: Shape, itemsize: int = 4) -> Cost:
        """The cost of `flops` operations that touch each element of arrays of these shapes once."""
        return cls(flops, itemsize * sum(numel(shape) for shape in shapes))

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.bytes + other.bytes)
