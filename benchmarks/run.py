"""``make bench``: speed as ratios to Keras' formula, measured in the same run.

The machine may be shared and noisy: rounds of ours and of the peer alternate, medians are compared.
A ratio above 1 means that ours is faster.
"""

from __future__ import annotations

import argparse
import functools
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx
from rich.console import Console
from rich.table import Table

import normconstraints as nc
import normconstraints_jax.equinox
import normconstraints_jax.nnx  # noqa: F401
from normconstraints.weights import Weight
from normconstraints_torch import constrain

LARGE, SMALL = 4096, 64
MAX_VALUE, EPSILON = 3.0, 1e-7
Timed = Callable[[], float]


def keras_numpy(w: Any, axis: int) -> Any:
    norms = np.sqrt(np.sum(np.square(w), axis=axis, keepdims=True))
    return w * (np.clip(norms, 0, MAX_VALUE) / (EPSILON + norms))


def keras_torch(w: Any, axis: int) -> Any:
    norms = torch.sqrt(torch.sum(torch.square(w), dim=axis, keepdim=True))
    return w * (torch.clip(norms, 0, MAX_VALUE) / (EPSILON + norms))


def keras_jax(w: Any, axis: int) -> Any:
    norms = jnp.sqrt(jnp.sum(jnp.square(w), axis=axis, keepdims=True))
    return w * (jnp.clip(norms, 0, MAX_VALUE) / (EPSILON + norms))


def robust_jax(w: Any, axis: int) -> Any:
    """A max-norm whose squares do not overflow, as one writes it by hand."""
    largest = jnp.max(jnp.abs(w), axis=axis, keepdims=True)
    scale = jnp.where(largest > 0, largest, 1.0)
    norms = scale * jnp.sqrt(jnp.sum(jnp.square(w / scale), axis=axis, keepdims=True))
    return jnp.where(norms > MAX_VALUE, w * (MAX_VALUE / norms), w)


def _clock(call: Callable[[], Any], repeat: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(repeat):
        call()
    return (time.perf_counter() - start) / repeat


def ratio(peer: Timed, ours: Timed, rounds: int) -> float:
    """The median time of the peer over that of ours, in alternating rounds."""
    for _ in range(2):
        peer(), ours()
    gc.collect()
    pairs = [(peer(), ours()) for _ in range(rounds)]
    return statistics.median(p for p, _ in pairs) / statistics.median(o for _, o in pairs)


def large(rounds: int) -> list[tuple[str, float, float]]:
    """In place, 4096 x 4096 float32, every group to be scaled."""
    data = np.random.default_rng(0).standard_normal((LARGE, LARGE), dtype=np.float32)
    rows = []
    for axis in (0, 1):
        c = nc.MaxNorm(MAX_VALUE, axis=axis)
        rows.append((f"NumPy, in place, axis {axis}", _numpy_large(c, data, axis, rounds), 2.0))
    for axis in (0, 1):
        c = nc.MaxNorm(MAX_VALUE, axis=axis)
        rows.append((f"PyTorch, in place, axis {axis}", _torch_large(c, data, axis, rounds), 4.0))
    for axis in (0, 1):
        c = nc.MaxNorm(MAX_VALUE, axis=axis)
        ours, keras = _jax_large(c, data, axis, rounds)
        rows.append((f"JAX, compiled and donated, axis {axis}", ours, 3.0))
        rows.append((f"  for comparison: Keras' formula donated, axis {axis}", keras, 0.0))
    return rows


def _numpy_large(c: nc.Constraint, data: Any, axis: int, rounds: int) -> float:
    w = data.copy()

    def ours() -> float:
        np.copyto(w, data)
        return _clock(lambda: c.project_(w))

    return ratio(lambda: _clock(lambda: keras_numpy(data, axis)), ours, rounds)


def _torch_large(c: nc.Constraint, data: Any, axis: int, rounds: int) -> float:
    source = torch.tensor(data)
    w = source.clone()

    def ours() -> float:
        w.copy_(source)
        return _clock(lambda: c.project_(w))

    return ratio(lambda: _clock(lambda: keras_torch(source, axis)), ours, rounds)


def _jax_large(c: nc.Constraint, data: Any, axis: int, rounds: int) -> tuple[float, float]:
    """Ours donated, and Keras' own formula donated, each against Keras' formula as it is used."""
    source = jnp.asarray(data)
    keras = jax.jit(keras_jax, static_argnums=1)
    keras_donated = jax.jit(keras_jax, static_argnums=1, donate_argnums=0)
    ours = jax.jit(c.project, donate_argnums=0)
    donated = Donated(data)

    def peer() -> float:
        return _clock(lambda: keras(source, axis).block_until_ready())

    return (
        ratio(peer, lambda: donated.clock(ours), rounds),
        ratio(peer, lambda: donated.clock(lambda w: keras_donated(w, axis)), rounds),
    )


class Donated:
    """A weight that is given to each call anew in the same memory, as a training loop has it.

    Memory that is fresh each time takes several times as long to go through at first.
    """

    def __init__(self, data: Any) -> None:
        self._negative = jnp.asarray(-data)
        self._weight = jnp.array(data)
        # The weight that went in is not read, and the compiler writes over it.
        self._restore = jax.jit(lambda w, negative: -negative, donate_argnums=0, keep_unused=True)

    def clock(self, call: Callable[[Any], Any]) -> float:
        """The time of a call that is given the weight to keep."""
        weight = self._restore(self._weight, self._negative).block_until_ready()
        place = weight.unsafe_buffer_pointer()
        start = time.perf_counter()
        self._weight = call(weight).block_until_ready()
        took = time.perf_counter() - start
        if self._weight.unsafe_buffer_pointer() != place:
            raise RuntimeError("Donated: the call has not written over the weight it was given")
        return took


def compiled(rounds: int) -> list[tuple[str, float, float]]:
    """What JAX compiles with donated weights, as a part of a robust max-norm by hand."""
    data = np.random.default_rng(0).standard_normal((LARGE, LARGE), dtype=np.float32)
    gradient = jnp.asarray(1e-3 * data)
    donated = Donated(data)
    rows = []
    for axis in (0, 1):
        c = nc.MaxNorm(MAX_VALUE, axis=axis)

        def ours(w: Any, c: nc.Constraint = c) -> Any:
            return c.project(w)

        def by_hand(w: Any, axis: int = axis) -> Any:
            return robust_jax(w, axis)

        for name, before in (("projection", None), ("step of SGD", gradient)):
            calls = [jax.jit(_after(f, before), donate_argnums=0) for f in (by_hand, ours)]
            timed = [functools.partial(donated.clock, call) for call in calls]
            rows.append((f"{name}, axis {axis}", 1 / ratio(timed[0], timed[1], rounds), 1.15))
    return rows


def _after(project: Callable[[Any], Any], gradient: Any) -> Callable[[Any], Any]:
    return project if gradient is None else lambda w: project(w - 0.1 * gradient)


def small(rounds: int) -> list[tuple[str, float, float]]:
    """A call on 64 x 64: what the checks cost."""
    rows = []
    for dtype in ("float32", "float64"):
        data = np.random.default_rng(0).standard_normal((SMALL, SMALL)).astype(dtype)
        for axis in (0, 1):
            for value, word in ((MAX_VALUE, "outside"), (100.0, "inside")):
                c = nc.MaxNorm(value, axis=axis)
                name = f"NumPy, 64 x 64 {dtype}, axis {axis}, {word}"
                rows.append((name, _small(c, data, axis, rounds), 0.5))
    return rows


def _small(c: nc.Constraint, data: Any, axis: int, rounds: int) -> float:
    return ratio(
        lambda: _clock(lambda: keras_numpy(data, axis), 200),
        lambda: _clock(lambda: c(data), 200),
        rounds,
    )


def sorted_simplex(w: Any, total: float) -> Any:
    """The textbook's projection of each row: sort, cumulate, count."""
    high = torch.sort(w, dim=1, descending=True).values
    sums = torch.cumsum(high, dim=1) - total
    place = torch.arange(1, w.shape[1] + 1, dtype=w.dtype)
    count = (high * place > sums).sum(dim=1, keepdim=True)
    return torch.clamp(w - sums.gather(1, count - 1) / count, min=0)


def sorted_l1(w: Any, radius: float) -> Any:
    """The same of the moduli, with their signs, for rows outside of the ball."""
    outside = w.abs().sum(dim=1, keepdim=True) > radius
    return torch.where(outside, torch.sign(w) * sorted_simplex(w.abs(), radius), w)


def _ready(f: Callable[[Any], Any], x: Any) -> Any:
    return f(x).block_until_ready()


def thresholds(rounds: int) -> list[tuple[str, float, float]]:
    """Simplex and L1 ball against sorting, in float32."""
    rng = np.random.default_rng(0)
    w = torch.tensor(rng.standard_normal((512, LARGE), dtype=np.float32))
    x = jnp.asarray(rng.standard_normal(10**6, dtype=np.float32))
    peers = {
        nc.Simplex: (sorted_simplex, optax.projections.projection_simplex),
        nc.L1Ball: (sorted_l1, optax.projections.projection_l1_ball),
    }
    rows = []
    for cls, (peer, _) in peers.items():
        for size, wanted in ((1.0, 3.0), (100.0, 0.0)):
            c = cls(size, axis=1)
            sort, ours = functools.partial(peer, w, size), functools.partial(c, w)
            clocks = (functools.partial(_clock, sort), functools.partial(_clock, ours))
            found = ratio(*clocks, rounds)
            name = f"{cls.__name__}({size:g}), PyTorch, 512 x 4096, against sorting"
            rows.append((name, found, wanted))
    for cls, (_, peer) in peers.items():
        calls = (jax.jit(peer), jax.jit(cls(1.0, axis=0).project))
        timed = [functools.partial(_clock, functools.partial(_ready, f, x)) for f in calls]
        found = ratio(timed[0], timed[1], max(3, rounds // 3))
        rows.append((f"{cls.__name__}(1), JAX, 10^6 entries, against jitted optax", found, 10.0))
    return rows


def training(rounds: int) -> list[tuple[str, float, float]]:
    """What the hook costs after a step of PyTorch, as a part of the step of an optimizer."""
    rows = []
    cases: tuple[tuple[str, nc.Constraint], ...] = (
        ("MaxNorm, no unit at the bound", nc.MaxNorm(100.0, axis="unit")),
        ("MaxNorm, every unit outside", nc.MaxNorm(0.1, axis="unit")),
        ("Box, some entries outside", nc.Box(-0.1, 0.1)),
    )
    for count, size in ((200, SMALL), (20, 1024)):
        for name, constraint in cases:
            model, free = (_linear_layers(count, size) for _ in range(2))
            sgd = functools.partial(torch.optim.SGD, lr=1e-3)
            peers = {
                "plain SGD": (sgd(free.parameters()), 1.0 if count == 200 else 0.0),
                "SGD momentum": (sgd(free.parameters(), momentum=0.9), 0.25 * (count == 20)),
                "AdamW": (torch.optim.AdamW(free.parameters(), lr=1e-6), 0.05 * (count == 20)),
            }
            still = sgd(model.parameters(), lr=0.0)
            hook = constrain(model, {"*": constraint}, still)

            def ours(hook: Any = hook, model: Any = model) -> float:
                with torch.no_grad():  # outside again, or inside again
                    for parameter in model.parameters():
                        parameter.copy_(torch.randn(parameter.shape))
                return _clock(lambda: hook._after_step(hook._shares[0]))

            for peer, (optimizer, wanted) in peers.items():
                clock = functools.partial(_clock, optimizer.step)
                part = 1 / ratio(clock, ours, rounds)
                rows.append((f"{count} of {size} x {size}, {name}, to {peer}", part, wanted))
    return rows


def _linear_layers(count: int, size: int) -> torch.nn.Module:
    layers = [torch.nn.Linear(size, size, bias=False) for _ in range(count)]
    for layer in layers:
        layer.weight.grad = 1e-3 * torch.randn(size, size)
    return torch.nn.Sequential(*layers)


def plans(rounds: int) -> list[tuple[str, float]]:
    """Milliseconds for the plan of a model with 200 weights, by library."""
    rng = np.random.default_rng(0)
    models: dict[str, Any] = {
        "a dict of NumPy arrays": {i: rng.standard_normal((SMALL, SMALL)) for i in range(200)},
        "PyTorch": torch.nn.Sequential(*[torch.nn.Linear(SMALL, SMALL) for _ in range(200)]),
        "Equinox": eqx.nn.Sequential(
            [eqx.nn.Linear(SMALL, SMALL, key=jax.random.key(i)) for i in range(200)]
        ),
        "Flax NNX": nnx.Sequential(
            *[nnx.Linear(SMALL, SMALL, rngs=nnx.Rngs(i)) for i in range(200)]
        ),
    }
    word, rows = nc.MaxNorm(MAX_VALUE, axis="unit"), []
    for name, model in models.items():
        layouts = {"*": "io"} if isinstance(model, dict) else None
        rules = nc.Rules([(_is_matrix, word)], layouts=layouts)
        times = [_clock(functools.partial(rules.plan, model)) for _ in range(rounds + 2)][2:]
        rows.append((name, 1000 * statistics.median(times)))
    return rows


IMPORTS = """
import time
start = time.process_time()
import numpy
middle = time.process_time()
import normconstraints
print(middle - start, time.process_time() - middle)
"""


def imports(rounds: int) -> tuple[float, float]:
    """Milliseconds for NumPy and then for the core, of the processor, in fresh interpreters.

    With byte code, as installed: it is written by a first run, wherever Python keeps it.
    """
    with tempfile.TemporaryDirectory() as cache:
        known = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        run = functools.partial(
            subprocess.run,
            [sys.executable, "-c", IMPORTS],
            check=True,
            capture_output=True,
            text=True,
            env={**known, "PYTHONPYCACHEPREFIX": cache},
        )
        times = [[1000 * float(t) for t in run().stdout.split()] for _ in range(rounds + 1)][1:]
    numpy, ours = (statistics.median(t) for t in zip(*times, strict=True))
    return numpy, ours


def _is_matrix(weight: Weight) -> bool:
    return len(weight.shape) == 2


def main() -> None:
    """Print the table of ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    table = Table(title="Speed against Keras' formula in the same run (above 1: ours is faster)")
    table.add_column("MaxNorm(3.0)")
    table.add_column("ratio", justify="right")
    table.add_column("wanted", justify="right")
    for name, found, wanted in (*large(rounds), *small(rounds)):
        goal = f">= {wanted:g}" if wanted else "-"
        table.add_row(name, f"{found:.2f}", goal, style="" if found >= wanted else "red")
    console = Console()
    console.print(table)
    table = Table(title="Thresholds without sorting (above 1: ours is faster)")
    table.add_column("set")
    table.add_column("ratio", justify="right")
    table.add_column("wanted", justify="right")
    for name, found, wanted in thresholds(rounds):
        goal = f">= {wanted:g}" if wanted else "-"
        table.add_row(name, f"{found:.1f}", goal, style="" if found >= wanted else "red")
    console.print(table)
    table = Table(title="Compiled by JAX, donated, as a part of a robust max-norm by hand")
    table.add_column("4096 x 4096")
    table.add_column("part", justify="right")
    table.add_column("wanted", justify="right")
    for name, found, wanted in compiled(rounds):
        style = "red" if found > wanted else ""
        table.add_row(name, f"{found:.2f}", f"<= {wanted:g}", style=style)
    console.print(table)
    table = Table(title="The hook of PyTorch, as a part of the step beside it")
    table.add_column("weights")
    table.add_column("part", justify="right")
    table.add_column("wanted", justify="right")
    for name, found, wanted in training(rounds):
        goal = f"<= {wanted:g}" if wanted else "-"
        style = "red" if wanted and found > wanted else ""
        table.add_row(name, f"{found:.2f}", goal, style=style)
    console.print(table)
    table = Table(title="The plan of a model with 200 weights of 64 x 64")
    table.add_column("model")
    table.add_column("milliseconds", justify="right")
    table.add_column("wanted", justify="right")
    for name, found in plans(rounds):
        table.add_row(name, f"{found:.0f}", "<= 100", style="" if found <= 100 else "red")
    console.print(table)
    numpy, ours = imports(rounds)
    console.print(
        f"import normconstraints: {ours:.0f} ms (wanted < 50) after the {numpy:.0f} ms of numpy, "
        f"{ours / numpy:.2f} of them"
    )


if __name__ == "__main__":
    main()
