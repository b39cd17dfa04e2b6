"""``make bench-spectral``: what the methods of `SpectralBall` are off by, and the time they take.

Errors are the largest over matrices of all condition numbers from 1 to 1e8: of the largest singular
value over the bound, in eps, and of the distance from the exact result, relative to its norm. Times
are parts of what a decomposition, capped and multiplied by hand, takes in the library in float32,
of a square matrix of normal numbers. Medians of alternating rounds; --device cuda for a GPU.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

import normconstraints as nc

METHODS = ("svd", "gram", "polar")
CONDITIONS = (1e0, 1e2, 1e4, 1e6, 1e8)
RATIOS = (1.01, 2.0, 10.0, 1e2, 1e4)
"""The largest singular value over the bound."""
BOUNDS = (0.5, 0.9)
"""The bound over the largest singular value, where times are taken."""


def matrices(m: int, n: int, condition: float) -> Any:
    """Four in float64, of largest singular value 1: graded, two clusters, and a large one."""
    rng = np.random.default_rng(int(np.log10(condition)))
    found = []
    for kind in range(4):
        u = np.linalg.qr(rng.standard_normal((m, n)))[0]
        v = np.linalg.qr(rng.standard_normal((n, n)))[0]
        s = np.geomspace(1, 1 / condition, n)
        if kind == 1:
            s = np.where(np.arange(n) < n // 2, 1.0, 1 / condition)
        elif kind == 2:
            s = np.where(np.arange(n) < 1, 1.0, 1 / condition)
        elif kind == 3:
            s = 1 - (1 - 1 / condition) * np.linspace(0, 1, n)
        found.append((u * s) @ v.T)
    return np.stack(found)


def exactly_capped(w: Any, radius: float) -> Any:
    """With 40 digits."""
    import mpmath

    found = []
    with mpmath.workdps(40):
        for matrix in w:
            u, s, v = mpmath.svd_r(mpmath.matrix(matrix.tolist()))
            capped = u * mpmath.diag([min(x, mpmath.mpf(radius)) for x in s]) * v
            found.append(np.array(capped.tolist(), dtype=np.float64))
    return np.stack(found)


def errors(dtype: str, shape: tuple[int, int], place: Callable[[Any], Any]) -> Table:
    """A table of the errors of each method for each ratio."""
    table = Table(title=f"{dtype}, {shape[0]} x {shape[1]}: over the bound in eps | distance")
    table.add_column("largest singular value / bound")
    for method in METHODS:
        table.add_column(method)
    eps = float(np.finfo(dtype).eps)
    for ratio in track(RATIOS, f"errors in {dtype}", transient=True):
        worst = {method: [0.0, 0.0] for method in METHODS}
        for condition in CONDITIONS:
            w = matrices(*shape, condition).astype(dtype)
            radius = 1 / ratio
            exact = exactly_capped(w, radius)
            for method in METHODS:
                found = nc.SpectralBall(radius, method=method)(place(w))
                p = np.asarray(found.cpu() if torch.is_tensor(found) else found, dtype=np.float64)
                over = (np.linalg.norm(p, 2, axis=(-2, -1)) / radius - 1) / eps
                off = np.linalg.norm(p - exact, axis=(-2, -1))
                off = off / np.linalg.norm(exact, axis=(-2, -1))
                pair = worst[method]
                worst[method] = [max(pair[0], float(over.max())), max(pair[1], float(off.max()))]
        cells = [f"{over:.1f} | {off:.0e}" for over, off in worst.values()]
        table.add_row(f"{ratio:g}", *cells)
    return table


def by_hand(w: Any, radius: float, xp: Any) -> Any:
    """A decomposition, capped and multiplied, in the dtype of the weight."""
    u, s, vh = xp.linalg.svd(w, full_matrices=False)
    return (u * xp.clip(s, None, radius)) @ vh


def timed(call: Callable[[], Any]) -> float:
    """Seconds for a call."""
    start = time.perf_counter()
    found = call()
    if torch.is_tensor(found) and found.is_cuda:
        torch.cuda.synchronize()
    elif hasattr(found, "block_until_ready"):
        found.block_until_ready()
    return time.perf_counter() - start


def calls(library: str, data: Any, radius: float) -> dict[str, Callable[[], Any]]:
    """What is timed in a library: by hand, and by each method."""
    sets = {method: nc.SpectralBall(radius, method=method) for method in METHODS}
    if library == "JAX":
        import jax
        import jax.numpy as jnp

        x = jnp.asarray(data)
        hand = jax.jit(lambda w: by_hand(w, radius, jnp))
        found: dict[str, Callable[[], Any]] = {"by hand": functools.partial(hand, x)}
        return found | {m: functools.partial(jax.jit(c.project), x) for m, c in sets.items()}
    xp: Any = np
    w: Any = data
    if library == "PyTorch":
        xp, w = torch, torch.tensor(data)
    elif library == "PyTorch, CUDA":
        xp, w = torch, torch.tensor(data).cuda()
    elif library == "CuPy":
        import cupy

        xp, w = cupy, cupy.asarray(data)
    found = {"by hand": functools.partial(by_hand, w, radius, xp)}
    return found | {m: functools.partial(c, w) for m, c in sets.items()}


def times(libraries: list[str], sizes: list[int], rounds: int) -> Table:
    """A table of the times of each method as parts of that by hand, and of what all are off by."""
    title = "float32: time / svd, cap and multiply by hand | over the bound in eps | distance"
    table = Table(title=title)
    for column in ("library", "matrix", "bound", "by hand", *METHODS):
        table.add_column(column)
    for library in libraries:
        for size, share in itertools.product(sizes, BOUNDS):
            data = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)
            u, s, vh = np.linalg.svd(data.astype(np.float64))
            radius = float(share * s[0])
            exact = (u * np.minimum(s, radius)) @ vh
            todo = calls(library, data, radius)
            off = {name: accuracy(call(), exact, radius) for name, call in todo.items()}
            seconds: dict[str, list[float]] = {name: [] for name in todo}
            for _ in track(range(rounds), f"{library} {size}", transient=True):
                for name, call in todo.items():
                    seconds[name].append(timed(call))
            middle = {name: statistics.median(s) for name, s in seconds.items()}
            cells = [f"{middle[name] / middle['by hand']:.2f} | {off[name]}" for name in todo]
            table.add_row(library, str(size), f"{share:g}", *cells)
    return table


def accuracy(found: Any, exact: Any, radius: float) -> str:
    """How far the largest singular value is over the bound, and the distance from the result."""
    p = np.asarray(found.cpu() if torch.is_tensor(found) else found, dtype=np.float64)
    over = (np.linalg.norm(p, 2) / radius - 1) / float(np.finfo(np.float32).eps)
    return f"{over:.1f} | {np.linalg.norm(p - exact) / np.linalg.norm(exact):.0e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--libraries", nargs="+")
    parser.add_argument("--no-errors", action="store_true")
    given = parser.parse_args()
    console = Console(width=140)
    cuda = given.device == "cuda"
    if not given.no_errors:
        for dtype, shape in (("float32", (16, 12)), ("float64", (16, 12))):
            place = (lambda w: torch.tensor(w).cuda()) if cuda else (lambda w: w)
            console.print(errors(dtype, shape, place))
    usual = ["PyTorch, CUDA"] if cuda else ["NumPy", "PyTorch", "JAX"]
    console.print(times(given.libraries or usual, given.sizes, given.rounds))


if __name__ == "__main__":
    main()
