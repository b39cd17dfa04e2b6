"""Three ways to train under a constraint, where they part: what `parametrize` does to raw weights.

Run as ``python examples/torch_one_way_door.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

import normconstraints as nc
from normconstraints_torch import Penalty, constrain, parametrize

SIZE, CAP, OPTIMUM, START = 20, 1.0, 0.25, 3.0
BALL = nc.MaxNorm(CAP, axis="unit")

Extra = Callable[[], torch.Tensor]
Prepare = Callable[[torch.nn.Linear, torch.optim.Optimizer], Extra | None]


def project(layer: torch.nn.Linear, optimizer: torch.optim.Optimizer) -> None:
    """After each step."""
    constrain(layer, {"weight": BALL}, optimizer)


def in_forward(every: int | None, *, outside: bool = True) -> Prepare:
    """In the forward pass; the raw weight starts outside, as one that was loaded or stepped may."""

    def prepare(layer: torch.nn.Linear, optimizer: torch.optim.Optimizer) -> None:
        start = layer.weight.detach().clone()
        parametrize(
            layer,
            "weight",
            BALL,
            recenter_every=every,
            optimizer=None if every is None else optimizer,
        )
        if outside:
            layer.load_state_dict({"parametrizations.weight.original": start}, strict=False)

    return prepare


def penalise(layer: torch.nn.Linear, optimizer: torch.optim.Optimizer) -> Extra:
    """In the loss."""
    return Penalty(layer, {"weight": BALL})


def regression(prepare: Prepare) -> tuple[float, float, float]:
    """The norm of the weight, that of the raw one, and the loss after 2000 steps."""
    torch.manual_seed(0)
    x = torch.randn(200, SIZE, dtype=torch.float64)
    best = torch.randn(1, SIZE, dtype=torch.float64)
    y = x @ (OPTIMUM * best / best.norm()).T
    layer = torch.nn.Linear(SIZE, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.mul_(START / layer.weight.norm())
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.05)
    extra = prepare(layer, optimizer)
    for _ in range(2000):
        optimizer.zero_grad()
        loss = (layer(x) - y).square().mean()
        (loss if extra is None else loss + extra()).backward()
        optimizer.step()
    with torch.no_grad():
        (raw,) = layer.parameters()
        loss = (layer(x) - y).square().mean()
        return float(layer.weight.norm()), float(raw.norm()), float(loss)


def drift(every: int | None) -> tuple[float, float]:
    """The mean norm of raw rows, and how far a step turns a row, in the last 100 of 2000 steps."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(SIZE, 8, bias=False)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    parametrize(
        layer,
        "weight",
        nc.UnitNorm(axis="unit"),
        recenter_every=every,
        optimizer=None if every is None else optimizer,
    )
    target = torch.randn(8, SIZE)
    norms, turns = [], []
    for step in range(2000):
        x = torch.randn(16, SIZE)
        before = layer.weight.detach().clone()
        optimizer.zero_grad()
        (layer(x) - x @ target.T).square().mean().backward()
        optimizer.step()
        if step >= 1900:
            (raw,) = layer.parameters()
            cosine = (before * layer.weight.detach()).sum(dim=1).clamp(-1, 1)
            norms.append(raw.detach().norm(dim=1).mean())
            turns.append(torch.rad2deg(torch.arccos(cosine)).mean())
    return float(torch.stack(norms).mean()), float(torch.stack(turns).mean())


def main() -> None:
    """Print both tables."""
    print(f"MaxNorm({CAP:g}), optimum at norm {OPTIMUM:g}, start at norm {START:g}")
    print(f"{'':<44}{'norm':>8}{'raw norm':>10}{'loss':>10}")
    ways: list[tuple[str, Prepare]] = [
        ("project after the step", project),
        ("parametrize", in_forward(None)),
        ("parametrize, recenter_every=10", in_forward(10)),
        ("parametrize, raw weight projected at first", in_forward(None, outside=False)),
        ("penalty", penalise),
    ]
    for name, prepare in ways:
        norm, raw, loss = regression(prepare)
        print(f"{name:<44}{norm:>8.3f}{raw:>10.3f}{loss:>10.1e}")
    print()
    print("UnitNorm on noisy gradients, the last 100 of 2000 steps of Adam")
    print(f"{'':<44}{'raw norm':>18}{'turn in a step':>18}")
    for name, every in (("parametrize", None), ("parametrize, recenter_every=10", 10)):
        raw, turn = drift(every)
        print(f"{name:<44}{raw:>18.2f}{turn:>17.2f}°")


if __name__ == "__main__":
    main()
