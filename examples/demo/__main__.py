"""Run the demo: ``python -m demo`` in the folder of the examples, or with it on PYTHONPATH."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from threadpoolctl import threadpool_limits

from . import numpy_loop, picture
from .task import (
    BOUND,
    DROPOUT,
    LEARNING_RATE,
    FloatArray,
    Loop,
    Task,
    at_the_bound,
    load,
    norms,
    ulps,
)
from .task import cases as agreement_cases

TITLES = {"numpy": "NumPy", "torch": "PyTorch", "jax": "JAX"}


@dataclass
class Outcome:
    """What the trainings of one framework gave, one entry for each seed."""

    free: list[float] = field(default_factory=list)
    bounded: list[float] = field(default_factory=list)
    at_bound: list[float] = field(default_factory=list)
    violations: list[float] = field(default_factory=list)
    """One for each step under the constraint."""
    histories: dict[bool, list[npt.NDArray[np.float64]]] = field(
        default_factory=lambda: {False: [], True: []}
    )
    """Of the first seed: the norms after each step, without and with the constraint."""

    @property
    def worst(self) -> float:
        """The largest violation of all; NaN if one was NaN."""
        return float(np.max(self.violations))


def main() -> int:
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--frameworks", nargs="+", choices=list(TITLES), help="default: installed")
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder of the picture")
    parser.add_argument("--seeds", type=int, default=5, help="trainings to average over")
    options = parser.parse_args()
    console = Console(highlight=False)
    began = time.perf_counter()

    loops = find_loops(options.frameworks, console)
    outcomes: dict[str, Outcome] = {}
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    # Threads gain nothing on layers this small, and wait for each other where the cores are busy.
    with (
        threadpool_limits(1),
        Progress(*columns, TimeRemainingColumn(), console=console) as progress,
    ):
        for name, loop in loops.items():
            outcomes[TITLES[name]] = run(loop, load(), options.seeds, progress, TITLES[name])
        gentle = load(LEARNING_RATE / 2)
        half = run(numpy_loop, gentle, options.seeds, progress, "NumPy, half the rate")

    console.print(results(loops, outcomes))
    steps = sum(len(o.violations) for o in outcomes.values())
    console.print(
        f"Accuracy in % on {len(gentle.test_x)} test images, mean ± standard deviation over "
        f"{options.seeds} seeds, after training on {len(gentle.x)} images with dropout {DROPOUT} "
        f"and SGD with momentum at a learning rate from {LEARNING_RATE} down to 0. Every framework "
        "gets the same first weights, batches and dropout masks; they drift apart by rounding."
    )
    console.print(
        f"The rate is large on purpose. At half of it (NumPy): {spread(half.free)} without, "
        f"{spread(half.bounded)} with the constraint."
    )
    console.print(
        f"The violation was asked for after each of the {steps} steps. Projections: of float32 "
        "weights of scales from 1e-30 to 1e30, the largest difference from NumPy's in units of the "
        "last place of a unit's largest weight."
    )
    path = options.out / "unit_norms.png"
    history = outcomes[TITLES["numpy"]].histories
    picture.save(np.stack(history[False]), np.stack(history[True]), path)
    console.print(f"Picture: {path}")
    console.print(f"All of this took {time.perf_counter() - began:.0f} s.")

    broken = [n for n, o in {**outcomes, "NumPy at half": half}.items() if o.worst != 0]
    if broken:
        console.print(f"The constraint did not hold in: {', '.join(broken)}", style="bold red")
    return 1 if broken else 0


def find_loops(wanted: list[str] | None, console: Console) -> dict[str, Loop]:
    """The frameworks to run: NumPy, and of the others what is wanted and installed."""
    loops: dict[str, Loop] = {"numpy": numpy_loop}
    for name in ("torch", "jax"):
        if wanted is not None and name not in wanted:
            continue
        try:
            loops[name] = importlib.import_module(f".{name}_loop", __package__)
        except ImportError as error:
            line = f'{TITLES[name]} is missing ({error}): pip install "normconstraints[{name}]"'
            if wanted is not None:
                sys.exit(line)
            console.print(f"Left out: {line}", markup=False)
    return loops


def run(loop: Loop, task: Task, seeds: int, progress: Progress, title: str) -> Outcome:
    """Train with every seed, without and with the constraint."""
    outcome = Outcome()
    bar = progress.add_task(title, total=2 * seeds * task.steps)

    def free_step(kernel: FloatArray, _: float) -> None:
        note(kernel, constrained=False)

    def bounded_step(kernel: FloatArray, violation: float) -> None:
        outcome.violations.append(violation)
        note(kernel, constrained=True)

    def note(kernel: FloatArray, *, constrained: bool) -> None:
        if len(outcome.bounded) == 0:
            outcome.histories[constrained].append(norms(kernel))
        progress.advance(bar)

    for seed in range(seeds):
        free = loop.train(task, seed, None, free_step)
        bounded = loop.train(task, seed, BOUND, bounded_step)
        outcome.free.append(task.accuracy(free))
        outcome.bounded.append(task.accuracy(bounded))
        outcome.at_bound.append(at_the_bound(bounded))
    return outcome


def results(loops: dict[str, Loop], outcomes: dict[str, Outcome]) -> Table:
    """One row for each framework."""
    table = Table(title=f"A digit classifier without and with MaxNorm({BOUND}) on every unit")
    table.add_column("")
    for column in (
        "accuracy\nwithout",
        "accuracy\nwith",
        "units at\nthe bound",
        "largest\nviolation",
        "projections\noff NumPy's",
    ):
        table.add_column(column, justify="right")
    cases = agreement_cases()
    reference = numpy_loop.project(cases)
    for loop, (title, outcome) in zip(loops.values(), outcomes.items(), strict=True):
        table.add_row(
            title,
            spread(outcome.free),
            spread(outcome.bounded),
            f"{np.mean(outcome.at_bound):.0%}",
            f"{outcome.worst:g}",
            "-" if loop is numpy_loop else f"{ulps(loop.project(cases), reference):g} ulp",
        )
    return table


def spread(values: list[float]) -> str:
    """Mean and standard deviation in percent."""
    return f"{100 * np.mean(values):.1f} ± {100 * np.std(values):.1f}"


if __name__ == "__main__":
    sys.exit(main())
