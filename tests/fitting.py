"""A weight of a shape that a constraint takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import normconstraints as nc

SHAPES = ((8, 8), (6, 8), (8, 6), (4, 4, 4))
"""One of these fits every example of the sets."""


def fitting(c: nc.Constraint, entries: Any, shapes: Sequence[tuple[int, ...]] = SHAPES) -> Any:
    """The first of `entries`, an array, in the first of the shapes that the constraint takes."""
    for shape in shapes:
        w = entries.reshape(-1)[: math.prod(shape)].reshape(shape)
        try:
            c.violation(w)
        except ValueError:
            continue
        return w
    raise AssertionError(f"no shape for {c}")
