"""What the tests of the layouts of four libraries share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import numpy as np
from influence import check_influence

from normconstraints import layout
from normconstraints.layout import Layout
from normconstraints.weights import Place
from normconstraints_jax._tree import flatten


def values(*shape: int, seed: int = 0) -> Any:
    """Generic numbers: no product of them is zero by chance."""
    return jax.numpy.asarray(np.random.default_rng(seed).normal(size=shape), jax.numpy.float32)


def filled(model: Any) -> Any:
    """A model whose weights are all generic, for some start at zero."""
    weights, rebuild = flatten(model)
    return rebuild([values(*w.shape, seed=i) for i, w in enumerate(weights)])


def derivatives(outputs: Callable[[Any], Any], ws: list[Any], units: tuple[int, ...]) -> Any:
    """Of each unit, squares summed over positions and batch, with respect to each weight."""

    def per_unit(ws: list[Any]) -> Any:
        y = outputs(ws)
        kept = {a % y.ndim for a in units}
        rest = tuple(a for a in range(y.ndim) if a not in kept)
        return (y**2).sum(axis=rest).reshape(-1)

    return jax.jit(jax.jacrev(per_unit))(ws)  # all at once, for one compilation


def check_weights(
    model: Any,
    outputs: Callable[[Any], Any],
    layout_of: Callable[[Place], Layout],
    *,
    units: tuple[int, ...] = (-1,),
    gates: int | Mapping[str, int] = 1,
    only: str = "",
) -> list[str]:
    """The influence test of each weight of a model that has incoming weights; their names."""
    weights, rebuild = flatten(model)
    layouts = {weight.name: layout_of(weight.place) for weight in weights}
    chosen = [
        i
        for i, weight in enumerate(weights)
        if layouts[weight.name].has("unit") and (not only or weight.name == only)
    ]

    def of_weights(ws: list[Any]) -> Any:
        arrays = [weight.array for weight in weights]
        for i, w in zip(chosen, ws, strict=True):
            arrays[i] = w
        return outputs(rebuild(arrays))

    found = derivatives(of_weights, [weights[i].array for i in chosen], units)
    names = [weights[i].name for i in chosen]
    for name, derivative in zip(names, found, strict=True):
        of_unit = gates if isinstance(gates, int) else gates[name]
        check_influence(layouts[name], derivative, groups_of_unit=of_unit)
    return names


def public(namespace: Any, base: type) -> list[type]:
    """The layer classes of a library."""
    found = {getattr(namespace, name) for name in dir(namespace) if not name.startswith("_")}
    classes = [c for c in found if isinstance(c, type) and issubclass(c, base)]
    return sorted(classes, key=lambda c: c.__name__)


def unaccounted(
    namespace: Any, base: type, *, tested: Collection[type], without: Collection[type]
) -> dict[str, list[str]]:
    """What is wrong with the inventory of a library: classes by the kind of fault."""
    classes = public(namespace, base)
    kinds = {
        "neither declared nor listed as without weights of its own": [
            c for c in classes if not layout.declared(c) and c not in without
        ],
        "declared and without a test": [
            c for c in classes if layout.declared(c) and c not in tested and c not in without
        ],
    }
    return {kind: [c.__name__ for c in found] for kind, found in kinds.items() if found}
