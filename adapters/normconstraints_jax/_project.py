"""Pure functions of a tree of weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from normconstraints import Bound, Constraint, Rules
from normconstraints.weights import Place, Weight

try:
    import jax
except ImportError as error:
    raise ImportError(
        'normconstraints_jax needs JAX; run: pip install "normconstraints[jax]"'
    ) from error

Params = TypeVar("Params")


def project(params: Params, rules: Rules | Mapping[str, Constraint | None]) -> Params:
    """Weights with those that have a constraint replaced by the nearest that fulfil it.

    Parameters
    ----------
    params : pytree of arrays
        Dicts, lists, registered dataclasses and nodes, nested as you like. The name of a leaf is
        the path to it, joined with dots: keys, indices, names of attributes.
    rules : Rules or mapping of str to Constraint or None
        Names or globs of the leaves.

    Returns
    -------
    pytree of arrays
        The same tree. Leaves without a constraint are the very same arrays.

    Raises
    ------
    TypeError, ValueError
        If a pattern matches no leaf, two leaves have one name, or a leaf does not fit its
        constraint. Inside ``jax.jit`` this happens when it traces.

    Notes
    -----
    Pure, and fit for ``jit``, ``grad``, ``vmap``, ``scan`` and donated arguments. In a training
    step it comes after the update: ``project(optax.apply_updates(params, updates), rules)``. Names
    and rules are read while tracing, so a compiled step pays for the arithmetic only.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import normconstraints as nc
    >>> from normconstraints_jax import project
    >>> params = {"dense": [{"kernel": jnp.array([[3.0], [4.0]]), "bias": jnp.array([7.0])}]}
    >>> rules = {"*.kernel": nc.MaxNorm(1.0, axis=0)}
    >>> jax.jit(lambda p: project(p, rules))(params)["dense"][0]["kernel"].round(3)
    Array([[0.6],
           [0.8]], dtype=float32)
    """
    weights, tree = _flatten(params)
    chosen = {bound.name: bound for bound in Rules.of(rules).bind(weights)}
    done = [_named(chosen[w.name], w.array) if w.name in chosen else w.array for w in weights]
    return tree.unflatten(done)  # type: ignore[no-any-return]


def violation(
    params: object, rules: Rules | Mapping[str, Constraint | None]
) -> dict[str, jax.Array]:
    """How far each group of each constrained weight is outside, by the names of the weights.

    Parameters
    ----------
    params : pytree of arrays
        As for `project`.
    rules : Rules or mapping of str to Constraint or None
        As for `project`.

    Returns
    -------
    dict of str to array
        One number per group, in the units of the weights, 0 inside.

    Raises
    ------
    TypeError, ValueError
        As for `project`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import normconstraints as nc
    >>> from normconstraints_jax import violation
    >>> violation({"w": jnp.array([[3.0], [4.0]])}, {"w": nc.MaxNorm(2.0, axis=0)})
    {'w': Array([3.], dtype=float32)}
    """
    weights, _ = _flatten(params)
    return {bound.name: bound.check() for bound in Rules.of(rules).bind(weights)}


def _flatten(params: object) -> tuple[list[Weight], Any]:
    paths, tree = jax.tree_util.tree_flatten_with_path(params)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]
    return [Weight(leaf, Place(n)) for n, (_, leaf) in zip(names, paths, strict=True)], tree


def _named(bound: Bound, leaf: Any) -> Any:
    try:
        return bound.at(0).project(leaf)
    except (TypeError, ValueError) as error:
        error.add_note(f"This is about the weight {bound.name!r}, chosen by {bound.rule}.")
        raise
