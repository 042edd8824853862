"""The training step beside PyTorch's: eager, compiled, and as a CUDA graph.

A step is zero_grad, forward, cross-entropy, backward and SGD with momentum and weight decay, in train mode
with dropout, on pictures that are on the device already. PyTorch has channels_last tensors, cudnn.benchmark,
TF32 for convolutions and products where TF32 is compared, autocast to bfloat16 where bf16 is, and
SGD(fused=True). All engines of a row take turns in every round, each on three batches in rotation.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import lru_cache, partial
from typing import Any

import numpy as np
from gpu_check_speed import has_torch
from gpu_check_steps import build
from gpu_check_worker import Context, free_memory, synchronize

from minialex import ops, optim
from minialex.backend import to_numpy, use_precision
from minialex.tensor import Tensor, no_grad

PRECISIONS = ("fp32", "tf32", "bf16")
MODELS = ("single", "flowers", "owt")
BATCHES = (128, 256)
# Batches that take turns: three of 128 pictures are 230 MB.
ROTATING = 3
SETTINGS = {"lr": 1e-4, "momentum": 0.9, "weight_decay": 5e-4}
ROUNDS, SECONDS_A_TURN, FEWEST, MOST = 5, 0.15, 3, 30
# Compiling takes this long or longer: not begun with less.
COMPILING = 45.0
Step = Callable[[int], object]


def time_steps(context: Context) -> None:
    """The section `steps`: first everything but torch.compile, then that, as far as the time goes."""
    if context.dry:
        context.run("lenet5 x 2, fp32", partial(compare, context, "lenet5", 2, "fp32", False))
        return
    rows = [(model, batch, p) for batch in BATCHES for model in MODELS for p in PRECISIONS]
    for model, batch, precision in rows:
        label = f"{model} x {batch}, {precision}"
        context.run(label, partial(compare, context, model, batch, precision, False), needs=5.0)
        free_memory(context.device)
    if has_torch():
        for model, batch, precision in rows:
            label = f"{model} x {batch}, {precision}, compiled"
            context.run(label, partial(compare, context, model, batch, precision, True), needs=COMPILING)
            free_memory(context.device)


def compare(context: Context, model: str, batch: int, precision: str, compiled: bool) -> dict[str, Any]:
    """Milliseconds of a step by every engine, taking turns; an engine that fails is said, and left out."""
    steps, failures = {}, {}
    ours = build(model)
    data = batches_of(ours.channels, ours.image_size, ours.num_classes, batch)
    described = None if not _torch_is_there(context) else _description(ours)
    agreement: dict[str, Any] = {}
    if described is not None and precision == "fp32" and not compiled:
        agreement = (
            _attempt(failures, "torch, logits", lambda: logits_result(ours, data[0][0][:8], context)) or {}
        )
    steps["minialex"] = minialex_step(ours, data, precision, context.device)
    for name, make in _torch_engines(context, compiled) if described is not None else ():
        step = _attempt(failures, name, lambda make=make: make(described, ours, data, precision))
        if step is not None:
            steps[name] = step
    times = take_turns(steps, context, failures)
    medians = {name: statistics.median(values) for name, values in times.items()}
    theirs = {name: seconds for name, seconds in medians.items() if name != "minialex"}
    best = min(theirs, key=lambda name: theirs[name], default=None)
    ratio = theirs[best] / medians["minialex"] if best else None
    steps.clear()
    gc.collect()
    if "torch graph" in failures:
        # A capture that failed may leave the device's stream unusable: again, without it.
        return {"ok": False, "again": "no_graph", "note": f"torch graph failed: {failures['torch graph']}"}
    return {
        "ok": "minialex" in medians and agreement.get("ok", True),
        "model": model,
        "batch": batch,
        "precision": precision,
        "compiled": compiled,
        "seconds": medians,
        "spread": {name: (max(v) - min(v)) / medians[name] for name, v in times.items()},
        "rounds": times,
        "best": best,
        "ratio": ratio,
        "failures": failures,
        **({"logits": agreement} if agreement else {}),
        "note": ", ".join(f"{name} {1e3 * seconds:.2f} ms" for name, seconds in medians.items())
        + "".join(f"; {name} failed: {why}" for name, why in failures.items()),
    }


@lru_cache(maxsize=1)
def batches_of(channels: int, side: int, classes: int, count: int) -> list[tuple[Any, Any]]:
    """Random pictures (N, C, H, W) float32 and labels (N,), several times."""
    numbers = np.random.default_rng(0)
    shape = (count, channels, side, side)
    return [
        (numbers.standard_normal(shape, dtype=np.float32), numbers.integers(0, classes, count))
        for _ in range(ROTATING)
    ]


def _attempt(failures: dict[str, str], name: str, work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Exception as error:
        failures[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return None


def take_turns(steps: dict[str, Step], context: Context, failures: dict[str, str]) -> dict[str, list[float]]:
    """Seconds of a step by each engine, one figure a round; an engine that raises is left out then."""
    counts = {}
    for name, step in steps.items():
        counts[name] = _attempt(failures, name, lambda step=step: _warm_up(step, context))
    times: dict[str, list[float]] = {name: [] for name, count in counts.items() if count}
    for _ in range(1 if context.dry else ROUNDS):
        for name in list(times):
            turn = partial(_turn, steps[name], counts[name], context)
            seconds = _attempt(failures, name, turn)
            if seconds is None:
                del times[name]
            else:
                times[name].append(seconds)
    return times


def _warm_up(step: Step, context: Context) -> int:
    """Run until everything is compiled and chosen. Returns: the steps that make a turn."""
    for i in range(1 if context.dry else 2 * ROTATING):
        step(i)
    synchronize(context.device)
    seconds = _turn(step, 1 if context.dry else FEWEST, context)
    return 1 if context.dry else int(min(MOST, max(FEWEST, SECONDS_A_TURN / max(seconds, 1e-6))))


def _turn(step: Step, count: int, context: Context) -> float:
    """Seconds a step, waiting for Python included: that is what a step takes."""
    import time

    synchronize(context.device)
    started = time.perf_counter()
    for i in range(count):
        step(i)
    synchronize(context.device)
    return (time.perf_counter() - started) / count


# ------------------------------------------------------------------------------------------------ ours


def minialex_step(model: Any, data: list[tuple[Any, Any]], precision: str, device: str) -> Step:
    """A step of minialex."""
    model.to(device)
    optimizer = optim.SGD(model.parameters(), **SETTINGS)
    # Labels stay on the host, as in the trainer: they are checked there, and follow without a wait.
    batches = [(Tensor(images, device=device), labels) for images, labels in data]

    def step(i: int) -> None:
        x, labels = batches[i % len(batches)]
        with use_precision(precision):
            optimizer.zero_grad()
            ops.cross_entropy(model(x), labels).backward()
            optimizer.step()

    return step


# ---------------------------------------------------------------------------------------------- PyTorch's


def _torch_is_there(context: Context) -> bool:
    if not context.dry:
        return has_torch()
    try:
        import torch  # noqa: F401
    except ImportError:
        return False
    return True


def _description(model: Any) -> dict[str, Any]:
    from torch_models import describe

    return describe(model)


def _torch_engines(context: Context, compiled: bool) -> Iterator[tuple[str, Callable[..., Step]]]:
    where = "cuda" if context.on_gpu else "cpu"
    if compiled:
        yield "torch compile", partial(torch_step, where=where, compiled=True)
        return
    yield "torch eager", partial(torch_step, where=where)
    if context.on_gpu and "no_graph" not in context.options:
        yield "torch graph", graph_step


def set_precision(precision: str) -> None:
    """PyTorch's switches for TF32, for products and for convolutions."""
    import torch

    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = precision != "fp32"
    torch.backends.cudnn.allow_tf32 = precision != "fp32"


def _torch_parts(
    description: Any, ours: Any, data: Any, precision: str, where: str
) -> tuple[Any, Any, Any, Any]:
    """(model, optimiser, batches, a context for the forward pass)."""
    import torch
    from torch_models import build as build_torch

    set_precision(precision)
    torch.manual_seed(0)
    model = build_torch(description).to(where).to(memory_format=torch.channels_last).train()
    model.load_state_dict({name: torch.tensor(array) for name, array in ours.state_dict().items()})
    try:
        optimizer = torch.optim.SGD(model.parameters(), **SETTINGS, fused=True)
    except (RuntimeError, TypeError):  # Not for the CPU in every version.
        optimizer = torch.optim.SGD(model.parameters(), **SETTINGS)
    batches = [
        (
            torch.from_numpy(images).to(where).to(memory_format=torch.channels_last),
            torch.from_numpy(np.asarray(labels)).to(where),
        )
        for images, labels in data
    ]

    def cast() -> Any:
        return torch.autocast(where, torch.bfloat16) if precision == "bf16" else nullcontext()

    return model, optimizer, batches, cast


def torch_step(
    description: Any, ours: Any, data: Any, precision: str, where: str = "cuda", compiled: bool = False
) -> Step:
    """A step of PyTorch, eager or with a compiled model."""
    import torch

    model, optimizer, batches, cast = _torch_parts(description, ours, data, precision, where)

    forward = torch.compile(model) if compiled else model

    def step(i: int) -> None:
        set_precision(precision)  # Engines take turns.
        x, labels = batches[i % len(batches)]
        optimizer.zero_grad(set_to_none=True)
        with cast():
            logits = forward(x)
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return step


def graph_step(description: Any, ours: Any, data: Any, precision: str) -> Step:
    """PyTorch's eager step, captured: one graph for each of the batches, so that nothing need be copied."""
    import torch

    model, optimizer, batches, cast = _torch_parts(description, ours, data, precision, "cuda")

    def step(x: Any, labels: Any) -> None:
        optimizer.zero_grad(set_to_none=True)
        with cast():
            logits = model(x)
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for i in range(ROTATING):  # cuDNN chooses, the optimiser makes its buffers.
            step(*batches[i])
    torch.cuda.current_stream().wait_stream(side)
    graphs, pool = [], None
    for x, labels in batches:
        graph = torch.cuda.CUDAGraph()
        optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(graph, pool=pool):
            step(x, labels)
        graphs.append(graph)
        pool = pool or graph.pool()
    kept = (model, optimizer, batches)  # A graph knows addresses, and keeps nothing alive.

    def replay(i: int) -> None:
        assert kept
        graphs[i % len(graphs)].replay()

    return replay


def logits_result(ours: Any, images: Any, context: Context) -> dict[str, Any]:
    """Whether PyTorch's model is ours: the same logits for the same weights, in eval mode and float32."""
    import torch
    from torch_models import twin

    where = "cuda" if context.on_gpu else "cpu"
    set_precision("fp32")
    theirs = twin(ours).to(where).eval()
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(images).to(where)).cpu().numpy()
    ours.eval()
    with no_grad():
        got = to_numpy(ours.to(context.device)(Tensor(images, device=context.device)).data)
    ours.train()
    error = float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))
    return {"ok": error < 1e-3, "error": error}
