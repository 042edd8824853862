"""check_pair: a forward and a backward that are bare NumPy functions, as in a homework."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from minialex.gradient_check.checking import examine_experiment, raise_if_wrong
from minialex.gradient_check.experiment import Experiment, prepare
from minialex.gradient_check.report import Report
from minialex.gradient_check.settings import MAX_ELEMENTS, GradcheckError, Settings, refuse
from minialex.shapes import Shape
from minialex.tensor import Op, Tensor

Forward = Callable[..., Any]
Backward = Callable[..., Any]


class PairOp(Op):
    """A pair of functions as an operation of the engine. Shapes: whatever `forward` takes -> what it gives.

    Args: forward_fn: of arrays; backward_fn: of dy and the same arrays, or of dy and what forward_fn gave
          beside its output, its cache.
    """

    def __init__(self, forward_fn: Forward, backward_fn: Backward) -> None:
        self.forward_fn, self.backward_fn = forward_fn, backward_fn
        self.output_shape: Shape = ()
        name = getattr(forward_fn, "__name__", "")
        self.name = name if name.isidentifier() else "forward"  # type: ignore[misc]

    def __call__(self, *inputs: Tensor) -> Tensor:
        # The shape of what a stranger's function gives is known when it has given it.
        self.result = self.forward_fn(*(tensor.data.copy() for tensor in inputs))
        output = self.result[0] if isinstance(self.result, tuple) else self.result
        self.output = np.array(_as_numbers(output))
        self.output_shape = self.output.shape
        return super().__call__(*inputs)

    def shape(self, *shapes: Shape) -> Shape:
        return self.output_shape

    def forward(self, *arrays: npt.NDArray[Any]) -> npt.NDArray[Any]:
        self.save(*(array.copy() for array in arrays))
        return self.output

    def backward(self, dy: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
        if isinstance(self.result, tuple):
            cache = self.result[1] if len(self.result) == 2 else self.result[1:]
            given = self.backward_fn(dy.copy(), cache)
        else:
            given = self.backward_fn(dy.copy(), *(array.copy() for array in self.saved))
        gradients = tuple(given) if isinstance(given, (tuple, list)) else (given,)
        if len(gradients) != len(self.input_shapes):
            refuse(
                f"backward must give a gradient for each of the {len(self.input_shapes)} inputs, "
                f"got {len(gradients)}"
            )
        return tuple(
            _as_gradient(g, shape, i)
            for i, (g, shape) in enumerate(zip(gradients, self.input_shapes, strict=True))
        )


def check_pair(
    forward: Forward,
    backward: Backward,
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    seed: int = 0,
    names: Sequence[str] | None = None,
    max_elements: int | None = MAX_ELEMENTS,
    raise_exception: bool = True,
) -> Report:
    """Check a backward pass that is a plain function of NumPy arrays.

        def forward(x, w): return x @ w.T
        def backward(dy, x, w): return dy @ w, dy.T @ x
        check_pair(forward, backward, [x, w])

    or, with whatever forward likes to keep,

        def forward(x, w): return x @ w.T, (x, w)           # output, cache
        def backward(dy, cache): ...

    Shapes: inputs any; forward(*inputs) -> y; backward(dy of y's shape, ...) -> one array of each input's
    shape, in a tuple unless there is only one.
    Args:   forward, backward: called many times with float64 copies, so that what they write into their
            arguments is lost; inputs: an array or a list of them, all floating; names: None takes forward's
            own argument names; the others: as in gradcheck.
    Returns: a Report.
    Raises: GradcheckError with the report if a gradient is wrong (unless raise_exception is False), or if
            the functions cannot be checked: another number of gradients, another shape, no numbers.
    """
    arrays = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    arrays = [np.array(_as_numbers(array), dtype=np.float64) for array in arrays]
    if names is None:
        names = _argument_names(forward, len(arrays))

    def fn(*tensors: Tensor) -> Tensor:
        return PairOp(forward, backward)(*tensors)

    settings = Settings(eps, atol, rtol, seed, max_elements)
    arguments = prepare(arrays, names)
    leaves = [argument.tensor() for argument in arguments]
    repeat = settings.call("check_pair(forward, backward, inputs")
    report = examine_experiment(Experiment(fn, arguments, settings, leaves), repeat=repeat)
    if raise_exception:
        raise_if_wrong(report)
    return report


def _argument_names(forward: Forward, count: int) -> list[str] | None:
    """forward's own names for its arguments, if it has exactly so many."""
    try:
        parameters = inspect.signature(forward).parameters.values()
    except (TypeError, ValueError):
        return None
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return names[:count] if len(names) >= count else None


def _as_numbers(value: Any) -> npt.NDArray[Any]:
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        refuse(f"expected numbers, got {type(value).__name__} of dtype {array.dtype}")
    return array


def _as_gradient(value: Any, shape: Shape, number: int) -> npt.NDArray[np.float64]:
    if value is None:
        refuse(f"backward gave None for input {number}; a gradient of zero is np.zeros_like of the input")
    array = np.array(_as_numbers(value), dtype=np.float64)
    if array.shape != shape:
        raise GradcheckError(
            f"gradcheck: backward gave a gradient of shape {array.shape} for input {number} of shape {shape}"
        )
    return array
