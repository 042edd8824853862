"""The recorded graph as a text table."""

from __future__ import annotations

from minialex.tensor.graph import GraphError, Op
from minialex.tensor.values import Tensor


def recorded_ops(tensor: Tensor) -> list[Op]:
    """Every op that `tensor` was computed by, oldest first: the reverse of the order of backward."""
    found: dict[int, Op] = {}
    waiting = [tensor.op] if tensor.op is not None else []
    while waiting:
        op = waiting.pop()
        if op.order not in found:
            found[op.order] = op
            waiting.extend(edge for edge in op.edges if isinstance(edge, Op))
    return [found[order] for order in sorted(found)]


def tape(tensor: Tensor) -> str:
    """The ops between the leaves and `tensor`, a line each: op, shapes, origins, what is saved.

    An input is written `#3` if line 3 made it, `leaf` if it is a leaf that wants a gradient, and `-` if
    nobody wants its gradient.
    Raises: GraphError if nothing was recorded, or backward has freed it.
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(f"tape: expected the Tensor that was computed, got {type(tensor).__name__}")
    ops = recorded_ops(tensor)
    if not ops:
        raise GraphError("tape: nothing was recorded: a leaf, or computed under no_grad()")
    if ops[-1].freed:
        raise GraphError("tape: backward has freed this graph; look at it before, or use retain_graph=True")
    number = {op.order: i for i, op in enumerate(ops, start=1)}
    rows: list[tuple[str, ...]] = [("#", "op", "inputs", "from", "output", "saved", "bytes")]
    for op in ops:
        origins = [
            "-" if e is None else f"#{number[e.order]}" if isinstance(e, Op) else e.name or "leaf"
            for e in op.edges
        ]
        saved = [_shape_text(tuple(a.shape)) for a in op._saved if hasattr(a, "nbytes")]
        rows.append(
            (
                str(number[op.order]),
                op.name,
                " ".join(_shape_text(s) for s in op.input_shapes),
                " ".join(origins),
                _shape_text(op.shape(*op.input_shapes)),
                " ".join(saved) or "nothing",
                f"{op.saved_bytes:,}",
            )
        )
    total = sum(op.saved_bytes for op in ops)
    lines = _align(rows)
    return "\n".join(
        [*lines, f"{len(ops)} ops; {total:,} bytes kept for backward (what two ops share counts twice)"]
    )


def _shape_text(shape: tuple[int, ...]) -> str:
    return "(" + ",".join(str(extent) for extent in shape) + ")"


def _align(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    numbers = {0, len(widths) - 1}
    return [
        "  ".join(
            cell.rjust(w) if i in numbers else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
