"""The oracle of a layout: which entries of a weight an output unit depends on, by derivatives."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from normconstraints.layout import Layout


def check_influence(layout: Layout, derivative: Any, *, groups_of_unit: int = 1) -> None:
    """Each unit depends on its own groups of ``axis="unit"``, on all of them and on no other.

    `derivative` has the shape (units, *shape of the weight): anything but zero where an output of
    that unit depends on the entry, for a generic input. A unit of a recurrent cell has as many
    groups as there are gates.
    """
    touched = np.asarray(derivative) != 0
    shape = touched.shape[1:]
    axes = layout.axes("unit", len(shape))
    view = layout.view("unit", shape) or shape
    kept = [i for i in range(len(view)) if i not in axes]
    touched = np.moveaxis(
        touched.reshape(-1, *view), [1 + i for i in kept], range(1, 1 + len(kept))
    )
    touched = touched.reshape(len(touched), math.prod(view[i] for i in kept), -1)
    some, every = touched.any(axis=2), touched.all(axis=2)
    assert (some == every).all(), f"{layout}: a unit depends on a part of a group"
    assert (some.sum(axis=1) == groups_of_unit).all(), f"{layout}: groups of a unit: {some.sum(1)}"
    assert (some.sum(axis=0) == 1).all(), f"{layout}: units of a group: {some.sum(axis=0)}"
