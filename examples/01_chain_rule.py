"""The chain rule on a graph small enough to do by hand: every number is printed and explained.

    python examples/01_chain_rule.py

Read it with a pencil. A neuron with one input is trained on one example:

    p = w * x          multiply
    s = p + b          add
    e = s - t          how far off
    L = e * e          squared error: e is used twice

Forward, each step takes numbers and gives one. Backward, each step is handed dL/d(its output) and passes on
dL/d(each input). It needs to know nothing about the rest of the graph: that is the whole trick.
"""

from __future__ import annotations

import numpy as np

import minialex as mx

# Whole numbers, so that you can follow without a calculator.
x, w, b, t = (mx.Tensor(value, requires_grad=True) for value in (2.0, 3.0, 1.0, 4.0))
for leaf, letter in ((x, "x"), (w, "w"), (b, "b"), (t, "t")):
    leaf.name = letter  # What the tape calls them.


def forward() -> tuple[mx.Tensor, mx.Tensor, mx.Tensor, mx.Tensor]:
    """The four steps; each Tensor remembers the op that made it."""
    p = w * x
    s = p + b
    e = s - t
    return p, s, e, e * e


def show_forward(p: mx.Tensor, s: mx.Tensor, e: mx.Tensor, loss: mx.Tensor) -> None:
    print(f"1. Forward: x = {x.item():g}, w = {w.item():g}, b = {b.item():g}, target t = {t.item():g}\n")
    print(f"   p = w * x = {w.item():g} * {x.item():g} = {p.item():g}")
    print(f"   s = p + b = {p.item():g} + {b.item():g} = {s.item():g}")
    print(f"   e = s - t = {s.item():g} - {t.item():g} = {e.item():g}")
    print(f"   L = e * e = {e.item():g} * {e.item():g} = {loss.item():g}\n")


def by_hand(p: float, s: float, e: float) -> dict[str, float]:
    """Backward with a pencil: from L to the inputs, one step of the chain rule a line."""
    print("2. Backward by hand. It starts at the end: dL/dL = 1\n")

    def step(forward: str, backward: str, why: str = "") -> None:
        print(f"   {forward:11} {backward:25} {why}".rstrip())

    de = 1 * e + 1 * e
    step("L = e * e", f"dL/de = {e:g} + {e:g} = {de:g}", "e is used twice: each use passes back the other e,")
    step("", "", "and the gradients of a value that is used twice add up")
    ds, dt = de * 1, de * -1
    step("e = s - t", f"dL/ds = dL/de * 1 = {ds:g}")
    step("", f"dL/dt = dL/de * -1 = {dt:g}", "a larger target would have made the error smaller")
    dp, db = ds * 1, ds * 1
    step("s = p + b", f"dL/dp = dL/ds * 1 = {dp:g}", "a sum hands its gradient to both, unchanged")
    step("", f"dL/db = dL/ds * 1 = {db:g}")
    dw, dx = dp * x.item(), dp * w.item()
    step("p = w * x", f"dL/dw = dL/dp * x = {dw:g}", "a product hands it to each, times the other")
    step("", f"dL/dx = dL/dp * w = {dx:g}\n")
    return {"x": dx, "w": dw, "b": db, "t": dt}


def show_event(event: mx.tensor.Event) -> None:
    """What an observer sees of every op on the way back."""
    if event.phase == "backward":
        (dy,) = event.inputs
        gradients = ", ".join(f"{float(d):g}" for d in event.outputs)
        print(f"   {event.op.name:4} is handed {float(dy):3g} and passes back ({gradients})")


def by_differences(name: str) -> float:
    """The slope of L along one input, from two more forward passes. No calculus at all."""
    leaf = {"x": x, "w": w, "b": b, "t": t}[name]
    eps, losses = 1e-2, []  # Large, because these are float32 numbers; L is a parabola, so it is exact.
    value = leaf.item()
    with mx.no_grad():
        for moved in (value + eps, value - eps):
            leaf.copy_(moved)
            losses.append(forward()[-1].item())
        leaf.copy_(value)
    return (losses[0] - losses[1]) / (2 * eps)


def main() -> None:
    p, s, e, loss = forward()
    show_forward(p, s, e, loss)
    expected = by_hand(p.item(), s.item(), e.item())

    print("\n3. What minialex recorded during the forward pass (mx.tape):\n")
    print("\n".join("   " + line for line in mx.tape(loss).splitlines()) + "\n")

    print("4. loss.backward() walks that table from the last line to the first:\n")
    with mx.observe(show_event):
        loss.backward()

    print("\n5. Three ways to the same gradients:\n")
    print("        by hand   backward()   differences")
    for name, leaf in (("x", x), ("w", w), ("b", b), ("t", t)):
        slope = by_differences(name)
        print(f"   d{name}  {expected[name]:8g}  {float(leaf.grad):11g}  {slope:12.4f}")
        assert float(leaf.grad) == expected[name]
        assert np.isclose(slope, expected[name], rtol=1e-3)

    rate = 0.05
    with mx.no_grad():
        for leaf in (w, b):
            leaf.copy_(leaf.data - rate * leaf.grad)
    print(f"\n6. A step of size {rate:g} against the gradient: w = {w.item():g}, b = {b.item():g}, ", end="")
    print(f"and L falls from {loss.item():g} to {forward()[-1].item():g}.")
    print("   That is training. Everything else is the same with larger arrays.")


if __name__ == "__main__":
    main()
