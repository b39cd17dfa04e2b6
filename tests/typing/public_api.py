"""What a type checker must accept, and what it must refuse; read by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import normconstraints as nc
from normconstraints.testing import Result, check_constraint


def accepted(w: Any) -> None:
    c: nc.Constraint = nc.MaxNorm(3.0, axis=0)
    nc.MaxNorm((1.0, 2.0), axis=(0, -1))
    nc.UnitNorm(axis="unit")
    nc.MinMaxNorm(0.5, 2.0, rate=0.5, axis=None)
    nc.Box(lower=0.0)
    c(w)
    c.project(w)
    c.project_(w)
    c.violation(w)
    nc.distance(c, w)
    nc.penalty(c, w)
    nc.is_satisfied(c, w)
    tolerance: float = nc.tolerance(w)
    config: dict[str, Any] = nc.to_config(c)
    nc.from_config(config)
    pair: tuple[Any, Any] = nc.GlobalNorm(1.0)((w, w))
    results: Sequence[Result] = check_constraint(c, backends=["numpy"])
    del pair, results, tolerance


def refused() -> None:
    nc.MaxNorm(3.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    nc.MaxNorm(3.0, 0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    nc.UnitNorm(axis=1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nc.Constraint()  # type: ignore[abstract]  # pyright: ignore[reportAbstractUsage]
