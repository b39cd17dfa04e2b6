"""``make bench-gpu``: speed on a CUDA device, as ratios to Keras' formula and to steps beside it.

Medians of alternating rounds, timed by events of the device. A ratio above 1 means that ours is
faster. PyTorch and CuPy where each of them finds the device.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import normconstraints as nc
from normconstraints.testing import BACKENDS
from normconstraints_torch import constrain

SIZE = 4096
MAX_VALUE, EPSILON = 3.0, 1e-7
REPEAT = 10
Timed = Callable[[], float]


def by_torch(call: Callable[[], Any]) -> float:
    """Milliseconds of the device for a call."""
    event: Any = torch.cuda.Event
    start, end = event(enable_timing=True), event(enable_timing=True)
    start.record()
    for _ in range(REPEAT):
        call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / REPEAT


def by_cupy(call: Callable[[], Any]) -> float:
    """The same with CuPy's events."""
    import cupy

    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    start.record()
    for _ in range(REPEAT):
        call()
    end.record()
    end.synchronize()
    return float(cupy.cuda.get_elapsed_time(start, end)) / REPEAT


def medians(peer: Timed, ours: Timed, rounds: int) -> tuple[float, float]:
    """Of alternating rounds, after some that are not counted."""
    for _ in range(3):
        peer(), ours()
    pairs = [(peer(), ours()) for _ in range(rounds)]
    return statistics.median(p for p, _ in pairs), statistics.median(o for _, o in pairs)


def keras(w: Any, axis: int, xp: Any) -> Any:
    """Keras' formula, and its result in the place of the weight."""
    norms = xp.sqrt((w * w).sum(axis=axis, keepdims=True))
    w[...] = w * (xp.clip(norms, 0, MAX_VALUE) / (EPSILON + norms))


def captured(call: Callable[[], Any]) -> Callable[[], Any]:
    """What replays a call as a CUDA graph, in which its operations cost the host nothing."""
    stream: Any = torch.cuda.Stream
    torch.cuda.synchronize()
    with torch.cuda.stream(stream()):  # as torch asks for before a capture
        for _ in range(3):
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def projections(rounds: int) -> Iterator[tuple[str, float, float]]:
    """In place, 4096 x 4096 float32, every group to be scaled."""
    data = np.random.default_rng(0).standard_normal((SIZE, SIZE), dtype=np.float32)
    source = torch.tensor(data).cuda()
    for name, prepared in (("", _as_it_is), (", in a graph", captured)):
        for axis in (0, 1):
            found = in_place(torch, source, by_torch, axis, rounds, prepared)
            yield f"PyTorch{name}, axis {axis}", *found
    if BACKENDS["cupy"].missing() is None:
        import cupy

        for axis in (0, 1):
            found = in_place(cupy, cupy.asarray(data), by_cupy, axis, rounds)
            yield f"CuPy, axis {axis}", *found


def _as_it_is(call: Callable[[], Any]) -> Callable[[], Any]:
    return call


def in_place(
    xp: Any,
    source: Any,
    clock: Callable[..., float],
    axis: int,
    rounds: int,
    prepared: Callable[..., Callable[[], Any]] = _as_it_is,
) -> tuple[float, float]:
    """Milliseconds for Keras' formula and for ours."""
    c, w = nc.MaxNorm(MAX_VALUE, axis=axis), xp.empty_like(source)

    def timed(project: Callable[[Any], Any]) -> Timed:
        def from_the_start() -> None:
            w[...] = source
            project(w)

        return functools.partial(clock, prepared(from_the_start))

    theirs, ours = medians(timed(lambda w: keras(w, axis, xp)), timed(c.project_), rounds)
    copy = timed(lambda w: None)
    taken = statistics.median(copy() for _ in range(rounds))
    return theirs - taken, ours - taken


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1e-3)


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-6, fused=True, capturable=True)


def training(rounds: int) -> Iterator[tuple[str, float, float]]:
    """Steps of optimizers, without and with the hook after them."""
    for count, size in ((200, 64), (20, 1024), (2, SIZE)):
        for optimizer, make in (("SGD", sgd), ("Adam, fused", adam)):
            model, free = (layers(count, size) for _ in range(2))
            plain, constrained = make(free.parameters()), make(model.parameters())
            constrain(model, {"*": nc.MaxNorm(0.5, axis="unit")}, constrained)
            for name, prepared in (("", _as_it_is), (", in a graph", captured)):
                without = functools.partial(by_torch, prepared(plain.step))
                with_it = functools.partial(by_torch, prepared(constrained.step))
                found = medians(without, with_it, rounds)
                yield f"{count} of {size} x {size}, {optimizer}{name}", *found


def layers(count: int, size: int) -> Any:
    """Linear layers with gradients."""
    found = [torch.nn.Linear(size, size, bias=False, device="cuda") for _ in range(count)]
    for layer in found:
        layer.weight.grad = 1e-3 * torch.randn_like(layer.weight)
    return torch.nn.Sequential(*found)


def main() -> None:
    """Print the tables, or what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    console = Console(width=100)
    if (reason := BACKENDS["torch cuda"].missing()) is not None:
        console.print(f"nothing to measure: {reason}")
        return
    console.print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}")
    table = Table(title=f"MaxNorm(3.0), {SIZE} x {SIZE} float32 (ratio above 1: ours is faster)")
    for column in ("", "Keras' formula, ms", "ours, ms", "ratio"):
        table.add_column(column, justify="right" if column else "left")
    for name, peer, ours in projections(rounds):
        table.add_row(name, f"{peer:.3f}", f"{ours:.3f}", f"{peer / ours:.2f}")
    console.print(table)
    table = Table(title="A step of an optimizer without the hook and with it, MaxNorm")
    for column in ("weights", "without, ms", "with, ms", "ratio"):
        table.add_column(column, justify="right" if column != "weights" else "left")
    for name, free, with_hook in training(rounds):
        table.add_row(name, f"{free:.3f}", f"{with_hook:.3f}", f"{with_hook / free:.2f}")
    console.print(table)


if __name__ == "__main__":
    main()
