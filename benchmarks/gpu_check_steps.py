"""A whole training step against float64, the same bits in every run, and parity of every layer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import numpy as np
from gpu_check_worker import Context, free_memory, poisoned_memory

from minialex import models, ops, optim
from minialex.backend import canonical_device, to_device, to_numpy, use_precision, use_variant
from minialex.nn import init
from minialex.rng import Stream, random_scope
from minialex.tensor import Tensor
from minialex.train.parity import Experiment, Parity, compare
from minialex.train.parity_report import row_text

# The models whose steps are checked, and how many pictures they are given; the same for a dry run.
MODELS = {"flowers": 8, "single": 4, "lenet5": 16}
DRY_MODELS = {"lenet5": 2}
# float32 against float64, relatively: of the loss and of the weights. A gradient goes to another pixel where
# two are nearly equal: it may be off by this, or by three times what the CPU's float32 is off by.
STEP = 1e-3
# The same for products in TF32 and bfloat16. Expected of one product: 3e-4, and 1e-3 to 1e-2.
LOOSE = {"fp32": STEP, "tf32": 1e-2, "bf16": 5e-2}
BITS_STEPS = 3


@dataclass
class Trained:
    """What a few steps came to: each step's loss, the first step's gradients, and the weights at the end."""

    losses: list[float] = field(default_factory=list)
    gradients: list[Any] = field(default_factory=list)
    weights: list[Any] = field(default_factory=list)


@cache
def first_weights(name: str) -> dict[str, Any]:
    """The weights that seed 0 gives; drawing them takes longer than a step."""
    with random_scope(0):
        return models.build(name).state_dict()


def build(name: str) -> Any:
    """The model with the weights of seed 0, in train mode."""
    with init.without_init():
        model = models.build(name)
    model.load_state_dict(first_weights(name))
    return model.train()


def batch_of(model: Any, count: int, seed: int = 0) -> tuple[Any, Any]:
    """Random pictures (N, C, H, W) float32 and labels (N,)."""
    shape = (count, model.channels, model.image_size, model.image_size)
    images = Stream(seed, "test").normal(shape=shape).astype(np.float32)
    return images, np.arange(count) % model.num_classes


def train(name: str, count: int, device: str, dtype: Any, steps: int = 1, optimizer: str = "sgd") -> Trained:
    """A few steps from the same weights, pictures and dropout masks, whatever the device and precision.

    On the CPU by NumPy's variants, which share no code with the kernels, and need not be compiled first.
    """
    with use_variant("array") if device == "cpu" else nullcontext():
        return _train(name, count, device, dtype, steps, optimizer)


def _train(name: str, count: int, device: str, dtype: Any, steps: int, optimizer: str) -> Trained:
    model = build(name).astype(dtype).to(device)
    if optimizer == "sgd":
        chosen: Any = optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    else:
        chosen = optim.Adam(model.parameters(), lr=1e-4)
    images, labels = batch_of(model, count)
    x, y = Tensor(images.astype(dtype), device=device), to_device(labels, device)
    done = Trained()
    for step in range(steps):
        with random_scope(0, step):
            chosen.zero_grad()
            loss = ops.cross_entropy(model(x), y)
            loss.backward()
        done.losses.append(float(loss.item()))
        if step == 0:
            done.gradients = [host(parameter.grad) for parameter in model.parameters()]
        chosen.step()
    done.weights = [host(parameter.data) for parameter in model.parameters()]
    return done


def host(array: Any) -> Any:
    """A plain NumPy array of its own."""
    return np.array(to_numpy(array).view(np.ndarray))


def relative(got: Sequence[Any], wanted: Sequence[Any]) -> float:
    """|got - wanted| / |wanted| over all arrays together."""
    apart = sum(float(np.sum((a.astype(np.float64) - b) ** 2)) for a, b in zip(got, wanted, strict=True))
    return float(np.sqrt(apart / sum(float(np.sum(b.astype(np.float64) ** 2)) for b in wanted)))


def differences(got: Trained, right: Trained) -> dict[str, float]:
    """Relative errors of the first loss, the gradients and the weights."""
    return {
        "loss": abs(got.losses[0] / right.losses[0] - 1),
        "gradient": relative(got.gradients, right.gradients),
        "weights": relative(got.weights, right.weights),
    }


def check_step(context: Context) -> None:
    """The section `step`: one step of every model, in every precision and with Adam, and its bits."""
    for name, count in (DRY_MODELS if context.dry else MODELS).items():
        spec = (name, count, context.device)
        for optimizer in ("sgd",) if name == "single" else ("sgd", "adam"):

            @cache
            def right(kind: str, name: str = name, count: int = count, chosen: str = optimizer) -> Trained:
                """The CPU's step, worked out when it is first asked for."""
                return train(name, count, "cpu", np.dtype(kind), 1, chosen)

            label = f"{name} x {count}, {optimizer}"
            for precision in ("fp32", "tf32", "bf16") if optimizer == "sgd" else ("fp32",):
                rest = (optimizer, precision)
                context.run(f"{label}, {precision}", partial(step_result, right, *spec, *rest))
            context.run(f"{label}, bits", partial(bits_result, *spec, optimizer))
            context.run(f"{label}, float64", partial(double_result, right, *spec, optimizer))
        free_memory(context.device)


def step_result(
    right: Any, name: str, count: int, device: str, optimizer: str, precision: str
) -> dict[str, Any]:
    """How far a step in float32 is from float64, beside the CPU's float32."""
    with use_precision(precision), poisoned_memory(device):
        got = train(name, count, device, np.float32, 1, optimizer)
    off, cpu = differences(got, right("float64")), differences(right("float32"), right("float64"))
    bound = LOOSE[precision]
    # Adam divides a gradient by its own size: where it is nearly 0, its sign is rounding's.
    kept = ("loss",) if optimizer == "adam" else ("loss", "weights")
    ok = all(off[key] <= bound for key in kept)
    ok &= precision != "fp32" or off["gradient"] <= max(bound, 3 * cpu["gradient"])
    return {
        "ok": ok,
        "precision": precision,
        "off": off,
        "cpu": cpu,
        "bound": bound,
        "note": off_text(off, cpu),
    }


def off_text(off: dict[str, float], cpu: dict[str, float]) -> str:
    """loss 1e-7 (CPU 2e-7), gradient ..."""
    return ", ".join(f"{key} {off[key]:.1e} (CPU {cpu[key]:.1e})" for key in off)


def double_result(right: Any, name: str, count: int, device: str, optimizer: str) -> dict[str, Any]:
    """A step in float64 on the device: the kernels' other entries."""
    with poisoned_memory(device):
        off = differences(train(name, count, device, np.float64, 1, optimizer), right("float64"))
    note = ", ".join(f"{key} {value:.1e}" for key, value in off.items())
    return {"ok": off["loss"] <= 1e-9 and off["gradient"] <= 1e-7, "off": off, "note": note}


def bits_result(name: str, count: int, device: str, optimizer: str) -> dict[str, Any]:
    """Two runs of a few steps, the second in memory that was full of other numbers."""
    first = train(name, count, device, np.float32, BITS_STEPS, optimizer)
    with poisoned_memory(device):
        second = train(name, count, device, np.float32, BITS_STEPS, optimizer)
    different = sum(a.tobytes() != b.tobytes() for a, b in zip(first.weights, second.weights, strict=True))
    same = first.losses == second.losses and different == 0
    note = (
        "the same bits twice"
        if same
        else f"{different} parameters differ, losses {first.losses} {second.losses}"
    )
    return {"ok": same, "losses": first.losses, "note": note}


def check_parity(context: Context) -> None:
    """The section `parity`: every op of every model against float64, in every precision."""
    for name, count in (DRY_MODELS if context.dry else {"lenet5": 8, "flowers": 4, "single": 2}).items():
        for precision in ("fp32", "tf32", "bf16"):
            work = partial(parity_result, name, count, context.device, precision)
            context.run(f"{name} x {count}, {precision}", work)


def parity_result(name: str, count: int, device: str, precision: str) -> dict[str, Any]:
    """What `minialex parity` says, in a few lines."""
    model = build(name)
    images, labels = batch_of(model, count)
    experiment = Experiment(model, images, labels, 0, precision)
    place = canonical_device(device)
    result: Parity = compare(experiment, place, name, "random numbers", lambda text: None, with_cpu=False)
    run = result.runs[-1]
    firsts = {phase: run.first(phase) for phase in ("forward", "backward")}
    told = [f"first {phase}: {row_text(row)}" for phase, row in firsts.items() if row is not None]
    told = told or [f"{run.worst.worst.ratio:.2f} of what is allowed at most: {row_text(run.worst)}"]
    return {"ok": run.agrees, "precision": precision, "worst": run.worst.worst.ratio, "note": "; ".join(told)}
