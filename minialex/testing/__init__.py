"""What the tests and `minialex gradcheck` share, and what checks an Op of your own.

from minialex.testing import check_op
check_op(MyOp, [x, y], {"alpha": 2.0}, reference=my_loops)

check_pair takes a forward and a backward in plain NumPy, check_model a whole model, and gradient_accuracy
says what float32 leaves of a model's gradients.
"""

from minialex.gradient_check import check_model, check_pair, gradient_accuracy
from minialex.testing.cases import CASES, Case, grid, positive
from minialex.testing.check import CheckError, Result, check_op
from minialex.testing.discovery import all_ops

__all__ = [
    "CASES",
    "Case",
    "CheckError",
    "Result",
    "all_ops",
    "check_model",
    "check_op",
    "check_pair",
    "gradient_accuracy",
    "grid",
    "positive",
]
