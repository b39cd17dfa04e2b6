"""``make bench-nmf``: factorising Fashion-MNIST, against scikit-learn's NMF in the same run.

60,000 images of 784 pixels in float32, rank 32, from one start. Ours is `Ours` below: one part
after the other of each factor is brought to its minimum, and projected in place by ``NonNeg``. The
peer is asked for 5, 10, 20 and 40 iterations, each time from the start; what ours has reached after
the same time is beside it. Rounds of both alternate, for the machine may be shared; both have one
thread unless told otherwise.

The images are those of Debian's package dataset-fashion-mnist, of which the folder is enough:
``apt-get download dataset-fashion-mnist``, ``dpkg -x dataset-fashion-mnist_*.deb .``, and
``--data usr/share/datasets/fashion-mnist``.
"""

from __future__ import annotations

import argparse
import gzip
import os
import statistics
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.decomposition import non_negative_factorization
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

import normconstraints as nc

RANK = 32
ITERATIONS = (5, 10, 20, 40)
FOLDER = Path("/usr/share/datasets/fashion-mnist")
MORE = 1.01
"""How much larger than the peer's our objective may be after the same time."""
PART = 0.1
"""Of the step, at most, for projections."""


def load(folder: Path, count: int | None) -> Any:
    """The images as rows of numbers from 0 to 1."""
    path = folder / "train-images-idx3-ubyte.gz"
    if not path.exists():
        sys.exit(f"{path} is missing: it is in Debian's package dataset-fashion-mnist; see --help")
    with gzip.open(path) as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16)
    return pixels.reshape(-1, 784)[:count].astype(np.float32) / 255


def start(x: Any) -> tuple[Any, Any]:
    """Two random factors whose product has the mean of the images."""
    rng, scale = np.random.default_rng(0), np.sqrt(x.mean() / RANK)
    return tuple(
        (scale * np.abs(rng.standard_normal(shape))).astype(np.float32)
        for shape in ((x.shape[0], RANK), (RANK, x.shape[1]))
    )


def objective(x: Any, w: Any, h: Any) -> float:
    """Half of the squared distance, from the residuals themselves."""
    parts = range(0, len(x), 5000)
    residuals = (x[i : i + 5000] - w[i : i + 5000] @ h for i in parts)
    return sum(float(np.sum(np.square(r, dtype=np.float64))) for r in residuals) / 2


@dataclass
class Ours:
    """A run of ours: the factors after each iteration, and when that was."""

    states: list[tuple[float, Any, Any]] = field(default_factory=list)
    projecting: float = 0.0

    def sweep(self, factor: Any, gram: Any, cross: Any) -> None:
        """Bring each row to the minimum that it has while the others stay, and project it."""
        for k, row in enumerate(factor):
            row += (cross[k] - gram[k] @ factor) / max(gram[k, k], np.float32(1e-10))
            began = time.perf_counter()
            NON_NEG.project_(row)
            self.projecting += time.perf_counter() - began

    def run(self, x: Any, w: Any, h: Any, seconds: float) -> Ours:
        """Iterate for some time."""
        w, h = w.T.copy(), h.copy()  # rows of both factors are contiguous
        elapsed = 0.0
        while elapsed < seconds:
            began = time.perf_counter()
            gram, cross = w @ w.T, w @ x
            for _ in range(3):  # cheap: 784 columns, with all products at hand
                self.sweep(h, gram, cross)
            self.sweep(w, h @ h.T, h @ x.T)
            elapsed += time.perf_counter() - began
            self.states.append((elapsed, w.T.copy(), h.copy()))
        return self


NON_NEG = nc.NonNeg()


def peer(x: Any, w: Any, h: Any, iterations: int) -> tuple[float, Any, Any]:
    """Seconds and factors of scikit-learn's coordinate descent."""
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it is stopped on purpose
        w, h, _ = non_negative_factorization(
            x, W=w.copy(), H=h.copy(), n_components=RANK, init="custom", max_iter=iterations, tol=0
        )
    return time.perf_counter() - began, w, h


@dataclass
class Row:
    """What rounds found for one number of the peer's iterations."""

    peer_seconds: list[float] = field(default_factory=list)
    peer_value: list[float] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    sooner: list[float] = field(default_factory=list)


def compare(x: Any, rounds: int) -> tuple[dict[int, Row], list[float]]:
    """Alternating runs from one start, and the share of projections in each of ours."""
    w, h = start(x)
    rows, shares = {n: Row() for n in ITERATIONS}, []
    for _ in range(rounds):
        theirs = {n: peer(x, w, h, n) for n in ITERATIONS}
        ours = Ours().run(x, w, h, max(t for t, _, _ in theirs.values()))
        shares.append(ours.projecting / ours.states[-1][0])
        times = [t for t, _, _ in ours.states]
        values = [objective(x, a, b) for _, a, b in ours.states]
        for n, (seconds, a, b) in theirs.items():
            reached = objective(x, a, b)
            done = sum(t <= seconds for t in times)
            first = next((t for t, v in zip(times, values, strict=True) if v <= reached), np.inf)
            rows[n].peer_seconds.append(seconds)
            rows[n].peer_value.append(reached)
            rows[n].value.append(values[done - 1] if done else objective(x, w, h))
            rows[n].sooner.append(seconds / first)
    return rows, shares


def main() -> int:
    """Print the table; 1 if what is wanted was not reached."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=FOLDER, help="folder of the images")
    parser.add_argument("--images", type=int, help="how many of them; all if left out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    x = load(options.data, options.images)
    with threadpool_limits(options.threads):
        rows, shares = compare(x, options.rounds)

    title = f"NMF of {len(x):,} x {x.shape[1]} float32, rank {RANK}, from one start"
    table = Table(title=f"{title}: medians of {options.rounds} rounds")
    table.add_column("scikit-learn's\niterations", justify="right")
    for column in ("seconds", "objective", "ours\nby then", "ratio", "wanted", "as fast"):
        table.add_column(column, justify="right")
    median = statistics.median
    ratios = []
    for n, row in rows.items():
        found = [a / b for a, b in zip(row.value, row.peer_value, strict=True)]
        ratios.append(median(found))
        table.add_row(
            str(n),
            f"{median(row.peer_seconds):.1f}",
            f"{median(row.peer_value):,.0f}",
            f"{median(row.value):,.0f}",
            f"{ratios[-1]:.3f}",
            f"<= {MORE}",
            f"{median(row.sooner):.1f}",
            style="" if ratios[-1] <= MORE else "red",
        )
    console = Console(highlight=False)
    console.print(table)
    share = median(shares)
    loads = " ".join(f"{v:.1f}" for v in os.getloadavg())
    console.print("As fast: the seconds of scikit-learn over those until ours is where it ended.")
    console.print(f"Projections: {share:.1%} of our step (wanted at most {PART:.0%}).")
    console.print(f"{options.threads} thread(s); load of {os.cpu_count()} cores: {loads}.")
    return int(max(ratios) > MORE or share > PART)


if __name__ == "__main__":
    sys.exit(main())
