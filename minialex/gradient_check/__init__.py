"""Gradient checks against central differences: is this backward the derivative of this forward?

    mx.gradcheck(lambda x, w: ops.conv2d(x, w, stride=2), [x, w])     # True, or GradcheckError

A function of arrays becomes a function of one number: s(x) = <fn(x), v>, with a random cotangent v. What
`backward(v)` leaves in x.grad must be the slope of s along every element of x,

    ds/dx[i]  =  <fn(x + eps*e[i]) - fn(x - eps*e[i]), v> / (2 * eps)  +  O(eps**2).

A cotangent of ones would let softmax pass with any gradient at all (its outputs always sum to one), and a
backward that forgets its dy. Everything runs in float64: in float32 rounding is as large as the difference.

In reading order: settings, experiment (the gradients by backward), cotangents (the same for another dy),
differences and directions (the gradients by differences), comparison; diagnosis (what a disagreement means)
with ties and inside; faults (what is likely wrong) with evidence; judging and report; checking (gradcheck
itself) with culprits (which operation did it). Beside it: models, pairs (plain NumPy functions), accuracy
(what float32 leaves of a gradient) and curves.
"""

from minialex.gradient_check.accuracy import Accuracy, AccuracyRow, gradient_accuracy
from minialex.gradient_check.checking import compare_gradients, examine, gradcheck
from minialex.gradient_check.comparison import Comparison
from minialex.gradient_check.models import check_model
from minialex.gradient_check.pairs import check_pair
from minialex.gradient_check.report import DirectionReport, ElementReport, InputReport, Report
from minialex.gradient_check.settings import GradcheckError

__all__ = [
    "Accuracy",
    "AccuracyRow",
    "Comparison",
    "DirectionReport",
    "ElementReport",
    "GradcheckError",
    "InputReport",
    "Report",
    "check_model",
    "check_pair",
    "compare_gradients",
    "examine",
    "gradcheck",
    "gradient_accuracy",
]
